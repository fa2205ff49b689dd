"""Pictures of sets: the outline of a projection on two components, over the data it was fitted to."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np

from rmpc_ros.errors import DataError
from rmpc_ros.sets.base import Matrix, UncertaintySet


def outline(axis: Any, shown: UncertaintySet, axes: tuple[int, int] = (0, 1), label: str = "", **style: Any) -> None:
    """Draw the outline of a set's projection into a matplotlib axis; a set of dimension 1 becomes an interval."""
    if shown.dim == 1:
        ends = [-float(shown.support([-1.0])), float(shown.support([1.0]))]
        axis.plot(ends, [0, 0], label=label, **style)
        return
    points = shown.projection(axes)
    closed = np.vstack([points, points[:1]])
    axis.plot(closed[:, 0], closed[:, 1], label=label, **style)


def draw(shown: UncertaintySet, path: Path, data: Matrix | None = None, columns: tuple[str, ...] = ()) -> None:
    """Write a picture of a set (and its data) to `path`; three components or more: all pairs of the first four.

    Raises
    ------
    DataError
        The file cannot be written, or its ending names no kind of picture.
    """
    d = shown.dim
    names = columns or tuple(f"u{i + 1}" for i in range(d))
    pairs = [(0, 0)] if d == 1 else [(i, j) for i in range(min(d, 4)) for j in range(i + 1, min(d, 4))]
    rows = int(np.ceil(len(pairs) / 3))
    wide = min(len(pairs), 3)
    figure, grid = plt.subplots(rows, wide, figsize=(4.2 * wide, 3.8 * rows), squeeze=False, layout="constrained")
    for axis in grid.flat[len(pairs) :]:
        axis.set_axis_off()
    for (i, j), axis in zip(pairs, grid.flat, strict=False):
        if data is not None:
            heights = np.zeros(len(data)) if d == 1 else data[:, j]
            axis.scatter(data[:, i], heights, s=6, alpha=0.4, color="0.4", label="data", linewidths=0)
        outline(axis, shown, (i, j), shown.family, color="tab:red")
        axis.set_xlabel(names[i])
        axis.set_ylabel("" if d == 1 else names[j])
        axis.legend(loc="upper right", fontsize=8)
    try:
        figure.savefig(path, dpi=120)
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: the picture cannot be written: {error}") from error
    finally:
        plt.close(figure)
