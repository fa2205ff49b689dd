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
    """The parameters of one step as one vector `p` with named views into it; fill the views, then solve.

    Views: `x` (nx,) measured state; `zeta`, `radius` (N, ng) centres and half-widths of the neighbours' promises for
    t = k .. k+N-1; `x_lower`, `x_upper` (N, nx) own promise for t = k+1 .. k+N; `c_lower`, `c_upper` (N, nu) own
    promised deviation from the backup law for t = k .. k+N-1; `x_ref` (nx,), `u_ref` (nu,) target.
    """

    def __init__(self, model: LocalModel, horizon: int) -> None:
        nx, nu, ng, N = model.nx, model.nu, model.ng, horizon
        shapes = {
            "x": (nx,),
            "zeta": (N, ng),
            "radius": (N, ng),
            "x_lower": (N, nx),
            "x_upper": (N, nx),
            "c_lower": (N, nu),
            "c_upper": (N, nu),
            "x_ref": (nx,),
            "u_ref": (nu,),
        }
        self.slices: dict[str, slice] = {}
        start = 0
        for name, shape in shapes.items():
            size = int(np.prod(shape))
            self.slices[name] = slice(start, start + size)
            start += size
        self.p = np.zeros(start)
        view = {name: self.p[part].reshape(shapes[name]) for name, part in self.slices.items()}
        self.x, self.zeta, self.radius = view["x"], view["zeta"], view["radius"]
        self.x_lower, self.x_upper = view["x_lower"], view["x_upper"]
        self.c_lower, self.c_upper = view["c_lower"], view["c_upper"]
        self.x_ref, self.u_ref = view["x_ref"], view["u_ref"]


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


class Prediction:
    """Nominal states as affine functions of (v, p), and the rows of the quadratic cost; shared by all feedback forms.

    x(t) = Phi_t x + sum_{s<t} Phi_{t-1-s} (B v(s) + G zeta(s)),  t = 1..N,  Phi_t = A^t.
    """

    def __init__(self, model: LocalModel, horizon: int) -> None:
        self.model, self.N = model, horizon
        nx, nu, ng, N = model.nx, model.nu, model.ng, horizon
        self.powers = np.empty((N + 1, nx, nx))
        self.powers[0] = np.eye(nx)
        for t in range(N):
            self.powers[t + 1] = model.A @ self.powers[t]
        self.from_v = np.zeros((N, nx, N, nu))
        self.from_zeta = np.zeros((N, nx, N, ng))
        for t in range(1, N + 1):
            for s in range(t):
                self.from_v[t - 1, :, s] = self.powers[t - 1 - s] @ model.B
                self.from_zeta[t - 1, :, s] = self.powers[t - 1 - s] @ model.G
        self.data = StepData(model, N)
        self.x_v = self.from_v.reshape(N * nx, N * nu)
        self.x_p = np.zeros((N * nx, self.data.p.size))
        self.x_p[:, self.data.slices["x"]] = self.powers[1:].reshape(N * nx, nx)
        self.x_p[:, self.data.slices["zeta"]] = self.from_zeta.reshape(N * nx, N * ng)
        # u(t) = K x(t) + v(t), t = 0..N-1
        K, p = model.K, self.data.p.size
        u_v = np.zeros((N, nu, N * nu))
        u_p = np.zeros((N, nu, p))
        u_p[0][:, self.data.slices["x"]] = K
        for t in range(N):
            u_v[t, :, t * nu : (t + 1) * nu] = np.eye(nu)
            if t:
                u_v[t] += K @ self.x_v[(t - 1) * nx : t * nx]
                u_p[t] = K @ self.x_p[(t - 1) * nx : t * nx]
        self.u_v = u_v.reshape(N * nu, N * nu)
        self.u_p = u_p.reshape(N * nu, p)

    def quadratic(self, cost: Cost) -> tuple[Matrix, Matrix]:
        """(H, F) of the nominal cost 1/2 v'H v + (F p)'v, constants in v left out."""
        model, N, data = self.model, self.N, self.data
        nx, nu = model.nx, model.nu
        ex_p, eu_p = self.x_p.copy(), self.u_p.copy()
        ex_p.reshape(N, nx, -1)[:, :, data.slices["x_ref"]] -= np.eye(nx)
        eu_p.reshape(N, nu, -1)[:, :, data.slices["u_ref"]] -= np.eye(nu)
        Q = np.zeros((N * nx, N * nx))
        R = np.kron(np.eye(N), cost.R)
        for t in range(N):
            block = slice(t * nx, (t + 1) * nx)
            Q[block, block] = cost.P if t == N - 1 else cost.Q
        H = 2 * (self.x_v.T @ Q @ self.x_v + self.u_v.T @ R @ self.u_v)
        F = 2 * (self.x_v.T @ Q @ ex_p + self.u_v.T @ R @ eu_p)
        return (H + H.T) / 2, F

    def nominal(self, v: Vector) -> Matrix:
        """States (N+1, nx) for the stacked v and the data in force."""
        x = np.empty((self.N + 1, self.model.nx))
        x[0] = self.data.x
        x[1:] = (self.x_v @ v + self.x_p @ self.data.p).reshape(self.N, -1)
        return x
