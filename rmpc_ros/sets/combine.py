"""New sets from old ones: product, intersection, affine image, stacking over a horizon.

product       U1 x U2                support(a1, a2) = support1(a1) + support2(a2)
intersection  U1 and U2              support(a) = min_w support1(a - w) + support2(w)   (Bertsimas et al., eq. 11)
affine image  { A u + b : u in U }   support(a) = b'a + support(A'a)
stacking      U x ... x U, T times   the disturbance of a whole horizon, independent from step to step
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import sparse

from rmpc_ros.errors import InfeasibleError, SetError
from rmpc_ros.sets.base import ConicForm, Matrix, UncertaintySet, Vector, _factor, finite, stored
from rmpc_ros.solvers.conic import Cone, ConicProgram


class Product(UncertaintySet):
    """U = U1 x U2 x ...: the components of the parts one after the other.

    Parameters
    ----------
    parts : the sets, at least one
    """

    family: ClassVar[str] = "product"

    def __init__(self, parts: Sequence[UncertaintySet]) -> None:
        if not parts:
            raise SetError("a product needs at least one set")
        self.parts = tuple(parts)
        self._cuts = np.cumsum([p.dim for p in self.parts])[:-1]

    @property
    def dim(self) -> int:
        """Sum of the parts' dimensions."""
        return sum(p.dim for p in self.parts)

    def _split(self, rows: Matrix) -> list[Matrix]:
        return np.split(rows, self._cuts, axis=1)

    def center(self) -> Vector:
        """The parts' centres."""
        return np.concatenate([p.center() for p in self.parts])

    def conic(self) -> ConicForm:
        """Block diagonal."""
        forms = [p._form for p in self.parts]
        return ConicForm(
            sparse.block_diag([f.F for f in forms], format="csc"),
            sparse.csc_array(sparse.block_diag([f.G for f in forms], format="csc")),
            np.concatenate([f.h for f in forms]),
            tuple(itertools.chain.from_iterable(f.cones for f in forms)),
        )

    def support(self, directions: ArrayLike) -> Vector:
        """Sum of the parts' supports."""
        split = self._split(self._directions(directions))
        values = sum(np.asarray(p.support(a)) for p, a in zip(self.parts, split, strict=True))
        return self._shape(np.asarray(values), directions)

    def maximisers(self, directions: ArrayLike) -> Matrix:
        """The parts' maximisers."""
        split = self._split(self._directions(directions))
        points = np.hstack([p.maximisers(a) for p, a in zip(self.parts, split, strict=True)])
        return self._shape(points, directions)

    def contains(self, points: ArrayLike, tolerance: float = 1e-7) -> NDArray[np.bool_]:
        """Membership in every part."""
        split = self._split(self._directions(points))
        inside = np.all([p.contains(u, tolerance) for p, u in zip(self.parts, split, strict=True)], axis=0)
        return self._shape(inside, points)

    def scaled(self, factor: float) -> Product:
        """Every part scaled about its centre."""
        return Product([p.scaled(factor) for p in self.parts])

    def vertices(self) -> Matrix:
        """All combinations of the parts' vertices (at most 2^16)."""
        lists = [p.vertices() for p in self.parts]
        count = int(np.prod([len(v) for v in lists]))
        if count > 2**16:
            raise SetError(f"the product has {count} vertices: too many to list (limit {2**16})")
        return np.array([np.concatenate(combination) for combination in itertools.product(*lists)])

    def parameters(self) -> dict[str, Any]:
        """The parts."""
        return {"parts": [p.to_dict() for p in self.parts]}

    @classmethod
    def from_parameters(cls, **parameters: Any) -> Product:
        """Inverse of `parameters`."""
        return cls([UncertaintySet.from_dict(p) for p in parameters["parts"]])


def stack(step: UncertaintySet, horizon: int) -> Product:
    """The set of a whole horizon of independent steps, each in `step`: dimension horizon x d, time first."""
    if horizon < 1:
        raise SetError(f"horizon = {horizon}: give a whole number >= 1")
    return Product([step] * horizon)


