"""Thresholds by the bootstrap (Bertsimas, Gupta, Kallus, Algorithm 1).

Draw N_B resamples of the data with replacement, compute each one's statistic against the original sample, and take the
ceil(N_B (1 - alpha))-th smallest value as the threshold.

A resample is kept as its counts, (N_B, N): statistics that are means then are one matrix product for all resamples.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rmpc_ros.errors import DataError

Vector = NDArray[np.float64]
Matrix = NDArray[np.float64]


def resample_counts(samples: int, resamples: int, rng: np.random.Generator) -> Matrix:
    """How often each of `samples` rows is drawn in each resample, (resamples, samples); rows sum to `samples`."""
    draws = rng.integers(samples, size=(resamples, samples))
    flat = draws + samples * np.arange(resamples)[:, None]
    return np.bincount(flat.ravel(), minlength=resamples * samples).reshape(resamples, samples).astype(float)


def resamples_for(level: float, given: float | None = None) -> int:
    """Number of resamples: the given one, or at least 1000 and enough for four values beyond the threshold.

    Raises
    ------
    DataError
        The given number leaves no value beyond the threshold.
    """
    if given is None:
        return max(1000, int(np.ceil(4 / level)))
    if given * level < 1:
        raise DataError(
            f"resamples = {given:g} cannot resolve the level {level:.2g}: give {np.ceil(1 / level):.0f} or more"
        )
    return int(given)


def upper_value(statistics: ArrayLike, level: float) -> float:
    """The ceil(N_B (1 - level))-th smallest of the resampled statistics."""
    values = np.sort(np.asarray(statistics, float))
    place = int(np.ceil(values.size * (1 - level) - 1e-9))
    return float(values[min(max(place, 1), values.size) - 1])
