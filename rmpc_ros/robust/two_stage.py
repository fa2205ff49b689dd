"""Two-stage decisions: what is decided now, what is decided after the uncertainty is seen.

    min_x  c'x + max_{v in U} min_y { b'y : T x + W y + M v <= h }

This file only describes: the problem and the result. `polytope_union.py` describes the uncertainty (a union of
polytopes, independent over steps), `schemes.py` solves, by `ccg.py` and its relatives.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import sparse

from rmpc_ros.errors import DataError

Vector = NDArray[np.float64]
Matrix = NDArray[np.float64]


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
