"""Linear agents from data, for a user without equations.

    least squares   x+ = A x + B u + c + e,      Theta = (Z'Z + ridge)^-1 Z'X+,   cov(Theta) = S_e (x) (Z'Z)^-1
    subspace        y(k..k+s) = O x(k) + H u(k..k+s) + noise; x from the SVD of the projection onto past data

The covariance of the entries bounds the model error that a robust design must carry: `error_set` turns it into a box on
one-step errors over the region that the data cover.
Sources: Ljung, "System identification" (1999), sections 7.3 and 10.6; Van Overschee and De Moor 1996 (N4SID).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import linalg, stats

from rmpc_ros.errors import DataError

Vector = NDArray[np.float64]
Matrix = NDArray[np.float64]


@dataclass(frozen=True)
class LinearFit:
    """x+ = A x + B u + offset + e.

    Attributes
    ----------
    A : (n, n);  B : (n, m);  offset : (n,)
    residual_covariance : (n, n) of e
    parameter_covariance : (p, p) of one row of [A B offset] divided by its residual variance, p = n + m + 1
    samples : transitions used
    """

    A: Matrix
    B: Matrix
    offset: Vector
    residual_covariance: Matrix
    parameter_covariance: Matrix
    samples: int

    def deviations(self) -> Matrix:
        """Standard deviation of every entry of [A B offset], (n, n + m + 1)."""
        return np.asarray(
            np.sqrt(np.outer(np.diag(self.residual_covariance), np.diag(self.parameter_covariance))), float
        )

    def error_set(self, x: Matrix, u: Matrix, confidence: float = 0.95) -> Vector:
        """Half-widths (n,) of one-step errors over the rows (x, u): parameter error by an F test, plus the residuals'.

        The parameter part is the joint confidence ellipsoid's support in the worst of the given directions.
        """
        z = np.hstack([x, u, np.ones((len(x), 1))])
        p = z.shape[1]
        worst = float(np.max(np.einsum("np,pq,nq->n", z, self.parameter_covariance, z)))
        freedom = max(self.samples - p, 1)
        spread = np.sqrt(np.diag(self.residual_covariance))
        parameter = np.sqrt(p * stats.f.ppf(confidence, p, freedom) * worst)
        noise = stats.t.ppf(0.5 + confidence / 2, freedom)
        return np.asarray(spread * (parameter + noise), float)


def fit_least_squares(x: Matrix, u: Matrix, after: Matrix, ridge: float = 0.0) -> LinearFit:
    """One-step least squares on measured states, (N, n), (N, m), (N, n).

    Raises
    ------
    DataError
        Too few rows, values that are not finite, or inputs and states that do not excite all entries.
    """
    if not (np.all(np.isfinite(x)) and np.all(np.isfinite(u)) and np.all(np.isfinite(after))):
        raise DataError("identification data hold values that are not finite")
    n, p = x.shape[1], x.shape[1] + u.shape[1] + 1
    if len(x) < 3 * p:
        raise DataError(f"{len(x)} transitions for {p} unknowns per state: at least {3 * p} are needed")
    z = np.hstack([x, u, np.ones((len(x), 1))])
    scale = np.maximum(np.abs(z).max(0), 1e-300)
    information = (z / scale).T @ (z / scale)
    condition = float(np.linalg.cond(information))
    if condition > 1e14:
        raise DataError(
            f"the data do not tell all entries apart (condition {condition:.1e}): excite every input, "
            "in open loop or with dither"
        )
    covariance = np.linalg.inv(information + ridge * np.eye(p)) / np.outer(scale, scale)
    theta = covariance @ (z.T @ after)
    residual = after - z @ theta
    S = residual.T @ residual / (len(x) - p)
    return LinearFit(theta[:n].T, theta[n:-1].T, theta[-1], S, covariance, len(x))


@dataclass(frozen=True)
class SubspaceFit:
    """x+ = A x + B u,  y = C x + D u, with x in coordinates of its own.

    Attributes
    ----------
    A, B, C, D : system matrices
    singular_values : of the projection; a gap tells the order
    fit : 1 - normalised error of the simulated outputs per output, (ny,)
    """

    A: Matrix
    B: Matrix
    C: Matrix
    D: Matrix
    singular_values: Vector
    fit: Vector


def fit_subspace(y: Matrix, u: Matrix, order: int | None = None, window: int = 10) -> SubspaceFit:
    """Subspace identification from outputs (N, ny) and inputs (N, m); the order from the largest gap unless given.

    Raises
    ------
    DataError
        Too few samples or an order that the window cannot show.
    """
    if not (np.all(np.isfinite(y)) and np.all(np.isfinite(u))):
        raise DataError("identification data hold values that are not finite")
    ny, m, count = y.shape[1], u.shape[1], len(y)
    columns = count - 2 * window + 1
    if columns < 4 * window * (ny + m):
        raise DataError(
            f"{count} samples for a window of {window}: at least {2 * window + 4 * window * (ny + m)} are needed"
        )
    Y, U = _hankel(y, 2 * window), _hankel(u, 2 * window)
    past = np.vstack([U[: window * m], Y[: window * ny]])
    future_u, future_y = U[window * m :], Y[window * ny :]
    # oblique projection of the future outputs along the future inputs onto the past, by one least-squares problem
    stacked = np.vstack([past, future_u])
    gains, *_ = np.linalg.lstsq(stacked.T, future_y.T, rcond=None)
    projection = gains[: past.shape[0]].T @ past
    left, values, _ = np.linalg.svd(projection, full_matrices=False)
    if order is None:
        limit = min(window * ny - ny, 12)
        order = int(np.argmax(values[:limit] / np.maximum(values[1 : limit + 1], 1e-12 * values[0]))) + 1
    if not 1 <= order <= (window - 1) * ny:
        raise DataError(f"order {order}: a window of {window} with {ny} outputs shows 1 to {(window - 1) * ny}")
    observability = left[:, :order] * np.sqrt(values[:order])
    C = observability[:ny]
    A, *_ = np.linalg.lstsq(observability[:-ny], observability[ny:], rcond=None)
    B, D, x0 = _inputs(A, C, y, u)
    x, ahead = x0, np.empty_like(y)
    for k in range(count):
        ahead[k] = C @ x + D @ u[k]
        x = A @ x + B @ u[k]
    error = np.linalg.norm(y - ahead, axis=0) / np.linalg.norm(y - y.mean(0), axis=0)
    return SubspaceFit(A, B, C, D, values, 1.0 - error)


def _hankel(values: Matrix, rows: int) -> Matrix:
    columns = len(values) - rows + 1
    return np.vstack([values[k : k + columns].T for k in range(rows)])


def _inputs(A: Matrix, C: Matrix, y: Matrix, u: Matrix) -> tuple[Matrix, Matrix, Vector]:
    """B, D and x0 that fit the outputs for given A, C: linear least squares on simulated responses."""
    n, ny, m, count = A.shape[0], C.shape[0], u.shape[1], len(y)
    if np.max(np.abs(np.linalg.eigvals(A))) > 1.0 + 1e-6:
        raise DataError("the identified system is unstable: use closed-loop states and least squares instead")
    unknowns = n * m + ny * m + n
    regressor = np.zeros((count, ny, unknowns))
    state, power = np.zeros((n, n * m)), np.eye(n)
    for k in range(count):
        regressor[k, :, : n * m] = C @ state
        regressor[k, :, n * m : n * m + ny * m] = linalg.block_diag(*[u[k]] * ny)
        regressor[k, :, -n:] = C @ power
        state = A @ state + np.kron(np.eye(n), u[k])
        power = A @ power
    solution, *_ = np.linalg.lstsq(regressor.reshape(count * ny, unknowns), y.ravel(), rcond=None)
    found: Vector = np.asarray(solution, float)
    return found[: n * m].reshape(n, m), found[n * m : n * m + ny * m].reshape(ny, m), found[-n:]
