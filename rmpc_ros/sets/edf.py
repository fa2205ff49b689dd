"""Confidence regions for a distribution on an interval from tests of its empirical distribution function.

With order statistics u^(1) <= ... <= u^(N) and zeta_j = F(u^(j)), each test accepts the zeta (not decreasing, in
[0, 1]) with (Stephens 1974; D'Agostino and Stephens 1986):

    ks      max_j max(j/N - zeta_j, zeta_j - (j-1)/N) <= G
    kuiper  max_j (j/N - zeta_j) + max_j (zeta_j - (j-1)/N) <= G
    cvm     1/(12N) + sum (zeta_j - (2j-1)/(2N))^2 <= G
    watson  cvm's statistic - N (mean zeta - 1/2)^2 <= G
    ad      -N - sum (2j-1)/N (log zeta_j + log(1 - zeta_{N+1-j})) <= G
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, sparse

from rmpc_ros.solvers.conic import Cone

Vector = NDArray[np.float64]
TESTS = ("ks", "kuiper", "cvm", "watson", "ad")


def threshold(test: str, samples: int, level: float) -> float:
    """Critical value of a test at `level`.

    ks, kuiper, watson: Stephens' finite-sample corrections of the limit distributions; cvm, ad: 20000 simulated samples
    (the statistics do not depend on the distribution), fixed seed.
    """
    root = np.sqrt(samples)
    if test == "ks":
        return float(np.sqrt(0.5 * np.log(2 / level)) / (root + 0.12 + 0.11 / root))
    k = np.arange(1, 101)
    if test == "kuiper":

        def tail(x: float) -> float:
            return float(2 * np.sum((4 * k**2 * x**2 - 1) * np.exp(-2 * k**2 * x**2)))

        return _solve(tail, level, 0.7, 8.0) / float(root + 0.155 + 0.24 / root)
    if test == "watson":

        def tail(x: float) -> float:
            return float(2 * np.sum((-1.0) ** (k - 1) * np.exp(-2 * k**2 * np.pi**2 * x)))

        limit = _solve(tail, level, 0.02, 5.0)
        return float(limit / (1 + 0.8 / samples) + 0.1 / samples - 0.1 / samples**2)
    return _simulated(test, samples, level)


def _solve(tail: Callable[[float], float], level: float, low: float, high: float) -> float:
    return float(optimize.brentq(lambda x: tail(x) - level, low, high))


@lru_cache(maxsize=64)
def _simulated(test: str, samples: int, level: float) -> float:
    rng = np.random.default_rng(715)
    j = np.arange(1, samples + 1)
    values = []
    for _ in range(20):
        u = np.sort(rng.random((1000, samples)), axis=1)
        if test == "cvm":
            values.append(1 / (12 * samples) + np.sum((u - (2 * j - 1) / (2 * samples)) ** 2, axis=1))
        else:
            logs = np.log(u) + np.log1p(-u[:, ::-1])
            values.append(-samples - logs @ (2 * j - 1) / samples)
    ordered = np.sort(np.concatenate(values))
    return float(ordered[int(np.ceil(ordered.size * (1 - level))) - 1])


def statistic(test: str, zeta: Vector) -> float:
    """The test's statistic at zeta (N,), in increasing order."""
    n = zeta.size
    j = np.arange(1, n + 1)
    if test in ("ks", "kuiper"):
        plus, minus = float(np.max(j / n - zeta)), float(np.max(zeta - (j - 1) / n))
        return max(plus, minus) if test == "ks" else plus + minus
    if test == "ad":
        return float(-n - (2 * j - 1) / n @ (np.log(zeta) + np.log1p(-zeta[::-1])))
    squares = 1 / (12 * n) + float(np.sum((zeta - (2 * j - 1) / (2 * n)) ** 2))
    return squares if test == "cvm" else squares - n * (float(np.mean(zeta)) - 0.5) ** 2


def lowest_ks(samples: int, G: float) -> Vector:
    """Masses (N+2,) of the smallest F in the ks (and kuiper) region: the paper's qR, G at the upper end."""
    q = np.zeros(samples + 2)
    whole = int(np.floor(samples * (1 - G) + 1e-12))
    q[0] = min(G, 1.0)
    q[1 : whole + 1] = 1 / samples
    if whole < samples:
        q[whole + 1] = max(1 - G - whole / samples, 0.0)
    return np.asarray(q[::-1])


