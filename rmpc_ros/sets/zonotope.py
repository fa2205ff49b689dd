"""U = { c + G z : abs(z) <= 1 }."""

from __future__ import annotations

import itertools
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import sparse
from scipy.spatial import ConvexHull

from rmpc_ros.errors import SetError
from rmpc_ros.sets.base import ConicForm, Epigraph, Matrix, UncertaintySet, Vector, _factor, finite, stored
from rmpc_ros.solvers.conic import Cone


class Zonotope(UncertaintySet):
    """U = { c + G z : abs(z) <= 1 };  support(a) = c'a + norm1(G'a)  (math.md section 1).

    Parameters
    ----------
    center : (d,)
    generators : (d, g) G, one generator per column

    Examples
    --------
    >>> float(Zonotope([0, 0], [[1, 1], [0, 1]]).support([1, 0]))
    2.0
    """

    family: ClassVar[str] = "zonotope"

    def __init__(self, center: ArrayLike, generators: ArrayLike) -> None:
        self._center, self.generators = finite("center", center, 1), finite("generators", generators, 2)
        if len(self.generators) != self._center.size:
            raise SetError(f"generators have {len(self.generators)} rows, the centre {self._center.size} entries")

    @property
    def dim(self) -> int:
        """Dimension d."""
        return int(self._center.size)

    def center(self) -> Vector:
        """Centre (d,)."""
        return self._center

    def conic(self) -> ConicForm:
        """U = c + G z with two inequalities for each z."""
        d, g = self.generators.shape
        eye = sparse.eye_array(g)
        return ConicForm(
            sparse.vstack([sparse.eye_array(d), sparse.csc_array((2 * g, d))], format="csc"),
            sparse.vstack([-stored(self.generators), eye, -eye], format="csc"),
            np.concatenate([self._center, np.ones(2 * g)]),
            (Cone("zero", d), Cone("nonnegative", 2 * g)),
        )

    def support(self, directions: ArrayLike) -> Vector:
        """C'a + norm1(G'a)."""
        rows = self._directions(directions)
        return self._shape(rows @ self._center + np.abs(rows @ self.generators).sum(axis=1), directions)

    def maximisers(self, directions: ArrayLike) -> Matrix:
        """C + G sign(G'a)."""
        rows = self._directions(directions)
        return self._shape(self._center + np.sign(rows @ self.generators) @ self.generators.T, directions)

    def contains(self, points: ArrayLike, tolerance: float = 1e-7) -> NDArray[np.bool_]:
        """abs(G^-1 (u - c)) <= 1 for a regular square G, else by the ray from the centre."""
        d, g = self.generators.shape
        if d != g or not np.linalg.cond(self.generators) < 1e12:
            return super().contains(points, tolerance)
        rows = self._directions(points)
        z = np.linalg.solve(self.generators, (rows - self._center).T)
        reach = np.max(np.abs(z), axis=0)
        return self._shape(reach <= 1 + tolerance * (1 + reach), points)

    def epigraph(self) -> Epigraph:
        """Cones: y >= abs(G'a), c'a + sum y <= t."""
        g = self.generators.shape[1]
        turned, eye = stored(self.generators.T), sparse.eye_array(g)
        return Epigraph(
            sparse.vstack([turned, -turned, stored(self._center[None, :])], format="csc"),
            np.append(np.zeros(2 * g), -1.0),
            sparse.vstack([-eye, -eye, sparse.csc_array(np.ones((1, g)))], format="csc"),
            (Cone("nonnegative", 2 * g + 1),),
        )

    def reach(self, directions: ArrayLike) -> Vector:
        """1/max abs(G^-1 d) for a parallelotope (G square and regular), else by conic programs."""
        d, g = self.generators.shape
        if d != g or not np.linalg.cond(self.generators) < 1e12:
            return super().reach(directions)
        rows = self._directions(directions)
        return self._shape(1 / np.max(np.abs(np.linalg.solve(self.generators, rows.T)), axis=0), directions)

    def scaled(self, factor: float) -> Zonotope:
        """Generators times factor."""
        return Zonotope(self._center, _factor(factor) * self.generators)

    def vertices(self) -> Matrix:
        """Vertices: the hull of the sign combinations (at most 16 generators)."""
        g = self.generators.shape[1]
        if g > 16:
            raise SetError(f"a zonotope of {g} generators: its vertices are too many to list (limit 16 generators)")
        corners = self._center + np.array(list(itertools.product((-1.0, 1.0), repeat=g))) @ self.generators.T
        if self.dim == 1:
            return np.array([[corners.min()], [corners.max()]])
        if np.linalg.matrix_rank(self.generators) < self.dim:
            raise SetError("a flat zonotope's vertices are not listed: its generators do not span the space")
        return np.asarray(corners[ConvexHull(corners).vertices])

    def parameters(self) -> dict[str, Any]:
        """Center and generators."""
        return {"center": self._center.tolist(), "generators": self.generators.tolist()}

    @classmethod
    def from_parameters(cls, **parameters: Any) -> Zonotope:
        """Inverse of `parameters`."""
        return cls(**parameters)
