"""The quadratic program of the support-vector set, solved through the structure of its kernel.

With the weighted generalised intersection kernel (Shang, Huang, You 2017, eq. 20) and points x_i = Q u_i the dual is

    max  a'D a   s.t.  0 <= a_i <= C,  sum a_i = 1,      D_ij = norm1(x_i - x_j),  C = 1/(N nu)

(the constants l_k drop out on the simplex; the kernel program's optimum is minus this one). D a = f(x_i) is a sum of
one-dimensional piecewise linear functions, so that a product with D costs a sort instead of an N x N matrix. Few a_i
lie strictly between their bounds, so pairwise steps (Platt 1998, with the second-order choice of Fan, Chen, Lin 2005)
find the active bounds and one small linear system then gives the optimum to rounding.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rmpc_ros.errors import NumericalError

Vector = NDArray[np.float64]
Matrix = NDArray[np.float64]


@dataclass(frozen=True)
class SupportVectorDual:
    """A checked optimum of the dual.

    Attributes
    ----------
    weights : (N,) a
    bound : C
    free : indices with 0 < a_i < C, the boundary support vectors
    theta : the common value of f on them (without any: the least f among a_i > 0)
    objective : minus a'D a, the optimum of the kernel program
    residual : largest violation of the optimality conditions, relative to theta
    """

    weights: Vector
    bound: float
    free: NDArray[np.intp]
    theta: float
    objective: float
    residual: float


def potential(knots: Matrix, weights: Vector, points: Matrix) -> Vector:
    """F(x) = sum_i a_i norm1(x - x_i) at each row of `points` (m, d), by sorting `knots` (n, d)."""
    out = np.zeros(len(points))
    for k in range(knots.shape[1]):
        order = np.argsort(knots[:, k])
        x, a = knots[order, k], weights[order]
        below = np.concatenate([[0.0], np.cumsum(a)])
        moment = np.concatenate([[0.0], np.cumsum(a * x)])
        place = np.searchsorted(x, points[:, k])
        out += points[:, k] * (2 * below[place] - below[-1]) - 2 * moment[place] + moment[-1]
    return out


def solve_dual(points: Matrix, nu: float, tolerance: float = 1e-9, max_steps: int = 200_000) -> SupportVectorDual:
    """Solve the dual for `points` (N, d) and 0 < nu <= 1.

    Raises
    ------
    NumericalError
        The optimality conditions do not hold to `tolerance` (relative) after `max_steps` pair steps.
    """
    n = len(points)
    bound = max(1.0 / (n * nu), 1.0 / n)
    weights = _start(points, bound)
    value = potential(points, weights, points)
    scale = float(np.max(value))
    edge = 1e-12 * bound
    rest, attempt = 100, 100
    for step in range(max_steps):
        can_grow = weights < bound - edge
        if not np.any(can_grow):
            break  # nu = 1: every weight at its bound
        i = int(np.argmax(np.where(can_grow, value, -np.inf)))
        givers = np.flatnonzero(weights > edge)
        gain = value[i] - value[givers]
        converged = float(np.max(gain)) <= tolerance * scale
        if converged or step == attempt:
            exact = _polish(points, weights, bound, scale, tolerance)
            if exact is not None:
                return exact
            if converged:
                break
            rest = min(2 * rest, 5000)
            attempt = step + rest
        distance = np.abs(points[givers] - points[i]).sum(axis=1)
        best = int(np.argmax(np.where(gain > 0, gain, 0.0) ** 2 / np.maximum(distance, 1e-12 * scale)))
        j = int(givers[best])
        move = min(gain[best] / (2 * max(distance[best], 1e-12 * scale)), bound - weights[i], weights[j])
        weights[i] += move
        weights[j] -= move
        value += move * (np.abs(points - points[i]).sum(axis=1) - np.abs(points - points[j]).sum(axis=1))
    free = np.flatnonzero((weights > edge) & (weights < bound - edge))
    return _checked(points, weights, bound, free, scale, 100 * tolerance)


def _start(points: Matrix, bound: float) -> Vector:
    """Full weight on the points with the largest mean distance to the others."""
    n = len(points)
    far = np.argsort(-potential(points, np.full(n, 1.0 / n), points))
    weights = np.zeros(n)
    full = min(int(np.floor(1.0 / bound + 1e-12)), n)
    weights[far[:full]] = bound
    if full < n:
        weights[far[full]] = max(1.0 - full * bound, 0.0)
    return weights


def _polish(points: Matrix, weights: Vector, bound: float, scale: float, tolerance: float) -> SupportVectorDual | None:
    """The exact optimum for the present active bounds, if it satisfies all conditions."""
    margin = 1e-10 * bound
    free = np.flatnonzero((weights > margin) & (weights < bound - margin))
    if not 0 < free.size <= 2000:
        return None
    full = weights >= bound - margin
    trial = np.where(full, bound, 0.0)
    fixed = potential(points, trial, points[free])
    system = np.ones((free.size + 1, free.size + 1))
    system[:-1, :-1] = np.abs(points[free][:, None, :] - points[free][None, :, :]).sum(axis=2)
    system[:-1, -1] *= -1
    system[-1, -1] = 0.0
    try:
        answer = np.linalg.solve(system, np.concatenate([-fixed, [1.0 - trial.sum()]]))
    except np.linalg.LinAlgError:  # equal points: the pair steps go on
        return None
    if np.any(answer[:-1] < 0) or np.any(answer[:-1] > bound):
        return None
    trial[free] = answer[:-1]
    try:
        return _checked(points, trial, bound, free, scale, tolerance)
    except NumericalError:
        return None


def _checked(
    points: Matrix, weights: Vector, bound: float, free: NDArray[np.intp], scale: float, tolerance: float
) -> SupportVectorDual:
    value = potential(points, weights, points)
    positive = weights > 1e-12 * bound
    open_above = weights < bound * (1 - 1e-12)
    lowest = float(np.min(value[positive]))
    highest = float(np.max(value[open_above])) if np.any(open_above) else lowest
    residual = max(highest - lowest, abs(float(weights.sum()) - 1.0) * scale) / scale
    if not residual <= tolerance:
        raise NumericalError(
            f"the support-vector program stopped with a relative residual of {residual:.2e} (allowed {tolerance:.0e})",
            "not optimal",
            {"residual": residual},
        )
    theta = float(np.min(value[free])) if free.size else lowest
    return SupportVectorDual(weights, bound, free, theta, -float(weights @ value), float(residual))
