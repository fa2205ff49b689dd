"""Quadratic programs of a control step: compiled once, fed with data, solved warm, checked.

    min_v  1/2 v'H v + f'v   s.t.  lower <= [v; A v] <= upper

A never changes; f and the sides do, in every step, and H where the cost is weighed anew (`DenseQp.reweigh`). DAQP (dual
active set) solves the condensed problems of one agent in some ten microseconds; PIQP (proximal interior point) solves
large sparse ones.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import daqp
import numpy as np
import piqp
from numpy.typing import NDArray
from scipy import sparse

from rmpc_ros.errors import InfeasibleError, NumericalError, UnboundedError

Vector = NDArray[np.float64]
Matrix = NDArray[np.float64]

MOST_FULL = 20_000  # entries of a matrix that is kept as a full array too
_DAQP_WORDS = {1: "optimal", 2: "soft optimal", -1: "infeasible", -2: "cycling", -3: "unbounded", -4: "iteration limit"}


@dataclass(frozen=True)
class QpSolution:
    """A checked optimum: `v` (n,), objective, iterations, largest violation of a side, and the rows' values at v."""

    v: Vector
    objective: float
    iterations: int
    residual: float
    rows: Vector


class DenseQp:
    """A dense strictly convex program.

    Parameters
    ----------
    H : (n, n) positive definite
    A : (m, n) rows beyond simple bounds
    tolerance : largest accepted violation of a side and of stationarity (in the units of the rows: scale them).
    """

    def __init__(self, H: Matrix, A: Matrix, tolerance: float = 1e-6) -> None:
        self.H = np.ascontiguousarray(H)
        self.A = np.ascontiguousarray(A)
        self.n = H.shape[0]
        self._rows = np.vstack([np.eye(self.n), A])
        self._transposed = np.ascontiguousarray(self._rows.T)
        self.tolerance = tolerance
        self._model: daqp.Model | None = None

    def update(self, f: Vector, upper: Vector, lower: Vector) -> None:
        """Set the linear cost (n,) and the sides (n + m,): simple bounds on v first, then the rows of A.

        Raises
        ------
        InfeasibleError
            A lower side exceeds its upper one.
        """
        self.f, self.upper, self.lower = f, upper, lower
        if self._model is None:
            model = daqp.Model()
            model.settings = {"primal_tol": 1e-8}
            flag, _ = model.setup(self.H, f, self.A, upper, lower, np.zeros(len(upper), np.int32))
            if flag >= 0:
                self._model = model
        else:
            flag = self._model.update(f=f, bupper=upper, blower=lower)
        if flag < 0:
            row = int(np.argmax(lower - upper))
            if lower[row] > upper[row]:
                raise InfeasibleError(
                    f"the sides of row {row} cross: {lower[row]:.6g} > {upper[row]:.6g}; "
                    "the tube is wider than its room",
                    "infeasible",
                    {"row": row},
                )
            raise NumericalError(f"DAQP refused the data (flag {flag})", str(flag))

    def reweigh(self, H: Matrix) -> None:
        """Another positive definite H (n, n) from now on; the active set of the last solution stays the first guess.

        Raises
        ------
        NumericalError
            H cannot be factorised. The one in force stays.
        """
        H = np.ascontiguousarray(H)
        if self._model is not None:
            flag = self._model.update(H=H)
            if flag < 0:
                self._model.update(H=self.H)
                raise NumericalError(f"DAQP refused the Hessian (flag {flag})", str(flag))
        self.H = H

    def solve_raw(self) -> tuple[Vector, float, int, dict[str, Any]]:
        """Call the solver alone: (v, objective, flag, info), unchecked; for benchmarks."""
        assert self._model is not None
        return self._model.solve()  # type: ignore[no-any-return]

    def solve(self) -> QpSolution:
        """Solve from the last active set and check the answer.

        Raises
        ------
        InfeasibleError, NumericalError
        """
        return _checked(
            self.solve_raw(), self.H, self._rows, self._transposed, self.f, self.upper, self.lower, self.tolerance
        )


def solve_dense(H: Matrix, A: Matrix, f: Vector, upper: Vector, lower: Vector, tolerance: float = 1e-6) -> QpSolution:
    """One dense strictly convex program whose matrices the next one does not share; the arguments are `DenseQp`'s.

    Raises
    ------
    InfeasibleError, NumericalError
    """
    raw = daqp.solve(H, f, A, upper, lower, np.zeros(len(upper), np.int32), primal_tol=1e-8)
    rows = np.concatenate([np.eye(len(f)), A])
    return _checked(raw, H, rows, rows.T, f, upper, lower, tolerance)


def _checked(
    raw: tuple[Vector, float, int, dict[str, Any]],
    H: Matrix,
    rows: Matrix,
    transposed: Matrix,
    f: Vector,
    upper: Vector,
    lower: Vector,
    tolerance: float,
) -> QpSolution:
    """DAQP's answer, if it is an optimum."""
    v, objective, flag, info = raw
    word = _DAQP_WORDS.get(flag, f"flag {flag}")
    if flag == -1:
        raise InfeasibleError("no input sequence satisfies all tightened constraints", word)
    if flag != 1:
        raise NumericalError(f"DAQP stopped with '{word}'", word)
    value = rows @ v
    residual = max(float((value - upper).max()), float((lower - value).max()), 0.0)
    gradient = H @ v
    gradient += f
    gradient += transposed @ info["lam"]
    stationarity = float(np.abs(gradient).max())
    limit = tolerance * (1.0 + float(np.abs(f).max()))
    if not residual <= tolerance or not stationarity <= limit:
        raise NumericalError(
            f"DAQP's point violates a row by {residual:.1e} and stationarity by {stationarity:.1e}",
            "failed check",
            {"residual": residual, "stationarity": stationarity},
        )
    return QpSolution(v, objective, info["iterations"], residual, value)


