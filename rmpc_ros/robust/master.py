"""The master problem of column-and-constraint generation: first stage plus one recourse copy per scenario found.

    min c'x + sum_k w_k z_k   s.t.  z_k >= b'y_l,  T x + W y_l + M v_l <= h   for the scenarios l of group k

Plain robust problems have one group; expected worst cases have one per subset (`ambiguity.py`), samples one per sample
(`wasserstein.py`). The model is built once; scenarios append columns and rows, new data change bounds only.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import sparse

from rmpc_ros.errors import InfeasibleError, UnboundedError
from rmpc_ros.robust.recourse import EXACT
from rmpc_ros.robust.two_stage import TwoStageProblem
from rmpc_ros.solvers.lp import LinearProgram, LpSolution

Vector = NDArray[np.float64]


class Master:
    """Master problem with epigraph variables z and, optionally, extra variables.

    Parameters
    ----------
    problem : two-stage problem
    weights : (groups,) cost of each z
    extra_cost, extra_lower : further variables, for schemes that need them (lambda >= 0 of a Wasserstein ball, ...)
    gap : relative gap of the mixed-integer program; its proven bound is what the schemes use

    Attributes
    ----------
    z : columns of the epigraph variables
    extra : slice of the further variables
    scenarios : list of (v, group) in order of addition; group None: feasibility only
    """

    def __init__(
        self,
        problem: TwoStageProblem,
        weights: ArrayLike = (1.0,),
        extra_cost: ArrayLike = (),
        extra_lower: ArrayLike = (),
        gap: float = 1e-9,
    ) -> None:
        self.problem = problem
        w, e = np.atleast_1d(np.asarray(weights, float)), np.atleast_1d(np.asarray(extra_cost, float))
        n = problem.c.size
        self.z = list(range(n, n + w.size))
        self.extra = slice(n + w.size, n + w.size + e.size)
        self.scenarios: list[tuple[Vector, int | None]] = []
        self._first_row: list[int] = []
        self._copies: dict[bytes, tuple[slice, int]] = {}  # one recourse copy per scenario, whatever its groups
        self.columns = n + w.size + e.size
        padding = sparse.csr_array((problem.a.size, w.size + e.size)) if problem.a is not None else None
        assert padding is not None and problem.a is not None
        self.program = LinearProgram(
            np.concatenate([problem.c, w, e]),
            sparse.hstack([sparse.csr_array(problem.A), padding], format="csr"),
            -np.inf,
            problem.a,
            np.concatenate([problem.lower, np.full(w.size, -np.inf), np.atleast_1d(np.asarray(extra_lower, float))]),
            np.concatenate([problem.upper, np.full(w.size + e.size, np.inf)]),
            problem.integer or None,
            options=EXACT | {"mip_rel_gap": gap},
        )

    def add(self, v: Vector, group: int | None = 0, relief: Vector | None = None) -> slice:
        """Append scenario v: its recourse variables and coupling rows (once per v), and the cut of its group.

        Parameters
        ----------
        v : (q,)
        group : index of z, or None when only feasibility matters
        relief : (extras,) coefficients in  z_k + relief'extra >= b'y  (None: zero)

        Returns
        -------
        Columns of the scenario's recourse variables.
        """
        p = self.problem
        if v.tobytes() not in self._copies:
            first = self.program.add_columns(np.zeros(p.b.size), p.recourse_lower, p.recourse_upper, p.recourse_integer)
            self.columns = first + p.b.size
            rows = sparse.hstack(
                [sparse.csr_array(p.T), sparse.csr_array((p.h.size, first - p.c.size)), sparse.csr_array(p.W)]
            )
            row = self.program.add_rows(rows, *p.row_bounds(p.h - p.M @ v))
            self._copies[v.tobytes()] = (slice(first, first + p.b.size), row)
        copy, row = self._copies[v.tobytes()]
        self._first_row.append(row)
        if group is not None:
            cut = np.zeros((1, self.columns))
            cut[0, self.z[group]] = -1.0
            if relief is not None:
                cut[0, self.extra] = -relief
            cut[0, copy] = p.b
            self.program.add_rows(cut, -np.inf, 0.0)
        self.scenarios.append((v, group))
        return copy

    def add_epigraphs(self, count: int) -> list[int]:
        """Append epigraph variables of no cost; returns their groups (indices into `z`)."""
        first = self.program.add_columns(np.zeros(count), -np.inf, np.inf)
        self.z.extend(range(first, first + count))
        self.columns = first + count
        return list(range(len(self.z) - count, len(self.z)))

    def update(self, problem: TwoStageProblem) -> None:
        """New right-hand sides, first-stage costs and bounds; T, W, M, b must be the same."""
        self.problem = problem
        n = problem.c.size
        self.program.set_cost(problem.c, np.arange(n))
        self.program.set_bounds(np.arange(n), problem.lower, problem.upper)
        assert problem.a is not None
        if problem.a.size:
            self.program.set_row_bounds(np.arange(problem.a.size), -np.inf, problem.a)
        for (v, _), row in zip(self.scenarios, self._first_row, strict=True):
            low, high = problem.row_bounds(problem.h - problem.M @ v)
            self.program.set_row_bounds(np.arange(row, row + problem.h.size), low, high)

    def solve(self) -> LpSolution:
        """Solve.

        Raises
        ------
        InfeasibleError
            No first stage has a recourse for all scenarios found; `details` holds these scenarios and the names of the
            rows that cannot hold together (by least total violation).
        UnboundedError, NumericalError
        """
        try:
            return self.program.solve()
        except InfeasibleError as error:
            found = np.array([v for v, _ in self.scenarios]).reshape(-1, self.problem.dim)
            rows = self._conflict()
            raise InfeasibleError(
                f"no first-stage decision is feasible for the {len(found)} scenarios found; "
                + (f"least total violation is in {', '.join(rows[:3])}" if rows else "only integrality forbids it"),
                error.status,
                {"scenarios": found, "rows": rows},
            ) from error
        except UnboundedError as error:
            raise UnboundedError(
                "the two-stage problem is unbounded: some first-stage and recourse direction lowers the cost for ever",
                error.status,
                error.details,
            ) from error

    def _conflict(self) -> list[str]:
        """Rows violated by the least total violation of the continuous relaxation: the certificate of infeasibility."""
        p = self.problem
        assert p.A is not None and p.a is not None
        n, count, m = p.c.size, len(self.scenarios), p.h.size
        total = p.a.size + count * m
        matrix = sparse.lil_array((total, n + count * p.b.size + 2 * total))
        matrix[: p.a.size, :n] = p.A
        low, high = [np.full(p.a.size, -np.inf)], [p.a]
        names = [f"first-stage row {i}" for i in range(p.a.size)]
        for s, (v, _) in enumerate(self.scenarios):
            rows = slice(p.a.size + s * m, p.a.size + (s + 1) * m)
            matrix[rows, :n] = p.T
            matrix[rows, n + s * p.b.size : n + (s + 1) * p.b.size] = p.W
            bounds = p.row_bounds(p.h - p.M @ v)
            low.append(bounds[0])
            high.append(bounds[1])
            names += [f"{p.row_name(i)} (scenario {s})" for i in range(m)]
        start = n + count * p.b.size
        matrix[:, start : start + total] = -sparse.eye_array(total)
        matrix[:, start + total :] = sparse.eye_array(total)
        relaxed = LinearProgram(
            np.concatenate([np.zeros(start), np.ones(2 * total)]),
            matrix.tocsr(),
            np.concatenate(low),
            np.concatenate(high),
            np.concatenate([p.lower, np.tile(p.recourse_lower, count), np.zeros(2 * total)]),
            np.concatenate([p.upper, np.tile(p.recourse_upper, count), np.full(2 * total, np.inf)]),
        ).solve()
        violation = relaxed.x[start : start + total] + relaxed.x[start + total :]
        return [names[i] for i in np.argsort(-violation) if violation[i] > 1e-9]
