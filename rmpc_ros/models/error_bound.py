"""How far the linear network may be from the nonlinear plant in one step, over given boxes.

With z = T (x - x_s), for each coordinate i:

    bound_i = factor * max over points of | T F(x, u, d) - T x_s - (A z + B v + E w) |_i

The points are the vertices of the box of (z, v, w) (all of them up to `MOST_VERTICES`, a random choice beyond) and
random points inside and on its faces. This is a sampled maximum times a stated factor, NOT a proof: the error is smooth
and, near a steady state, close to quadratic, so that its maximum over a box is at or near a vertex, and the factor
covers what the samples miss. `worst` is the sampled maximum itself, so that the factor can be judged.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rmpc_ros.errors import DataError
from rmpc_ros.models.linear import LinearNetwork
from rmpc_ros.models.nonlinear import NonlinearModel

Vector = NDArray[np.float64]
Matrix = NDArray[np.float64]

MOST_VERTICES = 4096


@dataclass(frozen=True)
class ErrorBound:
    """One-step error of a linear network against its plant.

    Attributes
    ----------
    bound (n,) : factor times the worst sampled error, per coordinate, in the order of the network's z
    worst (n,) : worst sampled error
    factor : the margin
    points : how many points were evaluated
    complete : whether all vertices of the box were among them
    """

    bound: Vector
    worst: Vector
    factor: float
    points: int
    complete: bool


def model_error_bound(
    model: NonlinearModel,
    network: LinearNetwork,
    states: tuple[ArrayLike, ArrayLike],
    inputs: tuple[ArrayLike, ArrayLike],
    disturbances: tuple[ArrayLike, ArrayLike],
    nominal_disturbance: ArrayLike,
    samples: int = 2000,
    factor: float = 2.0,
    seed: int = 0,
    gain: ArrayLike | None = None,
    vertices: int = MOST_VERTICES,
) -> ErrorBound:
    """Bound the one-step model error over boxes.

    Parameters
    ----------
    model, network : the plant and its linear network
    states : lower and upper (n,) of z, deviations in the network's coordinates
    inputs : lower and upper (m,) of v, deviations from the steady inputs
    disturbances : lower and upper (q,) of w, deviations from the steady disturbances
    nominal_disturbance : all disturbances of the model, (model's q,), for those that the network does not consider
    samples : random points besides the vertices
    factor : margin, at least 1
    seed : of the random points
    gain : (m, n) of a law in force; `inputs` then bounds v - gain z, so that only inputs the law can give are met
    vertices : evaluate at most so many vertices

    Raises
    ------
    DataError
        A box has the wrong size, is empty or not finite.
    NumericalError
        The plant cannot be integrated from a point of the boxes.
    """
    sizes = (len(network.steady_state), len(network.steady_input), len(network.disturbances))
    boxes = []
    for name, box, size in zip(
        ("states", "inputs", "disturbances"), (states, inputs, disturbances), sizes, strict=True
    ):
        pair = np.array([np.atleast_1d(np.asarray(v, float)) for v in box]).reshape(2, -1)
        if pair.shape[1] != size or not np.all(np.isfinite(pair)) or np.any(pair[0] > pair[1]):
            raise DataError(f"box of {name}: give finite lower <= upper, {size} each; got {pair.tolist()}")
        boxes.append(pair)
    lower, upper = np.hstack(boxes)
    points, complete = _points(lower, upper, samples, vertices, np.random.default_rng(seed))
    z, v, w = np.split(points, np.cumsum(sizes)[:2], axis=1)
    if gain is not None:
        v = v + z @ np.asarray(gain, float).T
    error = np.abs(one_step_error(model, network, z, v, w, nominal_disturbance))
    worst: Vector = error.max(axis=0)
    return ErrorBound(factor * worst, worst, factor, len(points), complete)


def one_step_error(
    model: NonlinearModel,
    network: LinearNetwork,
    z: ArrayLike,
    v: ArrayLike,
    w: ArrayLike,
    nominal_disturbance: ArrayLike,
) -> Matrix:
    """Plant minus linear network after one period, in coordinates: rows (N, n), (N, m), (N, q) -> (N, n)."""
    z, v, w = (np.atleast_2d(np.asarray(rows, float)) for rows in (z, v, w))
    variables = network.agents.values()
    state_order = [model.state_names.index(s) for a in variables for s in a.states]
    input_order = [model.input_names.index(u) for a in variables for u in a.inputs]
    considered = [model.disturbance_names.index(d) for d in network.disturbances]
    transform = network.transform
    x = np.empty((len(z), len(state_order)))
    u = np.empty((len(z), len(input_order)))
    d = np.tile(np.asarray(nominal_disturbance, float), (len(z), 1))
    x[:, state_order] = z @ np.linalg.inv(transform).T + network.steady_state
    u[:, input_order] = v + network.steady_input
    d[:, considered] = w + network.steady_disturbance
    after = model.stepper(network.period).advance_many(x, u, d)[:, state_order]
    error: Matrix = (after - network.steady_state) @ transform.T
    return error - (z @ network.A.T + v @ network.B.T + w @ network.E.T)


def _points(
    lower: Vector, upper: Vector, samples: int, most: int, generator: np.random.Generator
) -> tuple[Matrix, bool]:
    """Vertices, points on random faces and points inside; whether all vertices are there."""
    moving = np.flatnonzero(upper > lower)
    complete = 2 ** min(moving.size, 62) <= most
    if complete:
        high = (np.arange(2**moving.size)[:, None] >> np.arange(moving.size)) & 1
    else:
        high = generator.integers(0, 2, (most, moving.size))
    vertices = np.tile(lower, (len(high), 1))
    vertices[:, moving] = np.where(high == 1, upper[moving], lower[moving])
    inside = generator.uniform(lower, upper, (samples, lower.size))
    pushed = generator.random(inside.shape) < 0.5  # about half of the coordinates at a limit: a point on a face
    inside[::2] = np.where(pushed, np.where(generator.random(inside.shape) < 0.5, lower, upper), inside)[::2]
    return np.vstack([vertices, inside]), complete
