"""Robust MPC with affine disturbance feedback: full, or Toeplitz (feedback depends on the lag only).

    c(t) = v(t) + sum_{s<t} M(t,s) w(s),      w(s) = x(s+1) - (A x(s) + B c(s) + nominal coupling)

M acts on the combined disturbance that the agent recovers from its own measurements, in physical directions, so a
neighbour's smaller set later only shrinks the reaction (math.md 2.1, 3.2). Every row of a state or input is then

    nominal(v) + sum_s sum_e r_e(s) |coefficient_e(M; t, s)| <= bound

over the generators e of the disturbance (the neighbours' half-widths r are data). Each |coefficient| has ONE slack that
all rows share; Toeplitz feedback needs one per lag, full feedback one per pair (t, s). The problem is a sparse QP whose
pattern never changes; the half-widths enter as matrix values.
"""

from __future__ import annotations

import itertools

import numpy as np
from scipy import sparse

from rmpc_ros.mpc.local import Cost, LocalModel, LocalPlan, Matrix, Prediction, StepData, Vector
from rmpc_ros.solvers.qp import SparseQp

FEEDBACK_WEIGHT = 1e-4  # on |M|^2: the gentlest feedback among equals
WIDTH_WEIGHT = 1e-3  # on the states' slacks: the narrowest promise among equals


