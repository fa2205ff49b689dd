"""Expected worst case over the subsets of a union, under a KL ball of subset probabilities.

    min c'x + max_{p in P} sum_k p_k max_{v in U_k} Q(x, v),     P = { p : KL(p || p0) <= rho }

Column-and-constraint generation with one epigraph variable per subset. By duality
R(z) = min { t + lambda rho : sum_k p0_k lambda exp((z_k - t)/lambda) <= lambda }, in two forms (seed 001):

- "plain" (eq. 15b): every iteration l has its own z^l and its own K exponential cones;
- "fixed" (eq. 17):  z_k >= b'y_kl for all l, s_k >= lambda exp((z_k - t)/lambda), sum p0_k s_k <= lambda:
  always K cones.

Integers in the first stage: the cones' outer approximation around HiGHS. A cut of the cones, with lambda and t
eliminated, is w >= p'z with p the worst probabilities at some z, so cuts in z alone are exact (`kl.py`). With the
integers fixed the cuts are completed by linear programs, or by Clarabel on the cones themselves (`inner="conic"`).
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import sparse

from rmpc_ros.errors import DataError, NumericalError
from rmpc_ros.robust.ccg import first_scenario
from rmpc_ros.robust.kl import check_ball, worst_probabilities
from rmpc_ros.robust.master import Master
from rmpc_ros.robust.polytope_union import PolytopeUnion
from rmpc_ros.robust.two_stage import IterationRecord, TwoStageProblem, TwoStageResult, equilibrate
from rmpc_ros.robust.worst_case import Finding, WorstCaseSearch
from rmpc_ros.solvers.conic import Cone, ConicProgram

Vector = NDArray[np.float64]
ConeForm = Literal["plain", "fixed"]
Inner = Literal["cuts", "conic"]


class ExpectedWorstCase:
    """The two-stage problem with KL ambiguity over the K subsets of a union (subset k in every step).

    Parameters
    ----------
    problem, union : as for `ColumnConstraintGeneration`
    p0 : (K,) nominal probabilities
    rho : radius >= 0; 0 gives the expectation under p0, a large one the plain robust problem
    form : "fixed" or "plain"
    inner : "cuts" or "conic", how the master is solved once its integers are fixed
    gap, max_iterations : stopping rule

    Attributes
    ----------
    cones : exponential cones in the last master (both forms count them; "cuts" eliminates them)
    """

    def __init__(
        self,
        problem: TwoStageProblem,
        union: PolytopeUnion,
        p0: ArrayLike,
        rho: float,
        form: ConeForm = "fixed",
        inner: Inner = "cuts",
        gap: float = 1e-6,
        max_iterations: int = 200,
    ) -> None:
        problem, self._units = equilibrate(problem)
        self.problem, self.union = problem, union
        self.p0, self.rho = check_ball(p0, rho), float(rho)
        self.subsets = len(union.polytopes)
        if self.p0.size != self.subsets:
            raise DataError(f"KL ball: p0 has {self.p0.size} entries, the union {self.subsets} subsets")
        if form not in ("plain", "fixed") or inner not in ("cuts", "conic"):
            raise DataError(f"form = {form!r} (plain, fixed), inner = {inner!r} (cuts, conic)")
        self.form, self.inner = form, inner
        self.gap, self.max_iterations = gap, max_iterations
        self.search = WorstCaseSearch(problem, union, tolerance=min(gap, 1e-6))
        self._master = Master(problem, np.zeros(self.subsets), [1.0], [-np.inf], 0.05 * gap)
        self._tuples: list[list[int]] = [list(range(self.subsets))]  # groups of z, one list per set of cones
        self._integers = [j for j in problem.integer]
        self.cuts = self.mixed_programs = 0

    @property
    def cones(self) -> int:
        """Exponential cones of the current master."""
        return self.subsets * len(self._tuples)

    def solve(self) -> TwoStageResult:
        """Solve to the proven gap.

        Raises
        ------
        InfeasibleError, UnboundedError, NumericalError
        """
        begin = time.perf_counter()
        n = self.problem.c.size
        for k in range(self.subsets):
            self._master.add(first_scenario(self.union.subset(k)), k)
        self._cut(self._tuples[0], self.p0)
        log: list[IterationRecord] = []
        upper = np.inf
        for iteration in range(1, self.max_iterations + 1):
            point, lower = self._solve_master()
            x = point[:n]
            first = float(self.problem.c @ x)
            findings = self._worst(x, certify=False)
            cost = self._expectation([f.cost for f in findings])
            reached = self._closed(lower, first + cost)
            if reached and not all(np.isfinite(f.bound) for f in findings):
                findings = self._worst(x, certify=True)
                cost = self._expectation([f.cost for f in findings])
                reached = self._closed(lower, first + cost)
            upper = min(upper, first + cost)
            added = "stop" if reached else ("optimality" if np.isfinite(cost) else "feasibility")
            log.append(IterationRecord(iteration, lower, upper, added, self.search.count, time.perf_counter() - begin))
            if reached:
                return self._result(x, lower, findings, log).in_units(self._units)
            if not self._extend(point, findings):
                raise NumericalError(
                    f"no new scenario, yet the bounds are {lower:.9g} and {first + cost:.9g}: ill-scaled data",
                    "stalled",
                    {"lower_bound": lower, "upper_bound": first + cost},
                )
        raise NumericalError(
            f"no gap of {self.gap:g} within {self.max_iterations} iterations", "iterations", {"log": tuple(log)}
        )

    def _worst(self, x: Vector, certify: bool) -> list[Finding]:
        return [self.search.worst(x, [k] * self.union.steps, certify) for k in range(self.subsets)]

    def _expectation(self, z: Sequence[float]) -> float:
        values = np.array(z)
        if not np.all(np.isfinite(values)):
            return float(np.inf)
        return float(worst_probabilities(values, self.p0, self.rho) @ values)

    def _closed(self, lower: float, upper: float) -> bool:
        return bool(np.isfinite(upper)) and upper - lower <= self.gap * max(1.0, abs(upper))

    def _extend(self, point: Vector, findings: Sequence[Finding]) -> bool:
        """Add scenarios; False if none is new."""
        bad = [f for f in findings if not f.feasible]
        if bad:
            for finding in bad:
                self._master.add(finding.v, None)
            return True
        if self.form == "plain":
            known = {(k, v.tobytes()) for v, k in self._master.scenarios if k is not None}
            groups = self._master.add_epigraphs(self.subsets)
            fresh = any((g % self.subsets, f.v.tobytes()) not in known for g, f in zip(groups, findings, strict=True))
            for group, finding in zip(groups, findings, strict=True):
                self._master.add(finding.v, group)
            self._tuples.append(groups)
            self._cut(groups, worst_probabilities([f.cost for f in findings], self.p0, self.rho))
            return fresh
        fresh = False
        for k, finding in enumerate(findings):
            if finding.cost > point[self._master.z[k]] + 1e-9 * max(1.0, abs(finding.cost)) and not any(
                group == k and np.array_equal(v, finding.v) for v, group in self._master.scenarios
            ):
                self._master.add(finding.v, k)
                fresh = True
        return fresh

    def _cut(self, groups: Sequence[int], p: Vector) -> None:
        """Append the row  w >= p'z  over one tuple."""
        row = np.zeros((1, self._master.columns))
        row[0, [self._master.z[g] for g in groups]] = p
        row[0, self._master.extra] = -1.0
        self._master.program.add_rows(row, -np.inf, 0.0)
        self.cuts += 1

    def _solve_master(self) -> tuple[Vector, float]:
        """Point and lower bound of the master with the exact R: outer approximation over the integers."""
        best, upper = None, np.inf
        for _ in range(self.max_iterations):
            relaxed = self._master.solve()
            self.mixed_programs += 1
            if best is not None and self._tight(relaxed.bound, upper):
                return best, relaxed.bound
            point = self._fixed(relaxed.x)
            value = float(self.problem.c @ point[: self.problem.c.size]) + self._largest(point)
            if value < upper:
                best, upper = point, value
            if self._tight(relaxed.bound, upper):
                assert best is not None
                return best, relaxed.bound
        raise NumericalError("the outer approximation of the KL cones did not converge", "iterations")

    def _tight(self, lower: float, upper: float) -> bool:
        return bool(np.isfinite(upper)) and upper - lower <= 0.1 * self.gap * max(1.0, abs(upper))

    def _largest(self, point: Vector) -> float:
        return max(self._expectation(point[[self._master.z[g] for g in groups]].tolist()) for groups in self._tuples)

    def _fixed(self, start: Vector) -> Vector:
        """Optimum with the integers of `start`, adding cuts on the way."""
        program = self._master.program
        values = np.round(start[self._integers])
        if self._integers:
            program.set_bounds(self._integers, values, values)
        try:
            if self.inner == "conic" and self.rho > 0.0:
                point = self._conic(values)
                for groups in self._tuples:
                    z = point[[self._master.z[g] for g in groups]]
                    self._cut(groups, worst_probabilities(z, self.p0, self.rho))
            for _ in range(1000):  # after "conic" one program: the cut at its optimum gives the optimum at a vertex
                answer = program.solve()
                point = answer.x
                short = False
                for groups in self._tuples:
                    z = point[[self._master.z[g] for g in groups]]
                    p = worst_probabilities(z, self.p0, self.rho)
                    if float(p @ z) > point[self._master.extra][0] + 0.03 * self.gap * max(1.0, abs(answer.objective)):
                        self._cut(groups, p)
                        short = True
                if not short:
                    return point
            raise NumericalError("Kelley's cuts of the KL ball did not converge in 1000 rounds", "iterations")
        finally:
            if self._integers:
                j = self._integers
                program.set_bounds(j, np.asarray(self.problem.lower)[j], np.asarray(self.problem.upper)[j])

    def _conic(self, integers: Vector) -> Vector:
        """The master on its exponential cones, integers fixed, by Clarabel."""
        p, master = self.problem, self._master
        lp = master.program.highs.getLp()
        columns = lp.num_col_
        kind = sparse.csr_array if "kRowwise" in str(lp.a_matrix_.format_) else sparse.csc_array
        shape = (lp.num_row_, columns)
        rows = kind((lp.a_matrix_.value_, lp.a_matrix_.index_, lp.a_matrix_.start_), shape=shape).tocsr()
        low, high = np.array(lp.row_lower_), np.array(lp.row_upper_)
        bottom, top = np.array(lp.col_lower_), np.array(lp.col_upper_)
        scale = max(1.0, float(np.max(np.abs(p.b), initial=0.0)) * 10.0, float(np.max(np.abs(high[np.isfinite(high)]))))
        cones = self.cones
        width = columns + 2 * len(self._tuples) + cones  # per tuple: t, lambda, s_1..s_K
        eye = sparse.eye_array(columns, format="csr")
        blocks = [rows[low == high], rows[(low < high) & np.isfinite(high)], -rows[(low < high) & np.isfinite(low)]]
        same = bottom == top
        blocks += [eye[same], eye[~same & np.isfinite(top)], -eye[~same & np.isfinite(bottom)]]
        limits = [high[low == high], high[(low < high) & np.isfinite(high)], -low[(low < high) & np.isfinite(low)]]
        limits += [top[same], top[~same & np.isfinite(top)], -bottom[~same & np.isfinite(bottom)]]
        kinds = ["zero", "nonnegative", "nonnegative", "zero", "nonnegative", "nonnegative"]
        spec = [Cone(name, part.size) for name, part in zip(kinds, limits, strict=True) if part.size]
        matrix = sparse.vstack([block for block in blocks if block.shape[0]], format="csr")
        matrix = sparse.hstack([matrix, sparse.csr_array((matrix.shape[0], width - columns))], format="csr")
        extra = sparse.lil_array((len(self._tuples) * (2 + 3 * self.subsets), width))
        w = master.extra.start
        r = 0
        linear, exponential = [], []
        for n, groups in enumerate(self._tuples):
            t = columns + n * (2 + self.subsets)
            extra[r, t], extra[r, t + 1], extra[r, w] = 1.0, self.rho, -1.0  # t + lambda rho <= w
            extra[r + 1, t + 1] = -1.0  # sum p0 s <= lambda
            for k in range(self.subsets):
                extra[r + 1, t + 2 + k] = self.p0[k]
            linear += [r, r + 1]
            r += 2
            for k, group in enumerate(groups):
                extra[r, master.z[group]], extra[r, t] = -1.0, 1.0
                extra[r + 1, t + 1] = -1.0
                extra[r + 2, t + 2 + k] = -1.0
                exponential += [r, r + 1, r + 2]
                r += 3
        wide = extra.tocsr()
        spec += [Cone("nonnegative", len(linear))] + [Cone("exponential", 3)] * cones
        cost = np.zeros(width)
        cost[: lp.num_col_] = np.array(lp.col_cost_)
        solution = ConicProgram(
            None,
            cost,
            sparse.vstack([matrix, wide[linear], wide[exponential]], format="csc"),
            np.concatenate([*limits, np.zeros(wide.shape[0])]) / scale,
            spec,
        ).solve()
        point = np.array(solution.x[:columns]) * scale
        point[self._integers] = integers
        return point

    def _result(
        self, x: Vector, lower: float, findings: Sequence[Finding], log: Sequence[IterationRecord]
    ) -> TwoStageResult:
        first = float(self.problem.c @ x)
        costs = np.array([f.cost for f in findings])
        p = worst_probabilities(costs, self.p0, self.rho)
        proven = first + self._expectation([f.bound for f in findings])
        worst = findings[int(np.argmax(costs))]
        return TwoStageResult(
            x=x,
            objective=first + float(p @ costs),
            lower_bound=lower,
            gap=max(0.0, proven - lower) / max(1.0, abs(proven)),
            scenarios=np.array([v for v, _ in self._master.scenarios]),
            worst=worst.v,
            worst_subset=(int(np.argmax(costs)),) * self.union.steps,
            iterations=len(log),
            subproblems=self.search.count,
            log=tuple(log),
            extra={
                "probabilities": p,
                "subset_worst": first + costs,
                "cones": self.cones,
                "cuts": self.cuts,
                "mixed_programs": self.mixed_programs,
                "form": self.form,
            },
        )
