"""Column-and-constraint generation for  min c'x + max_{v in U} min_y { b'y : T x + W y + M v <= h }.

Master: the scenarios found so far, each with its own recourse; its value is a lower bound. Worst-case search at the
master's x: an upper bound and the next scenario (a scenario without recourse is added as well: that is the feasibility
cut). Stop when the bounds meet. Source: Zeng and Zhao (2013); seed 001 algorithm 1.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from rmpc_ros.errors import DataError, NumericalError
from rmpc_ros.robust.kkt import KktSearch
from rmpc_ros.robust.master import Master
from rmpc_ros.robust.polytope_union import PolytopeUnion
from rmpc_ros.robust.two_stage import IterationRecord, TwoStageProblem, TwoStageResult, equilibrate
from rmpc_ros.robust.worst_case import Form, WorstCaseSearch

Vector = NDArray[np.float64]


class ColumnConstraintGeneration:
    """A two-stage robust problem that is built once and solved again with new data (receding horizon).

    Parameters
    ----------
    problem : two-stage problem
    union : uncertainty
    form : "monolithic" or "enumeration" of the worst-case search ("dual" only)
    subproblem : "dual" (the fast one), or "kkt" for polytopes with too many vertices and for integer recourse, where it
        is the inner loop of the nested scheme; None: "kkt" where the recourse has integers, else "dual"
    gap : relative gap at which to stop
    max_iterations : master solutions before giving up
    keep : scenarios carried over by `update`; older inactive ones are dropped

    Examples
    --------
    >>> from rmpc_ros.robust.polytope_union import PolytopeUnion
    >>> from rmpc_ros.robust.two_stage import TwoStageProblem
    >>> problem = TwoStageProblem(c=[1.0], b=[3.0], T=[[-1.0]], W=[[-1.0]], M=[[1.0]], h=[0.0], lower=0.0,
    ...                           recourse_lower=0.0)
    >>> result = ColumnConstraintGeneration(problem, PolytopeUnion.boxes([([0.0], [1.0]), ([2.0], [4.0])])).solve()
    >>> round(result.objective, 6), result.worst.tolist()
    (4.0, [4.0])
    """

    def __init__(
        self,
        problem: TwoStageProblem,
        union: PolytopeUnion,
        form: Form = "monolithic",
        gap: float = 1e-6,
        max_iterations: int = 200,
        keep: int = 20,
        subproblem: Literal["dual", "kkt"] | None = None,
    ) -> None:
        problem, self._units = equilibrate(problem)
        self.problem, self.union = problem, union
        self.gap, self.max_iterations, self.keep = gap, max_iterations, keep
        kind = subproblem or ("kkt" if problem.recourse_integer else "dual")
        if kind == "dual" and problem.recourse_integer:
            raise DataError("subproblem 'dual' needs continuous recourse; this problem has integers: use 'kkt'")
        if kind == "kkt" and form == "enumeration":
            raise DataError("form 'enumeration' belongs to subproblem 'dual'")
        self.search: WorstCaseSearch | KktSearch = (
            WorstCaseSearch(problem, union, form, min(gap, 1e-6))
            if kind == "dual"
            else KktSearch(problem, union, min(gap, 1e-6))
        )
        self._master = Master(problem, gap=0.1 * self.gap)

    @property
    def scenarios(self) -> list[Vector]:
        """Scenarios of the master now, newest last, at most `keep`."""
        return [v for v, _ in self._master.scenarios[-self.keep :]]

    def update(self, problem: TwoStageProblem) -> None:
        """New h, c, a and bounds of x (T, W, M, b, A as they were); the scenarios stay (warm start)."""
        problem, units = equilibrate(problem)
        if units.cost != self._units.cost:
            raise DataError(f"update: costs are of size {units.cost:g}, built with {self._units.cost:g}; build anew")
        self.problem = problem
        if len(self._master.scenarios) > self.keep:
            recent = self.scenarios
            self._master = Master(problem, gap=0.1 * self.gap)
            for v in recent:
                self._master.add(v)
        else:
            self._master.update(problem)
        self.search.update(problem)

    def solve(self, scenarios: Iterable[Vector] = ()) -> TwoStageResult:
        """Solve to the proven gap.

        Parameters
        ----------
        scenarios : further scenarios to start from; without any, the centre of the first subset's box

        Raises
        ------
        InfeasibleError
            `details["scenarios"]`: finitely many scenarios that no first stage survives; `details["rows"]`: which rows.
        UnboundedError, NumericalError
        """
        begin = time.perf_counter()
        solved_before = self.search.count
        for v in scenarios:
            self._master.add(np.asarray(v, float))
        if not self._master.scenarios:
            self._master.add(first_scenario(self.union))
        log: list[IterationRecord] = []
        upper = np.inf
        n = self.problem.c.size
        for iteration in range(1, self.max_iterations + 1):
            answer = self._master.solve()
            x, lower = answer.x[:n], answer.bound
            finding = self.search.worst(x, certify=False)
            first = float(self.problem.c @ x)
            reached = finding.feasible and self._closed(lower, first + finding.cost)
            if reached and not np.isfinite(finding.bound):
                finding = self.search.worst(x)  # the same with the certificate
                reached = finding.feasible and self._closed(lower, first + finding.cost)
            upper = min(upper, first + finding.cost)
            added = "stop" if reached else ("optimality" if finding.feasible else "feasibility")
            solved = self.search.count - solved_before
            log.append(IterationRecord(iteration, lower, upper, added, solved, time.perf_counter() - begin))
            if reached:
                proven = first + finding.bound
                return TwoStageResult(
                    x=x,
                    objective=first + finding.cost,
                    lower_bound=lower,
                    gap=max(0.0, proven - lower) / max(1.0, abs(proven)),
                    scenarios=np.array([v for v, _ in self._master.scenarios]),
                    worst=finding.v,
                    worst_subset=self.union.locate(finding.v),
                    iterations=iteration,
                    subproblems=solved,
                    log=tuple(log),
                    extra={"multiplier_bounds": "derived" if self.search.proven else "certified"},
                ).in_units(self._units)
            if any(np.array_equal(finding.v, v) for v, _ in self._master.scenarios):
                raise NumericalError(
                    f"the same scenario was found twice with bounds {lower:.9g} and {first + finding.cost:.9g}: "
                    "the problem is ill-scaled for the solver's tolerances",
                    "stalled",
                    {"scenario": finding.v, "lower_bound": lower, "upper_bound": first + finding.cost},
                )
            self._master.add(finding.v)
        raise NumericalError(
            f"no gap of {self.gap:g} within {self.max_iterations} iterations: bounds {lower:.9g}, {upper:.9g}",
            "iterations",
            {"log": tuple(log)},
        )

    def _closed(self, lower: float, upper: float) -> bool:
        return bool(np.isfinite(upper)) and upper - lower <= self.gap * max(1.0, abs(upper))


def first_scenario(union: PolytopeUnion) -> Vector:
    """A scenario to start from: a vertex of the first subset in every step."""
    start: Vector = np.tile(union.polytopes[0].lowest, union.steps)
    return start
