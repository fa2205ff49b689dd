"""U = { u : norm_p(u - c) <= rho }."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import sparse

from rmpc_ros.errors import SetError
from rmpc_ros.sets.base import ConicForm, Matrix, UncertaintySet, Vector, _factor, finite
from rmpc_ros.solvers.conic import Cone


class NormBall(UncertaintySet):
    """U = { u : norm_p(u - c) <= rho };  support(a) = c'a + rho norm_q(a), 1/p + 1/q = 1  (math.md section 1).

    Parameters
    ----------
    center : (d,)
    radius : rho >= 0
    p : 1, 2 or infinity (`float("inf")`, or the word "inf"): the norms that are exact in conic form

    Examples
    --------
    >>> float(NormBall([0, 0], 2.0, 1).support([3, -4]))
    8.0
    """

    family: ClassVar[str] = "norm_ball"

    def __init__(self, center: ArrayLike, radius: float, p: float | str = 2) -> None:
        self._center, self.radius, self.p = finite("center", center, 1), _factor(radius), float(p)
        if self.p not in (1.0, 2.0, np.inf):
            raise SetError(f"norm ball p = {p}: give 1, 2 or inf")

    @property
    def dim(self) -> int:
        """Dimension d."""
        return int(self._center.size)

    @property
    def dual_p(self) -> float:
        """Q with 1/p + 1/q = 1."""
        return {1.0: np.inf, 2.0: 2.0, np.inf: 1.0}[self.p]

    def center(self) -> Vector:
        """Centre (d,)."""
        return self._center

    def conic(self) -> ConicForm:
        """P = 2: one cone; p = inf: inequalities; p = 1: v >= abs(u - c), sum v <= rho."""
        d, eye, c = self.dim, sparse.eye_array(self.dim), self._center
        if self.p == 2:
            F = sparse.vstack([sparse.csc_array((1, d)), -eye], format="csc")
            return ConicForm(
                F, sparse.csc_array((d + 1, 0)), np.append(self.radius, -c), (Cone("second_order", d + 1),)
            )
        F = sparse.vstack([eye, -eye], format="csc")
        if self.p == np.inf:
            h = np.concatenate([c + self.radius, self.radius - c])
            return ConicForm(F, sparse.csc_array((2 * d, 0)), h, (Cone("nonnegative", 2 * d),))
        F = sparse.vstack([F, sparse.csc_array((1, d))], format="csc")
        G = sparse.vstack([-eye, -eye, sparse.csc_array(np.ones((1, d)))], format="csc")
        return ConicForm(F, G, np.concatenate([c, -c, [self.radius]]), (Cone("nonnegative", 2 * d + 1),))

    def support(self, directions: ArrayLike) -> Vector:
        """C'a + rho norm_q(a)."""
        rows = self._directions(directions)
        dual = np.linalg.norm(rows, ord=self.dual_p, axis=1)
        return self._shape(rows @ self._center + self.radius * dual, directions)

    def maximisers(self, directions: ArrayLike) -> Matrix:
        """A corner (p = 1, inf) or a / norm2(a) (p = 2)."""
        rows = self._directions(directions)
        if self.p == np.inf:
            z = np.sign(rows)
        elif self.p == 1:
            z = np.zeros_like(rows)
            at = np.argmax(np.abs(rows), axis=1)
            z[np.arange(len(rows)), at] = np.sign(rows[np.arange(len(rows)), at])
        else:
            length = np.linalg.norm(rows, axis=1, keepdims=True)
            z = np.divide(rows, length, out=np.zeros_like(rows), where=length > 0)
        return self._shape(self._center + self.radius * z, directions)

    def contains(self, points: ArrayLike, tolerance: float = 1e-7) -> NDArray[np.bool_]:
        """norm_p(u - c) <= rho."""
        rows = self._directions(points)
        length = np.linalg.norm(rows - self._center, ord=self.p, axis=1)
        return self._shape(length <= self.radius + tolerance * (1 + np.max(np.abs(rows), axis=1)), points)

    def scaled(self, factor: float) -> NormBall:
        """Radius times factor."""
        return NormBall(self._center, _factor(factor) * self.radius, self.p)

    def reach(self, directions: ArrayLike) -> Vector:
        """Rho / norm_p(d)."""
        rows = self._directions(directions)
        return self._shape(self.radius / np.linalg.norm(rows, ord=self.p, axis=1), directions)

    def vertices(self) -> Matrix:
        """Corners of the cross-polytope (p = 1) or of the cube (p = inf)."""
        if self.p == 1:
            return self._center + self.radius * np.vstack([np.eye(self.dim), -np.eye(self.dim)])
        if self.p == 2:
            raise SetError("a Euclidean ball has no vertices to list")
        from rmpc_ros.sets.box import Box

        return Box.around(self._center, np.full(self.dim, self.radius)).vertices()

    def parameters(self) -> dict[str, Any]:
        """Center, radius, p (the word "inf" for the maximum norm, which JSON cannot hold as a number)."""
        p: float | str = "inf" if self.p == np.inf else self.p
        return {"center": self._center.tolist(), "radius": self.radius, "p": p}

    @classmethod
    def from_parameters(cls, **parameters: Any) -> NormBall:
        """Inverse of `parameters`."""
        return cls(**parameters)
