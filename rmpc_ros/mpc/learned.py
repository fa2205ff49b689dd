"""MPC on a learned model whose calibrated error radius tightens the limits.

    min  sum_j |(x_j - r)/scale|_Q^2 + |du_j/reach|_R^2
    s.t. lower + radius_j <= x_j <= upper - radius_j  (exact penalty),
         x_j = free_j + sum_l response_jl du_l,  limits on u

The prediction is linear in the moves du. `decide` linearises in each step at the measured state and the last input
(`held_prediction`), so that it takes any model with exact derivatives; `decide_along` takes any other one, for example
along the plan of the step before. The radii are those of the model's own calibration: as it learns they shrink, when
the plant changes they grow at once.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from rmpc_ros.errors import ConfigError
from rmpc_ros.solvers.qp import solve_dense

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
    """Input to apply (m,), largest predicted violation of a tightened limit over its scale, planned inputs (N, m)."""

    input: Vector
    slack: float
    plan: Matrix


@dataclass(frozen=True)
class Prediction:
    """Linear in the moves.

    Attributes
    ----------
    free : (N, n) states j+1 with the input in force held
    response : (N, n, N m) their change per move, the moves of step l in columns l m to (l + 1) m
    """

    free: Matrix
    response: Matrix


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


def held_prediction(x: Vector, ahead: tuple[Vector, Matrix, Matrix], horizon: int) -> Prediction:
    """Prediction of the linearisation x+ (n,), A (n, n), B (n, m) at the state x and the input in force."""
    mean, A, B = ahead
    n, m, N = x.size, B.shape[1], horizon
    free, response = np.empty((N, n)), np.zeros((N + 1, n, m))
    now, late = x, np.zeros((n, m))
    for j in range(N):
        now = mean + A @ (now - x)
        late = A @ late + B
        free[j], response[j] = now, late
    age = _structure(N, m, 0).age
    return Prediction(free, response[age].transpose(0, 2, 1, 3).reshape(N, n, N * m))


def decide(
    settings: LearnedMpcSettings, x: Vector, u: Vector, ahead: tuple[Vector, Matrix, Matrix], radius: Matrix
) -> LearnedMove:
    """Optimal move on the linearisation at (x, u).

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
    return decide_along(settings, u, held_prediction(x, ahead, settings.horizon), radius)


def decide_along(settings: LearnedMpcSettings, u: Vector, prediction: Prediction, radius: Matrix) -> LearnedMove:
    """Optimal move on a prediction; `u`: (m,) input in force, the rest as for `decide`."""
    s, free = settings, prediction.free
    (N, n), m = free.shape, u.size
    if radius.shape != (N, n) or s.horizon != N:
        raise ConfigError(f"radius has shape {radius.shape}, the prediction {free.shape}; {(s.horizon, n)} is needed")
    moves, reach = N * m, s.input_reach
    flat = ((prediction.response / s.scale[:, None]).reshape(N * n, N, m) * reach).reshape(N * n, moves)
    high, low = ((s.upper - radius - free) / s.scale).ravel(), ((s.lower + radius - free) / s.scale).ravel()
    below, above = (s.input_lower - u) / reach, (s.input_upper - u) / reach
    kept = _within_reach(flat, below, above, high, low)
    slacks = int(np.count_nonzero(kept))
    structure = _structure(N, m, slacks)
    weighted = (flat.reshape(N, n, moves) * s.state_weight[:, None]).reshape(N * n, moves)
    full, linear = np.zeros((moves + slacks, moves + slacks)), np.full(moves + slacks, s.penalty)
    full[:moves, :moves] = 2 * (flat.T @ weighted)
    diagonal = full.reshape(-1)[:: moves + slacks + 1]
    diagonal[:moves].reshape(N, m)[:] += 2 * s.move_weight
    diagonal[moves:] = s.penalty
    linear[:moves] = 2 * (((free - s.setpoint) / s.scale).ravel() @ weighted)
    rows, upper, lower = structure.rows, structure.upper.copy(), structure.lower.copy()
    inputs = slice(moves + slacks, 2 * moves + slacks)
    upper[inputs].reshape(N, m)[:], lower[inputs].reshape(N, m)[:] = above, below
    if slacks:
        rows = rows.copy()
        rows[moves : moves + slacks, :moves] = rows[moves + slacks :, :moves] = flat[kept]
        upper[2 * moves + slacks : 2 * (moves + slacks)], lower[2 * (moves + slacks) :] = high[kept], low[kept]
    v = solve_dense(full, rows, linear, upper, lower).v  # the linearisation changes H and A in every step
    plan = np.clip(u + reach * np.cumsum(v[:moves].reshape(N, m), axis=0), s.input_lower, s.input_upper)
    return LearnedMove(plan[0], float(np.max(v[moves:], initial=0.0)), plan)


def _within_reach(flat: Matrix, below: Vector, above: Vector, high: Vector, low: Vector) -> NDArray[np.bool_]:
    """Which limits on states inputs within their own can violate; the rows of the others would never be active.

    Parameters
    ----------
    flat : (N n, N m) states per move
    below, above : (m,) room of the inputs
    high, low : (N n,) room of the states
    """
    m = len(below)
    per_input = flat.copy()
    per_input[:, :-m] -= flat[:, m:]  # a move stays, so an input is a move up and the next one down
    by_kind = per_input.reshape(len(flat), -1, m)
    middle = by_kind.sum(axis=1) @ (below + above) / 2
    spread = np.abs(by_kind).sum(axis=1) @ (above - below) / 2
    return np.asarray((middle + spread > high) | (middle - spread < low))
