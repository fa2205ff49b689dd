"""A PID controller written as an MPC: the same moves, but it sees limits.

    min_dU  sum_{k<N} |du_k + K xi_k|_R^2   s.t.  xi+ = F xi + G du,  limits on u, du (hard) and y (exact penalty)

xi = (x_k - x_{k-1}, y_k - r, y_{k-1} - r, r_{k-1} - r, D_{k-1}) holds increments, so constant loads drop out; K is the
row of `pid.velocity_law` and reads measurements only, so the unconstrained move is the PID's for every horizon and
every model error. The stage cost has the cross term S = K'R; `rotated_cost` makes it positive definite without
changing a move. Sources: Zanon and Bemporad, arXiv 2003.10166 (rotation); Di Cairano and Bemporad 2010 (without a
cross term).
"""

from __future__ import annotations

from dataclasses import dataclass

import cvxpy as cp
import numpy as np
from numpy.typing import NDArray
from scipy import linalg

from rmpc_ros.errors import ConfigError, NumericalError
from rmpc_ros.models.delayed import SampledProcess
from rmpc_ros.mpc.pid import PidSettings, velocity_law
from rmpc_ros.solvers.qp import DenseQp

Vector = NDArray[np.float64]
Matrix = NDArray[np.float64]


@dataclass(frozen=True)
class PidSystem:
    """xi+ = F xi + G du with the PID's feedback du = -K xi;  F (m, m), G (m, 1), K (1, m), n plant states."""

    F: Matrix
    G: Matrix
    K: Matrix
    n: int

    @property
    def closed_loop(self) -> Matrix:
        """F - G K."""
        return self.F - self.G @ self.K

    @property
    def output(self) -> Matrix:
        """Row that reads y_k - r."""
        row = np.zeros((1, self.F.shape[0]))
        row[0, self.n] = 1.0
        return row


@dataclass(frozen=True)
class StageCost:
    """xi'Q xi + 2 xi'S du + du'R du over the horizon, plus xi'P xi at its end."""

    Q: Matrix
    S: Matrix
    R: Matrix
    P: Matrix


def augment(process: SampledProcess, settings: PidSettings) -> PidSystem:
    """The plant in increments with the memory of the PID.

    Raises
    ------
    ConfigError
        Plant and PID have different sampling periods.
    """
    if not np.isclose(process.period, settings.period, rtol=1e-9):
        raise ConfigError(f"plant model is sampled at {process.period}, the PID at {settings.period}: must be equal")
    n = process.A.shape[0]
    pole = settings.filter_pole
    slope = (1 - pole) * settings.kd / settings.period
    F, G = np.zeros((n + 4, n + 4)), np.zeros((n + 4, 1))
    F[:n, :n], G[:n] = process.A, process.B
    F[n, :n], F[n, n], G[n] = (process.C @ process.A)[0], 1.0, process.C @ process.B
    F[n + 1, n] = 1.0
    F[n + 3, n:] = [-slope, slope, -settings.derivative_weight * slope, pole]
    K = np.zeros((1, n + 4))
    K[0, n:] = velocity_law(settings)
    return PidSystem(F, G, K, n)


def pid_cost(system: PidSystem, weight: float = 1.0) -> StageCost:
    """Q = K'RK, S = K'R, R, no terminal cost: |du + K xi|_R^2."""
    R = np.array([[weight]])
    S = system.K.T @ R
    return StageCost(S @ system.K, S, R, np.zeros_like(system.F))


def tracking_cost(system: PidSystem, output_weight: float, move_weight: float) -> StageCost:
    """Cost q (y - r)^2 + m du^2 with the infinite-horizon cost at the end: what an MPC without a PID would minimise."""
    Q = output_weight * system.output.T @ system.output
    R = np.array([[move_weight]])
    k = system.n + 1
    small = linalg.solve_discrete_are(system.F[:k, :k], system.G[:k], Q[:k, :k], R)
    P = np.zeros_like(Q)
    P[:k, :k] = (small + small.T) / 2
    return StageCost(Q, np.zeros_like(system.G), R, P)


def blend(system: PidSystem, alpha: float, other: StageCost, weight: float = 1.0) -> StageCost:
    """Cost alpha |du + K xi|_R^2 + (1 - alpha) other: from the PID (1) to the MPC (0)."""
    if not 0.0 <= alpha <= 1.0:
        raise ConfigError(f"blend alpha = {alpha}: must lie in [0, 1]")
    pid, rest = pid_cost(system, weight), 1.0 - alpha
    return StageCost(
        alpha * pid.Q + rest * other.Q,
        alpha * pid.S + rest * other.S,
        alpha * pid.R + rest * other.R,
        alpha * pid.P + rest * other.P,
    )


