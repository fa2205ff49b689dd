"""One agent's robust control problem: the model it predicts with and the data of one step.

    x(t+1) = A x(t) + B c(t) + G zeta(t) + w(t),     u(t) = K x(t) + c(t)

A is the agent's own block of the network with its backup law K closed; zeta stacks what the neighbours promise (their
states and their deviations from their own backup laws), w is the agent's own disturbance. Everything is in normalised
deviations: 1 is half the range between a state's or input's limits.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rmpc_ros.sets.base import UncertaintySet

Vector = NDArray[np.float64]
Matrix = NDArray[np.float64]


@dataclass(frozen=True)
class LocalModel:
    """Prediction model of one agent.

    Attributes
    ----------
    A : (nx, nx), B : (nx, nu), K : (nu, nx), G : (nx, ng)
    disturbances : pairs (E (nx, k), set in R^k); w is the sum of E d over independent members d
    input_lower, input_upper : (nu,) hard limits of u
    """

    A: Matrix
    B: Matrix
    K: Matrix
    G: Matrix
    disturbances: tuple[tuple[Matrix, UncertaintySet], ...]
    input_lower: Vector
    input_upper: Vector

    @property
    def nx(self) -> int:
        """Number of states."""
        return int(self.A.shape[0])

    @property
    def nu(self) -> int:
        """Number of inputs."""
        return int(self.B.shape[1])

    @property
    def ng(self) -> int:
        """Number of quantities the neighbours promise."""
        return int(self.G.shape[1])

    def disturbance_support(self, rows: Matrix) -> Vector:
        """Support function of the own disturbance w, (m, nx) -> (m,)."""
        total = np.zeros(len(rows))
        for E, members in self.disturbances:
            total += members.support(rows @ E)
        return total


@dataclass(frozen=True)
class Cost:
    """Quadratic stage cost about a target, sum |x - x_ref|_Q^2 + |u - u_ref|_R^2, terminal weight P."""

    Q: Matrix
    R: Matrix
    P: Matrix


class StepData:
    """The data of one step; fill the arrays in place, then solve.

    Attributes
    ----------
    x : (nx,) measured state
    zeta, radius : (N, ng) centres and half-widths of the neighbours' promises for t = k .. k+N-1
    x_ref (nx,), u_ref (nu,) : target
    x_lower, x_upper : (N, nx) own promise for t = k+1 .. k+N
    c_lower, c_upper : (N, nu) own promised deviation from the backup law for t = k .. k+N-1
    drive : (nx + N ng,) x and zeta as one vector, what moves the nominal states
    widths : (N ng,) radius as one vector
    known : (nx + N ng + nx + nu,) drive and target as one vector, what moves the cost
    upper, lower : (N nu + N nx + N nu,) the bounds as the rows of the problem want them: c, x, and u_room
    toll : (N nu,) price of the nominal deviations c, added to the cost; zero but for a resource's
    u_room : (N, nu) what is taken off the upper limits of u(0..N-1), <= 0; zero but for shares of a resource
    """

    def __init__(self, model: LocalModel, horizon: int) -> None:
        nx, nu, ng, N = model.nx, model.nu, model.ng, horizon
        self.known = np.zeros(nx + N * ng + nx + nu)
        self.drive = self.known[: nx + N * ng]
        self.x = self.known[:nx]
        self.zeta = self.known[nx : nx + N * ng].reshape(N, ng)
        self.x_ref = self.known[nx + N * ng : 2 * nx + N * ng]
        self.u_ref = self.known[2 * nx + N * ng :]
        self.toll = np.zeros(N * nu)
        self.widths = np.zeros(N * ng)
        self.radius = self.widths.reshape(N, ng)
        self.upper, self.lower = np.zeros(N * (nu + nx + nu)), np.zeros(N * (nu + nx + nu))
        c_part, x_part = slice(0, N * nu), slice(N * nu, N * (nu + nx))
        self.c_lower, self.c_upper = self.lower[c_part].reshape(N, nu), self.upper[c_part].reshape(N, nu)
        self.x_lower, self.x_upper = self.lower[x_part].reshape(N, nx), self.upper[x_part].reshape(N, nx)
        self.u_room = self.upper[N * (nu + nx) :].reshape(N, nu)

    def copy_from(self, other: StepData) -> None:
        """Take over another step's data."""
        for name in ("known", "widths", "toll", "upper", "lower"):
            np.copyto(getattr(self, name), getattr(other, name))


