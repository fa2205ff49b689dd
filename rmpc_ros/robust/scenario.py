"""Scenario programs: decide for N sampled scenarios; N follows from the wanted guarantee.

A convex program with d decision variables that holds for N independent samples violates a new one with probability at
most eps, with confidence 1 - beta, if  sum_{i<d} C(N, i) eps^i (1-eps)^(N-i) <= beta  (Campi and Garatti 2008).
Integers among the decisions: d becomes Helly's number minus one, (d_c + 1) 2^(d_i) - 1 (Calafiore, Lyons and Fagiano
2012).
"""

from __future__ import annotations

import time

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binom

from rmpc_ros.errors import DataError, InfeasibleError, NumericalError
from rmpc_ros.robust.master import Master
from rmpc_ros.robust.recourse import RecourseProgram
from rmpc_ros.robust.two_stage import IterationRecord, TwoStageProblem, TwoStageResult, equilibrate

Vector = NDArray[np.float64]


def sample_size(dimension: int, epsilon: float, beta: float) -> int:
    """Smallest N with  sum_{i<d} C(N, i) eps^i (1-eps)^(N-i) <= beta.

    Parameters
    ----------
    dimension : decision variables d >= 1
    epsilon, beta : violation probability and one minus the confidence, in (0, 1)

    Raises
    ------
    DataError

    Examples
    --------
    >>> sample_size(10, 0.05, 0.05), sample_size(10, 0.05, 0.1), sample_size(15, 0.05, 0.1)
    (311, 282, 400)
    """
    if dimension < 1 or not (0 < epsilon < 1 and 0 < beta < 1):
        raise DataError(f"sample size: d = {dimension} (>= 1), epsilon = {epsilon}, beta = {beta} (both in (0, 1))")
    low, high = dimension, max(2 * dimension, 2)
    while binom.cdf(dimension - 1, high, epsilon) > beta:
        low, high = high, 2 * high
    while low < high:  # the tail falls with N
        middle = (low + high) // 2
        if binom.cdf(dimension - 1, middle, epsilon) <= beta:
            high = middle
        else:
            low = middle + 1
    return low


def helly_dimension(continuous: int, integer: int) -> int:
    """Dimension that `sample_size` needs for `continuous` real and `integer` integer decisions."""
    return (continuous + 1) * 2**integer - 1 if integer else continuous


class ScenarioProgram:
    """min c'x + max_{n} Q(x, v_n) over given samples, by the same master, adding the samples that matter.

    Parameters
    ----------
    problem : two-stage problem
    samples : (N, q)
    gap, max_iterations : stopping rule
    """

    def __init__(
        self, problem: TwoStageProblem, samples: NDArray[np.float64], gap: float = 1e-6, max_iterations: int = 500
    ) -> None:
        if np.ndim(samples) != 2 or np.shape(samples)[1] != problem.dim or len(samples) == 0:
            raise DataError(f"samples have shape {np.shape(samples)}, wanted (N >= 1, {problem.dim})")
        problem, self._units = equilibrate(problem)
        self.problem, self.samples = problem, samples
        self.gap, self.max_iterations = gap, max_iterations
        self._recourse = RecourseProgram(problem)

    def costs(self, x: Vector) -> Vector:
        """Q(x, v_n) for every sample, (N,); infinite where there is no recourse."""
        out = np.empty(len(self.samples))
        for n, v in enumerate(self.samples):
            try:
                out[n] = self._recourse.solve(x / self._units.x, v).cost
            except InfeasibleError:
                out[n] = np.inf
        return out * self._units.cost

    def solve(self) -> TwoStageResult:
        """Solve to the proven gap.

        Raises
        ------
        InfeasibleError, UnboundedError, NumericalError
        """
        begin = time.perf_counter()
        n = self.problem.c.size
        master = Master(self.problem, gap=0.1 * self.gap)
        master.add(self.samples[0])
        used = {0}
        log: list[IterationRecord] = []
        for iteration in range(1, self.max_iterations + 1):
            answer = master.solve()
            x = answer.x[:n]
            costs = self.costs(x * self._units.x) / self._units.cost
            worst = int(np.argmax(costs))
            upper = float(self.problem.c @ x) + float(costs[worst])
            closed = np.isfinite(upper) and upper - answer.bound <= self.gap * max(1.0, abs(upper))
            added = "stop" if closed else ("optimality" if np.isfinite(upper) else "feasibility")
            log.append(IterationRecord(iteration, answer.bound, upper, added, 0, time.perf_counter() - begin))
            if closed:
                return TwoStageResult(
                    x=x,
                    objective=upper,
                    lower_bound=answer.bound,
                    gap=max(0.0, upper - answer.bound) / max(1.0, abs(upper)),
                    scenarios=np.array([v for v, _ in master.scenarios]),
                    worst=self.samples[worst],
                    worst_subset=(),
                    iterations=iteration,
                    subproblems=iteration * len(self.samples),
                    log=tuple(log),
                    extra={"samples": len(self.samples), "support": len(used)},
                ).in_units(self._units)
            if worst in used:
                raise NumericalError(f"sample {worst} was found twice: ill-scaled data", "stalled", {"scenario": worst})
            # every sample without recourse would be added one by one: take a few at once
            fresh = [int(i) for i in np.argsort(-costs)[:3] if int(i) not in used and costs[i] >= costs[worst]]
            for i in fresh or [worst]:
                used.add(i)
                master.add(self.samples[i])
        raise NumericalError(f"no gap of {self.gap:g} within {self.max_iterations} iterations", "iterations")
