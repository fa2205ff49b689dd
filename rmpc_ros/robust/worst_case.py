"""The proven worst case of a first-stage decision: feasibility, cost, and the certificate that nothing worse exists.

Bounds on the multipliers come from the data. Where the dual polyhedron is bounded in the directions that meet v, linear
programs give them and the mixed-integer program is exact. Elsewhere (no complete recourse) multipliers seen so far,
times a factor, serve as bounds, and the homogeneous program proves afterwards that no scenario costs more; if one does,
the bounds grow and the search is repeated. So no assumed constant ever decides a result.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from rmpc_ros.errors import InfeasibleError, NumericalError
from rmpc_ros.robust.polytope_union import PolytopeUnion
from rmpc_ros.robust.recourse import RecourseProgram
from rmpc_ros.robust.subproblem import DualSubproblem, Mode, WorstCase, dual_bounds, row_scales
from rmpc_ros.robust.two_stage import TwoStageProblem
from rmpc_ros.solvers.lp import LinearProgram

Vector = NDArray[np.float64]
Form = Literal["monolithic", "enumeration"]

_GROWTH = 4.0
_VIOLATION = 1e-7
_MAX_REPAIRS = 30


@dataclass(frozen=True)
class Finding:
    """What a search found at x.

    Attributes
    ----------
    v : (q,) worst scenario, or one without recourse
    cost : Q(x, v) (inf without recourse)
    bound : proven upper bound on the worst cost (inf without recourse)
    multipliers : (m,) of the recourse at v
    """

    v: Vector
    cost: float
    bound: float
    multipliers: Vector

    @property
    def feasible(self) -> bool:
        """Whether every scenario has a recourse."""
        return bool(np.isfinite(self.cost))


def has_complete_recourse(problem: TwoStageProblem) -> bool:
    """Whether some direction of y loosens every coupling row strictly: then every x and v has a recourse."""
    p = problem
    if p.equality:
        return False
    scale = row_scales(p)
    lower = np.where(np.isfinite(p.recourse_lower), 0.0, -1.0)
    upper = np.where(np.isfinite(p.recourse_upper), 0.0, 1.0)
    matrix = np.hstack([p.W / scale[:, None], np.ones((p.h.size, 1))])
    cost = np.append(np.zeros(p.b.size), -1.0)
    found = LinearProgram(cost, matrix, -np.inf, 0.0, np.append(lower, 0.0), np.append(upper, 1.0)).solve()
    return -found.objective > 1e-9


class WorstCaseSearch:
    """max over v in U of Q(x, v), proven; models are built once for all x and all subsets.

    Parameters
    ----------
    problem : continuous recourse
    union : uncertainty
    form : "monolithic": one mixed-integer program for all K^T subsets; "enumeration": the same program once per subset
    tolerance : relative accuracy of costs
    anchored : searches may subtract a distance to an anchor (boxes only)

    Attributes
    ----------
    count : mixed-integer programs solved so far
    complete : every x and v has a recourse (no feasibility search needed)
    """

    def __init__(
        self,
        problem: TwoStageProblem,
        union: PolytopeUnion,
        form: Form = "monolithic",
        tolerance: float = 1e-6,
        anchored: bool = False,
    ) -> None:
        self._anchored = anchored
        self.problem, self.union, self.form, self.tolerance = problem, union, form, tolerance
        self.count = 0
        self.complete = has_complete_recourse(problem)
        self._recourse = RecourseProgram(problem)
        self._limit = 0.0  # largest multiplier seen, relative to its row's scale
        self._scales = row_scales(problem)
        self._cost_bounds = dual_bounds(problem, "cost")
        self._assumed = np.zeros(problem.h.size)
        self._models: dict[Mode, DualSubproblem] = {}
        self._survivor: tuple[bytes, tuple[int, ...] | None] | None = None
        self._answered: tuple[tuple[object, ...], WorstCase] | None = None

    @property
    def proven(self) -> bool:
        """Whether linear programs bound the multipliers, so that no certificate is needed."""
        return self._cost_bounds.proven

    def update(self, problem: TwoStageProblem) -> None:
        """New h (and first-stage data); b, W, M and the recourse bounds must be the same."""
        self.problem = problem
        self._recourse.problem = problem
        self._survivor = None
        self._answered = None
        for model in self._models.values():
            model.problem = problem

    def recourse(self, x: Vector, v: Vector) -> Finding:
        """Q(x, v) at one scenario."""
        try:
            found = self._recourse.solve(x, v)
        except InfeasibleError:
            return Finding(v, np.inf, np.inf, np.zeros(self.problem.h.size))
        return Finding(v, found.cost, found.cost, found.multipliers)

    def worst(
        self,
        x: Vector,
        subsets: Sequence[int] | None = None,
        certify: bool = True,
        anchor: Vector | None = None,
        price: float = 0.0,
    ) -> Finding:
        """Worst scenario at x over the whole union, or over one combination of subsets.

        Parameters
        ----------
        x : (n,)
        subsets : one subset per step; None: all combinations
        certify : prove the bound even where multiplier bounds were assumed; without it `bound` is infinite there
        anchor, price : maximise  Q(x, v) - price norm1(v - anchor)  instead; `cost` and `bound` are this value

        Raises
        ------
        NumericalError
            The search and the recourse program disagree and growing bounds do not help.
        """
        key = (x.tobytes(), None if subsets is None else tuple(subsets))
        if not self.complete and key != self._survivor:  # many anchors ask at the same x
            violated = self._search("homogeneous", x, subsets, None, anchor, 0.0)
            if violated.value > _VIOLATION * (1.0 + float(np.max(np.abs(self.problem.h) / self._scales))):
                finding = self.recourse(x, violated.v)
                if not finding.feasible:
                    return finding
            self._survivor = key
        for _ in range(_MAX_REPAIRS):
            if not self.proven and self._limit == 0.0:
                self._learn(x, subsets)
            asked = (key, price, None if anchor is None else anchor.tobytes(), self._limit)
            if self._answered is None or self._answered[0] != asked:  # the loop asks again for the certificate
                self._answered = asked, self._search("cost", x, subsets, None, anchor, price)
            found = self._answered[1]
            finding = self._valued(x, found.v, anchor, price)
            if not finding.feasible:
                return finding
            slack = self.tolerance * max(1.0, abs(finding.cost))
            if finding.cost > found.value + slack:
                if self.proven:
                    raise NumericalError(
                        f"the worst-case search found cost {found.value:.9g}, the recourse costs {finding.cost:.9g}",
                        "disagreement",
                        {"first_stage": x, "scenario": found.v},
                    )
                self._grow(finding.multipliers)
                continue
            if self.proven:
                return replace(finding, bound=max(finding.cost, found.bound))
            if not certify:
                return replace(finding, bound=np.inf)
            proof = self._search("homogeneous", x, subsets, finding.cost + slack, anchor, price)
            if proof.value <= _VIOLATION * min(1.0, slack):
                return replace(finding, bound=finding.cost + slack)
            worse = self._valued(x, proof.v, anchor, price)
            if not worse.feasible:
                return worse
            if worse.cost <= finding.cost + slack:
                return replace(finding, bound=finding.cost + slack)
            self._grow(worse.multipliers)
        raise NumericalError(
            f"no bound on the recourse multipliers could be proven in {_MAX_REPAIRS} repairs (last {self._limit:.3g})",
            "bounds",
            {"first_stage": x},
        )

    def _valued(self, x: Vector, v: Vector, anchor: Vector | None, price: float) -> Finding:
        finding = self.recourse(x, v)
        if anchor is None:
            return finding
        paid = price * float(np.sum(np.abs(v - anchor)))
        return replace(finding, cost=finding.cost - paid, bound=finding.bound - paid)

    def _search(
        self,
        mode: Mode,
        x: Vector,
        subsets: Sequence[int] | None,
        budget: float | None,
        anchor: Vector | None,
        price: float,
    ) -> WorstCase:
        model = self._model(mode)
        if self.form == "monolithic" or subsets is not None:
            model.restrict(subsets)
            self.count += 1
            return model.solve(x, budget, anchor, price)
        best: WorstCase | None = None
        for combination in product(range(len(self.union.polytopes)), repeat=self.union.steps):
            model.restrict(combination)
            self.count += 1
            found = model.solve(x, budget, anchor, price)
            best = found if best is None or found.value > best.value else best
        assert best is not None
        return best

    def _model(self, mode: Mode) -> DualSubproblem:
        if mode not in self._models:
            if mode == "cost":
                bounds = self._cost_bounds
                if not bounds.proven:
                    self._assumed = self._limit / self._scales
                    bounds = dual_bounds(self.problem, "cost", self._assumed)
            else:
                bounds = dual_bounds(self.problem, "homogeneous")
            self._models[mode] = DualSubproblem(self.problem, self.union, mode, bounds, self._assumed, self._anchored)
        return self._models[mode]

    def _learn(self, x: Vector, subsets: Sequence[int] | None) -> None:
        """First bounds: multipliers at x over the ends of the (restricted) union."""
        rng = np.random.default_rng(0)
        union = (
            self.union
            if subsets is None
            else PolytopeUnion(tuple(self.union.polytopes[k] for k in sorted(set(subsets))), self.union.steps)
        )
        seen = [self.recourse(x, v).multipliers for v in union.sample(8, rng)]
        self._grow(np.max(np.abs(seen), axis=0))

    def _grow(self, multipliers: Vector) -> None:
        largest = float(np.max(np.abs(multipliers) * self._scales, initial=0.0))
        floor = float(np.max(np.abs(self.problem.b), initial=0.0)) or 1.0
        self._limit = _GROWTH * max(largest, self._limit, floor / _GROWTH)
        self._models.pop("cost", None)
