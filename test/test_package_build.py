"""The package really builds both ways: as a ROS-free distribution with pip, as a ROS 2 package with colcon."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


def run(*command: str, folder: Path, **environment: str) -> str:
    done = subprocess.run(
        command, cwd=folder, env={**os.environ, **environment}, capture_output=True, text=True, timeout=850
    )
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}"
    return done.stdout


def test_pip_installs_everything_but_messages_and_nodes(tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    source.mkdir()
    requirements = [path.name for path in ROOT.glob("requirements*.txt")]
    for name in ("setup.py", "package.xml", *requirements, "pyproject.toml", "MANIFEST.in", "LICENSE"):
        shutil.copy(ROOT / name, source)
    for folder in ("rmpc_ros", "config"):
        shutil.copytree(ROOT / folder, source / folder, ignore=shutil.ignore_patterns("__pycache__"))
    pip = (sys.executable, "-m", "pip", "install", "-qq", "--no-deps", "--no-build-isolation", "--target", str(target))
    run(*pip, str(source), folder=tmp_path)
    installed = {path.name for path in (target / "rmpc_ros").iterdir()}
    assert {"sets", "models", "robust", "mpc", "network", "plants", "studies", "cli.py"} <= installed
    assert not {"nodes", "msg", "srv"} & installed
    assert (target / "share" / "rmpc_ros" / "config" / "reactor_separator.yaml").is_file()
    code = "import rmpc_ros.cli as c; print(c.__file__)"
    where = run(sys.executable, "-c", code, folder=tmp_path, PYTHONPATH=str(target))
    assert Path(where.strip()).is_relative_to(target)


@pytest.mark.processes  # takes both cores for more than half a minute
@pytest.mark.timeout(900)
def test_colcon_builds_a_workspace_whose_messages_are_found(tmp_path: Path) -> None:
    if shutil.which("colcon") is None and not (Path(sys.prefix) / "bin" / "colcon").is_file():
        pytest.fail("colcon is missing: make setup")
    workspace = tmp_path / "workspace"
    (workspace / "src").mkdir(parents=True)
    (workspace / "src" / "rmpc_ros").symlink_to(ROOT)
    prefixes = os.environ.get("AMENT_PREFIX_PATH") or sys.prefix
    environment = {
        "PATH": f"{Path(sys.prefix) / 'bin'}{os.pathsep}{os.environ['PATH']}",
        "AMENT_PREFIX_PATH": prefixes,
        "CMAKE_PREFIX_PATH": os.environ.get("CMAKE_PREFIX_PATH") or sys.prefix,
        "COLCON_HOME": str(tmp_path),
    }
    options = ["-G", "Ninja", "-DBUILD_TESTING=OFF", f"-DPython3_EXECUTABLE={sys.executable}"]
    run("colcon", "build", "--symlink-install", "--cmake-args", *options, folder=workspace, **environment)
    code = "from rmpc_ros.msg import ForecastSet as F; import rmpc_ros.nodes.convert as c; print(F, c.__file__)"
    shell = f'. install/setup.sh && cd / && "{sys.executable}" -c "{code}"'
    told = run("sh", "-c", shell, folder=workspace, **environment)
    assert str(workspace / "install") in told
    share = workspace / "install" / "rmpc_ros" / "share" / "rmpc_ros"
    for name in (
        "launch/plant.launch.py",
        "launch/agent.launch.py",
        "launch/learner.launch.py",
        "config/reactor_separator.yaml",
        "msg/Command.msg",
    ):
        assert (share / name).is_file(), name
    programs = workspace / "install" / "rmpc_ros" / "lib" / "rmpc_ros"
    assert {path.name for path in programs.iterdir()} == {"agent", "learner", "plant", "monitor", "recorder"}
