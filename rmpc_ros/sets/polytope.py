"""U = { u : W u <= w }."""

from __future__ import annotations

from functools import cached_property
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import sparse
from scipy.spatial import HalfspaceIntersection, QhullError

from rmpc_ros.errors import InfeasibleError, SetError, UnboundedError
from rmpc_ros.sets.base import ConicForm, Matrix, UncertaintySet, Vector, _factor, finite, stored
from rmpc_ros.solvers.conic import Cone
from rmpc_ros.solvers.lp import LinearProgram, solve_lp


class Polytope(UncertaintySet):
    """U = { u : W u <= w }, bounded and not empty;  support(a) = min { w'l : W'l = a, l >= 0 }  (math.md section 1).

    The support's linear program is built once and warm-started from direction to direction.

    Parameters
    ----------
    matrix : (m, d) W
    rhs : (m,) w

    Raises
    ------
    SetError
        The set is empty or unbounded.
    """

    family: ClassVar[str] = "polytope"

    def __init__(self, matrix: ArrayLike, rhs: ArrayLike) -> None:
        self.matrix, self.rhs = finite("matrix", matrix, 2), finite("rhs", rhs, 1)
        if len(self.matrix) != self.rhs.size:
            raise SetError(f"matrix has {len(self.matrix)} rows, rhs {self.rhs.size} entries")
        self._center, self.inradius = self._ball()
        try:
            for a in np.vstack([np.eye(self.dim), -np.ones((1, self.dim))]):
                self._linear_optimum(a)  # bounded iff bounded along the corners of a simplex around 0
        except UnboundedError:
            raise SetError("the polytope is unbounded: add rows to W u <= w that bound every direction") from None

    @property
    def dim(self) -> int:
        """Dimension d."""
        return int(self.matrix.shape[1])

    def _ball(self) -> tuple[Vector, float]:
        """Chebyshev centre and radius (capped, so that an unbounded polytope is found by its supports)."""
        norms = np.linalg.norm(self.matrix, axis=1, keepdims=True)
        d = self.dim
        cap = 1e6 * (1 + float(np.max(np.abs(self.rhs), initial=0.0)))
        try:
            best = solve_lp(
                np.append(np.zeros(d), -1.0),
                np.hstack([self.matrix, norms]),
                np.full(self.rhs.size, -np.inf),
                self.rhs,
                np.append(np.full(d, -np.inf), 0.0),
                np.append(np.full(d, np.inf), cap),
            )
        except InfeasibleError:
            raise SetError("the polytope is empty: no u satisfies W u <= w") from None
        return best.x[:d], float(best.x[d])

    def center(self) -> Vector:
        """Chebyshev centre (d,)."""
        return self._center

    @cached_property
    def _lp(self) -> LinearProgram:
        return LinearProgram(np.zeros(self.dim), self.matrix, np.full(self.rhs.size, -np.inf), self.rhs)

    def _linear_optimum(self, direction: Vector) -> tuple[float, Vector]:
        self._lp.set_cost(-direction)
        best = self._lp.solve()
        return -best.objective, best.x

    def _optimum(self, direction: Vector) -> tuple[float, Vector]:
        return self._linear_optimum(direction)

    def conic(self) -> ConicForm:
        """The inequalities."""
        m = self.rhs.size
        return ConicForm(stored(self.matrix), sparse.csc_array((m, 0)), self.rhs, (Cone("nonnegative", m),))

    def contains(self, points: ArrayLike, tolerance: float = 1e-7) -> NDArray[np.bool_]:
        """W u <= w, row by row."""
        rows = self._directions(points)
        slack = tolerance * (1 + np.abs(self.rhs) + np.abs(rows) @ np.abs(self.matrix).T)
        return self._shape(np.all(rows @ self.matrix.T <= self.rhs + slack, axis=1), points)

    def scaled(self, factor: float) -> Polytope:
        """W - W c times factor, about the Chebyshev centre."""
        middle = self.matrix @ self._center
        return Polytope(self.matrix, middle + _factor(factor) * (self.rhs - middle))

    def reach(self, directions: ArrayLike) -> Vector:
        """The first row met along each ray."""
        rows = self._directions(directions)
        speed = rows @ self.matrix.T
        room = np.maximum(self.rhs - self.matrix @ self._center, 0.0)
        times = np.divide(room, speed, out=np.full_like(speed, np.inf), where=speed > 1e-14)
        return self._shape(np.min(times, axis=1), directions)

    def vertices(self) -> Matrix:
        """Vertices by Qhull; the set must have an inside."""
        if self.dim == 1:
            return np.array([[-self.support([-1.0])], [self.support([1.0])]])
        try:
            cut = HalfspaceIntersection(np.column_stack([self.matrix, -self.rhs]), self._center)
        except QhullError as error:
            raise SetError(f"vertices of a polytope of inradius {self.inradius:.1e} cannot be listed") from error
        digits = int(9 - np.floor(np.log10(np.max(np.abs(cut.intersections)) + 1e-300)))
        _, first = np.unique(np.round(cut.intersections, digits), axis=0, return_index=True)
        return np.asarray(cut.intersections[np.sort(first)])

    def parameters(self) -> dict[str, Any]:
        """Matrix and rhs."""
        return {"matrix": self.matrix.tolist(), "rhs": self.rhs.tolist()}

    @classmethod
    def from_parameters(cls, **parameters: Any) -> Polytope:
        """Inverse of `parameters`."""
        return cls(**parameters)
