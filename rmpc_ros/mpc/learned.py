"""MPC on a learned model whose calibrated error radius tightens the limits.

    min  sum_j |(x_j - r)/scale|_Q^2 + |du_j/reach|_R^2
    s.t. lower + radius_j <= x_j <= upper - radius_j  (exact penalty),
         x_{j+1} - xbar_{j+1} = A (x_j - x_0) + B (u_j - u_0),  limits on u

linearised in each step at the measured state and the last input, so that it takes any model with exact derivatives. The
radii are those of the model's own calibration: as it learns they shrink, when the plant changes they grow at once.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

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


@dataclass(frozen=True)
class _Structure:
    """What the numbers of steps, inputs and limited states alone decide; never written to.

    Attributes
    ----------
    age : (N, N) which step response the moves of step l have on the state j+1: j - l, or N for "not yet"
    rows : inputs, states with slack from above, states with slack from below
    upper, lower : sides of moves, slacks and rows where nothing is filled in
    """

    age: NDArray[np.intp]
    rows: Matrix
    upper: Vector
    lower: Vector


@cache
def _structure(horizon: int, inputs: int, slacks: int) -> _Structure:
    moves = horizon * inputs
    difference = np.subtract.outer(np.arange(horizon), np.arange(horizon))
    rows = np.zeros((moves + 2 * slacks, moves + slacks))
    rows[:moves, :moves] = np.kron(np.tril(np.ones((horizon, horizon))), np.eye(inputs))
    rows[moves : moves + slacks, moves:], rows[moves + slacks :, moves:] = -np.eye(slacks), np.eye(slacks)
    free = np.full(2 * moves + 3 * slacks, np.inf)
    lower = -free
    lower[moves : moves + slacks] = 0.0
    return _Structure(np.where(difference < 0, horizon, difference), rows, free, lower)


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
    free, response, moves = np.empty((N, n)), np.zeros((N + 1, n, m)), N * m
    reach = s.input_reach
    now, late, per_reach = x, np.zeros((n, m)), B * reach
    for j in range(N):
        now = mean + A @ (now - x)
        late = A @ late + per_reach
        free[j], response[j] = now, late
    high, low = ((s.upper - radius - free) / s.scale).ravel(), ((s.lower + radius - free) / s.scale).ravel()
    kept = np.isfinite(high) | np.isfinite(low)
    slacks = int(np.count_nonzero(kept))
    structure = _structure(N, m, slacks)
    forced = response[structure.age].transpose(0, 2, 1, 3).reshape(N, n, moves) / s.scale[:, None]
    flat, gap = forced.reshape(N * n, moves), (free - s.setpoint) / s.scale
    weighted = (forced * s.state_weight[:, None]).reshape(N * n, moves)
    full, linear = np.zeros((moves + slacks, moves + slacks)), np.full(moves + slacks, s.penalty)
    full[:moves, :moves] = 2 * (flat.T @ weighted)
    diagonal = full.reshape(-1)[:: moves + slacks + 1]
    diagonal[:moves].reshape(N, m)[:] += 2 * s.move_weight
    diagonal[moves:] = s.penalty
    linear[:moves] = 2 * (gap.ravel() @ weighted)
    rows, upper, lower = structure.rows.copy(), structure.upper.copy(), structure.lower.copy()
    rows[moves : moves + slacks, :moves] = rows[moves + slacks :, :moves] = flat[kept]
    inputs = slice(moves + slacks, 2 * moves + slacks)
    upper[inputs].reshape(N, m)[:], lower[inputs].reshape(N, m)[:] = (
        (s.input_upper - u) / reach,
        (s.input_lower - u) / reach,
    )
    upper[2 * moves + slacks : 2 * (moves + slacks)], lower[2 * (moves + slacks) :] = high[kept], low[kept]
    program = DenseQp(full, rows)  # the linearisation changes H and A in every step
    program.update(linear, upper, lower)
    v = program.solve().v
    return LearnedMove(np.clip(u + reach * v[:m], s.input_lower, s.input_upper), float(np.max(v[moves:], initial=0.0)))