class Intersection(UncertaintySet):
    """U = U1 and U2 and ...; support by minimising over the split of the direction (Bertsimas et al., eq. 11).

    Parameters
    ----------
    parts : sets of one dimension that share a point

    Raises
    ------
    SetError
        The parts have different dimensions or share no point.
    """

    family: ClassVar[str] = "intersection"

    def __init__(self, parts: Sequence[UncertaintySet]) -> None:
        self.parts = tuple(parts)
        dims = {p.dim for p in self.parts}
        if len(dims) != 1:
            raise SetError(f"an intersection needs sets of one dimension, got {sorted(dims)}")
        try:
            self._center  # noqa: B018  (finds a common point or refuses)
        except InfeasibleError:
            raise SetError(
                f"the intersection of {', '.join(p.family for p in self.parts)} is empty: the sets share no point"
            ) from None

    @property
    def dim(self) -> int:
        """Dimension d."""
        return self.parts[0].dim

    @cached_property
    def _center(self) -> Vector:
        """The common point nearest to the mean of the parts' centres."""
        target = np.asarray(np.mean([p.center() for p in self.parts], axis=0))
        if all(p.contains(target) for p in self.parts):
            return target
        form = self._form
        d, k = self.dim, form.G.shape[1]
        cost = np.concatenate([-2 * target, np.zeros(k)])
        quadratic = sparse.diags_array(np.concatenate([np.full(d, 2.0), np.zeros(k)]), format="csc")
        program = ConicProgram(quadratic, cost, sparse.hstack([form.F, form.G], format="csc"), form.h, form.cones, 1e-9)
        return program.solve().x[:d]

    def center(self) -> Vector:
        """A common point (d,)."""
        return self._center

    def conic(self) -> ConicForm:
        """The parts' rows one below the other, each with its own auxiliary variables."""
        forms = [p._form for p in self.parts]
        return ConicForm(
            sparse.vstack([f.F for f in forms], format="csc"),
            sparse.csc_array(sparse.block_diag([f.G for f in forms], format="csc")),
            np.concatenate([f.h for f in forms]),
            tuple(itertools.chain.from_iterable(f.cones for f in forms)),
        )

    def contains(self, points: ArrayLike, tolerance: float = 1e-7) -> NDArray[np.bool_]:
        """Membership in every part."""
        return np.asarray(np.all([p.contains(points, tolerance) for p in self.parts], axis=0))

    def parameters(self) -> dict[str, Any]:
        """The parts."""
        return {"parts": [p.to_dict() for p in self.parts]}

    @classmethod
    def from_parameters(cls, **parameters: Any) -> Intersection:
        """Inverse of `parameters`."""
        return cls([UncertaintySet.from_dict(p) for p in parameters["parts"]])


class AffineImage(UncertaintySet):
    """U = { A v + b : v in V };  support(a) = b'a + support_V(A'a).

    Parameters
    ----------
    inner : V, of dimension k
    matrix : (d, k) A
    offset : (d,) b
    """

    family: ClassVar[str] = "affine_image"

    def __init__(self, inner: UncertaintySet, matrix: ArrayLike, offset: ArrayLike) -> None:
        self.inner = inner
        self.matrix, self.offset = finite("matrix", matrix, 2), finite("offset", offset, 1)
        if self.matrix.shape != (self.offset.size, inner.dim):
            raise SetError(
                f"matrix has shape {self.matrix.shape}; ({self.offset.size}, {inner.dim}) wanted for an offset of "
                f"{self.offset.size} entries and a set of dimension {inner.dim}"
            )

    @property
    def dim(self) -> int:
        """Dimension d of the image."""
        return int(self.offset.size)

    def center(self) -> Vector:
        """Image of the inner centre."""
        return np.asarray(self.matrix @ self.inner.center() + self.offset)

    def conic(self) -> ConicForm:
        """Rows u - A v = b above the inner rows; v is an auxiliary variable."""
        inner = self.inner._form
        m, k = inner.G.shape
        return ConicForm(
            sparse.vstack([sparse.eye_array(self.dim), sparse.csc_array((m, self.dim))], format="csc"),
            sparse.block_array(
                [[-stored(self.matrix), sparse.csc_array((self.dim, k))], [inner.F, inner.G]], format="csc"
            ),
            np.concatenate([self.offset, inner.h]),
            (Cone("zero", self.dim), *inner.cones),
        )

    def support(self, directions: ArrayLike) -> Vector:
        """B'a + inner support of A'a."""
        rows = self._directions(directions)
        values = rows @ self.offset + self.inner.support(rows @ self.matrix)
        return self._shape(values, directions)

    def maximisers(self, directions: ArrayLike) -> Matrix:
        """Images of the inner maximisers."""
        rows = self._directions(directions)
        return self._shape(self.inner.maximisers(rows @ self.matrix) @ self.matrix.T + self.offset, directions)

    def contains(self, points: ArrayLike, tolerance: float = 1e-7) -> NDArray[np.bool_]:
        """By the inverse where A is square and regular, else by a conic program."""
        if self.matrix.shape[0] == self.matrix.shape[1] and np.linalg.cond(self.matrix) < 1e12:
            rows = np.linalg.solve(self.matrix, (self._directions(points) - self.offset).T).T
            return self._shape(np.asarray(self.inner.contains(rows, tolerance)), points)
        return super().contains(points, tolerance)

    def scaled(self, factor: float) -> AffineImage:
        """Scaled about the centre's image."""
        scale = _factor(factor)
        return AffineImage(self.inner, scale * self.matrix, scale * self.offset + (1 - scale) * self.center())

    def parameters(self) -> dict[str, Any]:
        """Inner set, matrix, offset."""
        return {"inner": self.inner.to_dict(), "matrix": self.matrix.tolist(), "offset": self.offset.tolist()}

    @classmethod
    def from_parameters(cls, **parameters: Any) -> AffineImage:
        """Inverse of `parameters`."""
        return cls(UncertaintySet.from_dict(parameters["inner"]), parameters["matrix"], parameters["offset"])
