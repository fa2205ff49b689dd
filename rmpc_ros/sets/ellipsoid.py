"""U = { u : norm2(L^-1 (u - c)) <= rho }."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import sparse

from rmpc_ros.errors import SetError
from rmpc_ros.sets.base import ConicForm, Epigraph, Matrix, UncertaintySet, Vector, _factor, finite, stored
from rmpc_ros.solvers.conic import Cone


class Ellipsoid(UncertaintySet):
    """U = { c + rho L z : norm2(z) <= 1 };  support(a) = c'a + rho norm2(L'a)  (math.md section 1).

    Parameters
    ----------
    center : (d,)
    factor : (d, d) L, regular (for a shape matrix S = L L' use `from_shape`)
    radius : rho >= 0

    Examples
    --------
    >>> round(float(Ellipsoid([0, 0], [[2, 0], [0, 1]], 1.0).support([3, 4])), 6)
    7.211103
    """

    family: ClassVar[str] = "ellipsoid"

    def __init__(self, center: ArrayLike, factor: ArrayLike, radius: float = 1.0) -> None:
        self._center, self.factor = finite("center", center, 1), finite("factor", factor, 2)
        self.radius = _factor(radius)
        d = self._center.size
        if self.factor.shape != (d, d):
            raise SetError(f"factor has shape {self.factor.shape}; ({d}, {d}) wanted for a centre of {d} entries")
        condition = np.linalg.cond(self.factor)
        if not condition < 1e12:
            raise SetError(f"the ellipsoid's factor is singular (condition number {condition:.1e}); remove flat axes")

    @classmethod
    def from_shape(cls, center: ArrayLike, shape: ArrayLike, radius: float = 1.0) -> Ellipsoid:
        """{ u : (u - c)' S^-1 (u - c) <= rho^2 } for a positive definite S (d, d)."""
        try:
            return cls(center, np.linalg.cholesky(np.asarray(shape, float)), radius)
        except np.linalg.LinAlgError:
            raise SetError("the ellipsoid's shape matrix is not positive definite") from None

    @property
    def dim(self) -> int:
        """Dimension d."""
        return int(self._center.size)

    def center(self) -> Vector:
        """Centre (d,)."""
        return self._center

    def norms(self, points: ArrayLike) -> Vector:
        """norm2(L^-1 (u - c)) of each row, (m, d) -> (m,)."""
        away = self._directions(points) - self._center
        return np.asarray(np.linalg.norm(np.linalg.solve(self.factor, away.T), axis=0))

    def conic(self) -> ConicForm:
        """One second-order cone: (rho, L^-1 (u - c))."""
        inverse = np.linalg.inv(self.factor)
        return ConicForm(
            stored(np.vstack([np.zeros(self.dim), -inverse])),
            sparse.csc_array((self.dim + 1, 0)),
            np.concatenate([[self.radius], -inverse @ self._center]),
            (Cone("second_order", self.dim + 1),),
        )

    def support(self, directions: ArrayLike) -> Vector:
        """C'a + rho norm2(L'a)."""
        rows = self._directions(directions)
        return self._shape(rows @ self._center + self.radius * np.linalg.norm(rows @ self.factor, axis=1), directions)

    def maximisers(self, directions: ArrayLike) -> Matrix:
        """C + rho L L'a / norm2(L'a)."""
        rows = self._directions(directions)
        inner = rows @ self.factor
        length = np.linalg.norm(inner, axis=1, keepdims=True)
        unit = np.divide(inner, length, out=np.zeros_like(inner), where=length > 0)
        return self._shape(self._center + self.radius * unit @ self.factor.T, directions)

    def contains(self, points: ArrayLike, tolerance: float = 1e-7) -> NDArray[np.bool_]:
        """norm2(L^-1 (u - c)) <= rho."""
        return self._shape(self.norms(points) <= self.radius + tolerance * (1 + self.radius), points)

    def epigraph(self) -> Epigraph:
        """(t - c'a, rho L'a) in the second-order cone."""
        d = self.dim
        above = np.triu_indices(d, 1)
        # a triangular factor (a Cholesky factor) keeps its zeros out of the pattern
        turned = sparse.csc_array(self.factor.T) if not np.any(self.factor[above]) else stored(self.factor.T)
        return Epigraph(
            sparse.vstack([stored(self._center[None, :]), -self.radius * turned], format="csc"),
            np.append(-1.0, np.zeros(d)),
            sparse.csc_array((d + 1, 0)),
            (Cone("second_order", d + 1),),
        )

    def scaled(self, factor: float) -> Ellipsoid:
        """Radius times factor."""
        return Ellipsoid(self._center, self.factor, _factor(factor) * self.radius)

    def reach(self, directions: ArrayLike) -> Vector:
        """Rho / norm2(L^-1 d)."""
        rows = self._directions(directions)
        return self._shape(self.radius / np.linalg.norm(np.linalg.solve(self.factor, rows.T), axis=0), directions)

    def parameters(self) -> dict[str, Any]:
        """Center, factor, radius."""
        return {"center": self._center.tolist(), "factor": self.factor.tolist(), "radius": self.radius}

    @classmethod
    def from_parameters(cls, **parameters: Any) -> Ellipsoid:
        """Inverse of `parameters`."""
        return cls(**parameters)
