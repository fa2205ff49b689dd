"""Adaptive conformal radius: long-run coverage without assumptions on the data (Gibbs and Candes 2021).

    r_t = quantile of the past scores at 1 - a_t,    a_{t+1} = a_t + gamma (epsilon - miss_t)

For any sequence whatever,  abs(mean of the misses - epsilon) <= (max(a_1, 1 - a_1) + gamma) / (gamma T). Where a_t <= 0
the radius is infinite: the caller puts a physical bound there and reports it. This is an average over time, not a
promise for the next sample; order statistics (`calibrate`) promise the latter for independent data.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from rmpc_ros.errors import DataError
from rmpc_ros.sets.data import check_level


class AdaptiveConformal:
    """State of the recursion.

    Parameters
    ----------
    epsilon : long-run share of misses
    gamma : step size; .005 follows slowly, .05 quickly (with a rougher radius)

    Attributes
    ----------
    level : a_t
    steps, misses : what was counted so far
    """

    def __init__(self, epsilon: float, gamma: float = 0.02) -> None:
        check_level("epsilon", epsilon)
        check_level("gamma", gamma)
        self.epsilon, self.gamma = float(epsilon), float(gamma)
        self.level = self.epsilon
        self.steps = self.misses = 0

    def radius(self, scores: ArrayLike) -> float:
        """Radius for the next sample from past scores (n,): infinite where a_t <= 0, or without scores."""
        values = np.asarray(scores, float)
        n = values.size
        if n == 0 or self.level <= 0:
            return float("inf")
        if self.level >= 1:
            return 0.0
        k = int(np.ceil((1 - self.level) * n))
        return float(np.partition(values, max(k, 1) - 1)[max(k, 1) - 1])

    def update(self, missed: bool) -> None:
        """Take the outcome of one step: whether the sample was outside the radius in force."""
        self.steps += 1
        self.misses += int(missed)
        self.level += self.gamma * (self.epsilon - float(missed))

    def bound(self) -> float:
        """The largest distance that the share of misses can have from epsilon after the steps so far.

        Raises
        ------
        DataError
            No step was taken.
        """
        if self.steps == 0:
            raise DataError("adaptive conformal: no step was taken, there is no share of misses to bound")
        return (max(self.epsilon, 1 - self.epsilon) + self.gamma) / (self.gamma * self.steps)