def rotated_cost(system: PidSystem, weight: float = 1.0) -> StageCost:
    """Positive definite cost with the PID's feedback: Q = K'RK + P - F'PF, S = K'R - F'PG, R - G'PG, terminal P.

    Adding xi'P xi - xi+'P xi+ to each stage telescopes against the terminal cost, so every move stays the same. P comes
    from the semidefinite program  max mu : [Q S; S' R] >= mu I  (Zanon and Bemporad, arXiv 2003.10166, section III).

    Raises
    ------
    ConfigError
        The PID does not stabilise the plant: no such P exists.
    NumericalError
    """
    radius = float(np.max(np.abs(np.linalg.eigvals(system.closed_loop))))
    if radius >= 1.0:
        raise ConfigError(f"the PID loop has spectral radius {radius:.4f}: a definite cost needs a stable loop (< 1)")
    m = system.F.shape[0]
    base = pid_cost(system, weight)
    both = np.hstack([system.F, system.G])
    fixed = np.block([[base.Q, base.S], [base.S.T, base.R]])
    select = np.hstack([np.eye(m), np.zeros((m, 1))])
    P, mu = cp.Variable((m, m), symmetric=True), cp.Variable()
    hessian = fixed + select.T @ P @ select - both.T @ P @ both
    problem = cp.Problem(cp.Maximize(mu), [(hessian + hessian.T) / 2 >> mu * np.eye(m + 1)])
    problem.solve(solver=cp.CLARABEL)
    if problem.status != cp.OPTIMAL:
        raise NumericalError(f"Clarabel stopped with '{problem.status}' in the search for a definite cost")
    found = np.asarray(P.value)
    found = (found + found.T) / 2
    full = fixed + select.T @ found @ select - both.T @ found @ both
    if np.linalg.eigvalsh(full)[0] <= 0 or np.linalg.eigvalsh(found)[0] <= 0:
        raise NumericalError("the rotated cost found is not positive definite")
    return StageCost(full[:m, :m], full[:m, m:], full[m:, m:], found)


@dataclass(frozen=True)
class Condensed:
    """1/2 dU'H dU + (h xi)'dU and the outputs  y - r = free xi + forced dU  over the horizon."""

    H: Matrix
    h: Matrix
    free: Matrix
    forced: Matrix

    def gain(self) -> Matrix:
        """K of the first move du = -K xi of the unconstrained optimality system H dU = -h xi, (1, m)."""
        return np.asarray(np.linalg.solve(self.H, self.h)[:1])


def condense(system: PidSystem, cost: StageCost, horizon: int) -> Condensed:
    """Eliminate the states."""
    m, N = system.F.shape[0], horizon
    free, forced = np.zeros(((N + 1) * m, m)), np.zeros(((N + 1) * m, N))
    free[:m] = np.eye(m)
    for k in range(N):
        here, then = slice(k * m, (k + 1) * m), slice((k + 1) * m, (k + 2) * m)
        free[then] = system.F @ free[here]
        forced[then] = system.F @ forced[here]
        forced[then, k : k + 1] += system.G
    Q = linalg.block_diag(*[cost.Q] * N, cost.P)
    S = np.vstack([linalg.block_diag(*[cost.S] * N), np.zeros((m, N))])
    cross = S.T @ forced
    H = forced.T @ Q @ forced + cross + cross.T + np.kron(np.eye(N), cost.R)
    h = forced.T @ Q @ free + S.T @ free
    rows = np.arange(1, N + 1) * m + system.n
    return Condensed(H + H.T, 2 * h, free[rows], forced[rows])


@dataclass(frozen=True)
class OutputLimits:
    """Limits of y, kept with an exact penalty (they may be impossible to keep; limits of u never are)."""

    lower: float = -np.inf
    upper: float = np.inf
    penalty: float = 1e4


@dataclass(frozen=True)
class PidMpcMove:
    """One move: `du`, the PID's own `pid_du` in the same state, whether the PID's plan met a limit, predicted y - r."""

    du: float
    pid_du: float
    limited: bool
    outputs: Vector


