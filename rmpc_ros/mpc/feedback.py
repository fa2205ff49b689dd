"""Robust MPC with affine disturbance feedback: full, or Toeplitz (feedback depends on the lag only).

    c(t) = v(t) + sum_{s<t} M(t,s) w(s),      w(s) = x(s+1) - (A x(s) + B c(s) + nominal coupling)

M acts on the combined disturbance that the agent recovers from its own measurements, in physical directions, so a
neighbour's smaller set later only shrinks the reaction (math.md 2.1, 3.2). With the generators gamma of the disturbance
the state's coefficients follow a recursion (written out for Toeplitz feedback), and every limited row has one width:

    Y(t+1,s) = A Y(t,s) + B M(t,s) gamma,   Y(s+1,s) = gamma,
    width(t) = sum_s sum_e r_e(s) |coefficient_e(t,s)|,      lower + width(t) <= nominal(t) <= upper - width(t).

Coefficients, their moduli, nominal states and widths are all variables of a sparse QP whose pattern never changes. A
coefficient is the difference of two nonnegative variables and its modulus their sum, so moduli cost bounds, not rows.
Toeplitz feedback has one coefficient per lag, full feedback one per pair (t, s). The neighbours' half-widths r enter as
matrix values.
"""

from __future__ import annotations

import numpy as np
from scipy import sparse

from rmpc_ros.mpc.local import Cost, LocalModel, LocalPlan, Matrix, StepData, Vector
from rmpc_ros.solvers.qp import SparseQp

FEEDBACK_WEIGHT = 1e-4  # on |M|^2: the gentlest feedback among equals
WIDTH_WEIGHT = 1e-3  # on the states' coefficients: the narrowest promise among equals

