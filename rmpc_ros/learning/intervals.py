"""Student's intervals of a mean: one place for all studies and evaluations."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

CONFIDENCE = 0.95


def half_width(values: ArrayLike, confidence: float = CONFIDENCE) -> float:
    """Half-width of Student's two-sided interval of the mean of independent values; infinite for less than two."""
    v = np.asarray(values, float)
    if v.size < 2:
        return float("inf")
    return float(stats.t.ppf((1 + confidence) / 2, v.size - 1) * v.std(ddof=1) / np.sqrt(v.size))


def confidence_interval(values: ArrayLike, confidence: float = CONFIDENCE) -> list[float]:
    """The interval [low, high] around the mean."""
    mean, half = float(np.mean(np.asarray(values, float))), half_width(values, confidence)
    return [mean - half, mean + half]