class SparseQp:
    """A sparse convex program  min 1/2 x'P x + c'x,  A x = b,  l <= G x <= u,  lower <= x <= upper, through PIQP.

    Data may change, the sparsity pattern may not; explicit zeros in G are kept for that purpose. Matrices whose columns
    are unsorted or hold a place twice are copied and sorted: PIQP reads such a P wrongly, without an error.
    """

    def __init__(
        self,
        P: sparse.csc_matrix,
        c: Vector,
        G: sparse.csc_matrix,
        lower: Vector,
        upper: Vector,
        x_lower: Vector | None = None,
        x_upper: Vector | None = None,
        A: sparse.csc_matrix | None = None,
        b: Vector | None = None,
        tolerance: float = 1e-6,
        condense_equalities: bool = False,
    ) -> None:
        P, G, A = _canonical(P), _canonical(G), None if A is None else _canonical(A)
        self.P, self.c, self.G, self.A, self.b = P, c, G, A, b
        self.lower, self.upper = lower, upper
        self._full = self._filled()
        self.x_lower = np.full(c.size, -np.inf) if x_lower is None else x_lower
        self.x_upper = np.full(c.size, np.inf) if x_upper is None else x_upper
        self.tolerance = tolerance
        self._below = bool(np.any(np.isfinite(lower)))
        self._low = np.flatnonzero(np.isfinite(self.x_lower))
        self._high = np.flatnonzero(np.isfinite(self.x_upper))
        self._solver = piqp.SparseSolver()
        if condense_equalities:  # pays where equality rows are many and short
            self._solver.settings.kkt_solver = piqp.KKTSolver.sparse_ldlt_eq_cond
        self._solver.settings.eps_abs = tolerance * 1e-2
        self._solver.settings.eps_rel = tolerance * 1e-2
        self._solver.settings.preconditioner_reuse_on_update = True
        self._solver.setup(P, c, A, b, G, lower, upper, self.x_lower, self.x_upper)

    def update(
        self,
        c: Vector | None = None,
        G: sparse.csc_matrix | None = None,
        lower: Vector | None = None,
        upper: Vector | None = None,
        A: sparse.csc_matrix | None = None,
        b: Vector | None = None,
    ) -> None:
        """Replace data; `G` and `A` with the pattern of the first one."""
        if c is not None:
            self.c = c
        if G is not None:
            self.G = G = _canonical(G)
            self._full = self._filled()
        if lower is not None:
            self.lower, self._below = lower, bool(np.any(np.isfinite(lower)))
        if upper is not None:
            self.upper = upper
        if A is not None:
            self.A = A = _canonical(A)
        if b is not None:
            self.b = b
        self._solver.update(c=c, A=A, G=G, h_l=lower, h_u=upper, b=b)

    def _filled(self) -> Matrix | None:
        """G as a full array where it is small and nearly full: a check is ten times quicker with it."""
        m, n = self.G.shape
        return np.asarray(self.G.toarray()) if m * n <= MOST_FULL and 2 * self.G.nnz >= m * n else None

    def solve_raw(self) -> piqp.Status:
        """Call the solver alone, unchecked; for benchmarks."""
        return self._solver.solve()

    def solve(self) -> QpSolution:
        """Solve and check.

        Raises
        ------
        InfeasibleError, UnboundedError, NumericalError
        """
        status = self.solve_raw()
        if status != piqp.PIQP_SOLVED:
            word = str(status).rpartition(".")[2]
            if status == piqp.PIQP_PRIMAL_INFEASIBLE:
                raise InfeasibleError("no policy satisfies all robust constraints", word)
            if status == piqp.PIQP_DUAL_INFEASIBLE:
                raise UnboundedError("the quadratic program is unbounded", word)
            raise NumericalError(f"PIQP stopped with '{word}'", word)
        x = np.array(self._solver.result.x)
        value = self.G @ x if self._full is None else self._full @ x
        excess = [0.0, _largest(value - self.upper)]
        if self._below:
            excess.append(_largest(self.lower - value))
        if self._low.size:
            excess.append(_largest((self.x_lower - x)[self._low]))
        if self._high.size:
            excess.append(_largest((x - self.x_upper)[self._high]))
        if self.A is not None and self.b is not None and self.b.size:
            excess.append(_largest(np.abs(self.A @ x - self.b)))
        residual = max(excess)
        if not all(e <= self.tolerance for e in excess):  # false for NaN too
            raise NumericalError(
                f"PIQP's point violates a row by {residual:.1e}", "failed check", {"residual": residual}
            )
        info = self._solver.result.info
        return QpSolution(x, float(info.primal_obj), int(info.iter), residual, value)


def _largest(values: Vector) -> float:
    """The maximum, 0 without entries."""
    return float(values.max()) if values.size else 0.0


def _canonical(matrix: sparse.csc_matrix) -> sparse.csc_matrix:
    """The matrix itself where its columns are sorted and without duplicates, else a copy that is."""
    if matrix.has_canonical_format:
        return matrix
    out = matrix.copy()
    out.sum_duplicates()
    return out
