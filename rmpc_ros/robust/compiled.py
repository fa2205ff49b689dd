"""An uncertain program as sparse conic data: built once, fed with sets and parameters, solved, checked.

Each robust row  e_0(x) + sum_c e_c(x) w_c <= 0 for all w in U  becomes, with the set's F, G, h and
cones K (sets/base.py),

    e_0(x) + sum over sets of h'z <= 0,      F'z = e_c(x),   G'z = 0,   z in K*.

Three things keep the data small. A box is one interval per coordinate, whose two multipliers are the parts of the
coefficient and serve every row with that coefficient, scaled or negated, and every interval. Rows with equal
coefficients over one set share their multipliers. A coefficient without decisions is a number: its support goes to the
right-hand side, so that fixed feedback compiles to a problem of nominal size.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from math import isfinite

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import sparse

from rmpc_ros.errors import ConfigError, IllScaledError, InfeasibleError, SetError
from rmpc_ros.robust.affine import CONSTANT, NOMINAL, Affine, Vector
from rmpc_ros.robust.backends import Backend, ProgramData, choose_backend, infeasibility_weights
from rmpc_ros.robust.entries import Entries, RightSide, Terms, objective_data
from rmpc_ros.robust.solution import Solution
from rmpc_ros.robust.uncertain_program import Members, RobustConstraint, UncertainProgram
from rmpc_ros.sets.base import ConicForm, UncertaintySet
from rmpc_ros.sets.box import Box
from rmpc_ros.sets.cones import dual_map
from rmpc_ros.solvers.conic import Cone

SCALE_LIMIT = 1e12  # largest accepted ratio of two coefficients of the compiled matrix


@dataclass(frozen=True)
class _Row:
    """nominal terms + sum of weights (column, slot, place in the set's data, scale) + supports of numbers <= 0."""

    name: str
    nominal: Terms
    weights: list[tuple[int, str, int, float]]
    numbers: list[tuple[str, Vector]]


class CompiledProgram:
    """Sparse data of an `UncertainProgram`.

    Parameters
    ----------
    program : complete program; later changes to it have no effect
    tolerance : of the solver
    solver : "auto" (HiGHS for linear programs, PIQP for quadratic ones, Clarabel with cones), or one of their names
    """

    def __init__(self, program: UncertainProgram, tolerance: float = 1e-8, solver: str = "auto") -> None:
        self.program = program
        self.n = program.size
        self._sets = {name: slot.initial for name, slot in program.slots.items()}
        self._forms = {name: members.conic() for name, members in self._sets.items()}
        self._entries = Entries()
        self._rhs = RightSide(program.parameter_size)
        self._variables = self.n
        self._nonnegative: list[NDArray[np.int64]] = []
        self._cone_rows: list[tuple[sparse.csc_array, int]] = []
        self._cones: list[Cone] = []
        self._shared: dict[tuple[object, ...], int] = {}
        self._names: list[str] = []
        self._equal_rows = 0
        for name, expression in program.equalities:
            self._equality(name, expression)
        rows = [row for constraint in program.constraints for row in self._constraint(constraint)]
        self._inequalities(sorted(rows, key=lambda row: not row.numbers))  # those that sets shift lie together
        self._finish(tolerance, solver)

    # -- compile ------------------------------------------------------------------------------------------------------
    def _equality(self, name: str, expression: Affine) -> None:
        e = expression.merged()
        for key in np.unique(np.stack([e.row, e.col]), axis=1).T:
            here = (e.row == key[0]) & (e.col == key[1])
            self._equal_row(_terms(e.part(here)), name)

    def _equal_row(self, terms: Terms, name: str) -> int:
        """The sum of terms is zero."""
        row = self._equal_rows
        self._equal_rows += 1
        self._names.append(name)
        for symbol, value in terms:
            if symbol >= 0:
                self._entries.add(row, symbol, value)
            else:
                self._rhs.add(row, symbol, -value)
        return row

    def _constraint(self, constraint: RobustConstraint) -> list[_Row]:
        e = constraint.expression.merged()
        bounds = np.searchsorted(e.row, np.arange(e.rows + 1))
        owners = [(v, constraint.over.get(v.name, v.members)) for v in self.program.vectors.values()]
        out = []
        for i in range(e.rows):
            here = slice(int(bounds[i]), int(bounds[i + 1]))
            col, sym, val = e.col[here], e.sym[here], e.val[here]
            nominal = tuple(zip(sym[col == NOMINAL].tolist(), val[col == NOMINAL].tolist(), strict=True))
            weights: list[tuple[int, str, int, float]] = []
            numbers: list[tuple[str, Vector]] = []
            for vector, slot in owners:
                inside = (col >= vector.columns[0]) & (col <= vector.columns[-1])
                if not np.any(inside):
                    continue
                local = col[inside] - vector.columns[0]
                coefficients: dict[int, list[tuple[int, float]]] = {}
                for k, s, v in zip(local.tolist(), sym[inside].tolist(), val[inside].tolist(), strict=True):
                    coefficients.setdefault(k, []).append((s, v))
                if all(s == CONSTANT for terms in coefficients.values() for s, _ in terms):
                    direction = np.zeros(vector.columns.size)
                    for k, terms in coefficients.items():
                        direction[k] = terms[0][1]
                    numbers.append((slot.name, direction))
                elif isinstance(self._sets[slot.name], Box):
                    for k, terms in coefficients.items():
                        weights += self._interval(slot, k, tuple(terms), constraint.name)
                else:
                    weights += self._block(slot, coefficients, constraint.name)
            out.append(_Row(constraint.name, nominal, weights, numbers))
        return out

    def _interval(self, slot: Members, k: int, terms: Terms, name: str) -> list[tuple[int, str, int, float]]:
        """Support upper z+ - lower z- with z+ - z- = coefficient, z >= 0; shared up to sign and scale."""
        scale = max((v for _, v in terms), key=abs)
        key = ("interval", tuple((s, round(v / scale, 14)) for s, v in terms))
        z = self._shared.get(key)
        if z is None:
            z = self._shared[key] = self._new(2, nonnegative=True)
            row = self._equal_row(tuple((s, v / scale) for s, v in terms), name)
            self._entries.add(row, z, -1.0)
            self._entries.add(row, z + 1, 1.0)
        d, offset = self._sets[slot.name].dim, self._forms[slot.name]
        start = offset.F.nnz + offset.G.nnz
        up, down = (z, z + 1) if scale > 0 else (z + 1, z)
        return [(up, slot.name, start + k, abs(scale)), (down, slot.name, start + d + k, abs(scale))]

    def _block(
        self, slot: Members, coefficients: dict[int, list[tuple[int, float]]], name: str
    ) -> list[tuple[int, str, int, float]]:
        """Support h'z with F'z = coefficient, G'z = 0, z in K*; rows with equal coefficients share z."""
        form = self._forms[slot.name]
        m, d = form.F.shape
        start = form.F.nnz + form.G.nnz
        key = (slot.name, tuple((k, tuple(terms)) for k, terms in sorted(coefficients.items())))
        z = self._shared.get(key)
        if z is None:
            z = self._shared[key] = self._new(m)
            for matrix, first, targets in (
                (form.F, 0, [coefficients.get(k, []) for k in range(d)]),
                (form.G, form.F.nnz, [[] for _ in range(form.G.shape[1])]),
            ):
                for k, terms in enumerate(targets):
                    row = self._equal_row(tuple((s, -v) for s, v in terms), name)
                    for place in range(int(matrix.indptr[k]), int(matrix.indptr[k + 1])):
                        self._entries.add_from_set(
                            row,
                            z + int(matrix.indices[place]),
                            slot.name,
                            first + place,
                            1.0,
                            float(matrix.data[place]),
                        )
            if all(c.kind in ("nonnegative", "zero") for c in form.cones):
                at = 0
                for cone in form.cones:
                    if cone.kind == "nonnegative":
                        self._nonnegative.append(np.arange(z + at, z + at + cone.rows))
                    at += cone.rows
            else:
                T, kinds = dual_map(form.cones)
                self._cone_rows.append((sparse.csc_array(-T), z))
                self._cones += kinds
        return [(z + i, slot.name, start + i, 1.0) for i in range(m)]

    def _new(self, count: int, nonnegative: bool = False) -> int:
        first = self._variables
        self._variables += count
        if nonnegative:
            self._nonnegative.append(np.arange(first, first + count))
        return first

    def _inequalities(self, rows: list[_Row]) -> None:
        for at, row in enumerate(rows, start=self._equal_rows):
            self._names.append(row.name)
            for symbol, value in row.nominal:
                if symbol >= 0:
                    self._entries.add(at, symbol, value)
                else:
                    self._rhs.add(at, symbol, -value)
            for column, slot, place, scale in row.weights:
                form = self._forms[slot]
                value = float(form.h[place - form.F.nnz - form.G.nnz])
                self._entries.add_from_set(at, column, slot, place, scale, value)
            for slot, direction in row.numbers:
                self._rhs.subtract_support(at, slot, direction)
        self._le_rows = len(rows)

    def _finish(self, tolerance: float, solver: str) -> None:
        program, n = self.program, self._variables
        rows = self._equal_rows + self._le_rows
        for T, z in self._cone_rows:
            entries = sparse.coo_array(T)
            for i, j, v in zip(entries.row, entries.col, entries.data, strict=True):
                self._entries.add(rows + int(i), z + int(j), float(v))
            self._names += ["multiplier"] * T.shape[0]
            rows += T.shape[0]
        lower, upper = np.full(n, -np.inf), np.full(n, np.inf)
        if program.size:
            lower[: self.n], upper[: self.n] = np.concatenate(program.lower), np.concatenate(program.upper)
        for index in self._nonnegative:
            lower[index] = 0.0
        matrix = self._entries.compile(rows, n)
        self._check_scale(matrix)
        self._rhs.compile(rows, self._sets)
        quadratic, self._cost_of, self.objective_constant = objective_data(program.objective, n, program.parameter_size)
        self.data = ProgramData(
            quadratic,
            self._cost_of[:, -1].copy(),
            matrix,
            np.zeros(rows),
            lower,
            upper,
            self._equal_rows,
            self._le_rows,
            self._cones,
            constant_cost=not self._cost_of[:, :-1].any(),
            varying=self._rhs.varying(),
        )
        self._places = {
            name: (index.size, slice(int(index[0]), int(index[-1]) + 1) if index.size else slice(0))
            for name, index in program.parameters.items()
        }
        self._known = self._rhs.known  # parameters, and 1 for what is constant
        S = self.objective_constant
        self._constant = None if S[:-1].any() or S[-1, :-1].any() else float(S[-1, -1])
        self._load()
        self._matrix_changed = False
        self.backend: Backend = choose_backend(solver, self.data, tolerance)

    def _check_scale(self, matrix: sparse.csc_matrix) -> None:
        size = np.abs(matrix.data[matrix.data != 0])
        if size.size and not size.max() <= SCALE_LIMIT * size.min():
            coo = sparse.coo_array(matrix)
            worst = np.flatnonzero(np.abs(coo.data) == size.max())[0]
            name = self._names[int(coo.row[worst])]
            raise IllScaledError(
                f"coefficients range from {size.min():.1e} to {size.max():.1e} (allowed ratio {SCALE_LIMIT:.0e}); the "
                f"largest is in '{name}': choose other units",
                "ill-scaled",
                {"constraint": name, "smallest": float(size.min()), "largest": float(size.max())},
            )

    # -- data in force ------------------------------------------------------------------------------------------------
    def _load(self) -> None:
        self._rhs.fill(self.data.rhs)
        if not self.data.constant_cost:
            self._cost_of.dot(self._known, self.data.cost)

    def update(self, **data: ArrayLike | UncertaintySet) -> None:
        """New sets and parameters by name, written into the compiled problem and handed to the solver.

        Raises
        ------
        SetError, ConfigError
            See `write`.
        """
        self.backend.update(self._write(data))

    def write(self, **data: ArrayLike | UncertaintySet) -> bool:
        """New sets and parameters by name, written into `data`; returns whether the matrix changed.

        Raises
        ------
        SetError
            A set's family or size differs from the one compiled.
        ConfigError
            The name is unknown or a parameter has the wrong shape.
        """
        return self._write(data)

    def _write(self, data: Mapping[str, ArrayLike | UncertaintySet]) -> bool:
        for name, value in data.items():
            if name in self._sets and isinstance(value, UncertaintySet):
                self._matrix_changed |= self._set(name, value)
            elif name in self._places and not isinstance(value, UncertaintySet):
                size, where = self._places[name]
                vector = np.asarray(value, float)
                # the square of the norm tells at once that all are finite, unless it overflows
                if vector.shape != (size,) or not (isfinite(vector.dot(vector)) or np.isfinite(vector).all()):
                    raise ConfigError(f"parameter '{name}' takes {size} finite numbers, got {value!r}")
                self._known[where] = vector
            else:
                known = ", ".join([*self._sets, *self.program.parameters])
                raise ConfigError(f"'{name}' is no set or parameter of this program; known: {known}")
        self._load()
        changed, self._matrix_changed = self._matrix_changed, False  # true also after a call that was refused halfway
        return changed

    def _set(self, name: str, members: UncertaintySet) -> bool:
        before = self._sets[name]
        if not self._entries.uses(name):  # only numbers depend on it: any family will do
            if members.dim != before.dim:
                raise SetError(f"set '{name}' has dimension {before.dim}, the new one {members.dim}")
            self._sets[name] = members
            self._rhs.take(name, members)
            return False
        old = self._forms[name]
        if isinstance(members, Box) and isinstance(before, Box):  # one pattern for all boxes of a dimension
            h = np.concatenate([members.upper, -members.lower])
            form = ConicForm(old.F, old.G, h, old.cones) if h.size == old.h.size else members.conic()
        else:
            form = members.conic()
        same = form.cones == old.cones and all(
            a is b
            or (a.shape == b.shape and np.array_equal(a.indptr, b.indptr) and np.array_equal(a.indices, b.indices))
            for a, b in ((form.F, old.F), (form.G, old.G))
        )
        if not same or isinstance(members, Box) != isinstance(before, Box):
            raise SetError(
                f"set '{name}': one of family '{members.family}' has another pattern than the compiled one of family "
                f"'{before.family}'; compile again"
            )
        self._sets[name], self._forms[name] = members, form
        self._rhs.take(name, members)
        values = np.concatenate([form.F.data, form.G.data, form.h])
        return self._entries.refill(name, values, self.data.matrix)

    def solve(self, **data: ArrayLike | UncertaintySet) -> Solution:
        """Solve, after an `update` with `data` if any.

        Raises
        ------
        InfeasibleError
            `details["constraints"]`: the constraints with at least 5 % weight in a proof of infeasibility.
        UnboundedError, NumericalError
        """
        began = time.perf_counter()
        if data:
            self.backend.update(self._write(data))
        try:
            x, objective = self.backend.solve()
        except InfeasibleError as error:
            weights = infeasibility_weights(self.data)
            named: dict[str, float] = {}
            for label, weight in zip(self._names, weights, strict=False):
                named[label] = named.get(label, 0.0) + float(weight)
            top = sorted((k for k in named if named[k] > 0.05), key=lambda k: -named[k])
            raise InfeasibleError(
                f"no decision satisfies all robust constraints; together impossible: {', '.join(top) or 'bounds'}",
                error.status,
                {"constraints": top, "certificate": weights},
            ) from error
        known, constant = self._known, self._constant
        if constant is None:
            constant = float(known @ self.objective_constant @ known)
        return Solution(
            self.program,
            x[: self.n],
            known[:-1].copy(),
            objective + constant,
            self.backend.name,
            time.perf_counter() - began,
        )

    @property
    def sizes(self) -> dict[str, int]:
        """Variables, rows and non-zeros of the compiled matrix."""
        return {"variables": self._variables, "rows": self.data.rhs.size, "nonzeros": int(self.data.matrix.nnz)}


def _terms(e: Affine) -> Terms:
    return tuple(zip(e.sym.tolist(), e.val.tolist(), strict=True))
