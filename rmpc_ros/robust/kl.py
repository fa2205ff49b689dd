"""Kullback-Leibler balls of probability vectors:  P = { p in simplex : KL(p || p0) <= rho }.

The largest expectation  R(z) = max { p'z : p in P }  is a support function: convex in z, with the maximising p as its
gradient. That p is a tilt of p0,  p_k proportional to p0_k exp(z_k / lambda); lambda solves KL(p || p0) = rho.
Source: seed 001 eqs. (13), (17); Bertsimas and den Hertog (2022), lemma 19.1.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import brentq

from rmpc_ros.errors import DataError

Vector = NDArray[np.float64]


def check_ball(p0: ArrayLike, rho: float) -> Vector:
    """The nominal probabilities as a vector.

    Raises
    ------
    DataError
        p0 is no probability vector or rho is negative or not finite.
    """
    p = np.atleast_1d(np.asarray(p0, float))
    if not (np.all(np.isfinite(p)) and np.all(p >= 0) and abs(p.sum() - 1.0) <= 1e-9):
        raise DataError(f"KL ball: p0 = {p.tolist()} must be non-negative with sum 1 (its sum is {p.sum():.12g})")
    if not (np.isfinite(rho) and rho >= 0):
        raise DataError(f"KL ball: rho = {rho}, allowed are finite values >= 0")
    out: Vector = p / p.sum()
    return out


def divergence(p: ArrayLike, p0: ArrayLike) -> float:
    """KL(p || p0) = sum p log(p / p0), with 0 log 0 = 0; infinite where p > 0 = p0."""
    a, b = np.asarray(p, float), np.asarray(p0, float)
    held = a > 0
    if np.any(held & (b <= 0)):
        return float(np.inf)
    return float(np.sum(a[held] * np.log(a[held] / b[held])))


def worst_probabilities(z: ArrayLike, p0: ArrayLike, rho: float) -> Vector:
    """The p in the ball with the largest p'z, (K,).

    rho = 0 gives p0; rho >= -log p0(argmax z) gives p0 restricted to the largest z.
    """
    values, p = np.asarray(z, float), check_ball(p0, rho)
    held = p > 0
    top = float(np.max(values[held]))
    spread = top - float(np.min(values[held]))
    if rho == 0.0 or spread <= 1e-15 * max(1.0, abs(top)):
        return p
    ties = held & (values >= top - 1e-13 * max(1.0, abs(top)))
    if rho >= -np.log(p[ties].sum()):
        out: Vector = np.where(ties, p, 0.0) / p[ties].sum()
        return out

    def tilt(log_scale: float) -> Vector:
        weights = p * np.exp(np.minimum((values - top) / (spread * np.exp(log_scale)), 0.0))
        tilted: Vector = weights / weights.sum()
        return tilted

    low, high = -8.0, 8.0
    while divergence(tilt(high), p) > rho:
        high += 4.0
        if high > 40.0:
            return p
    while divergence(tilt(low), p) < rho:
        low -= 2.0
        if low < -40.0:
            break
    if divergence(tilt(low), p) <= rho:
        return tilt(low)
    root = float(brentq(lambda s: divergence(tilt(s), p) - rho, low, high, xtol=1e-13, rtol=1e-14))
    while divergence(tilt(root), p) > rho:  # stay inside the ball
        root += 1e-12 * max(1.0, abs(root))
    return tilt(root)


def worst_expectation(z: ArrayLike, p0: ArrayLike, rho: float) -> float:
    """R(z) = max { p'z : KL(p || p0) <= rho }.

    Examples
    --------
    >>> worst_expectation([1.0, 3.0], [0.5, 0.5], 0.0)
    2.0
    >>> worst_expectation([1.0, 3.0], [0.5, 0.5], 1.0)
    3.0
    """
    return float(worst_probabilities(z, p0, rho) @ np.asarray(z, float))


def sample_ball(p0: ArrayLike, rho: float, count: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Random probability vectors of the ball, (count, K).

    Direction: a Dirichlet(1) vector q; radius: p = p0 + s (q - p0) with s uniform on the part of the segment (up to q)
    that lies in the ball. Every member of the ball can occur; the law is not uniform by volume.
    """
    p = check_ball(p0, rho)
    q = rng.dirichlet(np.ones(p.size), size=count)
    low, high = np.zeros(count), np.ones(count)
    for _ in range(50):  # KL is convex along the segment and 0 at its start: bisection
        middle = (low + high) / 2
        mixed = p + middle[:, None] * (q - p)
        with np.errstate(divide="ignore", invalid="ignore"):
            terms = np.where(mixed > 0, mixed * np.log(mixed / p), 0.0)
        inside = terms.sum(axis=1) <= rho
        low, high = np.where(inside, middle, low), np.where(inside, high, middle)
    reach = np.where(np.array([divergence(row, p) <= rho for row in q]), 1.0, low)
    return p + (rng.uniform(size=count) * reach)[:, None] * (q - p)
