"""Solvers of compiled programs: HiGHS for linear ones, PIQP for quadratic ones, Clarabel for cones; all checked.

min 1/2 x'P x + c'x   s.t.  A x = b (first rows),  A x <= b (next),  b - A x in cones (last),  lower <= x <= upper
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from rmpc_ros.errors import ConfigError, InfeasibleError, NumericalError, UnboundedError
from rmpc_ros.solvers.conic import Cone, ConicProgram
from rmpc_ros.solvers.lp import LinearProgram
from rmpc_ros.solvers.qp import SparseQp

Vector = NDArray[np.float64]


@dataclass
class ProgramData:
    """The arrays of a program; `cost`, `rhs` and `matrix.data` change in place.

    `constant_cost` says that the cost does not, `varying` which rows of `rhs` may (default: all).
    """

    quadratic: sparse.csc_matrix
    cost: Vector
    matrix: sparse.csc_matrix
    rhs: Vector
    lower: Vector
    upper: Vector
    equal: int
    below: int
    cones: list[Cone]
    constant_cost: bool = False
    varying: NDArray[np.int32] | None = None

    @property
    def linear_rows(self) -> int:
        """Rows that are equalities or inequalities."""
        return self.equal + self.below


class Backend(ABC):
    """A solver with the program's data."""

    name = ""

    def update(self, matrix_changed: bool) -> None:
        """Take over the data in force."""
        self.prepare(matrix_changed)()

    @abstractmethod
    def prepare(self, matrix_changed: bool) -> Callable[[], object]:
        """The call that hands over the data in force: arrays ready-made, only the solver's own functions inside."""

    @abstractmethod
    def solve_raw(self) -> object:
        """The solver's call alone from where it stands, unchecked; for benchmarks."""

    @abstractmethod
    def solve(self) -> tuple[Vector, float]:
        """Checked optimum (x, objective).

        Raises
        ------
        InfeasibleError, UnboundedError, NumericalError
        """


class Clarabel(Backend):
    """Any program, as one conic program; bounds become rows."""

    name = "clarabel"

    def __init__(self, data: ProgramData, tolerance: float) -> None:
        self._data, self._tolerance = data, tolerance
        n = data.cost.size
        self._up, self._low = np.flatnonzero(np.isfinite(data.upper)), np.flatnonzero(np.isfinite(data.lower))
        eye = sparse.eye_array(n, format="csr")
        rest = data.matrix[data.linear_rows :]
        bounds = sparse.vstack([data.matrix[: data.linear_rows], eye[self._up], -eye[self._low], rest], format="csc")
        # The stack keeps every stored entry; its own order is found by stacking entry numbers instead of values.
        numbered = data.matrix.copy()
        numbered.data = np.arange(1.0, numbered.data.size + 1)
        m = data.linear_rows
        marks = sparse.vstack([numbered[:m], 0 * eye[self._up], 0 * eye[self._low], numbered[m:]], format="csc")
        self._from_bounds = bounds.data.copy()
        self._entry = marks.data.astype(np.int64) - 1
        cones = [Cone("zero", data.equal)] if data.equal else []
        inequalities = data.below + self._up.size + self._low.size
        cones += [Cone("nonnegative", inequalities)] if inequalities else []
        self._program = ConicProgram(
            data.quadratic if data.quadratic.nnz else None,
            data.cost,
            bounds,
            self._rhs(),
            [*cones, *data.cones],
            tolerance,
        )

    def _rhs(self) -> Vector:
        d, m = self._data, self._data.linear_rows
        return np.concatenate([d.rhs[:m], d.upper[self._up], -d.lower[self._low], d.rhs[m:]])

    def prepare(self, matrix_changed: bool) -> Callable[[], object]:
        """Values, right-hand side and cost in place."""
        values = None
        if matrix_changed:
            own = self._entry >= 0
            values = self._from_bounds
            values[own] = self._data.matrix.data[self._entry[own]]
        return partial(self._program.update, cost=self._data.cost, values=values, rhs=self._rhs())

    def solve_raw(self) -> object:
        """See `Backend`."""
        return self._program.solve_raw()

    def solve(self) -> tuple[Vector, float]:
        """Solve and check."""
        solution = self._program.solve()
        return solution.x, solution.objective