def lowest_cvm(weights: Vector, G: float) -> Vector:
    """Zeta in the cvm region, not decreasing, in [0, 1], with the least weights'zeta for weights >= 0.

    Lagrange: zeta is the monotone regression of c - weights/mu, clipped; mu by bisection on the sum of squares.
    """
    n = weights.size
    c = (2 * np.arange(1, n + 1) - 1) / (2 * n)
    room = G - 1 / (12 * n)
    top = float(np.max(weights))
    if top <= 0:
        return c
    w = weights / top

    def point(log_mu: float) -> Vector:
        fit = optimize.isotonic_regression(c - w / np.exp(log_mu)).x
        return np.asarray(np.clip(fit, 0.0, 1.0))

    low, high = -20.0, 30.0
    if float(np.sum((point(low) - c) ** 2)) <= room:
        return point(low)
    for _ in range(60):
        middle = 0.5 * (low + high)
        if float(np.sum((point(middle) - c) ** 2)) > room:
            low = middle
        else:
            high = middle
    return np.asarray(point(high))


def region(test: str, samples: int, G: float) -> tuple[sparse.csc_array, Vector, tuple[Cone, ...]]:
    """Rows of the region over (zeta, extra), homogenised: A (zeta, extra) + s = b theta, s in cones.

    The column of theta is the last of the matrix (with sign: A x - b theta + s = 0).
    """
    n = samples
    j = np.arange(1, n + 1)
    eye, ones = sparse.eye_array(n), np.ones((n, 1))
    if test == "ks":
        body = sparse.vstack([eye, -eye])
        rhs = np.concatenate([(j - 1) / n + G, G - j / n])
        return _homogenise(body, rhs), np.zeros(2 * n), (Cone("nonnegative", 2 * n),)
    if test == "kuiper":  # extra: the two one-sided distances
        body = sparse.block_array(
            [
                [eye, sparse.csc_array(-ones), None],
                [-eye, None, sparse.csc_array(-ones)],
                [None, sparse.csc_array([[1.0]]), sparse.csc_array([[1.0]])],
            ]
        )
        rhs = np.concatenate([(j - 1) / n, -j / n, [G]])
        return _homogenise(body, rhs), np.zeros(2 * n + 1), (Cone("nonnegative", 2 * n + 1),)
    if test in ("cvm", "watson"):
        c = (2 * j - 1) / (2 * n)
        centring = np.eye(n) - (1 / n if test == "watson" else 0.0)
        top = np.sqrt(max(G - 1 / (12 * n), 0.0))
        body = sparse.vstack([sparse.csc_array((1, n)), sparse.csc_array(-centring)])
        return (
            _homogenise(body, np.concatenate([[top], -centring @ c])),
            np.zeros(n + 1),
            (Cone("second_order", n + 1),),
        )
    # ad: extra a_j <= theta log(zeta_j/theta), b_j <= theta log(1 - zeta_j/theta), weighted sum bounded
    weights = (2 * j - 1) / n
    rows: list[int] = [0] * (2 * n)
    columns = [*range(n, 2 * n), *range(2 * n, 3 * n)]
    values = [*(-weights), *(-weights[::-1])]
    theta = 3 * n
    rows, columns, values = [*rows, 0], [*columns, theta], [*values, -(G + n)]
    cones: list[Cone] = [Cone("nonnegative", 1)]
    top_row = 1
    for i in range(n):
        rows += [top_row, top_row + 1, top_row + 2]
        columns += [n + i, theta, i]
        values += [-1.0, -1.0, -1.0]
        rows += [top_row + 3, top_row + 4, top_row + 5, top_row + 5]
        columns += [2 * n + i, theta, i, theta]
        values += [-1.0, -1.0, 1.0, -1.0]
        cones += [Cone("exponential", 3), Cone("exponential", 3)]
        top_row += 6
    return sparse.csc_array((values, (rows, columns)), shape=(top_row, theta + 1)), np.zeros(top_row), tuple(cones)


def _homogenise(body: sparse.sparray, rhs: Vector) -> sparse.csc_array:
    return sparse.hstack([body, sparse.csc_array(-rhs[:, None])], format="csc")
