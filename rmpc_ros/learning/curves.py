"""What a training leaves besides its policy: event files that tensorboard reads, curve.csv and curve.png."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

Row = dict[str, float]
GAIN = "gain_over_best_constant"


class EventLog:
    """Scalars per iteration as tensorboard's event files in FOLDER/events; an interrupted training goes on in it."""

    def __init__(self, folder: Path, first: int) -> None:
        from tensorboardX import SummaryWriter

        self._writer = SummaryWriter(str(folder / "events"), purge_step=first if first else None)

    def write(self, iteration: int, row: Row) -> None:
        """Add one iteration's figures."""
        for name, value in row.items():
            self._writer.add_scalar(name, value, iteration)

    def close(self) -> None:
        """Flush and close."""
        self._writer.close()


def write_curves(folder: Path, curve: Sequence[Row], title: str) -> None:
    """Table and picture of the whole training."""
    names = list(dict.fromkeys(name for row in curve for name in row))
    lines = [["iteration", *names]]
    lines += [[str(k + 1), *(repr(row[n]) if n in row else "" for n in names)] for k, row in enumerate(curve)]
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "curve.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows(lines)
    _picture(folder / "curve.png", curve, title)


def _picture(path: Path, curve: Sequence[Row], title: str) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.add_subplot()
    points = [(k + 1, row[GAIN]) for k, row in enumerate(curve) if GAIN in row]
    axes.plot([k for k, _ in points], [gain for _, gain in points], marker=".")
    axes.axhline(0.0, color="grey", linewidth=1)
    axes.set(title=title, xlabel="iteration", ylabel="profit per hour over the best constant")
    axes.text(0.99, 0.02, "surrogate, validation campaigns, no exploration", transform=axes.transAxes, ha="right")
    axes.grid(alpha=0.3)
    figure.savefig(path, dpi=120)
