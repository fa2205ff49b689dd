"""Unions of polytopes per step, independent over steps: the uncertainty of two-stage decisions.

    U = (P_1 or ... or P_K) x ... x (P_1 or ... or P_K),   P_k = { v : D_k v <= d_k }

What mixed-integer programs need of a union: rows, vertices, and pieces that one binary each switches. A `UnionSet` of
`sets/union.py` holds members of any family with weights and a certificate; `PolytopeUnion.from_union` takes its rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations, product
from math import comb
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.spatial import ConvexHull, QhullError

from rmpc_ros.errors import InfeasibleError, SetError, UnboundedError
from rmpc_ros.sets.base import UncertaintySet
from rmpc_ros.solvers.lp import LinearProgram, solve_lp

if TYPE_CHECKING:  # the fitting library is not needed to solve
    from rmpc_ros.sets.union import UnionSet

Vector = NDArray[np.float64]
Matrix = NDArray[np.float64]

_MAX_VERTEX_SYSTEMS = 50_000


@dataclass(frozen=True)
class Polytope:
    """{ v : D v <= d }, not empty and bounded (checked).

    Raises
    ------
    SetError
        Empty, unbounded or of the wrong shape.

    Examples
    --------
    >>> Polytope.box([0, 0], [1, 2]).vertices().tolist()
    [[0.0, 0.0], [0.0, 2.0], [1.0, 0.0], [1.0, 2.0]]
    """

    D: Matrix
    d: Vector

    def __post_init__(self) -> None:
        rows, limits = np.atleast_2d(np.asarray(self.D, float)), np.atleast_1d(np.asarray(self.d, float))
        if rows.shape[0] != limits.size:
            raise SetError(f"polytope: D has shape {rows.shape}, d {limits.size} entries")
        if not (np.all(np.isfinite(rows)) and np.all(np.isfinite(limits))):
            raise SetError("polytope: D or d holds a value that is not finite")
        object.__setattr__(self, "D", rows)
        object.__setattr__(self, "d", limits)
        lower, upper = self.bounds
        if np.any(lower > upper + 1e-12):
            raise SetError(f"polytope: empty, lower {lower} lies above upper {upper}")

    @classmethod
    def box(cls, lower: ArrayLike, upper: ArrayLike) -> Polytope:
        """{ lower <= v <= upper }."""
        low, high = np.atleast_1d(np.asarray(lower, float)), np.atleast_1d(np.asarray(upper, float))
        eye = np.eye(low.size)
        return cls(np.vstack([eye, -eye]), np.concatenate([high, -low]))

    @property
    def dim(self) -> int:
        """Dimension of v."""
        return int(self.D.shape[1])

    @cached_property
    def is_box(self) -> bool:
        """Whether every row bounds one coordinate."""
        return bool(np.all(np.count_nonzero(self.D, axis=1) <= 1))

    @cached_property
    def bounds(self) -> tuple[Vector, Vector]:
        """Smallest box around the polytope, (lower, upper)."""
        lower, upper = np.empty(self.dim), np.empty(self.dim)
        program = LinearProgram(np.zeros(self.dim), self.D, -np.inf, self.d)
        for k in range(self.dim):
            for sign, out in ((1.0, lower), (-1.0, upper)):
                cost = np.zeros(self.dim)
                cost[k] = sign
                program.set_cost(cost)
                try:
                    out[k] = sign * program.solve().objective
                except InfeasibleError as error:
                    raise SetError("polytope: no point satisfies D v <= d") from error
                except UnboundedError as error:
                    raise SetError(f"polytope: unbounded in coordinate {k}") from error
        return lower, upper

    @cached_property
    def lowest(self) -> Vector:
        """A vertex with the smallest coordinate sum, (dim,)."""
        return solve_lp(np.ones(self.dim), self.D, np.full(self.d.size, -np.inf), self.d).x

    def contains(self, v: ArrayLike, tolerance: float = 1e-7) -> bool:
        """Whether D v <= d within `tolerance` (1 + |d|)."""
        return bool(np.all(self.D @ np.asarray(v, float) <= self.d + tolerance * (1 + np.abs(self.d))))

    def vertices(self) -> Matrix:
        """All vertices, (count, dim), sorted.

        Raises
        ------
        SetError
            There are too many to list: more than 50 000 linear systems to try, or a box above 15 dimensions.
        """
        if self.is_box:
            lower, upper = self.bounds
            if self.dim > 15:
                raise SetError(f"a box in {self.dim} dimensions has 2^{self.dim} vertices: too many to list")
            return np.unique(np.array(list(product(*zip(lower, upper, strict=True)))), axis=0)
        rows, n = self.D.shape
        if comb(rows, n) > _MAX_VERTEX_SYSTEMS:
            raise SetError(f"polytope with {rows} rows in {n} dimensions: too many vertex candidates")
        found = []
        for pick in combinations(range(rows), n):
            square = self.D[list(pick)]
            if abs(np.linalg.det(square)) > 1e-10 * max(1.0, float(np.max(np.abs(square)))) ** n:
                point = np.linalg.solve(square, self.d[list(pick)])
                if self.contains(point, 1e-9):
                    found.append(point)
        return np.unique(np.round(np.array(found), 10), axis=0)

    def sample(self, count: int, rng: np.random.Generator) -> Matrix:
        """Uniform samples, (count, dim): exact for boxes, else rejection from the bounding box."""
        lower, upper = self.bounds
        out: list[Vector] = []
        tried = 0
        while len(out) < count:
            batch = rng.uniform(lower, upper, size=(max(count, 64), self.dim))
            tried += len(batch)
            out.extend(batch if self.is_box else batch[np.all(batch @ self.D.T <= self.d, axis=1)])
            if tried > 10_000 * count and not out:
                raise SetError("polytope: too thin in its bounding box to sample by rejection")
        return np.array(out[:count])


@dataclass(frozen=True)
class Atom:
    """A piece of one step's union that one binary selects: a box (a point when lower = upper).

    Attributes
    ----------
    lower, upper : (dim of a step,)
    subsets : the subsets the piece belongs to
    hull : whether it is needed for the maximum of a convex function (False: inside the hull of the others)
    """

    lower: Vector
    upper: Vector
    subsets: frozenset[int]
    hull: bool = True


@dataclass(frozen=True)
class PolytopeUnion:
    """U = (P_1 or ... or P_K) x ... x (P_1 or ... or P_K), `steps` times: K^steps polytopes.

    One mixed-integer description holds them all (seed 001, eq. 5): with binaries e_tk, sum_k e_tk = 1,
    v_t = sum_k v_tk,  D_k v_tk <= d_k e_tk.

    Attributes
    ----------
    polytopes : the K subsets of one step
    steps : number of independent steps
    """

    polytopes: tuple[Polytope, ...]
    steps: int = 1

    def __post_init__(self) -> None:
        object.__setattr__(self, "polytopes", tuple(self.polytopes))
        if not self.polytopes or self.steps < 1:
            raise SetError(f"union of {len(self.polytopes)} polytopes over {self.steps} steps: give at least one each")
        if len({p.dim for p in self.polytopes}) > 1:
            raise SetError(f"union: polytopes of different dimensions {[p.dim for p in self.polytopes]}")

    @classmethod
    def boxes(cls, pairs: Sequence[tuple[ArrayLike, ArrayLike]], steps: int = 1) -> PolytopeUnion:
        """Union of boxes given as (lower, upper) pairs."""
        return cls(tuple(Polytope.box(lower, upper) for lower, upper in pairs), steps)

    @classmethod
    def from_union(cls, union: UnionSet, steps: int = 1) -> PolytopeUnion:
        """A union of the library (given or fitted, `sets/union.py`), repeated over independent steps.

        Raises
        ------
        SetError
            A subset is no polyhedron (an ellipsoid, for example).
        """
        return cls(tuple(Polytope(D, d) for D, d in union.halfspaces()), steps)

    @classmethod
    def from_sets(cls, sets: Sequence[UncertaintySet], steps: int = 1) -> PolytopeUnion:
        """Union of polyhedral sets (box, polytope, budget without auxiliary variables, ...).

        Raises
        ------
        SetError
            A set is not described by linear inequalities in v alone.
        """
        polytopes = []
        for n, member in enumerate(sets):
            form = member.conic()
            if form.G.shape[1] or any(cone.kind != "nonnegative" for cone in form.cones):
                raise SetError(f"union: set {n} of family '{member.family}' is not given by rows D v <= d")
            polytopes.append(Polytope(form.F.toarray(), form.h))
        return cls(tuple(polytopes), steps)

    @property
    def dim(self) -> int:
        """Dimension of the stacked vector."""
        return self.polytopes[0].dim * self.steps

    @property
    def count(self) -> int:
        """Number K^steps of polytopes of the stacked vector."""
        number: int = len(self.polytopes) ** self.steps
        return number

    def subset(self, k: int) -> PolytopeUnion:
        """Subset k alone, in every step."""
        return PolytopeUnion((self.polytopes[k],), self.steps)

    @cached_property
    def atoms(self) -> tuple[Atom, ...]:
        """Pieces of one step: boxes of dimension above one as they are, everything else by its vertices."""
        dim = self.polytopes[0].dim
        if dim > 1 and all(p.is_box for p in self.polytopes):
            return tuple(Atom(*p.bounds, frozenset([k])) for k, p in enumerate(self.polytopes))
        owners: dict[tuple[float, ...], set[int]] = {}
        for k, polytope in enumerate(self.polytopes):
            for vertex in polytope.vertices():
                owners.setdefault(tuple(np.round(vertex, 10) + 0.0), set()).add(k)
        points = np.array(list(owners))
        needed = _extreme(points)
        return tuple(
            Atom(np.array(point), np.array(point), frozenset(group), n in needed)
            for n, (point, group) in enumerate(owners.items())
        )

    def contains(self, v: ArrayLike, tolerance: float = 1e-7) -> bool:
        """Whether each step's part lies in some subset."""
        return all(self._owners(part, tolerance) for part in np.reshape(v, (self.steps, -1)))

    def locate(self, v: ArrayLike, tolerance: float = 1e-6) -> tuple[int, ...]:
        """First subset that contains each step's part of v.

        Raises
        ------
        SetError
            A part lies in none.
        """
        found = []
        for t, part in enumerate(np.reshape(v, (self.steps, -1))):
            owners = self._owners(part, tolerance)
            if not owners:
                raise SetError(f"step {t}: {part} lies in no subset of the union")
            found.append(owners[0])
        return tuple(found)

    def _owners(self, part: Vector, tolerance: float) -> list[int]:
        return [k for k, p in enumerate(self.polytopes) if p.contains(part, tolerance)]

    def vertices(self) -> Matrix:
        """All vertices of all K^steps polytopes, (count, dim): for oracles on small cases."""
        single = np.unique(np.vstack([p.vertices() for p in self.polytopes]), axis=0)
        return np.array([np.concatenate(pick) for pick in product(single, repeat=self.steps)])

    def sample(self, count: int, rng: np.random.Generator, weights: ArrayLike | None = None) -> Matrix:
        """Subset by `weights` (default: equal), then uniform inside it, independent over steps; (count, dim)."""
        p = None if weights is None else np.asarray(weights, float)
        picks = rng.choice(len(self.polytopes), size=(count, self.steps), p=p)
        out = np.empty((count, self.steps, self.polytopes[0].dim))
        for k, polytope in enumerate(self.polytopes):
            here = picks == k
            if np.any(here):
                out[here] = polytope.sample(int(here.sum()), rng)
        return out.reshape(count, self.dim)


def _extreme(points: Matrix) -> set[int]:
    """Indices of the points that are vertices of the convex hull of all."""
    count, dim = points.shape
    if dim == 1:
        return {int(np.argmin(points)), int(np.argmax(points))}
    try:
        return {int(i) for i in ConvexHull(points).vertices}
    except QhullError:  # flat hull: ask, point by point, whether the others contain it
        keep = set()
        for n in range(count):
            others = np.delete(points, n, axis=0)
            rows = np.vstack([others.T, np.ones(count - 1)])
            target = np.append(points[n], 1.0)
            try:
                solve_lp(np.zeros(count - 1), rows, target, target, 0.0, np.inf)
            except InfeasibleError:
                keep.add(n)
        return keep
