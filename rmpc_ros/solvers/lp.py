"""Linear and mixed-integer linear programs through HiGHS.

    min  c'x   s.t.  row_lower <= A x <= row_upper,  lower <= x <= upper,  x_j integer for j in `integer`

`LinearProgram` is built once and keeps its basis: change costs, bounds, matrix entries or add rows, then solve again.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import highspy
import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import sparse

from rmpc_ros.errors import InfeasibleError, NumericalError, UnboundedError

Vector = NDArray[np.float64]

_OPTIMAL = highspy.HighsModelStatus.kOptimal
_INFEASIBLE = highspy.HighsModelStatus.kInfeasible
_UNBOUNDED = highspy.HighsModelStatus.kUnbounded
_EITHER = highspy.HighsModelStatus.kUnboundedOrInfeasible
_OK, _ERROR = highspy.HighsStatus.kOk, highspy.HighsStatus.kError


class LpSolution(NamedTuple):
    """A checked optimum.

    Attributes
    ----------
    x : (n,) primal point.
    objective : value at `x` (constant included).
    row_dual : (m,) multipliers of the rows, d objective / d row bound; empty for mixed-integer programs.
    gap : relative gap between incumbent and bound (0 for linear programs).
    bound : best proven lower bound (equals `objective` for linear programs).
    """

    x: Vector
    objective: float
    gap: float
    bound: float
    raw: highspy.HighsSolution | None  # its lists become arrays when they are asked for

    @property
    def row_dual(self) -> Vector:
        """See the class."""
        return np.empty(0) if self.raw is None else np.array(self.raw.row_dual)


class LinearProgram:
    """A linear or mixed-integer program that is built once and re-solved with changed data.

    Parameters
    ----------
    cost : (n,)
    matrix : (m, n) sparse or dense
    row_lower, row_upper : (m,), infinities allowed
    lower, upper : (n,), infinities allowed; default free
    integer : indices of integer variables
    constant : added to the objective
    tolerance : largest accepted primal violation, relative to 1 + the size of the row's bound
    options : HiGHS options by name
    """

    def __init__(
        self,
        cost: ArrayLike,
        matrix: sparse.sparray | sparse.spmatrix | NDArray[np.float64],
        row_lower: ArrayLike,
        row_upper: ArrayLike,
        lower: ArrayLike | None = None,
        upper: ArrayLike | None = None,
        integer: ArrayLike | None = None,
        constant: float = 0.0,
        tolerance: float = 1e-6,
        options: dict[str, str | int | float | bool] | None = None,
    ) -> None:
        c = np.asarray(cost, float)
        a = sparse.csr_array(matrix)
        n, m = c.size, a.shape[0]
        if a.shape != (m, n):
            raise ValueError(f"matrix has shape {a.shape}, cost has {n} entries")
        model = highspy.HighsLp()
        model.num_col_, model.num_row_ = n, m
        model.col_cost_ = c
        model.offset_ = constant
        model.col_lower_ = np.full(n, -np.inf) if lower is None else np.broadcast_to(np.asarray(lower, float), n).copy()
        model.col_upper_ = np.full(n, np.inf) if upper is None else np.broadcast_to(np.asarray(upper, float), n).copy()
        model.row_lower_ = np.broadcast_to(np.asarray(row_lower, float), m).copy()
        model.row_upper_ = np.broadcast_to(np.asarray(row_upper, float), m).copy()
        model.a_matrix_.format_ = highspy.MatrixFormat.kRowwise
        model.a_matrix_.start_ = a.indptr.astype(np.int32)
        model.a_matrix_.index_ = a.indices.astype(np.int32)
        model.a_matrix_.value_ = a.data.astype(float)
        self._mixed = integer is not None and np.size(integer) > 0
        if self._mixed:
            kinds = [highspy.HighsVarType.kContinuous] * n
            for j in np.atleast_1d(np.asarray(integer, int)):
                kinds[j] = highspy.HighsVarType.kInteger
            model.integrality_ = kinds
        self.highs = highspy.Highs()
        self.highs.setOptionValue("output_flag", False)
        self.highs.setOptionValue("threads", 1)
        for name, value in (options or {}).items():
            if self.highs.setOptionValue(name, value) != highspy.HighsStatus.kOk:
                raise ValueError(f"HiGHS refused option {name}={value!r}")
        self.highs.passModel(model)
        self._cost = c.copy()
        self.tolerance = tolerance

    @property
    def size(self) -> tuple[int, int]:
        """(rows, columns)."""
        return self.highs.getNumRow(), self.highs.getNumCol()

    def set_cost(self, cost: ArrayLike, columns: ArrayLike | None = None) -> None:
        """Replace the cost of all columns, (n,), or of the named ones."""
        index = np.arange(self._cost.size, dtype=np.int32) if columns is None else np.asarray(columns, np.int32)
        c = _filled(cost, index.size)
        if not np.array_equal(c, self._cost[index]):
            self.highs.changeColsCost(index.size, index, c)
            self._cost[index] = c

    def set_row_bounds(self, rows: ArrayLike, lower: ArrayLike, upper: ArrayLike) -> None:
        """Replace the bounds of the named rows."""
        index = np.atleast_1d(np.asarray(rows, np.int32))
        self.highs.changeRowsBounds(index.size, index, _filled(lower, index.size), _filled(upper, index.size))

    def set_bounds(self, columns: ArrayLike, lower: ArrayLike, upper: ArrayLike) -> None:
        """Replace the bounds of the named variables."""
        index = np.atleast_1d(np.asarray(columns, np.int32))
        self.highs.changeColsBounds(index.size, index, _filled(lower, index.size), _filled(upper, index.size))

    def set_entries(self, rows: ArrayLike, columns: ArrayLike, values: ArrayLike) -> None:
        """Replace single matrix entries."""
        index = (np.atleast_1d(np.asarray(v)).tolist() for v in (rows, columns, values))
        change = self.highs.changeCoeff
        for i, j, v in zip(*index, strict=True):
            change(i, j, v)

    def add_columns(self, cost: ArrayLike, lower: ArrayLike, upper: ArrayLike, integer: Sequence[int] = ()) -> int:
        """Append variables that appear in no row yet; returns the index of the first.

        `integer` counts from the first new variable.
        """
        c = np.atleast_1d(np.asarray(cost, float))
        first = int(self.highs.getNumCol())
        lo, hi = np.broadcast_to(np.asarray(lower, float), c.size), np.broadcast_to(np.asarray(upper, float), c.size)
        self._cost = np.append(self._cost, c)
        empty = np.empty(0, np.int32)
        self.highs.addCols(c.size, c, lo.copy(), hi.copy(), 0, empty, empty, np.empty(0))
        for j in integer:
            self.highs.changeColIntegrality(first + j, highspy.HighsVarType.kInteger)
            self._mixed = True
        return first

    def add_rows(
        self, matrix: sparse.sparray | sparse.spmatrix | NDArray[np.float64], lower: ArrayLike, upper: ArrayLike
    ) -> int:
        """Append rows; returns the index of the first."""
        a = sparse.csr_array(matrix)
        m, first = a.shape[0], int(self.highs.getNumRow())
        lo, hi = np.broadcast_to(np.asarray(lower, float), m), np.broadcast_to(np.asarray(upper, float), m)
        self.highs.addRows(
            m,
            lo.copy(),
            hi.copy(),
            a.nnz,
            a.indptr[:-1].astype(np.int32),
            a.indices.astype(np.int32),
            a.data.astype(float),
        )
        return first

    def solve(self) -> LpSolution:
        """Solve from the last basis.

        Raises
        ------
        InfeasibleError, UnboundedError, NumericalError
        """
        highs = self.highs
        run = highs.run()
        if run == _ERROR or highs.getModelStatus() != _OPTIMAL:
            self._without_optimum(run)
        solution = highs.getSolution()
        known, violation = highs.getInfoValue("max_primal_infeasibility")  # the whole info is slow to copy
        if known != _OK or not violation <= self.tolerance * 10:
            raise NumericalError(f"HiGHS reports an optimum that violates its rows by {violation:.2e}", "Optimal")
        x = np.fromiter(solution.col_value, float, self._cost.size)
        objective = highs.getObjectiveValue()
        if not self._mixed:
            return LpSolution(x, objective, 0.0, objective, solution)
        info = highs.getInfo()
        return LpSolution(x, objective, float(info.mip_gap), float(info.mip_dual_bound), None)

    def _without_optimum(self, run: highspy.HighsStatus) -> None:
        """Name the reason; returns only where a second run finds the optimum after all."""
        highs = self.highs
        if highs.getModelStatus() == _EITHER:  # presolve could not tell which: ask the simplex method
            highs.setOptionValue("presolve", "off")
            highs.run()
            highs.setOptionValue("presolve", "choose")
        status = highs.getModelStatus()
        word = highs.modelStatusToString(status)
        if status == _INFEASIBLE:
            raise InfeasibleError("the linear program has no feasible point", word)
        if status in (_UNBOUNDED, _EITHER):
            raise UnboundedError("the linear program is unbounded", word)
        if run == _ERROR or status != _OPTIMAL:
            raise NumericalError(f"HiGHS stopped with '{word}'", word)


def _filled(values: ArrayLike, size: int) -> Vector:
    """A contiguous vector of that size: the values, or one number repeated."""
    out = np.asarray(values, float)
    return np.ascontiguousarray(out if out.shape == (size,) else np.broadcast_to(out, size))


def solve_lp(
    cost: ArrayLike,
    matrix: sparse.sparray | sparse.spmatrix | NDArray[np.float64],
    row_lower: ArrayLike,
    row_upper: ArrayLike,
    lower: ArrayLike | None = None,
    upper: ArrayLike | None = None,
    integer: ArrayLike | None = None,
) -> LpSolution:
    """Build and solve a linear or mixed-integer program once; see `LinearProgram`."""
    return LinearProgram(cost, matrix, row_lower, row_upper, lower, upper, integer).solve()
