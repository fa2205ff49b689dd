"""U = { u : abs(u - c) <= r }."""

from __future__ import annotations

import itertools
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import sparse

from rmpc_ros.errors import SetError
from rmpc_ros.sets.base import ConicForm, Epigraph, Kind, Matrix, UncertaintySet, Vector, _factor, finite
from rmpc_ros.solvers.conic import Cone


class Box(UncertaintySet):
    """U = { u : lower <= u <= upper };  support(a) = c'a + r'abs(a)  (math.md section 1).

    Parameters
    ----------
    lower, upper : (d,) with lower <= upper

    Examples
    --------
    >>> float(Box([-1, 0], [1, 2]).support([1, -1]))
    1.0
    """

    family: ClassVar[str] = "box"

    def __init__(self, lower: ArrayLike, upper: ArrayLike) -> None:
        self.lower, self.upper = finite("lower", lower, 1), finite("upper", upper, 1)
        if self.lower.shape != self.upper.shape:
            raise SetError(f"lower has {self.lower.size} entries, upper {self.upper.size}")
        for i in np.flatnonzero(self.lower > self.upper):
            raise SetError(f"box is empty: lower[{i}] = {self.lower[i]} > upper[{i}] = {self.upper[i]}")

    @classmethod
    def around(cls, center: ArrayLike, radius: ArrayLike) -> Box:
        """Box with centre (d,) and half-widths (d,)."""
        c, r = np.asarray(center, float), np.asarray(radius, float)
        return cls(c - r, c + r)

    @property
    def dim(self) -> int:
        """Dimension d."""
        return int(self.lower.size)

    @property
    def radius(self) -> Vector:
        """Half-widths (d,)."""
        return 0.5 * (self.upper - self.lower)

    def center(self) -> Vector:
        """Midpoint (d,)."""
        return 0.5 * (self.lower + self.upper)

    def conic(self) -> ConicForm:
        """Two inequalities for each component."""
        eye = sparse.eye_array(self.dim)
        return ConicForm(
            sparse.vstack([eye, -eye], format="csc"),
            sparse.csc_array((2 * self.dim, 0)),
            np.concatenate([self.upper, -self.lower]),
            (Cone("nonnegative", 2 * self.dim),),
        )

    def support(self, directions: ArrayLike) -> Vector:
        """max(a_i lower_i, a_i upper_i), summed."""
        rows = self._directions(directions)
        return self._shape(np.sum(np.maximum(rows * self.lower, rows * self.upper), axis=1), directions)

    def maximisers(self, directions: ArrayLike) -> Matrix:
        """The corner on the side of each a_i (the midpoint where a_i = 0)."""
        rows = self._directions(directions)
        points = np.where(rows > 0, self.upper, np.where(rows < 0, self.lower, self.center()))
        return self._shape(points, directions)

    def contains(self, points: ArrayLike, tolerance: float = 1e-7) -> NDArray[np.bool_]:
        """Componentwise comparison."""
        rows = self._directions(points)
        slack = tolerance * (1 + np.max(np.abs(rows), axis=1, keepdims=True))
        inside = np.all((rows >= self.lower - slack) & (rows <= self.upper + slack), axis=1)
        return self._shape(inside, points)

    def epigraph(self) -> Epigraph:
        """Cones: y_i >= lower_i a_i, y_i >= upper_i a_i, sum y <= t."""
        d = self.dim
        low, high = (sparse.diags_array(v, format="csc") for v in (self.lower, self.upper))
        one = sparse.csc_array(np.ones((1, d)))
        return Epigraph(
            sparse.vstack([low, high, sparse.csc_array((1, d))], format="csc"),
            np.append(np.zeros(2 * d), -1.0),
            sparse.vstack([-sparse.eye_array(d), -sparse.eye_array(d), one], format="csc"),
            (Cone("nonnegative", 2 * d + 1),),
        )

    def scaled(self, factor: float) -> Box:
        """Half-widths times factor."""
        return Box.around(self.center(), _factor(factor) * self.radius)

    def sample(self, count: int, rng: int | np.random.Generator, kind: Kind = "interior") -> Matrix:
        """Uniform in the box, or on a random pair of faces."""
        generator = np.random.default_rng(rng)
        points = generator.uniform(self.lower, self.upper, (count, self.dim))
        if kind == "boundary":
            face = generator.integers(self.dim, size=count)
            top = generator.random(count) < 0.5
            points[np.arange(count), face] = np.where(top, self.upper[face], self.lower[face])
        return points

    def vertices(self) -> Matrix:
        """All 2^d corners (d <= 16)."""
        if self.dim > 16:
            raise SetError(f"a box of dimension {self.dim} has 2^{self.dim} vertices: too many to list (limit 2^16)")
        return np.array(list(itertools.product(*zip(self.lower, self.upper, strict=True))))

    def parameters(self) -> dict[str, Any]:
        """Lower and upper."""
        return {"lower": self.lower.tolist(), "upper": self.upper.tolist()}

    @classmethod
    def from_parameters(cls, **parameters: Any) -> Box:
        """Inverse of `parameters`."""
        return cls(**parameters)
