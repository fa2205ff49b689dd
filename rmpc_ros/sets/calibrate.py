"""How large a set must be: exact calibration of a level by order statistics.

A shape that was fixed before (or fitted to other data) gives each fresh sample a score f(u); the set {f <= theta} with
theta = f_(k), the k-th smallest of n scores, is violated with probability V, where V ~ Beta(n + 1 - k, k) for a
continuous f and smaller otherwise. Hence

    P(V > epsilon) <= P(Bin(n, 1 - epsilon) >= k),

and k is the least index for which this tail is at most beta = 1 - confidence. k = n (the maximum) needs
n >= log(beta) / log(1 - epsilon) samples (seed 003, eq. 36); more samples allow a lower k and waste less. Assumes
independent samples from one distribution, nothing about its form.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from rmpc_ros.errors import DataError
from rmpc_ros.sets.data import check_level

Vector = NDArray[np.float64]


def calibration_samples_needed(epsilon: float, confidence: float) -> int:
    """Least n with (1 - epsilon)^n <= 1 - confidence.

    Examples
    --------
    >>> calibration_samples_needed(0.05, 0.95)
    59
    """
    check_level("epsilon", epsilon)
    check_level("confidence", confidence)
    n = int(np.ceil(np.log1p(-confidence) / np.log1p(-epsilon)))
    return n if (1 - epsilon) ** n <= 1 - confidence else n + 1


@lru_cache(maxsize=4096)
def order_index(samples: int, epsilon: float, confidence: float) -> int:
    """Least k (counted from 1) with P(Bin(n, 1 - epsilon) >= k) <= 1 - confidence.

    Raises
    ------
    DataError
        Not even the maximum is enough; the message says how many samples are needed.
    """
    needed = calibration_samples_needed(epsilon, confidence)
    if samples < needed:
        raise DataError(
            f"{samples} calibration samples cannot give epsilon {epsilon:g} with confidence {confidence:g}: "
            f"{needed} samples are needed"
        )
    beta = 1 - confidence
    k = max(int(stats.binom.isf(beta, samples, 1 - epsilon)), 0)  # P(Bin > k) <= beta
    while k > 0 and stats.binom.sf(k - 1, samples, 1 - epsilon) <= beta:
        k -= 1
    while stats.binom.sf(k - 1, samples, 1 - epsilon) > beta:
        k += 1
    return k


@lru_cache(maxsize=4096)
def _attained(samples: int, index: int, epsilon: float) -> float:
    return float(stats.binom.cdf(index - 1, samples, 1 - epsilon))


@dataclass(frozen=True)
class Calibration:
    """A calibrated level and the evidence for it.

    Attributes
    ----------
    level : theta, the k-th smallest score
    index, samples : k and n
    epsilon, confidence : the promise P(P(f > theta) > epsilon) <= 1 - confidence
    mean_violation : (n + 1 - k)/(n + 1), the mean of Beta(n + 1 - k, k)
    attained_confidence : 1 - P(Bin(n, 1 - epsilon) >= k), at least `confidence`
    """

    level: float
    index: int
    samples: int
    epsilon: float
    confidence: float
    mean_violation: float
    attained_confidence: float


def calibrate(scores: ArrayLike, epsilon: float, confidence: float) -> Calibration:
    """Level of the set {f <= level} from the scores f(u) of fresh samples, (n,).

    Raises
    ------
    DataError
        A score is not finite, or there are too few.
    """
    values = np.asarray(scores, float).ravel()
    if not np.all(np.isfinite(values)):
        raise DataError(f"score {int(np.argmax(~np.isfinite(values))) + 1} of the calibration samples is not finite")
    n = values.size
    k = order_index(n, epsilon, confidence)
    return Calibration(
        level=float(np.partition(values, k - 1)[k - 1]),
        index=k,
        samples=n,
        epsilon=epsilon,
        confidence=confidence,
        mean_violation=(n + 1 - k) / (n + 1),
        attained_confidence=_attained(n, k, epsilon),
    )


def violation_interval(misses: int, samples: int, confidence: float) -> tuple[float, float]:
    """Clopper-Pearson interval of the probability behind `misses` out of `samples`.

    Raises
    ------
    DataError
        Not 0 <= misses <= samples with samples >= 1.
    """
    check_level("confidence", confidence)
    if not 0 <= misses <= samples or samples < 1:
        raise DataError(f"{misses} misses in {samples} samples: give 0 <= misses <= samples, samples >= 1")
    tail = (1 - confidence) / 2
    low = 0.0 if misses == 0 else float(stats.beta.ppf(tail, misses, samples - misses + 1))
    high = 1.0 if misses == samples else float(stats.beta.ppf(1 - tail, misses + 1, samples - misses))
    return low, high


@dataclass(frozen=True)
class Split:
    """Rows that shape a set and rows that calibrate it; no row does both."""

    shape: NDArray[np.intp]
    calibration: NDArray[np.intp]


def split_rows(
    samples: int, least_shape: int, epsilon: float, confidence: float, seed: int, count: int | None
) -> Split:
    """Random split of the rows; `count` calibration rows, by default a third but never fewer than are needed.

    Raises
    ------
    DataError
        Too few rows; the message says how many are needed.
    """
    needed = calibration_samples_needed(epsilon, confidence)
    if count is not None and count < needed:
        raise DataError(
            f"n_calibration = {count} cannot give epsilon {epsilon:g} with confidence {confidence:g}: give at least "
            f"{needed}, or 0 for an uncalibrated set without a promise"
        )
    take = max(needed, samples // 3) if count is None else count
    if samples - take < least_shape:
        raise DataError(
            f"{samples} samples: {take} are needed for calibration at epsilon {epsilon:g} and confidence "
            f"{confidence:g} and {least_shape} for the shape; give at least {take + least_shape} samples"
        )
    order = np.random.default_rng(seed).permutation(samples)
    return Split(np.sort(order[take:]), np.sort(order[:take]))
