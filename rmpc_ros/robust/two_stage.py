"""Two-stage decisions: what is decided now, what is decided after the uncertainty is seen.

    min_x  c'x + max_{v in U} min_y { b'y : T x + W y + M v <= h }

This file only describes: the problem, its uncertainty (a union of polytopes, independent over steps) and the result.
`schemes.py` solves it, by `ccg.py` and its relatives.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import combinations, product
from math import comb
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import sparse
from scipy.spatial import ConvexHull, QhullError

from rmpc_ros.errors import DataError, InfeasibleError, SetError, UnboundedError
from rmpc_ros.sets.base import UncertaintySet
from rmpc_ros.solvers.lp import LinearProgram, solve_lp

if TYPE_CHECKING:  # the fitting library is not needed to solve
    from rmpc_ros.sets.union import UnionSet

Vector = NDArray[np.float64]
Matrix = NDArray[np.float64]

_MAX_VERTEX_SYSTEMS = 50_000


def _vector(name: str, value: ArrayLike, size: int) -> Vector:
    out = np.array(np.broadcast_to(np.asarray(value, float), size))
    if np.any(np.isnan(out)):
        raise DataError(f"two-stage problem: {name} holds NaN")
    return out


@dataclass(frozen=True)
class TwoStageProblem:
    """min c'x + max_v min_y { b'y : T x + W y + M v <= h },  A x <= a,  bounds and integrality on x and y.

    Source: Zeng and Zhao (2013) eq. (1); Li, Yorke-Smith, Keviczky (seed 001) eq. (1).

    Attributes
    ----------
    c : (n,) cost of the first stage
    b : (p,) cost of the recourse
    T, W, M : (m, n), (m, p), (m, q) coupling rows; dense or sparse, stored dense
    h : (m,)
    A, a : (k, n), (k,) rows of the first stage alone, A x <= a
    lower, upper : (n,) bounds of x
    integer : indices of integer x
    recourse_lower, recourse_upper : (p,) bounds of y
    recourse_integer : indices of integer y
    equality : indices of coupling rows that hold with equality
    row_names : names of the coupling rows for error messages, () for numbers

    Raises
    ------
    DataError
        A shape or value does not fit; the message names the field.
    """

    c: Vector
    b: Vector
    T: Matrix
    W: Matrix
    M: Matrix
    h: Vector
    A: Matrix | None = None
    a: Vector | None = None
    lower: ArrayLike = -np.inf
    upper: ArrayLike = np.inf
    integer: Sequence[int] = ()
    recourse_lower: ArrayLike = -np.inf
    recourse_upper: ArrayLike = np.inf
    recourse_integer: Sequence[int] = ()
    equality: Sequence[int] = ()
    row_names: Sequence[str] = ()

    def __post_init__(self) -> None:
        def put(name: str, value: Any) -> None:
            object.__setattr__(self, name, value)

        c, b, h = (np.atleast_1d(np.asarray(v, float)) for v in (self.c, self.b, self.h))
        put("c", c)
        put("b", b)
        put("h", h)
        q = np.shape(self.M)[1] if len(np.shape(self.M)) == 2 else -1
        for name, columns in (("T", c.size), ("W", b.size), ("M", q)):
            value = getattr(self, name)
            dense = value.toarray() if sparse.issparse(value) else np.asarray(value, float)
            if dense.shape != (h.size, columns):
                raise DataError(f"two-stage problem: {name} has shape {dense.shape}, wanted {(h.size, columns)}")
            put(name, dense)
        rows = np.zeros((0, c.size)) if self.A is None else np.atleast_2d(np.asarray(self.A, float))
        limits = np.zeros(0) if self.a is None else np.atleast_1d(np.asarray(self.a, float))
        if rows.shape != (limits.size, c.size):
            raise DataError(f"two-stage problem: A has shape {rows.shape}, a {limits.shape}, x {c.size} entries")
        put("A", rows)
        put("a", limits)
        for name in ("c", "b", "T", "W", "M", "h", "A", "a"):
            if not np.all(np.isfinite(getattr(self, name))):
                raise DataError(f"two-stage problem: {name} holds a value that is not finite")
        for prefix, size in (("", c.size), ("recourse_", b.size)):
            for name in (f"{prefix}lower", f"{prefix}upper"):
                put(name, _vector(name, getattr(self, name), size))
        for low, high in (("lower", "upper"), ("recourse_lower", "recourse_upper")):
            crossed = np.flatnonzero(getattr(self, low) > getattr(self, high))
            if crossed.size:
                raise DataError(f"two-stage problem: {low}[{crossed[0]}] is above {high}[{crossed[0]}]")
        for name, size in (("integer", c.size), ("recourse_integer", b.size), ("equality", h.size)):
            index = tuple(int(i) for i in getattr(self, name))
            if any(not 0 <= i < size for i in index):
                raise DataError(f"two-stage problem: {name} = {index}, allowed are 0..{size - 1}")
            put(name, index)

    @property
    def dim(self) -> int:
        """Dimension q of the uncertain vector."""
        return int(self.M.shape[1])

    def row_bounds(self, rhs: Vector) -> tuple[Vector, Vector]:
        """Bounds of rows `... <= rhs` (equal where the row is an equality)."""
        low = np.full(rhs.size, -np.inf)
        low[list(self.equality)] = rhs[list(self.equality)]
        return low, rhs

    def row_name(self, row: int) -> str:
        """Name of a coupling row."""
        return self.row_names[row] if self.row_names else f"row {row}"


@dataclass(frozen=True)
class Units:
    """Units of an equilibrated problem: a cost is `cost` times the new one, x_j is `x[j]` times the new one."""

    cost: float
    x: Vector


def equilibrate(problem: TwoStageProblem) -> tuple[TwoStageProblem, Units]:
    """The same problem with rows, columns and costs of order one, and the units that lead back.

    Rows, then columns of real x and y, are divided by the geometric mean of their smallest and largest entries, costs
    by the largest; all rounded to powers of two, so that no digit is lost. v keeps its units.
    """

    def power(size: Vector) -> Vector:
        out: Vector = np.exp2(np.round(np.log2(size)))
        return out

    def middle(entries: Matrix, axis: int) -> Vector:
        """Geometric mean of the smallest and largest non-zero size along an axis, 1 where all are zero."""
        size = np.abs(entries)
        largest = np.max(size, axis=axis, initial=0.0)
        smallest = np.min(np.where(size > 0, size, np.inf), axis=axis, initial=np.inf)
        return power(np.where(largest > 0, np.sqrt(largest * np.where(largest > 0, smallest, 1.0)), 1.0))

    p = problem
    assert p.A is not None and p.a is not None
    rows, first = middle(np.hstack([p.T, p.W, p.M]), 1), middle(p.A, 1)
    T, W, M, A = p.T / rows[:, None], p.W / rows[:, None], p.M / rows[:, None], p.A / first[:, None]
    x, y = middle(np.vstack([T, A]), 0), middle(W, 0)
    x[list(p.integer)], y[list(p.recourse_integer)] = 1.0, 1.0
    c, b = p.c / x, p.b / y
    largest = float(np.max(np.abs(np.concatenate([c, b])), initial=0.0))
    unit = float(power(np.array([largest]))[0]) if largest > 0 else 1.0
    scaled = replace(
        p,
        c=c / unit,
        b=b / unit,
        T=T / x,
        W=W / y,
        M=M,
        h=p.h / rows,
        A=A / x,
        a=p.a / first,
        lower=np.asarray(p.lower, float) * x,
        upper=np.asarray(p.upper, float) * x,
        recourse_lower=np.asarray(p.recourse_lower, float) * y,
        recourse_upper=np.asarray(p.recourse_upper, float) * y,
    )
    return scaled, Units(unit, 1.0 / x)


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


@dataclass(frozen=True)
class IterationRecord:
    """One line of the log: bounds after the iteration, what was added ("optimality", "feasibility" or "stop")."""

    iteration: int
    lower_bound: float
    upper_bound: float
    added: str
    subproblems: int
    seconds: float


@dataclass(frozen=True)
class TwoStageResult:
    """A certified solution.

    Attributes
    ----------
    x : (n,) first-stage decision
    objective : proven worst-case (or expected worst-case) cost of `x`
    lower_bound : proven bound on the optimum
    gap : (objective - lower_bound) / max(unit, |objective|), unit: the largest cost coefficient of `equilibrate`
    scenarios : (L, q) scenarios in the final master problem
    worst : (q,) worst scenario at `x`
    worst_subset : its subset in each step
    iterations, subproblems : master solutions, worst-case searches (mixed-integer programs)
    log : one record per iteration
    extra : what only one scheme knows (worst probabilities, multipliers, sample counts)
    """

    x: Vector
    objective: float
    lower_bound: float
    gap: float
    scenarios: Matrix
    worst: Vector
    worst_subset: tuple[int, ...]
    iterations: int
    subproblems: int
    log: tuple[IterationRecord, ...]
    extra: Mapping[str, Any] = field(default_factory=dict)

    def in_units(self, units: Units) -> TwoStageResult:
        """The result of an equilibrated problem in the original units."""
        unit = units.cost
        log = tuple(replace(r, lower_bound=r.lower_bound * unit, upper_bound=r.upper_bound * unit) for r in self.log)
        costs = {k: unit * self.extra[k] for k in ("subset_worst", "price") if k in self.extra}
        return replace(
            self,
            x=self.x * units.x,
            objective=self.objective * unit,
            lower_bound=self.lower_bound * unit,
            log=log,
            extra={**self.extra, **costs},
        )
