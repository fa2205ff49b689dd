"""Has the distribution changed? Two-sample tests on a recent block against older samples, and CUSUM on misses.

mean          Hotelling's two-sample T2, an F test (exact for normal samples, asymptotic else)
variance      Brown-Forsythe per component (absolute distances from the median), Bonferroni over components
distribution  Kolmogorov-Smirnov per component, Bonferroni over components
coverage      Bernoulli CUSUM on the misses of the set in force (Page 1954)

All in closed form on small arrays: a battery costs a fraction of a millisecond.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import special

from rmpc_ros.errors import DataError
from rmpc_ros.sets.data import check_level

Matrix = NDArray[np.float64]


@dataclass(frozen=True)
class TestResult:
    """Name of a test, its statistic and its p-value (after Bonferroni over the components)."""

    name: str
    statistic: float
    p_value: float


def mean_test(reference: Matrix, recent: Matrix) -> TestResult:
    """Hotelling's T2 for equal means with the pooled covariance, samples (n, d) and (m, d)."""
    n, m, d = len(reference), len(recent), reference.shape[1]
    if n + m - d - 1 < 1:
        raise DataError(f"mean test: {n} + {m} samples of {d} components; give at least {d + 2}")
    away = recent.mean(axis=0) - reference.mean(axis=0)
    a, b = reference - reference.mean(axis=0), recent - recent.mean(axis=0)
    pooled = (a.T @ a + b.T @ b) / (n + m - 2)
    pooled[np.diag_indices(d)] += 1e-12 * (np.trace(pooled) / d + 1e-300)
    t2 = float(away @ np.linalg.solve(pooled, away)) * n * m / (n + m)
    f = t2 * (n + m - d - 1) / (d * (n + m - 2))
    return TestResult("mean", t2, float(special.fdtrc(d, n + m - d - 1, f)))


def variance_test(reference: Matrix, recent: Matrix) -> TestResult:
    """Brown-Forsythe's F statistic for equal spread, largest over the components."""
    n, m, d = len(reference), len(recent), reference.shape[1]
    a = np.abs(reference - np.median(reference, axis=0))
    b = np.abs(recent - np.median(recent, axis=0))
    inside = ((a - a.mean(axis=0)) ** 2).sum(axis=0) + ((b - b.mean(axis=0)) ** 2).sum(axis=0)
    between = (a.mean(axis=0) - b.mean(axis=0)) ** 2 * n * m / (n + m)
    f = float(np.max(between * (n + m - 2) / np.maximum(inside, 1e-300)))
    return TestResult("variance", f, min(1.0, d * float(special.fdtrc(1, n + m - 2, f))))


def distribution_test(reference: Matrix, recent: Matrix) -> TestResult:
    """Two-sample Kolmogorov-Smirnov statistic, largest over the components, asymptotic p-value (Stephens)."""
    n, m, d = len(reference), len(recent), reference.shape[1]
    worst = 0.0
    for k in range(d):
        x, y = np.sort(reference[:, k]), np.sort(recent[:, k])
        both = np.concatenate([x, y])
        gap = np.searchsorted(x, both, side="right") / n - np.searchsorted(y, both, side="right") / m
        worst = max(worst, float(np.max(np.abs(gap))))
    root = np.sqrt(n * m / (n + m))
    p = float(special.kolmogorov((root + 0.12 + 0.11 / root) * worst))
    return TestResult("distribution", worst, min(1.0, d * p))


def change_tests(reference: Matrix, recent: Matrix) -> tuple[TestResult, ...]:
    """The three tests of a recent block against older samples."""
    return mean_test(reference, recent), variance_test(reference, recent), distribution_test(reference, recent)


class CoverageCusum:
    """CUSUM on misses: S <- max(0, S + log-likelihood ratio of miss rates p1 : p0), alarm at S >= log(1/level).

    Parameters
    ----------
    epsilon : p0, the accepted share of misses
    factor : p1 = factor x epsilon, capped at (1 + epsilon)/2
    level : by Wald's inequality at most this share of the returns to zero ends in a false alarm
    """

    def __init__(self, epsilon: float, factor: float = 4.0, level: float = 1e-3) -> None:
        check_level("epsilon", epsilon)
        check_level("level", level)
        worse = min(factor * epsilon, 0.5 * (1 + epsilon))
        if not worse > epsilon:
            raise DataError(f"factor = {factor}: give a number above 1")
        self._miss, self._hit = np.log(worse / epsilon), np.log((1 - worse) / (1 - epsilon))
        self.threshold = float(-np.log(level))
        self.value = 0.0

    def update(self, missed: bool) -> bool:
        """Take one outcome; True at an alarm (which resets the sum)."""
        self.value = max(0.0, self.value + float(self._miss if missed else self._hit))
        if self.value < self.threshold:
            return False
        self.value = 0.0
        return True