class AffineFeedback:
    """Compiled problem of one agent; fill `data`, call `solve`.

    Disturbance sets enter by their smallest enclosing box in their own coordinates (exact for boxes).

    Parameters
    ----------
    model, cost, horizon : see `LocalModel`, `Cost`; N >= 1
    toeplitz : M(t, s) depends on t - s only
    """

    def __init__(self, model: LocalModel, cost: Cost, horizon: int, toeplitz: bool) -> None:
        self.model, self.N, self.toeplitz = model, horizon, toeplitz
        self.form = "toeplitz" if toeplitz else "full"
        self.prediction = Prediction(model, horizon)
        self.data: StepData = self.prediction.data
        own, own_center = _own_generators(model)
        self._generators = np.hstack([model.G, own])
        self._pairs = (
            [(lag, 0) for lag in range(1, horizon + 1)]
            if toeplitz
            else [(t, s) for t in range(1, horizon + 1) for s in range(t)]
        )
        drift = np.cumsum([power @ own_center for power in self.prediction.powers[:-1]], axis=0)
        self._drift = np.vstack([np.zeros(model.nx), drift])  # what the own disturbance's centre adds to x(0..N)
        self._layout()
        self._compile(cost)

    # -- compile ------------------------------------------------------------------------------------------------------
    def _layout(self) -> None:
        """Variables: v, the blocks of M, slacks of x rows, slacks of u rows, slacks of c rows."""
        nx, nu, N, ne = self.model.nx, self.model.nu, self.N, self._generators.shape[1]
        self._memory_pairs = [(t, s) for t, s in self._pairs if t < N]
        nM, nP, nQ = len(self._memory_pairs) * nu * nx, len(self._pairs), len(self._memory_pairs)
        self._M0 = N * nu
        self._x0 = self._M0 + nM
        self._u0 = self._x0 + nP * nx * ne
        self._c0 = self._u0 + nQ * nu * ne
        self.variables = self._c0 + nQ * nu * ne
        self._index = {pair: k for k, pair in enumerate(self._pairs)}
        self._memory_index = {pair: k for k, pair in enumerate(self._memory_pairs)}

    def _key(self, t: int, s: int) -> tuple[int, int]:
        return (t - s, 0) if self.toeplitz else (t, s)

    def _state_terms(self, t: int, s: int) -> tuple[Matrix, list[tuple[int, Matrix]]]:
        """Coefficient of w(s) in x(t): constant (nx, nx) and [(block of M, left factor (nx, nu))]."""
        powers, B = self.prediction.powers, self.model.B
        terms = [(self._memory_index[self._key(tau, s)], powers[t - 1 - tau] @ B) for tau in range(s + 1, t)]
        return powers[t - 1 - s], terms

    def _compile(self, cost: Cost) -> None:
        model, N, pred = self.model, self.N, self.prediction
        nx, nu, ne, ng = model.nx, model.nu, self._generators.shape[1], model.ng
        gamma = self._generators
        rows = _Rows(self.variables)

        # |coefficient| <= slack, twice, for every row of x, u and c and every pair.
        for pair in self._pairs:
            t, s = pair
            constant, terms = self._state_terms(t, s)
            self._absolute(rows, np.eye(nx), constant, terms, None, self._x0 + self._index[pair] * nx * ne)
            if pair in self._memory_index:
                k = self._memory_index[pair]
                self._absolute(rows, model.K, constant, terms, k, self._u0 + k * nu * ne)
                self._absolute(rows, np.eye(nu), np.zeros((nu, nx)), [], k, self._c0 + k * nu * ne, plain=True)
        self._absolute_rows = rows.count

        # nominal(v) +- sum r S within the sides; first all rows with an upper side, then those with a lower, per block.
        self._radius_position: list[int] = []
        self._radius_source: list[int] = []
        blocks = [
            (pred.x_v, self._x0, self._index, nx, 1),
            (pred.u_v, self._u0, self._memory_index, nu, 0),
            (np.eye(N * nu), self._c0, self._memory_index, nu, 0),
        ]
        for nominal_v, start, index, width, first in blocks:
            for sign in (1.0, -1.0):
                for step in range(N):
                    t = step + first
                    for i in range(width):
                        row = rows.new()
                        rows.add(row, np.arange(N * nu), nominal_v[step * width + i])
                        for s in range(t):
                            base = start + index[self._key(t, s)] * width * ne + i * ne
                            position = rows.add(row, base + np.arange(ne), np.full(ne, sign))
                            self._radius_position += list(range(position, position + ng))
                            self._radius_source += [s * ng + e for e in range(ng)]
        matrix, order = rows.matrix()
        self._matrix = matrix
        self._radius_slot = order[np.array(self._radius_position, int)]
        self._radius_sign = matrix.data[self._radius_slot].copy()
        self._radius_index = np.array(self._radius_source, int)
        # Rows come in blocks x+, x-, u+, u-, c+, c-: the first of each pair has an upper side only, the second a lower.
        total = rows.count
        self._upper = np.full(total, np.inf)
        self._lower = np.full(total, -np.inf)
        self._upper[: self._absolute_rows] = rows.right_sides()
        starts = np.cumsum([self._absolute_rows, N * nx, N * nx, N * nu, N * nu, N * nu, N * nu])
        spans = [np.arange(a, b) for a, b in itertools.pairwise(starts)]
        self._upper_rows, self._lower_rows = np.concatenate(spans[0::2]), np.concatenate(spans[1::2])
        # What moves x, u and c without any decision: the drive, and the centre of the own disturbance.
        self._moved = np.vstack([pred.x_d, pred.u_d, np.zeros((N * nu, pred.x_d.shape[1]))])
        drift_u = self._drift[:-1] @ model.K.T
        self._moved_0 = np.concatenate([self._drift[1:].ravel(), drift_u.ravel(), np.zeros(N * nu)])
        self._u_upper, self._u_lower = np.tile(model.input_upper, N), np.tile(model.input_lower, N)

        H, self._F = pred.quadratic(cost)
        diagonal = np.zeros(self.variables)
        diagonal[self._M0 : self._x0] = FEEDBACK_WEIGHT
        P = sparse.csc_matrix(
            sparse.diags_array(diagonal) + sparse.block_diag([H, sparse.csc_array((self.variables - N * nu,) * 2)])
        )
        self._c = np.zeros(self.variables)
        self._c[self._x0 : self._u0] = WIDTH_WEIGHT
        self._P = P
        self.qp: SparseQp | None = None
        self._gamma = gamma

    def _absolute(
        self,
        rows: _Rows,
        left: Matrix,
        constant: Matrix,
        terms: list[tuple[int, Matrix]],
        direct: int | None,
        slack: int,
        plain: bool = False,
    ) -> None:
        """Rows for slack >= |left (constant + sum_k F_k M_k) gamma + M_direct gamma|, entry by entry."""
        nx, nu, gamma = self.model.nx, self.model.nu, self._generators
        fixed = left @ constant @ gamma
        for i in range(fixed.shape[0]):
            for e in range(gamma.shape[1]):
                columns: list[np.ndarray] = []
                values: list[np.ndarray] = []
                for k, factor in terms:
                    columns.append(self._M0 + k * nu * nx + np.arange(nu * nx))
                    values.append(np.outer((left @ factor)[i], gamma[:, e]).ravel())
                if direct is not None:
                    columns.append(self._M0 + direct * nu * nx + i * nx + np.arange(nx))
                    values.append(gamma[:, e])
                for sign in (1.0, -1.0):
                    row = rows.new(-sign * fixed[i, e])
                    for column, value in zip(columns, values, strict=True):
                        rows.add(row, column, sign * value)
                    rows.add(row, np.array([slack + i * gamma.shape[1] + e]), np.array([-1.0]))

    # -- step ---------------------------------------------------------------------------------------------------------
    def update(self) -> None:
        """Bring the data in force into the compiled problem."""
        data = self.data
        moved = self._moved @ data.drive + self._moved_0
        upper = np.concatenate([data.x_upper.ravel(), self._u_upper, data.c_upper.ravel()])
        lower = np.concatenate([data.x_lower.ravel(), self._u_lower, data.c_lower.ravel()])
        self._upper[self._upper_rows] = upper - moved
        self._lower[self._lower_rows] = lower - moved
        self._matrix.data[self._radius_slot] = self._radius_sign * data.radius.ravel()[self._radius_index]
        self._c[: self.N * self.model.nu] = self._F @ data.known
        if self.qp is None:
            self.qp = SparseQp(self._P, self._c, self._matrix, self._lower, self._upper)
        else:
            self.qp.update(c=self._c, G=self._matrix, lower=self._lower, upper=self._upper)

    def solve(self) -> LocalPlan:
        """Solve for the data in force.

        Raises
        ------
        InfeasibleError, NumericalError
        """
        self.update()
        assert self.qp is not None
        solution = self.qp.solve()
        return self._plan(solution.v, solution.objective, solution.iterations)

    def _plan(self, z: Vector, objective: float, iterations: int) -> LocalPlan:
        """Policy and its exact tube: the half-widths follow from M itself, not from the solver's slacks."""
        N, nx, nu = self.N, self.model.nx, self.model.nu
        v = z[: N * nu]
        blocks = z[self._M0 : self._x0].reshape(-1, nu, nx)
        M = np.zeros((N, N, nu, nx))
        for t in range(1, N):
            for s in range(t):
                M[t, s] = blocks[self._memory_index[self._key(t, s)]]
        radius = np.hstack([self.data.radius, np.ones((N, self._generators.shape[1] - self.model.ng))])
        X = np.zeros((N + 1, N, nx, nx))
        for t in range(N):
            X[t + 1] = self.model.A @ X[t]
            X[t + 1, t] = np.eye(nx)
            X[t + 1, :t] += self.model.B @ M[t, :t]
        tube = np.einsum("tsie,se->ti", np.abs(X[1:] @ self._gamma), radius)
        width = np.einsum("tsie,se->ti", np.abs(M @ self._gamma), radius)
        x = self.prediction.nominal(v) + self._drift
        return LocalPlan(v.reshape(N, nu), M, x, tube, tube, width, objective, iterations)