class PidMpc:
    """The compiled problem; feed it xi, the input in force and the set-point.

    Parameters
    ----------
    system : plant increments and PID
    cost : `pid_cost`, `rotated_cost` or a `blend`
    settings : limits of u and du
    limits : limits of y
    horizon : N moves and N predicted outputs
    process : where given, the limits are on  y_t = C A^t x + sum_s C A^{t-1-s} B u_s  from the measured state itself,
        disturbances at rest; else on the increments' prediction, in which the disturbance of now goes on
    """

    def __init__(
        self,
        system: PidSystem,
        cost: StageCost,
        settings: PidSettings,
        limits: OutputLimits,
        horizon: int,
        process: SampledProcess | None = None,
    ) -> None:
        if horizon < 1:
            raise ConfigError(f"PID-MPC horizon = {horizon}: must be 1 or more")
        self.system, self.settings, self.limits, self.horizon = system, settings, limits, horizon
        self.condensed = condense(system, cost, horizon)
        self._plan = -np.linalg.solve(self.condensed.H, self.condensed.h)
        N, m = horizon, system.F.shape[0]
        sums = np.tril(np.ones((N, N)))
        n = 0 if process is None else process.A.shape[0]
        zero = np.zeros((N, m + 2 + n))
        before, outputs = zero.copy(), zero.copy()
        before[:, m] = 1.0
        if process is None:
            outputs[:, :m], outputs[:, m + 1] = self.condensed.free, 1.0
            forced = self.condensed.forced
        else:
            powers = [np.linalg.matrix_power(process.A, t) for t in range(N + 1)]
            outputs[:, m + 2 :] = np.vstack([process.C @ power for power in powers[1:]])
            response = [float((process.C @ power @ process.B)[0, 0]) for power in powers[:-1]]
            forced = linalg.toeplitz(response, np.zeros(N)) @ sums
            outputs[:, m] = forced[:, 0]
        self._outputs, self._forced, slack = outputs, forced, np.eye(N)
        scale = limits.penalty * float(np.max(np.diag(self.condensed.H)))
        H = linalg.block_diag(self.condensed.H, scale * np.eye(N))
        gradient = np.vstack([np.hstack([self.condensed.h, np.zeros((N, 2 + n))]), zero])
        A = np.block([[sums, np.zeros((N, N))], [forced, -slack], [forced, slack]])
        none = np.full(N, np.inf)
        upper0 = [
            np.full(N, settings.move_limit),
            none,
            np.full(N, settings.input_upper),
            np.full(N, limits.upper),
            none,
        ]
        lower0 = [
            np.full(N, -settings.move_limit),
            np.zeros(N),
            np.full(N, settings.input_lower),
            -none,
            np.full(N, limits.lower),
        ]
        sides = np.vstack([zero, zero, -before, -outputs, -outputs])
        self._sums = sums
        self._qp = DenseQp(H, A)
        self._gradient, self._gradient0 = gradient, np.concatenate([np.zeros(N), np.full(N, scale)])
        self._shift, self._upper, self._lower = sides, np.concatenate(upper0), np.concatenate(lower0)

    def move(self, xi: Vector, applied: float, setpoint: float, x: Vector | None = None) -> PidMpcMove:
        """Optimal move.

        Parameters
        ----------
        xi : (m,)
        applied : input in force, u_{k-1}; clipped to its limits, since a limit may just have been lowered
        setpoint : r
        x : (n,) measured state, where the problem has a `process`

        Raises
        ------
        InfeasibleError, NumericalError
        """
        s = self.settings
        inside = min(max(applied, s.input_lower), s.input_upper)
        p = np.concatenate([xi, [inside, setpoint], [] if x is None else x])
        shift = self._shift @ p
        self._qp.update(self._gradient @ p + self._gradient0, self._upper + shift, self._lower + shift)
        moves = self._qp.solve().v[: self.horizon]
        plan = self._plan @ xi
        limited = self._meets_limit(plan, p, inside)
        outputs = self.condensed.free @ xi + self.condensed.forced @ moves
        return PidMpcMove(float(moves[0]) + inside - applied, float(-(self.system.K @ xi)[0]), limited, outputs)

    def _meets_limit(self, plan: Vector, p: Vector, applied: float) -> bool:
        s, y = self.settings, self.limits
        inputs = applied + self._sums @ plan
        outputs = self._outputs @ p + self._forced @ plan
        return bool(
            np.any(np.abs(plan) > s.move_limit)
            or np.any((inputs > s.input_upper) | (inputs < s.input_lower))
            or np.any((outputs > y.upper) | (outputs < y.lower))
        )
