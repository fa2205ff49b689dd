"""Conic programs through Clarabel.

    min  1/2 x'P x + q'x   s.t.  A x + s = b,  s in K = K_1 x K_2 x ...

`Cone` names the blocks of K in the order of the rows of A: "zero", "nonnegative", "second_order", "exponential"
(x, y, z with y exp(x/y) <= z), "psd" (scaled upper triangle, column-wise).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import clarabel
import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import sparse

from rmpc_ros.errors import InfeasibleError, NumericalError, UnboundedError

Vector = NDArray[np.float64]


@dataclass(frozen=True)
class Cone:
    """One block of the product cone: its kind and its number of rows (for "psd": the order of the matrix)."""

    kind: str
    size: int

    @property
    def rows(self) -> int:
        """Rows of A that the block takes."""
        return self.size * (self.size + 1) // 2 if self.kind == "psd" else self.size


_BUILD = {
    "zero": clarabel.ZeroConeT,
    "nonnegative": clarabel.NonnegativeConeT,
    "second_order": clarabel.SecondOrderConeT,
    "exponential": lambda _: clarabel.ExponentialConeT(),
    "psd": clarabel.PSDTriangleConeT,
}


@dataclass(frozen=True)
class ConicSolution:
    """A checked optimum: primal `x` (n,), slack `s` (m,), dual `z` (m,), objective, solver's time in seconds."""

    x: Vector
    s: Vector
    z: Vector
    objective: float
    seconds: float


class ConicProgram:
    """A conic program that is built once; `update` changes data without changing the sparsity pattern."""

    def __init__(
        self,
        quadratic: sparse.sparray | sparse.spmatrix | None,
        cost: ArrayLike,
        matrix: sparse.sparray | sparse.spmatrix,
        rhs: ArrayLike,
        cones: Sequence[Cone],
        tolerance: float = 1e-8,
    ) -> None:
        q = np.asarray(cost, float)
        p = sparse.csc_matrix((q.size, q.size)) if quadratic is None else sparse.csc_matrix(sparse.triu(quadratic))
        self.matrix = sparse.csc_matrix(matrix)
        self.matrix.sort_indices()
        self.rhs = np.asarray(rhs, float).copy()
        rows = sum(c.rows for c in cones)
        if self.matrix.shape != (rows, q.size) or self.rhs.size != rows:
            raise ValueError(
                f"A has shape {self.matrix.shape}, b {self.rhs.size}; cones want {rows} rows, cost {q.size}"
            )
        settings = clarabel.DefaultSettings()
        settings.verbose = False
        settings.max_threads = 1
        settings.presolve_enable = False  # presolve forbids data updates
        settings.chordal_decomposition_enable = False
        settings.input_sparse_dropzeros = False
        settings.tol_gap_abs = settings.tol_gap_rel = settings.tol_feas = tolerance
        self.cones = tuple(cones)
        self.tolerance = tolerance
        self._solver = clarabel.DefaultSolver(
            p, q, self.matrix, self.rhs, [_BUILD[c.kind](c.size) for c in cones], settings
        )

    def update(
        self,
        cost: ArrayLike | None = None,
        values: ArrayLike | None = None,
        rhs: ArrayLike | None = None,
        quadratic_values: ArrayLike | None = None,
    ) -> None:
        """Change data in place: `cost` (n,), all non-zeros of A (CSC order), `rhs` (m,), all non-zeros of triu(P)."""
        if cost is not None:
            self._solver.update(q=np.asarray(cost, float))
        if values is not None:
            self.matrix.data[:] = values
            self._solver.update(A=self.matrix.data)
        if rhs is not None:
            self.rhs[:] = rhs
            self._solver.update(b=self.rhs)
        if quadratic_values is not None:
            self._solver.update(P=np.asarray(quadratic_values, float))

    def solve_raw(self) -> clarabel.DefaultSolution:
        """Call the solver alone, unchecked; for benchmarks."""
        return self._solver.solve()

    def solve(self) -> ConicSolution:
        """Solve; "almost solved" is not solved.

        Raises
        ------
        InfeasibleError, UnboundedError
            With the certificate in `details["certificate"]`.
        NumericalError
        """
        result = self.solve_raw()
        word = str(result.status)
        if "PrimalInfeasible" in word and not word.startswith("Almost"):
            raise InfeasibleError("the conic program has no feasible point", word, {"certificate": np.array(result.z)})
        if "DualInfeasible" in word and not word.startswith("Almost"):
            raise UnboundedError("the conic program is unbounded", word, {"certificate": np.array(result.x)})
        if result.status != clarabel.SolverStatus.Solved:
            raise NumericalError(f"Clarabel stopped with '{word}'", word)
        x, s = np.array(result.x), np.array(result.s)
        residual = float(np.max(np.abs(self.matrix @ x + s - self.rhs), initial=0.0))
        scale = 1.0 + float(np.max(np.abs(self.rhs), initial=0.0)) + float(np.max(np.abs(x), initial=0.0))
        if not residual <= 100 * self.tolerance * scale:
            raise NumericalError(
                f"Clarabel's point violates A x + s = b by {residual:.2e}", word, {"residual": residual}
            )
        return ConicSolution(x, s, np.array(result.z), float(result.obj_val), float(result.solve_time))
