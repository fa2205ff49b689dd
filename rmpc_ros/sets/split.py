"""One epsilon for several constraints: P(all hold) >= 1 - epsilon (Bertsimas, Gupta, Kallus, section 8, eq. 10).

By the union bound any eps_1 + ... + eps_m <= epsilon will do. The even split is always allowed. All families but U^M
hold for every epsilon at once, so that the eps_j may also be optimised after seeing the data.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import optimize

from rmpc_ros.errors import SetError
from rmpc_ros.sets.base import UncertaintySet
from rmpc_ros.sets.data import check_level

Vector = NDArray[np.float64]
FIXED = {"m"}  # families whose certificate holds for one epsilon only


def even_split(epsilon: float, constraints: int) -> Vector:
    """epsilon/m for each of m constraints."""
    check_level("epsilon", epsilon)
    if constraints < 1:
        raise SetError(f"{constraints} constraints: give one or more")
    return np.full(constraints, epsilon / constraints)


def at_epsilon(fitted: UncertaintySet, epsilon: float) -> UncertaintySet:
    """The same set for another epsilon; its certificate's confidence holds for all of them together.

    Raises
    ------
    SetError
        The family's certificate holds for one epsilon only, or it has none.
    """
    check_level("epsilon", epsilon)
    values = fitted.parameters()
    if fitted.family in FIXED or "epsilon" not in values:
        raise SetError(f"a set of family '{fitted.family}' cannot change its epsilon: fit it again with the one wanted")
    return type(fitted).from_parameters(**{**values, "epsilon": float(epsilon)})


def optimised_split(
    fitted: UncertaintySet, directions: ArrayLike, bounds: ArrayLike, epsilon: float
) -> tuple[Vector, float]:
    """Split epsilon over constraints a_j'u <= b_j so that the worst margin is largest.

    max t  s.t.  b_j - support(a_j; eps_j) >= t,  sum eps_j <= epsilon: supports fall as eps_j grows, so for each t the
    smallest eps_j come from one-dimensional searches, and t from another.

    Parameters
    ----------
    fitted : a set whose family holds for every epsilon
    directions : (m, d)
    bounds : (m,)
    epsilon : in (0, 1)

    Returns
    -------
    shares : (m,) with sum epsilon
    margin : the worst margin with them, never below the even split's
    """
    rows, limits = np.atleast_2d(np.asarray(directions, float)), np.atleast_1d(np.asarray(bounds, float))
    m = len(rows)
    if limits.size != m:
        raise SetError(f"{m} directions, {limits.size} bounds")
    even = even_split(epsilon, m)
    cache: dict[float, UncertaintySet] = {}

    def margin(j: int, share: float) -> float:
        if share not in cache:
            cache[share] = at_epsilon(fitted, share)
        return float(limits[j] - cache[share].support(rows[j]))

    base = min(margin(j, float(even[j])) for j in range(m))
    if m == 1:
        return even, base
    tiny = epsilon * 1e-4

    def excess(j: int, t: float, share: float) -> float:
        return margin(j, share) - t

    def needed(t: float) -> Vector:
        return np.array([_smallest(partial(excess, j, t), tiny, epsilon) for j in range(m)])

    top = min(margin(j, epsilon) for j in range(m))
    low, high, shares = base, max(top, base), even
    for _ in range(24):
        middle = 0.5 * (low + high)
        trial = needed(middle)
        if np.all(np.isfinite(trial)) and trial.sum() <= epsilon:
            low, shares = middle, trial
        else:
            high = middle
    shares = shares + (epsilon - shares.sum()) / m
    best = min(margin(j, float(shares[j])) for j in range(m))
    return (shares, best) if best >= base else (even, base)


def _smallest(value: Callable[[float], float], low: float, high: float) -> float:
    """Smallest share with value >= 0 for a rising function; infinity if there is none."""
    if value(high) < 0:
        return float("inf")
    if value(low) >= 0:
        return low
    root = optimize.brentq(value, low, high, xtol=1e-6 * high, rtol=1e-8)
    return float(min(root * (1 + 1e-6), high))
