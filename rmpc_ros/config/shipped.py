"""Where the plant files that come with the package are, in a checkout, a ROS installation or a pip one."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from rmpc_ros.errors import ConfigError


def plant_path(word: str) -> Path:
    """Plant file that a user means: a path, or the name of one that comes with the package.

    Raises
    ------
    ConfigError
        There is no such file and none of that name comes with the package.
    """
    path = Path(word).expanduser()
    if path.is_file():
        return path.resolve()
    if path.suffix or len(path.parts) > 1:
        raise ConfigError(f"plant file '{word}': no such file")
    return shipped_plant(word)


def shipped_plant(name: str) -> Path:
    """Path of `config/<name>.yaml`.

    Raises
    ------
    ConfigError
        No such file came with this installation; the message lists those that did.
    """
    return shipped_file(f"{name}.yaml")


def shipped_file(name: str) -> Path:
    """Path of `config/<name>`.

    Raises
    ------
    ConfigError
        No such file came with this installation; the message lists those of its kind that did.
    """
    prefixes = [*os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep), sys.prefix]
    folders = [Path(__file__).resolve().parents[2] / "config"]
    folders += [Path(prefix) / "share" / "rmpc_ros" / "config" for prefix in prefixes if prefix]
    for folder in folders:
        if (folder / name).is_file():
            return folder / name
    wanted = Path(name)
    known = sorted({path.stem for folder in folders if folder.is_dir() for path in folder.glob(f"*{wanted.suffix}")})
    what = "plant file" if wanted.suffix == ".yaml" else "file"
    shown = wanted.stem if wanted.suffix == ".yaml" else name
    raise ConfigError(f"{what} '{shown}' does not come with this installation; known: {', '.join(known) or 'none'}")
