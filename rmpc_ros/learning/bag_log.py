"""A log for `rmpc fit-model` from a bag of our own runs (`rmpc run` records one): states measured, inputs applied."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rmpc_ros.errors import DataError
from rmpc_ros.record import read_bag, read_summary

Matrix = NDArray[np.float64]


def is_bag(path: Path) -> bool:
    """Whether a path is a rosbag2 folder, an MCAP file in one, or the folder of a run that holds one."""
    return bag_folder(path) is not None


def bag_folder(path: Path) -> Path | None:
    """The rosbag2 folder that a path means, or None."""
    places = [path, path / "bag"] if path.is_dir() else [path.parent] if path.suffix == ".mcap" else []
    return next((folder for folder in places if (folder / "metadata.yaml").is_file()), None)


def read_bag_log(path: Path) -> tuple[tuple[str, ...], Matrix]:
    """Column names and rows, one per step: time in seconds, every state, every input; NaN where nothing was recorded.

    Inputs are what the actuators did (`applied`), or what was commanded where nobody recorded that.

    Raises
    ------
    DataError
        No bag, not one of our runs, or nothing was measured in it.
    """
    folder = bag_folder(path)
    if folder is None:
        raise DataError(f"log {path}: no rosbag2 folder (no metadata.yaml in it)")
    what = read_summary(folder)
    columns, place = ["time"], {}
    for name, agent in what["agents"].items():
        for kind, rows in (("measurement", agent["states"]), ("applied", agent["inputs"])):
            place[f"{what['base']}/{name}/{kind}"] = slice(len(columns), len(columns) + len(rows))
            columns += [row["name"] for row in rows]
        place[f"{what['base']}/{name}/command"] = place[f"{what['base']}/{name}/applied"]
    found: dict[int, Matrix] = {}
    for entry in read_bag(folder):
        target = place.get(entry.topic)
        if target is None:
            continue
        row = found.setdefault(int(entry.message.step), np.full(len(columns), np.nan))
        values = np.array(entry.message.values, float)
        if values.size != target.stop - target.start:
            raise DataError(
                f"log {path}: {entry.topic} has {values.size} values; {target.stop - target.start} expected"
            )
        if entry.topic.endswith("/command") and np.all(np.isfinite(row[target])):
            continue  # what was applied is known
        row[target] = values
    if not any(np.any(np.isfinite(row)) for row in found.values()):
        raise DataError(f"log {path}: nothing was measured in it")
    for step, row in found.items():
        row[0] = step * float(what["period"])
    return tuple(columns), np.array([found[step] for step in sorted(found)])
