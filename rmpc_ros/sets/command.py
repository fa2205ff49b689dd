"""What `rmpc fit` does: words in, a fitted set and its support values out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from rmpc_ros.errors import DataError
from rmpc_ros.sets.data import read_csv
from rmpc_ros.sets.fit import fit_set


def run(
    data: Path,
    family: str,
    epsilon: float,
    confidence: float,
    words: list[str],
    support: str | None = None,
    columns: str | None = None,
    seed: int = 0,
    plot: Path | None = None,
) -> tuple[dict[str, Any], list[str]]:
    """Fit and evaluate.

    Returns
    -------
    result : family, parameters, thresholds, certificate, support (one value per direction, in order), maximisers
    lines : the same for people
    """
    rows, names = read_csv(data, None if columns is None else [c.strip() for c in columns.split(",")])
    fitted = fit_set(rows, family, epsilon, confidence, columns=names, parameters=parse_parameters(words), seed=seed)
    shown, certificate = fitted.set, fitted.certificate
    directions = parse_directions(support, len(names)) if support else np.empty((0, len(names)))
    values = np.asarray(shown.support(directions)) if len(directions) else np.empty(0)
    points = np.asarray(shown.maximisers(directions)) if len(directions) else np.empty((0, len(names)))
    if plot is not None:
        from rmpc_ros.sets.picture import draw

        draw(shown, plot, rows, names)
    result = {
        "family": certificate.family,
        "parameters": shown.parameters(),
        "thresholds": dict(certificate.thresholds),
        "certificate": certificate.to_dict(),
        "support": values.tolist(),
        "maximisers": points.tolist(),
    }
    lines = [
        f"family      {certificate.family}",
        f"columns     {', '.join(names)}",
        f"samples     {certificate.samples}",
        f"test        {certificate.test}",
        *[f"  {name:9} {value}" for name, value in certificate.thresholds.items()],
        f"guarantee   {certificate.statement}",
        *[f"note        {note}" for note in certificate.notes],
        *[f"support     {a.tolist()} -> {v:.8g}" for a, v in zip(directions, values, strict=True)],
    ]
    return result, lines


def parse_parameters(words: list[str]) -> dict[str, Any]:
    """`key=value` words: numbers, words, or comma-separated lists of numbers."""
    out: dict[str, Any] = {}
    for word in words:
        key, equals, text = word.partition("=")
        if not equals or not key or not text:
            raise DataError(f"--param {word}: write key=value")
        if key in out:
            raise DataError(f"--param {key} is given twice: keep one")
        try:
            numbers = [float(item) for item in text.split(",") if item.strip()]
        except ValueError:
            out[key] = text
            continue
        out[key] = numbers[0] if len(numbers) == 1 else numbers
    return out


def parse_directions(text: str, dim: int) -> np.ndarray[Any, np.dtype[np.float64]]:
    """`a1,a2;b1,b2` as an array (m, d)."""
    out = []
    for n, part in enumerate(p for p in text.split(";") if p.strip()):
        try:
            row = [float(item) for item in part.split(",")]
        except ValueError:
            raise DataError(f"--support direction {n + 1} = {part!r}: give {dim} numbers separated by commas") from None
        if len(row) != dim:
            raise DataError(
                f"--support direction {n + 1} = {part!r} has {len(row)} entries; the data have {dim} columns"
            )
        if not np.all(np.isfinite(row)):
            raise DataError(f"--support direction {n + 1} = {part!r} is not finite")
        out.append(row)
    if not out:
        raise DataError(f"--support {text!r} holds no direction: write a1,a2;b1,b2")
    return np.array(out)
