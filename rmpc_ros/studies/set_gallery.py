"""A picture of every set family over the same data, and their sizes.

Continuous families are fitted to a correlated, skewed cloud in two dimensions (independent components for `i` and `fb`,
whose assumption it is), the families of a finite support to the same cloud rounded to a grid
of nine values, with a larger epsilon (at a small one they are the hull of nine points).
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
from numpy.typing import NDArray

from rmpc_ros.errors import DataError
from rmpc_ros.sets import load_families
from rmpc_ros.sets.fit import DISCRETE, FITTERS, fit_set
from rmpc_ros.sets.picture import outline
from rmpc_ros.studies.registry import Settings, Study

Matrix = NDArray[np.float64]


def clouds(count: int, seed: int) -> dict[str, Matrix]:
    """The three versions of the data: `dependent`, `independent`, `grid`."""
    rng = np.random.default_rng(seed)
    independent = np.column_stack(
        [np.minimum(rng.exponential(1.0, count), 6.0), np.clip(rng.standard_normal(count), -4, 4)]
    )
    dependent = independent @ np.array([[1.0, 0.7], [0.0, 0.6]])
    grid = np.clip(np.round(independent), [0.0, -1.0], [2.0, 1.0])
    return {"dependent": dependent, "independent": independent, "grid": grid}


def run(settings: Settings, folder: Path) -> dict[str, Any]:
    """Fit, draw, measure."""
    load_families()
    data = clouds(settings["samples"], settings["seed"])
    names = settings["families"] or sorted(FITTERS)
    wide = 4
    rows = int(np.ceil(len(names) / wide))
    figure, grid = plt.subplots(rows, wide, figsize=(3.4 * wide, 3.1 * rows), squeeze=False, layout="constrained")
    for axis in grid.flat[len(names) :]:
        axis.set_axis_off()
    out = []
    for name, axis in zip(names, grid.flat, strict=False):
        kind = "grid" if name in DISCRETE else "independent" if name in ("i", "fb") else "dependent"
        points = data[kind]
        parameters = {"box": [0.0, 6.0, -4.0, 4.0]} if name == "i" else {}
        axis.set_title(name)
        axis.scatter(points[:, 0], points[:, 1], s=4, color="0.55", linewidths=0)
        try:
            epsilon = settings["discrete_epsilon"] if name in DISCRETE else settings["epsilon"]
            fitted = fit_set(points, name, epsilon, settings["confidence"], parameters=parameters)
        except DataError as error:
            axis.text(0.5, 0.5, "refused", transform=axis.transAxes, ha="center")
            out.append({"family": name, "data": kind, "mean_width": None, "note": str(error)})
            continue
        outline(axis, fitted.set, color="tab:red")
        out.append({"family": name, "data": kind, "mean_width": float(fitted.set.size(32)), "note": ""})
    figure.savefig(folder / "gallery.png", dpi=110)
    plt.close(figure)
    return {
        "figure": "gallery.png",
        "samples": settings["samples"],
        "epsilon": settings["epsilon"],
        "confidence": settings["confidence"],
        "families": out,
    }


def table(result: dict[str, Any]) -> Iterable[str]:
    """Mean widths."""
    for row in result["families"]:
        size = row["note"] if row["mean_width"] is None else f"{row['mean_width']:.3f}"
        yield f"{row['family']:14}{row['data']:14}mean width {size}"
    yield f"figure: {result['figure']} in the study's folder"


STUDY = Study(
    {"families": [], "samples": 300, "epsilon": 0.1, "discrete_epsilon": 0.5, "confidence": 0.9, "seed": 3}, run, table
)
