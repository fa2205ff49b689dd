"""A certified box of an agent's residuals: order statistics on half of the data, checked on data that came later.

    U = { r : |r_i - m_i| <= rho s_i }

Of the older four fifths of the rows the even ones give the shape (m: middle, s: half range), the odd ones the size rho
by `calibrate`. rho is at least what every row needs, times `inflation`: a broken promise costs more than a wide tube.
The newest fifth must lie inside what the older rows give as often as they promise; where it does not, conditions have
changed, and the box (which holds all rows) comes without a promise. It is cut to the design's bounds in the end; where
rows lie beyond them it promises nothing either.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from rmpc_ros.errors import DataError
from rmpc_ros.sets.box import Box
from rmpc_ros.sets.calibrate import calibrate, calibration_samples_needed
from rmpc_ros.sets.certificate import Certificate, FittedSet

Array = NDArray[np.float64]


def rows_needed(epsilon: float, confidence: float) -> int:
    """Least number of rows that `fit_residuals` takes."""
    return -(-5 * 2 * calibration_samples_needed(epsilon, confidence) // 4) + 3


def fit_residuals(
    rows: Array,
    lower: Array,
    upper: Array,
    epsilon: float,
    confidence: float,
    inflation: float,
    columns: Sequence[str],
) -> FittedSet:
    """Fit a box to residuals (N, d), oldest first.

    Parameters
    ----------
    rows : physical units
    lower, upper : (d,) the design's bounds
    epsilon, confidence : of the promise
    inflation : >= 1, of the half-widths
    columns : names

    Raises
    ------
    DataError
        Too few rows, or a column that never moves.
    """
    needed = rows_needed(epsilon, confidence)
    if len(rows) < needed:
        raise DataError(
            f"{len(rows)} residuals; {needed} are needed for epsilon {epsilon:g}, confidence {confidence:g}"
        )
    cut = len(rows) - len(rows) // 5
    shape = rows[:cut:2]
    middle, half = (shape.max(axis=0) + shape.min(axis=0)) / 2, np.ptp(shape, axis=0) / 2
    still = np.flatnonzero(half <= 1e-12 * np.maximum(upper - lower, 1e-300))
    if still.size:
        raise DataError(f"the residual of {columns[int(still[0])]} never moves: nothing can be learned from it")
    scores = np.max(np.abs(rows - middle) / half, axis=1)
    level = calibrate(scores[1:cut:2], epsilon, confidence)
    promised = inflation * max(level.level, float(scores[:cut].max()))
    outside = int(np.sum(scores[cut:] > promised))
    kept = outside <= epsilon * (len(rows) - cut)
    rho = max(promised, inflation * float(scores.max()))
    box = Box(np.clip(middle - rho * half, lower, upper), np.clip(middle + rho * half, lower, upper))
    room = 1e-6 * (upper - lower)
    beyond = int(np.sum(np.any((rows < lower - room) | (rows > upper + room), axis=1)))
    if beyond:
        kept = False
        statement = (
            f"No promise: {beyond} of the {len(rows)} residuals lie beyond the design's bounds, to which the box is "
            "cut."
        )
    elif kept:
        statement = (
            f"With confidence {confidence:g} a new residual lies outside the box with probability at most {epsilon:g}; "
            "assumes independent residuals from one distribution, which those of a process are only roughly. The box "
            f"is larger by the factor {inflation:g} than all {len(rows)} residuals need."
        )
    else:
        statement = (
            f"No promise: {outside} of the {len(rows) - cut} newest residuals lay outside what the {cut} before them "
            f"promised. The box is larger by the factor {inflation:g} than all of them need."
        )
    certificate = Certificate(
        "box",
        epsilon if kept else None,
        confidence if kept else None,
        len(rows),
        "order statistics (binomial tail), then a check on the newest fifth",
        {
            "rho": rho,
            "index": level.index,
            "calibrated_on": level.samples,
            "held_out": len(rows) - cut,
            "held_out_outside": outside,
        },
        (1, len(rows)),
        statement,
        tuple(columns),
    )
    return FittedSet(box, certificate)
