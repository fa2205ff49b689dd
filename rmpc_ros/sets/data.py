"""Data as they arrive: reading a CSV and refusing what cannot carry a guarantee.

Every message names the column, the row (counted from 1 without the header) and what to do.
"""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rmpc_ros.errors import DataError

Matrix = NDArray[np.float64]


def check_level(name: str, value: object) -> None:
    """Refuse a probability outside (0, 1)."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0.0 < value < 1.0:
        raise DataError(f"{name} = {value!r} is outside its range: give a number strictly between 0 and 1")


def read_csv(path: Path, columns: list[str] | None = None) -> tuple[Matrix, tuple[str, ...]]:
    """Numbers of a CSV file with a header.

    Parameters
    ----------
    path : the file
    columns : names to take, in this order; default all

    Returns
    -------
    data : (N, d)
    names : (d,)

    Raises
    ------
    DataError
        The file is missing or empty, a column is unknown or named twice, or a cell is not a number.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            lines = [row for row in csv.reader(file) if any(cell.strip() for cell in row)]
    except FileNotFoundError:
        raise DataError(f"{path}: no such file; give a CSV file with a header line") from None
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: cannot be read as a CSV text file ({error})") from error
    if not lines:
        raise DataError(f"{path} is empty; give a header line with column names and at least one row of numbers")
    header = [cell.strip() for cell in lines[0]]
    if all(_is_number(cell) for cell in header):
        raise DataError(f"{path}: the first line holds only numbers ({', '.join(header[:4])}); add a header of names")
    for name in header:
        if not name:
            raise DataError(f"{path}: column {header.index(name) + 1} of the header has no name; name every column")
        if header.count(name) > 1:
            raise DataError(f"{path}: column '{name}' occurs {header.count(name)} times in the header; rename one")
    if len(lines) == 1:
        raise DataError(f"{path} is empty below its header ({', '.join(header)}); add rows of numbers")
    wanted = header if columns is None else columns
    for name in wanted:
        if name not in header:
            raise DataError(f"{path}: no column '{name}'; the header has {', '.join(header)}")
    places = [header.index(name) for name in wanted]
    out = np.empty((len(lines) - 1, len(places)))
    for n, row in enumerate(lines[1:]):
        if len(row) != len(header):
            raise DataError(
                f"{path}: row {n + 1} has {len(row)} cells, the header {len(header)}; complete or remove it"
            )
        for i, place in enumerate(places):
            try:
                out[n, i] = float(row[place]) if row[place].strip() else np.nan
            except ValueError:
                raise DataError(
                    f"{path}: row {n + 1}, column '{wanted[i]}' = {row[place]!r} is not a number; correct or remove it"
                ) from None
    return out, tuple(wanted)


def check_data(
    data: ArrayLike, columns: tuple[str, ...] | None = None, allow_duplicates: bool = False
) -> tuple[Matrix, tuple[str, ...]]:
    """Data fit for fitting, with the names of their columns.

    Raises
    ------
    DataError
        Not a table of numbers, NaN, infinities, a constant column, a duplicated row (unless allowed), fewer
        samples than dimensions plus one.
    """
    try:
        rows = np.array(data, float)
    except (TypeError, ValueError) as error:
        raise DataError(f"the data are not a table of numbers ({error}); give N rows of d numbers") from None
    if rows.ndim == 1:
        rows = rows[:, None]
    if rows.ndim != 2:
        raise DataError(f"the data have shape {rows.shape}; give N rows of d numbers")
    if rows.size == 0:
        raise DataError(f"the data are empty (shape {rows.shape}); give N rows of d numbers")
    n, d = rows.shape
    names = columns or tuple(f"u{i + 1}" for i in range(d))
    if len(names) != d:
        raise DataError(f"{len(names)} column names ({', '.join(names)}) for {d} columns of data; give one per column")
    bad = np.argwhere(~np.isfinite(rows))
    if bad.size:
        r, c = bad[0]
        word = "missing (NaN)" if np.isnan(rows[r, c]) else "infinite"
        raise DataError(
            f"row {r + 1}, column '{names[c]}' is {word} ({len(bad)} such cells in all); "
            "fill in, correct or remove the row"
        )
    if n <= d:
        raise DataError(f"{n} samples of {d} columns ({', '.join(names)}): at least {d + 1} rows are needed; add rows")
    for i in range(d):
        if np.ptp(rows[:, i]) <= 1e-12 * (1 + np.max(np.abs(rows[:, i]))):
            raise DataError(
                f"column '{names[i]}' is constant ({rows[0, i]!r} in rows 1 to {n}): it holds no uncertainty; "
                "remove the column"
            )
    if not allow_duplicates:
        _, first, inverse = np.unique(rows, axis=0, return_index=True, return_inverse=True)
        if len(first) < n:
            inverse = np.ravel(inverse)
            again = next(k for k in range(n) if first[inverse[k]] != k)
            raise DataError(
                f"row {again + 1} repeats row {first[inverse[again]] + 1} in every column ({', '.join(names)}; "
                f"{n - len(first)} repeated rows in all): samples must be independent draws; remove copies, or give "
                "--param duplicates=allow if equal draws are genuine, or use family chi2 or g for a finite support"
            )
    return rows, tuple(names)


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True
