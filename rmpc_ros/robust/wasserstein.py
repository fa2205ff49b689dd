"""Distributionally robust decisions over a Wasserstein ball (1-norm) around samples.

    min c'x + max { E_P[Q(x, v)] : W_1(P, empirical) <= r, P on V }
  = min c'x + l r + (1/N) sum_n s_n   s.t.  s_n >= Q(x, v) - l norm1(v - v_n)  for all v in V,  l >= 0

Column-and-constraint generation: one mixed-integer program per sample finds its worst v; cuts
s_n >= b'y - l norm1(v* - v_n) with a recourse copy of v* enter the master. On boxes the worst coordinate is an end of a
piece or the sample's own value, so three candidates per coordinate are exact.
Source: Mohajerin Esfahani and Kuhn (2018); seed 001, scheme 2 and its supplement.
"""

from __future__ import annotations

import time

import numpy as np
from numpy.typing import NDArray

from rmpc_ros.errors import DataError, NumericalError, SetError
from rmpc_ros.robust.master import Master
from rmpc_ros.robust.polytope_union import PolytopeUnion
from rmpc_ros.robust.two_stage import IterationRecord, TwoStageProblem, TwoStageResult, equilibrate
from rmpc_ros.robust.worst_case import Finding, WorstCaseSearch

Vector = NDArray[np.float64]


class WassersteinProgram:
    """The two-stage problem over a Wasserstein ball.

    Parameters
    ----------
    problem : two-stage problem, continuous recourse
    union : support V, a union of boxes
    samples : (N, q), all in V
    radius : r >= 0; 0 gives the sample average over V's feasible first stages
    gap, max_iterations : stopping rule

    Raises
    ------
    DataError, SetError
    """

    def __init__(
        self,
        problem: TwoStageProblem,
        union: PolytopeUnion,
        samples: NDArray[np.float64],
        radius: float,
        gap: float = 1e-5,
        max_iterations: int = 200,
    ) -> None:
        rows = np.atleast_2d(np.asarray(samples, float))
        if rows.shape[0] < 1 or rows.shape[1] != problem.dim:
            raise DataError(f"samples have shape {rows.shape}, wanted (N >= 1, {problem.dim})")
        if not (np.isfinite(radius) and radius >= 0):
            raise DataError(f"Wasserstein radius = {radius}, allowed are finite values >= 0")
        outside = [n for n, v in enumerate(rows) if not union.contains(v, 1e-6)]
        if outside:
            raise SetError(f"sample {outside[0]} ({rows[outside[0]]}) lies outside the support")
        problem, self._units = equilibrate(problem)
        self.problem, self.union, self.samples, self.radius = problem, union, rows, float(radius)
        self.gap, self.max_iterations = gap, max_iterations
        self.search = WorstCaseSearch(problem, union, tolerance=0.1 * gap, anchored=True)

    def solve(self) -> TwoStageResult:
        """Solve to the proven gap.

        Raises
        ------
        InfeasibleError, UnboundedError, NumericalError
        """
        begin = time.perf_counter()
        n, count = self.problem.c.size, len(self.samples)
        master = Master(self.problem, np.full(count, 1.0 / count), [self.radius], [0.0], 0.1 * self.gap)
        for k, v in enumerate(self.samples):
            master.add(v, k, np.zeros(1))
        log: list[IterationRecord] = []
        upper = np.inf
        for iteration in range(1, self.max_iterations + 1):
            answer = master.solve()
            x, price, lower = answer.x[:n], float(answer.x[master.extra][0]), answer.bound
            first = float(self.problem.c @ x) + price * self.radius
            findings = self._worst(x, price, False)
            value = first + float(np.mean([f.cost for f in findings]))
            reached = self._closed(lower, value)
            if reached and not self.search.proven:
                findings = self._worst(x, price, True)
                value = first + float(np.mean([f.cost for f in findings]))
                reached = self._closed(lower, value)
            upper = min(upper, value)
            added = "stop" if reached else ("optimality" if np.isfinite(value) else "feasibility")
            log.append(IterationRecord(iteration, lower, upper, added, self.search.count, time.perf_counter() - begin))
            if reached:
                proven = first + float(np.mean([f.bound for f in findings]))
                worst = max(findings, key=lambda f: f.cost)
                return TwoStageResult(
                    x=x,
                    objective=value,
                    lower_bound=lower,
                    gap=max(0.0, proven - lower) / max(1.0, abs(proven)),
                    scenarios=np.array([v for v, _ in master.scenarios]),
                    worst=worst.v,
                    worst_subset=self.union.locate(worst.v),
                    iterations=iteration,
                    subproblems=self.search.count,
                    log=tuple(log),
                    extra={"samples": count, "radius": self.radius, "price": price},
                ).in_units(self._units)
            if not self._extend(master, answer.x, findings):
                raise NumericalError(f"no new scenario at bounds {lower:.9g}, {value:.9g}: ill-scaled data", "stalled")
        raise NumericalError(
            f"no gap of {self.gap:g} within {self.max_iterations} iterations", "iterations", {"log": tuple(log)}
        )

    def _worst(self, x: Vector, price: float, certify: bool) -> list[Finding]:
        found: list[Finding] = []
        for v in self.samples:
            found.append(self.search.worst(x, None, certify, v, price))
            if not found[-1].feasible:
                return found
        return found

    def _closed(self, lower: float, upper: float) -> bool:
        return bool(np.isfinite(upper)) and upper - lower <= self.gap * max(1.0, abs(upper))

    def _extend(self, master: Master, point: Vector, findings: list[Finding]) -> bool:
        if not findings[-1].feasible:
            master.add(findings[-1].v, None)
            return True
        fresh = False
        known = {(k, v.tobytes()) for v, k in master.scenarios}
        for k, finding in enumerate(findings):
            short = finding.cost - point[master.z[k]]
            if short > 1e-9 * max(1.0, abs(finding.cost)) and (k, finding.v.tobytes()) not in known:
                distance = float(np.sum(np.abs(finding.v - self.samples[k])))
                master.add(finding.v, k, np.array([distance]))
                fresh = True
        return fresh
