"""Logs of a running plant: read, judge, turn into transitions.

A log is refused when it would teach the wrong thing (wrong units, dead signals, too short); gaps and missing values
only cost the rows they touch, and the report says how many. Columns are found by name; time is in seconds.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rmpc_ros.errors import DataError
from rmpc_ros.models.hybrid import Transitions
from rmpc_ros.models.physics import Physics

Vector = NDArray[np.float64]
Matrix = NDArray[np.float64]


@dataclass(frozen=True)
class LogReport:
    """What became of the rows: read, usable as transitions, lost to gaps, to missing values, to outliers."""

    rows: int
    transitions: int
    gaps: int
    missing: int
    outliers: int


def read_csv(path: Path) -> tuple[tuple[str, ...], Matrix]:
    """Header and numbers of a comma-separated file; empty cells become NaN.

    Raises
    ------
    DataError
        No file, no header, a cell that is no number (named by line and column).
    """
    try:
        with path.open(newline="", encoding="utf-8") as stream:
            lines = list(csv.reader(stream))
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"log {path}: cannot be read ({error})") from error
    if len(lines) < 2:
        raise DataError(f"log {path}: {len(lines)} lines; a header and rows are needed")
    names = tuple(cell.strip() for cell in lines[0])
    values = np.full((len(lines) - 1, len(names)), np.nan)
    for n, line in enumerate(lines[1:]):
        if len(line) != len(names):
            raise DataError(f"log {path}:{n + 2}: {len(line)} cells where the header has {len(names)}")
        for k, cell in enumerate(line):
            if cell.strip():
                try:
                    values[n, k] = float(cell)
                except ValueError:
                    raise DataError(f"log {path}:{n + 2}: {names[k]} = {cell!r} is no number") from None
    return names, values


def transitions_from_log(
    names: Sequence[str],
    rows: Matrix,
    physics: Physics,
    ranges: Mapping[str, tuple[float, float]],
    disturbances: Mapping[str, float] | None = None,
    origin: str = "log",
    least: int = 50,
) -> tuple[Transitions, LogReport]:
    """Check a log and cut it into transitions.

    Parameters
    ----------
    names, rows : column names and (N, columns); a column "time" in seconds is needed
    ranges : plausible interval of each state and input, usually the plant file's limits, widened
    disturbances : values for disturbances that the log does not hold
    least : fewest usable transitions

    Raises
    ------
    DataError
        A column is missing; most values of one lie outside their range (wrong units); an input or state does not move;
        time does not increase; too few transitions remain.
    """
    columns = {name: n for n, name in enumerate(names)}
    wanted = [*physics.states, *physics.inputs]
    missing_columns = [name for name in ("time", *wanted) if name not in columns]
    if missing_columns:
        raise DataError(f"{origin}: no column {', '.join(missing_columns)}; it has {', '.join(names)}")
    time = rows[:, columns["time"]]
    data = rows[:, [columns[name] for name in wanted]]
    finite_time = np.isfinite(time)
    data, time = data[finite_time], time[finite_time]
    if time.size < 2 or np.any(np.diff(time) <= 0):
        raise DataError(f"{origin}: column time must increase from row to row")
    outside = np.zeros(data.shape, bool)
    for k, name in enumerate(wanted):
        column = data[:, k]
        known = column[np.isfinite(column)]
        if known.size < least:
            raise DataError(f"{origin}: column {name} holds {known.size} numbers; at least {least} are needed")
        low, high = ranges.get(name, (-np.inf, np.inf))
        outside[:, k] = (column < low) | (column > high)
        share = float(np.mean((known < low) | (known > high)))
        if share > 0.5:
            raise DataError(
                f"{origin}: {100 * share:.0f} % of {name} (median {np.median(known):.4g}) lie outside "
                f"[{low:.4g}, {high:.4g}]: wrong units or wrong column?"
            )
        if np.ptp(known) <= 1e-9 * max(abs(float(np.median(known))), 1e-9):
            raise DataError(f"{origin}: {name} is constant at {known[0]:.6g}: nothing can be learned about it")
    bad: NDArray[np.bool_] = ~np.asarray(np.isfinite(data).all(axis=1), bool)
    wild = outside.any(axis=1) & ~bad
    step = np.diff(time)
    whole = np.abs(step - physics.period) <= 0.1 * physics.period
    good: NDArray[np.bool_] = np.asarray(~(bad | wild), bool)
    kept = whole & good[:-1] & good[1:]
    report = LogReport(len(rows), int(kept.sum()), int(np.sum(~whole)), int(bad.sum()), int(wild.sum()))
    if report.transitions < least:
        raise DataError(
            f"{origin}: {report.transitions} usable transitions of {physics.period} s ({report.gaps} gaps, "
            f"{report.missing} rows with missing values, {report.outliers} out of range); at least {least} are needed"
        )
    n = len(physics.states)
    d = np.empty((len(data), len(physics.disturbances)))
    for k, name in enumerate(physics.disturbances):
        if name in columns:
            d[:, k] = rows[finite_time, columns[name]]
        elif disturbances is not None and name in disturbances:
            d[:, k] = disturbances[name]
        else:
            raise DataError(f"{origin}: disturbance {name} has neither a column nor a nominal value")
    index = np.flatnonzero(kept)
    return (
        Transitions(data[index, :n], data[index, n:], d[index], data[index + 1, :n], time[index + 1]),
        report,
    )