Pair = tuple[int, int]
Parts = list[tuple[np.ndarray, np.ndarray]]  # columns and what multiplies them


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
        self.data = StepData(model, horizon)
        own, self._own_center = _own_generators(model)
        self._gamma = np.hstack([model.G, own])
        self._layout()
        self._compile(cost)

    # -- compile ------------------------------------------------------------------------------------------------------
    def _key(self, t: int, s: int) -> Pair:
        return (t - s, 0) if self.toeplitz else (t, s)

    def _layout(self) -> None:
        """Variables: v, x(1..N), M, the two parts of the coefficients of x, u, c, the widths of x, u, c."""
        nx, nu, N, ne = self.model.nx, self.model.nu, self.N, self._gamma.shape[1]
        acting = sorted({self._key(t, s) for t in range(1, N) for s in range(t)})  # pairs with feedback
        later = sorted({self._key(t, s) for t in range(2, N + 1) for s in range(t - 1)})  # pairs where Y is not gamma
        self._acting = {pair: k for k, pair in enumerate(acting)}
        self._later = {pair: k for k, pair in enumerate(later)}
        sizes = {
            "v": N * nu,
            "x": N * nx,
            "M": len(acting) * nu * nx,
            "x_part": 2 * len(later) * nx * ne,
            "u_part": 2 * len(acting) * nu * ne,
            "c_part": 2 * len(acting) * nu * ne,
            "x_width": N * nx,
            "u_width": (N - 1) * nu,
            "c_width": (N - 1) * nu,
        }
        ends = np.cumsum([0, *sizes.values()])
        self._at = {name: slice(int(a), int(b)) for name, a, b in zip(sizes, ends[:-1], ends[1:], strict=True)}
        self.variables = int(ends[-1])

    def _columns(self, name: str, width: int, number: int = 0) -> np.ndarray:
        start = self._at[name].start + number * width
        return np.arange(start, start + width)

    def _parts(self, name: str, width: int, number: int) -> tuple[np.ndarray, np.ndarray]:
        """Columns of the positive and of the negative part of one coefficient block."""
        both = self._columns(name, 2 * width, number)
        return both[:width], both[width:]

    def _compile(self, cost: Cost) -> None:
        equal = _Rows(self.variables)
        self._radius_at: list[int] = []
        self._radius_index: list[int] = []
        self._nominal_rows(equal)
        self._coefficient_rows(equal)
        self._fixed_rows = equal.count
        self._width_rows(equal)
        self._A, slots = equal.matrix()
        self._radius_slot = slots[np.array(self._radius_at, np.int64)]
        self._radius_of = np.array(self._radius_index, np.int64)
        self._b = np.zeros(equal.count)
        self._b[: self._fixed_rows] = equal.right_sides()
        self._side_rows()
        self._costs(cost)
        self.qp: SparseQp | None = None

    def _nominal_rows(self, rows: _Rows) -> None:
        """x(t+1) - A x(t) - B v(t) = what the data and the own disturbance's centre add."""
        model = self.model
        for t in range(self.N):
            parts: Parts = [(self._columns("x", model.nx, t), np.eye(model.nx))]
            parts.append((self._columns("v", model.nu, t), -model.B))
            if t:
                parts.append((self._columns("x", model.nx, t - 1), -model.A))
            rows.block(parts, np.zeros(model.nx))

    def _coefficient_rows(self, rows: _Rows) -> None:
        """The coefficients of x, u and c as functions of M, one block per pair with feedback."""
        model, gamma = self.model, self._gamma
        nx, nu, ne = model.nx, model.nu, gamma.shape[1]
        through, direct = np.kron(model.B, gamma.T), np.kron(np.eye(nu), gamma.T)
        for (t, s), k in self._acting.items():
            memory = self._columns("M", nu * nx, k)
            for name, width, left, feedback, number in (
                ("x_part", nx * ne, model.A, through, self._later[self._key(t + 1, s)]),
                ("u_part", nu * ne, model.K, direct, k),
                ("c_part", nu * ne, np.zeros((nu, nx)), direct, k),
            ):
                positive, negative = self._parts(name, width, number)
                one = np.diag(np.ones(width))
                constant, before = self._times_state(left, t, s)
                rows.block([(positive, one), (negative, -one), (memory, -feedback), *before], constant.ravel())

    def _times_state(self, left: Matrix, t: int, s: int) -> tuple[Matrix, Parts]:
        """The matrix left Y(t,s): its constant, and minus its dependence on the variables.

        Toeplitz: written out, A^(t-1-s) gamma + sum_{s<tau<t} A^(t-1-tau) B M(tau,s) gamma, which couples the variables
        less (1.4 times faster at N = 10). Full: through the parts of Y(t,s), whose number grows with N^2.
        """
        gamma = self._gamma
        nx, nu, ne = self.model.nx, self.model.nu, gamma.shape[1]
        if not np.any(left) or (t == s + 1):
            return left @ gamma, []
        if not self.toeplitz:
            before = np.kron(left, np.eye(ne))
            plus, minus = self._parts("x_part", nx * ne, self._later[self._key(t, s)])
            return np.zeros_like(left @ gamma), [(plus, -before), (minus, before)]
        parts: Parts = []
        for tau in range(s + 1, t):
            factor = left @ np.linalg.matrix_power(self.model.A, t - 1 - tau) @ self.model.B
            parts.append((self._columns("M", nu * nx, self._acting[self._key(tau, s)]), -np.kron(factor, gamma.T)))
        return left @ np.linalg.matrix_power(self.model.A, t - 1 - s) @ gamma, parts

    def _width_rows(self, rows: _Rows) -> None:
        """width(t) - sum_s sum_e r_e(s) |coefficient_e(t,s)| = 0; the last disturbance's share of x is a number."""
        nx, nu, N, ne, ng = self.model.nx, self.model.nu, self.N, self._gamma.shape[1], self.model.ng
        for name, width, index, steps in (
            ("x", nx, self._later, range(1, N + 1)),
            ("u", nu, self._acting, range(1, N)),
            ("c", nu, self._acting, range(1, N)),
        ):
            for n, t in enumerate(steps):
                for i in range(width):
                    row = rows.new()
                    rows.add(row, self._columns(f"{name}_width", width, n)[i : i + 1], np.ones(1))
                    for s in range(t - 1 if name == "x" else t):
                        for part in self._parts(f"{name}_part", width * ne, index[self._key(t, s)]):
                            start = rows.add(row, part[i * ne : (i + 1) * ne], np.full(ne, -1.0))
                            self._radius_at += range(start, start + ng)
                            self._radius_index += range(s * ng, (s + 1) * ng)

    def _side_rows(self) -> None:
        """x, u = K x + v and c = v, each plus its width (upper side) and minus its width (lower side)."""
        model, N = self.model, self.N
        nx, nu = model.nx, model.nu
        rows = _Rows(self.variables)
        for sign in (1.0, -1.0):
            for t in range(1, N + 1):
                x, width = self._columns("x", nx, t - 1), self._columns("x_width", nx, t - 1)
                rows.block([(x, np.eye(nx)), (width, sign * np.eye(nx))])
            for name in ("u", "c"):
                for t in range(N):
                    parts: Parts = [(self._columns("v", nu, t), np.eye(nu))]
                    if t:
                        parts.append((self._columns(f"{name}_width", nu, t - 1), sign * np.eye(nu)))
                        if name == "u":
                            parts.append((self._columns("x", nx, t - 1), model.K))
                    rows.block(parts)
        self._G, _ = rows.matrix()
        self._half = rows.count // 2
        self._upper, self._lower = np.full(rows.count, np.inf), np.full(rows.count, -np.inf)
        self._u_upper, self._u_lower = np.tile(model.input_upper, N), np.tile(model.input_lower, N)

    def _costs(self, cost: Cost) -> None:
        """P of the QP, and F with linear cost F known for the nominal x and v; constants are left out."""
        model, N = self.model, self.N
        nx, nu, at = model.nx, model.nu, self._at
        both = N * (nu + nx)
        to_u = np.zeros((N * nu, both))
        to_u[:, : N * nu] = np.eye(N * nu)
        to_u[nu:, N * nu : both - nx] = np.kron(np.eye(N - 1), model.K)
        Q = np.kron(np.eye(N), cost.Q)
        Q[-nx:, -nx:] = cost.P
        R = np.kron(np.eye(N), cost.R)
        P = 2 * to_u.T @ R @ to_u
        P[N * nu :, N * nu :] += 2 * Q
        offset_u = np.zeros((N * nu, self.data.known.size))  # u without the nominal x(1..) and v, minus its target
        offset_u[:nu, :nx] = model.K
        offset_u[:, -nu:] = -np.tile(np.eye(nu), (N, 1))
        self._F = 2 * to_u.T @ R @ offset_u
        self._F[N * nu :, -(nx + nu) : -nu] -= 2 * Q @ np.tile(np.eye(nx), (N, 1))
        gentle = np.zeros(self.variables - both)
        gentle[at["M"].start - both : at["M"].stop - both] = FEEDBACK_WEIGHT
        self._P = sparse.csc_matrix(sparse.block_diag([(P + P.T) / 2, sparse.diags_array(gentle)]))
        self._c = np.zeros(self.variables)
        self._c[at["x_part"]] = WIDTH_WEIGHT

    # -- step ---------------------------------------------------------------------------------------------------------
    def update(self) -> None:
        """Bring the data in force into the compiled problem."""
        data, model, N, at = self.data, self.model, self.N, self._at
        moved = data.zeta @ model.G.T + self._own_center
        moved[0] += model.A @ data.x
        self._b[: moved.size] = moved.ravel()
        gamma = np.abs(self._gamma)
        newest = data.radius @ gamma[:, : model.ng].T + gamma[:, model.ng :].sum(axis=1)
        self._b[self._fixed_rows : self._fixed_rows + newest.size] = newest.ravel()
        self._A.data[self._radius_slot] = -data.radius.ravel()[self._radius_of]
        from_x = np.zeros(N * model.nu)
        from_x[: model.nu] = model.K @ data.x
        c_upper, c_lower = data.c_upper.ravel(), data.c_lower.ravel()
        self._upper[: self._half] = np.concatenate([data.x_upper.ravel(), self._u_upper - from_x, c_upper])
        self._lower[self._half :] = np.concatenate([data.x_lower.ravel(), self._u_lower - from_x, c_lower])
        self._c[: at["x"].stop] = self._F @ data.known
        if self.qp is None:
            floor = np.full(self.variables, -np.inf)
            floor[at["x_part"].start : at["c_part"].stop] = 0.0
            self.qp = SparseQp(self._P, self._c, self._G, self._lower, self._upper, x_lower=floor, A=self._A, b=self._b)
        else:
            self.qp.update(c=self._c, lower=self._lower, upper=self._upper, A=self._A, b=self._b)

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
        """Policy and its exact tube: states and half-widths follow from v and M, not from the solver's variables."""
        model, N, nx, nu = self.model, self.N, self.model.nx, self.model.nu
        v = z[self._at["v"]].reshape(N, nu)
        blocks = z[self._at["M"]].reshape(-1, nu, nx)
        M = np.zeros((N, N, nu, nx))
        for t in range(1, N):
            for s in range(t):
                M[t, s] = blocks[self._acting[self._key(t, s)]]
        radius = np.hstack([self.data.radius, np.ones((N, self._gamma.shape[1] - model.ng))])
        X = np.zeros((N + 1, N, nx, nx))
        x = np.empty((N + 1, nx))
        x[0] = self.data.x
        moved = self.data.zeta @ model.G.T + self._own_center
        for t in range(N):
            x[t + 1] = model.A @ x[t] + model.B @ v[t] + moved[t]
            X[t + 1] = model.A @ X[t]
            X[t + 1, t] = np.eye(nx)
            X[t + 1, :t] += model.B @ M[t, :t]
        tube = np.einsum("tsie,se->ti", np.abs(X[1:] @ self._gamma), radius)
        width = np.einsum("tsie,se->ti", np.abs(M @ self._gamma), radius)
        return LocalPlan(v, M, x, tube, tube, width, objective, iterations)


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
        self._right: list[Vector] = []

    def new(self) -> int:
        self.count += 1
        return self.count - 1

    def add(self, row: int, columns: np.ndarray, values: np.ndarray) -> int:
        position = self._size
        self._append(np.full(columns.size, row), columns, values)
        return position

    def block(self, parts: Parts, right: Vector | None = None) -> None:
        """Rows sum_k matrix_k z[columns_k] (= right); zeros of the matrices are not stored."""
        height = parts[0][1].shape[0]
        for columns, matrix in parts:
            i, j = np.nonzero(matrix)
            self._append(self.count + i, columns[j], matrix[i, j])
        if right is not None:
            self._right.append(right)
        self.count += height

    def _append(self, rows: np.ndarray, columns: np.ndarray, values: np.ndarray) -> None:
        self._row.append(rows)
        self._column.append(columns)
        self._value.append(values)
        self._size += columns.size

    def right_sides(self) -> Vector:
        return np.concatenate(self._right)

    def matrix(self) -> tuple[sparse.csc_matrix, np.ndarray]:
        """CSC matrix with every collected entry stored (no two may coincide), and each entry's slot in its data."""
        row, column, value = (np.concatenate(v) for v in (self._row, self._column, self._value))
        order = np.lexsort((row, column))
        slot = np.empty(row.size, int)
        slot[order] = np.arange(row.size)
        indptr = np.searchsorted(column[order], np.arange(self.columns + 1))
        return sparse.csc_matrix((value[order], row[order], indptr), shape=(self.count, self.columns)), slot
