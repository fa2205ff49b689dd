"""MPC on a learned model whose calibrated error radius tightens the limits.

    min  sum_j |(x_j - r)/scale|_Q^2 + |du_j/reach|_R^2
    s.t. lower + radius_j <= x_j <= upper - radius_j  (exact penalty),
         x_{j+1} - xbar_{j+1} = A (x_j - x_0) + B (u_j - u_0),  limits on u

linearised in each step at the measured state and the last input, so that it takes any model with exact derivatives. The
radii are those of the model's own calibration: as it learns they shrink, when the plant changes they grow at once.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rmpc_ros.errors import ConfigError
from rmpc_ros.solvers.qp import DenseQp

Vector = NDArray[np.float64]
Matrix = NDArray[np.float64]


@dataclass(frozen=True)
class LearnedMpcSettings:
    """Weights and limits.

    Attributes
    ----------
    horizon : N
    setpoint, state_weight : (n,)
    move_weight : (m,), on moves over `input_reach`
    lower, upper : (n,) limits of the state, infinite where there is none
    input_lower, input_upper : (m,)
    scale : (n,) sizes of the states, for conditioning
    penalty : price of a violated limit, per scale of the state
    """

    horizon: int
    setpoint: Vector
    state_weight: Vector
    move_weight: Vector
    lower: Vector
    upper: Vector
    input_lower: Vector
    input_upper: Vector
    scale: Vector
    penalty: float = 1e3

    @property
    def input_reach(self) -> Vector:
        """Half the inputs' ranges (m,): inputs are scaled by them, since kilojoules and kelvins differ by 1e6."""
        return (self.input_upper - self.input_lower) / 2


@dataclass(frozen=True)
class LearnedMove:
    """Input to apply (m,), largest predicted violation of a tightened limit over its scale."""

    input: Vector
    slack: float


def decide(
    settings: LearnedMpcSettings, x: Vector, u: Vector, ahead: tuple[Vector, Matrix, Matrix], radius: Matrix
) -> LearnedMove:
    """Optimal move.

    Parameters
    ----------
    x : (n,) measured state;  u : (m,) input in force
    ahead : model's x+ (n,), A (n, n), B (n, m) at (x, u)
    radius : (N, n) calibrated radius of the prediction j periods ahead

    Raises
    ------
    ConfigError
        The radius has another shape.
    NumericalError
    """
    s = settings
    mean, A, B = ahead
    n, m, N = x.size, u.size, s.horizon
    if radius.shape != (N, n):
        raise ConfigError(f"radius has shape {radius.shape}; {(N, n)} is needed")
    free, forced = np.empty((N, n)), np.zeros((N * n, N * m))
    now, row = x, np.zeros((n, N * m))
    reach = s.input_reach
    sums = np.kron(np.tril(np.ones((N, N))), np.eye(m))
    for j in range(N):
        now = mean + A @ (now - x)
        row = A @ row + (B * reach) @ sums[j * m : (j + 1) * m]
        free[j], forced[j * n : (j + 1) * n] = now, row
    scale = np.tile(s.scale, N)
    q = np.tile(s.state_weight / s.scale**2, N)
    gap = (free - s.setpoint).ravel()
    H = 2 * (forced.T @ (q[:, None] * forced) + np.diag(np.tile(s.move_weight, N)))
    f = 2 * forced.T @ (q * gap)
    scaled, start = forced / scale[:, None], free.ravel() / scale
    high = (np.tile(s.upper, N) - radius.ravel()) / scale - start
    low = (np.tile(s.lower, N) + radius.ravel()) / scale - start
    kept = np.isfinite(high) | np.isfinite(low)
    scaled, high, low, slacks = scaled[kept], high[kept], low[kept], int(kept.sum())
    eye, none = np.eye(slacks), np.full(slacks, np.inf)
    full = np.zeros((N * m + slacks, N * m + slacks))
    full[: N * m, : N * m], full[N * m :, N * m :] = H, s.penalty * eye
    rows = np.block([[sums, np.zeros((N * m, slacks))], [scaled, -eye], [scaled, eye]])
    free_move = np.full(N * m, np.inf)
    upper = np.concatenate([free_move, none, np.tile((s.input_upper - u) / reach, N), high, none])
    lower = np.concatenate([-free_move, np.zeros(slacks), np.tile((s.input_lower - u) / reach, N), -none, low])
    program = DenseQp(full, rows)  # the linearisation changes H and A in every step
    program.update(np.concatenate([f, np.full(slacks, s.penalty)]), upper, lower)
    v = program.solve().v
    return LearnedMove(np.clip(u + reach * v[:m], s.input_lower, s.input_upper), float(np.max(v[N * m :], initial=0.0)))
