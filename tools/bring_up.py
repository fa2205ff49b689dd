"""Build the messages and install the package into the virtual environment that runs this script.

For a machine without a ROS 2 installation, where ROS 2 comes as Python wheels (requirements-ros.txt): the environment
itself is the ament prefix, so building and installing into it with CMake is all there is. The Python code is linked,
not copied: an edit or a new file in the checkout is in force at once.

    .venv/bin/python tools/bring_up.py
"""

from __future__ import annotations

import os
import re
import shutil
import stat
import subprocess
import sys
import sysconfig
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
PREFIX = Path(sys.prefix)
BUILD = PREFIX / "build" / "rmpc_ros"  # inside the environment, so that both are thrown away together

RMPC = """\
#!{python}
# Written by tools/bring_up.py.
import sys

from rmpc_ros.cli import main

sys.exit(main())
"""


def repair_include_folders() -> int:
    """Point the wheels' exported CMake files at this machine's headers; returns how many files changed.

    They name the include folders of Python and numpy on the machine that built the wheels, and CMake refuses an
    include folder that does not exist. Running it twice changes nothing.
    """
    here = {
        r"/[^;\"]*/numpy/_core/include": np.get_include(),
        r"/[^;\"]*/include/python3\.\d+": sysconfig.get_paths()["include"],
    }
    changed = 0
    for file in PREFIX.glob("share/*/cmake/*rosidl_generator_pyExport.cmake"):
        text = old = file.read_text(encoding="utf-8")
        for theirs, ours in here.items():
            text = re.sub(rf"(?<=[;\"]){theirs}(?=[;\"])", ours, text)
        if text != old:
            file.write_text(text, encoding="utf-8")
            changed += 1
    return changed


def forget_a_build_of_other_interfaces() -> None:
    """Start the build anew when an interface file has gone: generated code that still names it would not load."""
    names = sorted(
        f"{path.parent.name}/{path.name}" for kind in ("msg", "srv") for path in (ROOT / kind).glob(f"*.{kind}")
    )
    record = BUILD.with_suffix(".interfaces")
    known = record.read_text(encoding="utf-8").splitlines() if record.exists() else None
    if known is None or set(known) - set(names):
        shutil.rmtree(BUILD, ignore_errors=True)
    record.parent.mkdir(parents=True, exist_ok=True)
    record.write_text("\n".join(names) + "\n", encoding="utf-8")


def build() -> None:
    """Configure, build and install with the environment's own cmake and ninja; only what changed is built again."""
    cmake = str(PREFIX / "bin" / "cmake")
    definitions = {
        "CMAKE_MAKE_PROGRAM": PREFIX / "bin" / "ninja",
        "CMAKE_PREFIX_PATH": PREFIX,
        "CMAKE_INSTALL_PREFIX": PREFIX,
        "Python3_EXECUTABLE": PREFIX / "bin" / "python",
        "AMENT_CMAKE_SYMLINK_INSTALL": "ON",
        "BUILD_TESTING": "OFF",
    }
    words = [f"-D{name}={value}" for name, value in definitions.items()]
    run([cmake, "-S", str(ROOT), "-B", str(BUILD), "-G", "Ninja", "-Wno-dev", *words])
    run([cmake, "--build", str(BUILD), "--target", "install"])


def run(command: list[str]) -> None:
    """Run quietly; on failure show everything the command said and stop."""
    log = BUILD.with_suffix(".log")
    log.parent.mkdir(parents=True, exist_ok=True)
    # A sourced ROS installation must not leak into an environment that brings its own.
    environment = {k: v for k, v in os.environ.items() if k not in ("AMENT_PREFIX_PATH", "CMAKE_PREFIX_PATH")}
    environment["AMENT_PREFIX_PATH"] = str(PREFIX)
    environment["PATH"] = f"{PREFIX / 'bin'}{os.pathsep}{os.environ.get('PATH', '')}"
    with log.open("w", encoding="utf-8") as out:
        status = subprocess.run(command, stdout=out, stderr=subprocess.STDOUT, env=environment, check=False).returncode
    if status != 0:
        sys.stderr.write(log.read_text(encoding="utf-8"))
        sys.exit(f"bring-up: '{' '.join(command[:2])} ...' ended with status {status}")


def remove_dangling_links() -> None:
    """Forget Python files and folders that are no longer in the checkout."""
    for path in (Path(sysconfig.get_paths()["purelib"]) / "rmpc_ros").iterdir():
        if path.is_symlink() and not path.exists():
            path.unlink()


def write_command() -> None:
    """Install the `rmpc` command, bound to this environment's Python."""
    command = PREFIX / "bin" / "rmpc"
    command.write_text(RMPC.format(python=PREFIX / "bin" / "python"), encoding="utf-8")
    command.chmod(command.stat().st_mode | stat.S_IXUSR | stat.S_IXGRP | stat.S_IXOTH)


def main() -> None:
    """Bring up the environment."""
    if sys.prefix == sys.base_prefix:
        sys.exit("bring-up: run it with the Python of a virtual environment, e.g. .venv/bin/python tools/bring_up.py")
    if not shutil.which(os.environ.get("CXX", "c++")):
        sys.exit("bring-up: a C and C++ compiler is needed to build the messages (Debian, Ubuntu: g++)")
    changed = repair_include_folders()
    forget_a_build_of_other_interfaces()
    build()
    remove_dangling_links()
    write_command()
    repaired = f" ({changed} CMake files of the wheels repaired)" if changed else ""
    print(f"bring-up: rmpc_ros is installed in {PREFIX}{repaired}")


if __name__ == "__main__":
    main()