@dataclass(frozen=True)
class LocalPlan:
    """A policy over the horizon and what it guarantees.

    Attributes
    ----------
    v : (N, nu) nominal deviations from the backup law
    M : (N, N, nu, nx) feedback on the recovered disturbance, strictly causal; (0, 0, nu, nx) for fixed feedback
    x : (N+1, nx) nominal states
    tube_lower, tube_upper : (N, nx) x(t) stays in [x - tube_lower, x + tube_upper] for t = 1..N
    c_width : (N, nu) half-width of c(t) around v(t)
    objective : optimal value
    iterations : of the solver
    """

    v: Matrix
    M: Matrix
    x: Matrix
    tube_lower: Matrix
    tube_upper: Matrix
    c_width: Matrix
    objective: float
    iterations: int

    def reach(self) -> tuple[Matrix, Matrix]:
        """Bounds (N, nx+nu), (N, nx+nu) of the states 1..N and of the deviations from the backup law 0..N-1."""
        low = np.hstack([self.x[1:] - self.tube_lower, self.v - self.c_width])
        high = np.hstack([self.x[1:] + self.tube_upper, self.v + self.c_width])
        return low, high


class Prediction:
    """Nominal states and inputs as affine functions of (v, drive), and the quadratic cost; for all feedback forms.

    x(t) = A^t x + sum_{s<t} A^{t-1-s} (B v(s) + G zeta(s)),  t = 1..N,      u(t) = K x(t) + v(t),  t = 0..N-1

    Attributes
    ----------
    powers : (N+1, nx, nx) of A
    from_zeta : (N, nx, N, ng) of x(1..N)
    x_v (N nx, N nu), x_d (N nx, drive) : of x(1..N)
    u_v (N nu, N nu), u_d (N nu, drive) : of u(0..N-1)
    """

    def __init__(self, model: LocalModel, horizon: int) -> None:
        self.model, self.N = model, horizon
        nx, nu, ng, N = model.nx, model.nu, model.ng, horizon
        self.powers = np.empty((N + 1, nx, nx))
        self.powers[0] = np.eye(nx)
        for t in range(N):
            self.powers[t + 1] = model.A @ self.powers[t]
        from_v = np.zeros((N, nx, N, nu))
        self.from_zeta = np.zeros((N, nx, N, ng))
        for t in range(1, N + 1):
            for s in range(t):
                from_v[t - 1, :, s] = self.powers[t - 1 - s] @ model.B
                self.from_zeta[t - 1, :, s] = self.powers[t - 1 - s] @ model.G
        self.data = StepData(model, N)
        self.x_v = from_v.reshape(N * nx, N * nu)
        self.x_d = np.hstack([self.powers[1:].reshape(N * nx, nx), self.from_zeta.reshape(N * nx, N * ng)])
        K, rest = model.K, (N - 1) * nx
        first = np.zeros((nu, self.x_d.shape[1]))
        first[:, :nx] = K
        through = np.kron(np.eye(N - 1), K)
        self.u_v = np.eye(N * nu) + np.vstack([np.zeros((nu, N * nu)), through @ self.x_v[:rest]])
        self.u_d = np.vstack([first, through @ self.x_d[:rest]])

    def quadratic(self, cost: Cost) -> tuple[Matrix, Matrix]:
        """(H, F) of the nominal cost 1/2 v'H v + (F known)'v, constants in v left out."""
        nx, nu, N = self.model.nx, self.model.nu, self.N
        x_error = np.hstack([self.x_d, np.tile(-np.eye(nx), (N, 1)), np.zeros((N * nx, nu))])
        u_error = np.hstack([self.u_d, np.zeros((N * nu, nx)), np.tile(-np.eye(nu), (N, 1))])
        Q = np.kron(np.eye(N), cost.Q)
        Q[-nx:, -nx:] = cost.P
        R = np.kron(np.eye(N), cost.R)
        H = 2 * (self.x_v.T @ Q @ self.x_v + self.u_v.T @ R @ self.u_v)
        F = 2 * (self.x_v.T @ Q @ x_error + self.u_v.T @ R @ u_error)
        return (H + H.T) / 2, F

    def offset_cost(self, cost: Cost) -> Matrix:
        """Linear cost in v, (N nu, N nx + N nu), of a known shift of x(1..N) and u(0..N-1)."""
        N = self.N
        Q = np.kron(np.eye(N), cost.Q)
        Q[-self.model.nx :, -self.model.nx :] = cost.P
        return np.hstack([2 * self.x_v.T @ Q, 2 * self.u_v.T @ np.kron(np.eye(N), cost.R)])

    def nominal(self, v: Vector) -> Matrix:
        """States (N+1, nx) for the stacked v and the data in force."""
        x = np.empty((self.N + 1, self.model.nx))
        x[0] = self.data.x
        x[1:] = (self.x_v @ v + self.x_d @ self.data.drive).reshape(self.N, -1)
        return x
