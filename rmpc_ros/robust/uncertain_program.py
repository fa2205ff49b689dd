"""The modelling interface: decisions that adapt to what is uncertain, constraints that hold for all of a set.

    p = UncertainProgram()
    noise = p.members("noise", Box([-1, -1], [1, 1]))      # a set: data that may change later
    w = p.uncertain("w", noise)                            # an uncertain vector in it
    x0 = p.parameter("x0", 1)                              # a number that may change later
    u = p.decide("u", structure("full", 2, 1, 1), w)       # u = v + M w
    x = Phi @ x0 + Gamma @ u + Theta @ w
    p.forall(x <= 1.0, "upper")                            # for all w in noise
    p.minimise(p.worst_inf_norm(x) + ...)                  # worst case, nominal or expected
    solution = p.compile().solve(x0=[0.3])
    solution.policy("u")(w_measured)

A chance constraint P(e(w) <= 0) >= 1 - eps is `p.forall(e <= 0, over=chance)` where `chance` is a set with the
certificate P(w in chance) >= 1 - eps, or one of a family that bounds the value at risk (sets/fit.py): each constraint
may range over another set than the one declared with w.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rmpc_ros.errors import ConfigError
from rmpc_ros.robust.affine import CONSTANT, Affine, Relation, Vector, as_affine, stack
from rmpc_ros.sets.base import UncertaintySet

if TYPE_CHECKING:
    from rmpc_ros.robust.compiled import CompiledProgram

Matrix = NDArray[np.float64]


@dataclass(frozen=True)
class Members:
    """A named set slot of a program; its data can be replaced by a set of the same family and size."""

    name: str
    initial: UncertaintySet


@dataclass(frozen=True)
class UncertainVector:
    """Columns of w that form one vector, the set it lies in, and its first two moments for expectations."""

    name: str
    columns: NDArray[np.int64]
    members: Members
    mean: Vector
    covariance: Matrix


@dataclass(frozen=True)
class RobustConstraint:
    """expression(w) <= 0 for all w; `over` replaces the sets of some uncertain vectors by others."""

    name: str
    expression: Affine
    over: Mapping[str, Members]


@dataclass(frozen=True)
class Objective:
    """linear (one entry, no uncertainty) + sum of weights * entry^2 (no uncertainty)."""

    linear: Affine
    squares: tuple[tuple[Affine, Vector], ...] = ()

    def __add__(self, other: Objective) -> Objective:
        return Objective(self.linear + other.linear, self.squares + other.squares)

    def __mul__(self, factor: float) -> Objective:
        return Objective(self.linear * factor, tuple((e, factor * w) for e, w in self.squares))

    __rmul__ = __mul__


@dataclass
class UncertainProgram:
    """Collects sets, uncertain vectors, parameters, decisions, constraints and the cost of one program."""

    slots: dict[str, Members] = field(default_factory=dict)
    vectors: dict[str, UncertainVector] = field(default_factory=dict)
    parameters: dict[str, NDArray[np.int64]] = field(default_factory=dict)
    decisions: dict[str, Affine] = field(default_factory=dict)
    constraints: list[RobustConstraint] = field(default_factory=list)
    equalities: list[tuple[str, Affine]] = field(default_factory=list)
    objective: Objective = field(default_factory=lambda: Objective(as_affine(0.0, 1)))
    lower: list[Vector] = field(default_factory=list)
    upper: list[Vector] = field(default_factory=list)
    columns: int = 1
    size: int = 0
    parameter_size: int = 0

    # -- what is uncertain, known later, or decided -------------------------------------------------------------------
    def members(self, name: str, initial: UncertaintySet) -> Members:
        """A set that constraints can range over; `CompiledProgram.update(name=...)` replaces it."""
        if name in self.slots or name in self.parameters:
            raise ConfigError(f"the program already has a set or parameter named '{name}'")
        self.slots[name] = Members(name, initial)
        return self.slots[name]

    def uncertain(
        self, name: str, members: Members, mean: ArrayLike | None = None, covariance: ArrayLike | None = None
    ) -> Affine:
        """An uncertain vector (d,) in a set.

        Parameters
        ----------
        mean, covariance : moments for expected costs; default: the set's centre and zero. The mean is also where
            nominal costs are taken.
        """
        d = members.initial.dim
        columns = np.arange(self.columns, self.columns + d)
        self.columns += d
        m = members.initial.center() if mean is None else np.asarray(mean, float)
        c = np.zeros((d, d)) if covariance is None else np.atleast_2d(np.asarray(covariance, float))
        if m.shape != (d,) or c.shape != (d, d):
            raise ConfigError(f"uncertain '{name}' has {d} entries; its mean has shape {m.shape}, covariance {c.shape}")
        self.vectors[name] = UncertainVector(name, columns, members, m, c)
        return Affine.uncertain(columns)

    def parameter(self, name: str, size: int) -> Affine:
        """Numbers (size,) given with each solve, such as the measured state; they may not multiply decisions."""
        if name in self.slots or name in self.parameters:
            raise ConfigError(f"the program already has a set or parameter named '{name}'")
        index = np.arange(self.parameter_size, self.parameter_size + size)
        self.parameter_size += size
        self.parameters[name] = index
        return Affine.symbols(-2 - index)

    def decide(
        self,
        name: str,
        pattern: NDArray[np.int64] | int,
        sees: Affine | None = None,
        lower: ArrayLike = -np.inf,
        upper: ArrayLike = np.inf,
    ) -> Affine:
        """A decision v + M seen; `pattern` is its length (then M = 0) or the structure of M (`policy.structure`).

        `lower` and `upper` bound v, which for a static decision is the decision itself.
        """
        rows = int(pattern) if np.ndim(pattern) == 0 else int(np.shape(pattern)[0])
        out = Affine.symbols(self._new(rows, lower, upper))
        if np.ndim(pattern) == 2:
            table = np.asarray(pattern, np.int64)
            if sees is None or table.shape[1] != sees.rows or np.any(sees.sym != CONSTANT) or np.any(sees.val != 1.0):
                raise ConfigError(f"decision '{name}': its structure has {table.shape[1]} columns for what it sees")
            first = self._new(int(table.max(initial=-1)) + 1, -np.inf, np.inf)
            index = np.where(table >= 0, first[table] if first.size else CONSTANT, CONSTANT)
            columns = np.empty(sees.rows, np.int64)
            columns[sees.row] = sees.col
            out = out + Affine.symbols(index, columns)
        self.decisions[name] = out
        return out

    def _new(self, count: int, lower: ArrayLike, upper: ArrayLike) -> NDArray[np.int64]:
        index = np.arange(self.size, self.size + count)
        self.size += count
        self.lower.append(np.broadcast_to(np.asarray(lower, float), count))
        self.upper.append(np.broadcast_to(np.asarray(upper, float), count))
        return index

    # -- constraints --------------------------------------------------------------------------------------------------
    def forall(self, relation: Relation, name: str = "", over: Members | Mapping[str, Members] | None = None) -> None:
        """The relation holds for all members of the sets, entry by entry.

        Parameters
        ----------
        over : another set for the only uncertain vector, or a mapping from vectors' names to sets
        """
        if isinstance(over, Members):
            if len(self.vectors) != 1:
                raise ConfigError("several uncertain vectors: give `over` as a mapping from their names to sets")
            over = {next(iter(self.vectors)): over}
        chosen = dict(over or {})
        for vector, members in chosen.items():
            if members.initial.dim != self.vectors[vector].columns.size:
                raise ConfigError(f"set '{members.name}' has dimension {members.initial.dim}; '{vector}' has another")
        label = name or f"constraint {len(self.constraints) + 1}"
        self.constraints.append(RobustConstraint(label, relation.expression, chosen))

    def equal(self, expression: Affine, name: str = "") -> None:
        """expression(w) = 0 for all w: every coefficient vanishes."""
        self.equalities.append((name or f"equality {len(self.equalities) + 1}", expression))

    # -- costs --------------------------------------------------------------------------------------------------------
    def minimise(self, objective: Objective) -> None:
        """Set the cost."""
        self.objective = objective

    def nominal(self, expression: Affine) -> Affine:
        """The expression at the mean of w."""
        values = np.zeros(self.columns)
        values[0] = 1.0
        for vector in self.vectors.values():
            values[vector.columns] = vector.mean
        return expression.at(values)

    def economic(self, expression: Affine) -> Objective:
        """Sum of the entries at the mean of w: nominal and expected cost of an affine expression."""
        return Objective(np.ones((1, expression.rows)) @ self.nominal(expression))

    def worst(self, expression: Affine, over: Members | Mapping[str, Members] | None = None) -> Objective:
        """max_w of the sum of the entries: exact."""
        bound = Affine.symbols(self._new(1, -np.inf, np.inf))
        self.forall(np.ones((1, expression.rows)) @ expression <= bound, "worst-case cost", over)
        return Objective(bound)

    def worst_inf_norm(self, expression: Affine, over: Members | Mapping[str, Members] | None = None) -> Objective:
        """max_w max_i abs(e_i(w)): exact."""
        bound = Affine.symbols(self._new(1, 0.0, np.inf))
        self._within(expression, stack([bound] * expression.rows), over)
        return Objective(bound)

    def worst_one_norm(self, expression: Affine, over: Members | Mapping[str, Members] | None = None) -> Objective:
        """sum_i max_w abs(e_i(w)): at least the maximum of the sum, equal where one w is worst for all entries."""
        return Objective(np.ones((1, expression.rows)) @ self._extreme(expression, over))

    def worst_squares(
        self, expression: Affine, weights: ArrayLike = 1.0, over: Members | Mapping[str, Members] | None = None
    ) -> Objective:
        """sum_i weight_i max_w e_i(w)^2: at least the maximum of the sum (which is not tractable in general)."""
        scale = np.broadcast_to(np.asarray(weights, float), expression.rows)
        return Objective(as_affine(0.0, 1), ((self._extreme(expression, over), scale),))

    def nominal_squares(self, expression: Affine, weights: ArrayLike = 1.0) -> Objective:
        """sum_i weight_i e_i^2 at the mean of w; for |e|_Q^2 pass a factor of Q times e."""
        return Objective(
            as_affine(0.0, 1),
            ((self.nominal(expression), np.broadcast_to(np.asarray(weights, float), expression.rows)),),
        )

    def expected_squares(self, expression: Affine, weights: ArrayLike = 1.0) -> Objective:
        """E sum_i weight_i e_i(w)^2 from mean and covariance: exact; the vectors are uncorrelated with each other."""
        scale = np.broadcast_to(np.asarray(weights, float), expression.rows)
        out = self.nominal_squares(expression, weights)
        for vector in self.vectors.values():
            values, axes = np.linalg.eigh(vector.covariance)
            if values[0] < -1e-9 * max(1.0, values[-1]):
                raise ConfigError(f"the covariance of '{vector.name}' has a negative eigenvalue {values[0]:.3g}")
            for value, axis in zip(values, axes.T, strict=True):
                if value > 1e-14 * max(1.0, values[-1]):
                    along = np.zeros(self.columns)
                    along[vector.columns] = np.sqrt(value) * axis
                    out = out + Objective(as_affine(0.0, 1), ((expression.at(along), scale),))
        return out

    def nominal_one_norm(self, expression: Affine) -> Objective:
        """sum_i abs(e_i) at the mean of w."""
        return self.mean_one_norm(expression, [np.concatenate([v.mean for v in self.vectors.values()])])

    def nominal_inf_norm(self, expression: Affine) -> Objective:
        """max_i abs(e_i) at the mean of w."""
        return self.mean_inf_norm(expression, [np.concatenate([v.mean for v in self.vectors.values()])])

    def mean_one_norm(self, expression: Affine, samples: Sequence[Vector]) -> Objective:
        """Average of sum_i abs(e_i(w)) over samples of all uncertain entries: the expectation, sampled."""
        at = [self._at_sample(expression, sample) for sample in samples]
        parts = [self._magnitude(e, self._new(e.rows, 0.0, np.inf)) for e in at]
        return Objective(np.full((1, sum(p.rows for p in parts)), 1 / len(parts)) @ stack(parts))

    def mean_inf_norm(self, expression: Affine, samples: Sequence[Vector]) -> Objective:
        """Average of max_i abs(e_i(w)) over samples: the expectation, sampled."""
        parts = []
        for sample in samples:
            bound = self._new(1, 0.0, np.inf)
            self._magnitude(self._at_sample(expression, sample), np.repeat(bound, expression.rows))
            parts.append(Affine.symbols(bound))
        return Objective(np.full((1, len(parts)), 1 / len(parts)) @ stack(parts))

    def _at_sample(self, expression: Affine, sample: ArrayLike) -> Affine:
        return expression.at(np.concatenate([[1.0], np.asarray(sample, float)]))

    def _magnitude(self, expression: Affine, index: NDArray[np.int64]) -> Affine:
        bound = Affine.symbols(index)
        self._within(expression, bound, None)
        return bound

    def _extreme(self, expression: Affine, over: Members | Mapping[str, Members] | None) -> Affine:
        bound = Affine.symbols(self._new(expression.rows, 0.0, np.inf))
        self._within(expression, bound, over)
        return bound

    def _within(self, expression: Affine, bound: Affine, over: Members | Mapping[str, Members] | None) -> None:
        self.forall(expression <= bound, "cost from above", over)
        self.forall(-expression <= bound, "cost from below", over)

    # -- compile ------------------------------------------------------------------------------------------------------
    def compile(self, tolerance: float = 1e-8, solver: str = "auto") -> CompiledProgram:
        """Turn the program into sparse data once; see `CompiledProgram`."""
        from rmpc_ros.robust.compiled import CompiledProgram

        return CompiledProgram(self, tolerance, solver)
