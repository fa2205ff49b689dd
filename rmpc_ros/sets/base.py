"""The one interface of all uncertainty sets.

A robust constraint  a(x)'u <= b(x) for all u in U  holds iff  support(a(x)) <= b(x), where
support(a) = max { a'u : u in U }  (math.md section 1). Every family therefore gives its support function as a number
and as convex constraints; most get both from one conic description of the set.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import sparse

from rmpc_ros.errors import NumericalError, SetError
from rmpc_ros.sets.cones import cvxpy_constraints, dual_map, in_cones
from rmpc_ros.solvers.conic import Cone, ConicProgram, ConicSolution

if TYPE_CHECKING:  # takes seconds to import and no control step needs it
    import cvxpy as cp

Vector = NDArray[np.float64]
Matrix = NDArray[np.float64]
Kind = Literal["interior", "boundary"]


@dataclass(frozen=True)
class ConicForm:
    """U = { u : F u + G y + s = h for some y and s in K }.

    Attributes
    ----------
    F : (m, d) columns of the uncertain vector
    G : (m, k) columns of the auxiliary variables (k may be 0)
    h : (m,)
    cones : blocks of K in row order

    Entries that may be zero for some data but not for others are stored (`stored`), so that two sets of one family
    and size share their sparsity pattern and a solver can take new data in place.
    """

    F: sparse.csc_array
    G: sparse.csc_array
    h: Vector
    cones: tuple[Cone, ...]


@dataclass(frozen=True)
class Epigraph:
    """{ (a, t) : support(a) <= t } = { (a, t) : A a + b t + Y y + s = 0 for some y and s in K }.

    What a robust row becomes in a program; the same remark on stored zeros holds.

    Attributes
    ----------
    A : (m, d)
    b : (m,)
    Y : (m, k) columns of the multipliers (k may be 0)
    cones : blocks of K in row order
    """

    A: sparse.csc_array
    b: Vector
    Y: sparse.csc_array
    cones: tuple[Cone, ...]


def stored(matrix: ArrayLike) -> sparse.csc_array:
    """Sparse matrix that stores every entry of a dense one, zeros included."""
    dense = np.atleast_2d(np.asarray(matrix, float))
    m, n = dense.shape
    return sparse.csc_array((dense.ravel(order="F"), np.tile(np.arange(m), n), np.arange(n + 1) * m), shape=(m, n))


FAMILIES: dict[str, type[UncertaintySet]] = {}


class UncertaintySet(ABC):
    """A closed convex bounded set of uncertain vectors u in R^d.

    A family implements `dim`, `conic`, `parameters` and `from_parameters`, names itself in `family`, and overrides
    what it knows in closed form. Sets are immutable: operations return new sets.
    """

    family: ClassVar[str] = ""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "family" in cls.__dict__ and cls.family:
            FAMILIES[cls.family] = cls

    # -- what a family must say ---------------------------------------------------------------------------------------
    @property
    @abstractmethod
    def dim(self) -> int:
        """Dimension d of the uncertain vector."""

    @abstractmethod
    def conic(self) -> ConicForm:
        """Description by cones, from which supports and counterparts follow."""

    @abstractmethod
    def parameters(self) -> dict[str, Any]:
        """Numbers that define the set, as JSON types; `from_parameters(**parameters())` is the same set, exactly."""

    @classmethod
    @abstractmethod
    def from_parameters(cls, **parameters: Any) -> UncertaintySet:
        """Inverse of `parameters`."""

    # -- supports -----------------------------------------------------------------------------------------------------
    def support(self, directions: ArrayLike) -> Vector:
        """Support function max { a'u : u in U }, vectorised.

        Parameters
        ----------
        directions : (d,) or (m, d)

        Returns
        -------
        () or (m,) values
        """
        rows = self._directions(directions)
        values = np.array([self._optimum(a)[0] for a in rows])
        return self._shape(values, directions)

    def maximisers(self, directions: ArrayLike) -> Matrix:
        """Members of the set where a'u is largest: (d,) or (m, d), one for each direction."""
        rows = self._directions(directions)
        return self._shape(np.array([self._optimum(a)[1] for a in rows]), directions)

    def maximiser(self, direction: ArrayLike) -> Vector:
        """A member of the set where a'u is largest, (d,)."""
        return self.maximisers(self._directions(direction)[0])

    @cached_property
    def _form(self) -> ConicForm:
        return self.conic()

    @cached_property
    def _programs(self) -> dict[float, ConicProgram]:
        return {}

    def _program(self, tolerance: float) -> ConicProgram:
        if tolerance not in self._programs:
            form = self._form
            size = self.dim + form.G.shape[1]
            matrix = sparse.hstack([form.F, form.G], format="csc")
            self._programs[tolerance] = ConicProgram(None, np.zeros(size), matrix, form.h, form.cones, tolerance)
        return self._programs[tolerance]

    def _optimum(self, direction: Vector) -> tuple[float, Vector]:
        """Value and maximiser by the conic program, which is built once and gets its cost changed."""
        scale = float(np.linalg.norm(direction))
        if scale == 0.0:
            return 0.0, self.center()
        cost = np.zeros(self.dim + self._form.G.shape[1])
        cost[: self.dim] = -direction / scale

        def solve(tolerance: float) -> ConicSolution:
            program = self._program(tolerance)
            program.update(cost=cost)
            return program.solve()

        solution = _to_reachable_accuracy(solve)
        return -scale * solution.objective, solution.x[: self.dim]

    # -- membership ---------------------------------------------------------------------------------------------------
    def contains(self, points: ArrayLike, tolerance: float = 1e-7) -> NDArray[np.bool_]:
        """Membership of each row of `points`, (d,) or (m, d) -> () or (m,), up to a relative distance `tolerance`.

        By default along the ray from the centre: a convex set that holds the centre holds u iff the ray reaches it.
        """
        rows = self._directions(points)
        form = self._form
        slack = tolerance * (1 + np.max(np.abs(rows), axis=1))
        if form.G.shape[1] == 0:
            inside = np.array([in_cones(form.h - form.F @ u, form.cones, tolerance) for u in rows])
        else:
            away = rows - self.center()
            length = np.linalg.norm(away, axis=1)
            inside = length <= slack
            far = ~inside
            if np.any(far):
                unit = away[far] / length[far, None]
                inside[far] = self.reach(unit) >= length[far] - slack[far]
        return self._shape(inside, points)

    # -- counterparts -------------------------------------------------------------------------------------------------
    def epigraph(self) -> Epigraph:
        """Cones of support(a) <= t by duality: F'z = a, G'z = 0, h'z <= t, z in K*; families know shorter ones."""
        form = self._form
        d, k = form.F.shape[1], form.G.shape[1]
        T, kinds = dual_map(form.cones)
        ends = (d, k, 1, T.shape[0])
        A = sparse.vstack([-sparse.eye_array(d), sparse.csc_array((sum(ends) - d, d))], format="csc")
        b = np.concatenate([np.zeros(d + k), [-1.0], np.zeros(T.shape[0])])
        Y = sparse.vstack([form.F.T, form.G.T, stored(form.h[None, :]), -T], format="csc")
        return Epigraph(A, b, Y, (Cone("zero", d + k), Cone("nonnegative", 1), *kinds))

    @cached_property
    def _epigraph(self) -> Epigraph:
        return self.epigraph()

    def counterpart(self, direction: cp.Expression, bound: cp.Expression | float) -> list[cp.Constraint]:
        """Convex constraints that hold iff support(direction) <= bound, for an affine (d,) expression.

        For the fast path see `counterpart.CounterpartProgram`, which uses the same cones without a modelling language.
        """
        import cvxpy as cp

        form = self._epigraph
        slack = -(form.A @ direction) - form.b * bound
        if form.Y.shape[1]:
            slack = slack - form.Y @ cp.Variable(form.Y.shape[1])
        return cvxpy_constraints(slack, form.cones)

    # -- shape --------------------------------------------------------------------------------------------------------
    def center(self) -> Vector:
        """A point well inside the set, (d,): the mean of the maximisers along the axes; families override."""
        axes = np.eye(self.dim)
        return np.asarray(np.mean([self._optimum(a)[1] for a in np.vstack([axes, -axes])], axis=0))

    def scaled(self, factor: float) -> UncertaintySet:
        """The set scaled by `factor` >= 0 about its centre."""
        from rmpc_ros.sets.combine import AffineImage

        scale = _factor(factor)
        return AffineImage(self, scale * np.eye(self.dim), (1 - scale) * self.center())

    def reach(self, directions: ArrayLike) -> Vector:
        """Largest t with center + t d in U for each row d of `directions`: (d,) or (m, d) -> () or (m,)."""
        rows = self._directions(directions)
        form, center = self._form, self.center()
        values = np.empty(len(rows))
        for n, row in enumerate(rows):
            column = sparse.csc_array((form.F @ row)[:, None])
            cost = np.concatenate([[-1.0], np.zeros(form.G.shape[1])])
            matrix = sparse.hstack([column, form.G], format="csc")
            rhs = form.h - form.F @ center
            values[n] = _to_reachable_accuracy(partial(_solve_once, cost, matrix, rhs, form.cones)).x[0]
        return self._shape(values, directions)

    def sample(self, count: int, rng: int | np.random.Generator, kind: Kind = "interior") -> Matrix:
        """Random members (count, d).

        "boundary": along uniformly random rays from the centre; "interior": the same pulled in by U^(1/d), which is
        uniform in volume for a ball and reaches every part of any set.
        """
        generator = np.random.default_rng(rng)
        rays = generator.standard_normal((count, self.dim))
        rays /= np.linalg.norm(rays, axis=1, keepdims=True)
        length = np.asarray(self.reach(rays))
        if kind == "interior":
            length = length * generator.random(count) ** (1 / self.dim)
        elif kind != "boundary":
            raise SetError(f"sampling kind {kind!r} is unknown; give 'interior' or 'boundary'")
        return np.asarray(self.center() + length[:, None] * rays)

    def vertices(self) -> Matrix:
        """All vertices (v, d) of a polytopic set.

        Raises
        ------
        SetError
            The family has no vertices, or too many to list.
        """
        raise SetError(f"a set of family '{self.family}' has no vertices to list")

    def projection(self, axes: tuple[int, int] = (0, 1), count: int = 120) -> Matrix:
        """Outline (count, 2) of the projection on two components, counter-clockwise: the picture of the set."""
        angle = np.linspace(0, 2 * np.pi, count, endpoint=False)
        rows = np.zeros((count, self.dim))
        rows[:, axes[0]], rows[:, axes[1]] = np.cos(angle), np.sin(angle)
        return np.asarray(self.maximisers(rows)[:, list(axes)])

    def size(self, directions: int = 64) -> float:
        """Mean width: the mean of support(a) + support(-a) over unit vectors (fixed ones, so that sizes compare)."""
        if self.dim == 1:
            rows = np.ones((1, 1))
        else:
            rows = np.random.default_rng(20240101).standard_normal((directions, self.dim))
            rows /= np.linalg.norm(rows, axis=1, keepdims=True)
        return float(np.mean(self.support(rows) + self.support(-rows)))

    # -- exchange -----------------------------------------------------------------------------------------------------
    def to_dict(self) -> dict[str, Any]:
        """JSON form: {"family": ..., **parameters}."""
        return {"family": self.family, **self.parameters()}

    @staticmethod
    def from_dict(data: Mapping[str, Any]) -> UncertaintySet:
        """Inverse of `to_dict`.

        Raises
        ------
        SetError
            The family is unknown or its parameters do not fit.
        """
        from rmpc_ros.sets import load_families

        values = dict(data)
        name = values.pop("family", None)
        if name not in FAMILIES:
            load_families()
        if name not in FAMILIES:
            raise SetError(f"set family {name!r} is unknown; known: {', '.join(sorted(FAMILIES))}")
        try:
            return FAMILIES[name].from_parameters(**values)
        except (TypeError, KeyError, ValueError) as error:
            raise SetError(f"set family {name!r} refuses its parameters {sorted(values)}: {error}") from error

    def __reduce__(self) -> tuple[Callable[..., UncertaintySet], tuple[dict[str, Any]]]:
        return UncertaintySet.from_dict, (self.to_dict(),)  # solvers kept in the set do not pickle

    # -- tools for families -------------------------------------------------------------------------------------------
    def _directions(self, directions: ArrayLike) -> Matrix:
        rows = np.atleast_2d(np.asarray(directions, float))
        if rows.ndim != 2 or rows.shape[1] != self.dim:
            raise SetError(f"an array of shape {np.shape(directions)} meets a set of dimension {self.dim}")
        if not np.all(np.isfinite(rows)):
            raise SetError("a direction or point holds a value that is not finite")
        return rows

    @staticmethod
    def _shape(values: NDArray[Any], like: ArrayLike) -> NDArray[Any]:
        return values if np.ndim(like) == 2 else values[0]


def _to_reachable_accuracy(solve: Callable[[float], ConicSolution]) -> ConicSolution:
    """A checked optimum to 1e-9, or to 1e-8 or 1e-7 where the solver's arithmetic gives no more.

    Raises
    ------
    NumericalError
        Not even 1e-7 was reached.
    """
    for tolerance in (1e-9, 1e-8):
        try:
            return solve(tolerance)
        except NumericalError:
            continue
    return solve(1e-7)


def _solve_once(
    cost: Vector, matrix: sparse.csc_array, rhs: Vector, cones: tuple[Cone, ...], tolerance: float
) -> ConicSolution:
    return ConicProgram(None, cost, matrix, rhs, cones, tolerance).solve()


def finite(name: str, value: ArrayLike, ndim: int) -> NDArray[np.float64]:
    """A private read-only float copy of an array parameter of a set.

    Raises
    ------
    SetError
        Wrong number of dimensions, or a value that is not finite.
    """
    array = np.array(value, float)
    if array.ndim != ndim:
        raise SetError(f"{name} has {array.ndim} dimensions (shape {array.shape}); {ndim} wanted")
    if not np.all(np.isfinite(array)):
        raise SetError(f"{name} holds a value that is not finite: {array[~np.isfinite(array)][0]}")
    array.setflags(write=False)
    return array


def _factor(factor: float) -> float:
    if not (np.isfinite(factor) and factor >= 0):
        raise SetError(f"scaling factor {factor!r}: give a finite number >= 0")
    return float(factor)
