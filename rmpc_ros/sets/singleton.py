"""U = { c }: no uncertainty."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import sparse

from rmpc_ros.sets.base import ConicForm, Epigraph, Kind, Matrix, UncertaintySet, Vector, _factor, finite, stored
from rmpc_ros.solvers.conic import Cone


class Singleton(UncertaintySet):
    """U = { c };  support(a) = c'a. The nominal problem in the language of sets.

    Parameters
    ----------
    point : (d,) c
    """

    family: ClassVar[str] = "singleton"

    def __init__(self, point: ArrayLike) -> None:
        self.point = finite("point", point, 1)

    @property
    def dim(self) -> int:
        """Dimension d."""
        return int(self.point.size)

    def center(self) -> Vector:
        """The point."""
        return self.point

    def conic(self) -> ConicForm:
        """U = c."""
        d = self.dim
        return ConicForm(sparse.eye_array(d, format="csc"), sparse.csc_array((d, 0)), self.point, (Cone("zero", d),))

    def support(self, directions: ArrayLike) -> Vector:
        """C'a."""
        return self._shape(self._directions(directions) @ self.point, directions)

    def maximisers(self, directions: ArrayLike) -> Matrix:
        """The point, whatever the direction."""
        rows = self._directions(directions)
        return self._shape(np.tile(self.point, (len(rows), 1)), directions)

    def contains(self, points: ArrayLike, tolerance: float = 1e-7) -> NDArray[np.bool_]:
        """U = c up to the tolerance."""
        rows = self._directions(points)
        near = np.max(np.abs(rows - self.point), axis=1) <= tolerance * (1 + np.max(np.abs(self.point), initial=0.0))
        return self._shape(near, points)

    def epigraph(self) -> Epigraph:
        """Cones: c'a <= t."""
        return Epigraph(
            stored(self.point[None, :]), np.array([-1.0]), sparse.csc_array((1, 0)), (Cone("nonnegative", 1),)
        )

    def scaled(self, factor: float) -> Singleton:
        """The same point."""
        _factor(factor)
        return self

    def reach(self, directions: ArrayLike) -> Vector:
        """Zero."""
        return self._shape(np.zeros(len(self._directions(directions))), directions)

    def sample(self, count: int, rng: int | np.random.Generator, kind: Kind = "interior") -> Matrix:
        """The point, `count` times."""
        return np.tile(self.point, (count, 1))

    def vertices(self) -> Matrix:
        """The point."""
        return self.point[None, :].copy()

    def parameters(self) -> dict[str, Any]:
        """Point."""
        return {"point": self.point.tolist()}

    @classmethod
    def from_parameters(cls, **parameters: Any) -> Singleton:
        """Inverse of `parameters`."""
        return cls(**parameters)