def _own_generators(model: LocalModel) -> tuple[Matrix, Vector]:
    """Generators (nx, k) scaled by half-widths, and the centre (nx,), of the own disturbances' enclosing boxes."""
    columns, center = [np.zeros((model.nx, 0))], np.zeros(model.nx)
    for E, members in model.disturbances:
        eye = np.eye(members.dim)
        high, low = members.support(eye), -members.support(-eye)
        columns.append(E * ((high - low) / 2))
        center += E @ ((high + low) / 2)
    own = np.hstack(columns)
    return own[:, np.any(own != 0, axis=0)], center


class _Rows:
    """Sparse rows collected entry by entry; remembers where each entry ends up."""

    def __init__(self, columns: int) -> None:
        self.columns, self.count, self._size = columns, 0, 0
        self._row: list[np.ndarray] = []
        self._column: list[np.ndarray] = []
        self._value: list[np.ndarray] = []
        self._right: list[float] = []

    def new(self, right: float | None = None) -> int:
        if right is not None:
            self._right.append(right)
        self.count += 1
        return self.count - 1

    def add(self, row: int, columns: np.ndarray, values: np.ndarray) -> int:
        position = self._size
        self._row.append(np.full(columns.size, row))
        self._column.append(columns)
        self._value.append(values)
        self._size += columns.size
        return position

    def right_sides(self) -> Vector:
        return np.array(self._right)

    def matrix(self) -> tuple[sparse.csc_matrix, np.ndarray]:
        """CSC matrix with every collected entry stored, zeros included, and each entry's slot in its data."""
        row, column, value = (np.concatenate(v) for v in (self._row, self._column, self._value))
        keep_order = np.lexsort((row, column))
        r, c = row[keep_order], column[keep_order]
        first = np.ones(r.size, bool)
        first[1:] = (r[1:] != r[:-1]) | (c[1:] != c[:-1])
        slot_sorted = np.cumsum(first) - 1
        slot = np.empty(r.size, int)
        slot[keep_order] = slot_sorted
        data = np.zeros(int(first.sum()))
        np.add.at(data, slot, value)
        indptr = np.searchsorted(c[first], np.arange(self.columns + 1))
        return sparse.csc_matrix((data, r[first], indptr), shape=(self.count, self.columns)), slot