class Piqp(Backend):
    """Programs without cones beyond inequalities."""

    name = "piqp"

    def __init__(self, data: ProgramData, tolerance: float) -> None:
        if data.cones:
            raise ConfigError("solver 'piqp' takes no cones beyond inequalities; use 'clarabel'")
        self._data = data
        self._A, self._G = data.matrix[: data.equal].tocsc(), data.matrix[data.equal :].tocsc()
        self._is_equal = data.matrix.indices < data.equal
        self._fill()
        free = np.full(data.below, -np.inf)
        self._qp = SparseQp(
            sparse.csc_matrix(data.quadratic),
            data.cost.copy(),
            self._G,
            free,
            data.rhs[data.equal :].copy(),
            data.lower,
            data.upper,
            self._A,
            data.rhs[: data.equal].copy(),
            tolerance=max(100 * tolerance, 1e-6),
        )

    def _fill(self) -> None:
        self._A.data[:] = self._data.matrix.data[self._is_equal]
        self._G.data[:] = self._data.matrix.data[~self._is_equal]

    def prepare(self, matrix_changed: bool) -> Callable[[], object]:
        """Values, sides and cost in place."""
        d = self._data
        if matrix_changed:
            self._fill()
        return partial(
            self._qp.update,
            c=d.cost.copy(),
            upper=d.rhs[d.equal :].copy(),
            b=d.rhs[: d.equal].copy(),
            A=self._A if matrix_changed else None,
            G=self._G if matrix_changed else None,
        )

    def solve_raw(self) -> object:
        """See `Backend`."""
        return self._qp.solve_raw()

    def solve(self) -> tuple[Vector, float]:
        """Solve and check."""
        solution = self._qp.solve()
        return solution.v, solution.objective


class Highs(Backend):
    """Linear programs; the dual simplex method from the last basis."""

    name = "highs"

    def __init__(self, data: ProgramData, tolerance: float) -> None:
        if data.cones or data.quadratic.nnz:
            raise ConfigError("solver 'highs' takes linear programs here; use 'piqp' or 'clarabel'")
        self._data = data
        lower = np.full(data.rhs.size, -np.inf)
        lower[: data.equal] = data.rhs[: data.equal]
        self._lp = LinearProgram(data.cost, data.matrix, lower, data.rhs, data.lower, data.upper)
        self._rows = np.arange(data.rhs.size, dtype=np.int32) if data.varying is None else data.varying
        self._lower = lower[self._rows]
        self._equal = int(np.sum(self._rows < data.equal))
        self._written = data.matrix.data.copy()
        coo = sparse.coo_array(data.matrix)
        self._places = coo.row, coo.col

    def prepare(self, matrix_changed: bool) -> Callable[[], object]:
        """The sides that may have changed, the entries that have."""
        d, lp, rows = self._data, self._lp, self._rows
        upper = d.rhs if rows.size == d.rhs.size else d.rhs[rows]
        if self._equal:
            self._lower[: self._equal] = upper[: self._equal]
        sides = partial(lp.highs.changeRowsBounds, rows.size, rows, self._lower, upper)
        if d.constant_cost and not matrix_changed:
            return sides
        calls: list[Callable[[], object]] = [sides]
        if not d.constant_cost:
            calls.append(partial(lp.set_cost, d.cost.copy()))
        if matrix_changed:
            at = np.flatnonzero(d.matrix.data != self._written)
            calls.append(partial(lp.set_entries, self._places[0][at], self._places[1][at], d.matrix.data[at]))
            self._written[at] = d.matrix.data[at]
        return lambda: [call() for call in calls]

    def solve_raw(self) -> object:
        """See `Backend`: the dual simplex method from the last basis."""
        return self._lp.highs.run()

    def solve(self) -> tuple[Vector, float]:
        """Solve and check."""
        solution = self._lp.solve()
        return solution.x, solution.objective


def choose_backend(name: str, data: ProgramData, tolerance: float) -> Backend:
    """The named solver, or for "auto" the one that fits the program's kind.

    Raises
    ------
    ConfigError
        Unknown name, or a solver that cannot take the program.
    """
    known: dict[str, type[Clarabel] | type[Piqp] | type[Highs]] = {"clarabel": Clarabel, "piqp": Piqp, "highs": Highs}
    if name == "auto":
        name = "clarabel" if data.cones else ("piqp" if data.quadratic.nnz else "highs")
    if name not in known:
        raise ConfigError(f"solver {name!r} is unknown; known: auto, {', '.join(known)}")
    return known[name](data, tolerance)


def infeasibility_weights(data: ProgramData) -> Vector:
    """How much each row takes part in a proof of infeasibility (m,), largest 1: a theorem of alternatives by Clarabel.

    Raises
    ------
    NumericalError
        Clarabel finds a feasible point or no proof, against the solver that found none.
    """
    plain = ProgramData(
        sparse.csc_matrix(data.quadratic.shape),
        np.zeros_like(data.cost),
        data.matrix,
        data.rhs,
        data.lower,
        data.upper,
        data.equal,
        data.below,
        data.cones,
    )
    try:
        Clarabel(plain, 1e-8).solve()
    except InfeasibleError as error:
        z = np.abs(np.asarray(error.details["certificate"]))
        bounds = int(np.isfinite(data.upper).sum() + np.isfinite(data.lower).sum())
        rows = np.concatenate([z[: data.linear_rows], z[data.linear_rows + bounds :]])
        return np.asarray(rows / max(rows.max(initial=0.0), 1e-300))
    except UnboundedError as error:
        raise NumericalError("solvers disagree about feasibility", error.status) from error
    raise NumericalError("one solver finds no feasible point, another one does: ill-scaled", "disagreement")
