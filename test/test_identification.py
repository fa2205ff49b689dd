import numpy as np
import pytest

from rmpc_ros.errors import DataError
from rmpc_ros.models.identification import fit_least_squares, fit_subspace

A = np.array([[0.9, 0.2], [-0.1, 0.8]])
B = np.array([[0.0], [0.5]])
C = np.array([[1.0, 0.3]])


def log(seed, steps=600, noise=0.02):
    rng = np.random.default_rng(seed)
    x, u = np.zeros((steps + 1, 2)), rng.choice([-1.0, 1.0], (steps, 1))
    for k in range(steps):
        x[k + 1] = A @ x[k] + B @ u[k] + [0.1, 0.0] + noise * rng.normal(size=2)
    return x, u


def test_least_squares_finds_the_matrices_within_its_own_deviations():
    x, u = log(0)
    fit = fit_least_squares(x[:-1], u, x[1:])
    found = np.hstack([fit.A, fit.B, fit.offset[:, None]])
    truth = np.hstack([A, B, [[0.1], [0.0]]])
    assert np.all(np.abs(found - truth) < 4 * fit.deviations())
    assert np.all(fit.deviations() < 0.02)


def test_one_step_errors_stay_in_the_error_set_as_often_as_promised():
    misses = []
    for seed in range(20):
        x, u = log(seed, 60)
        fit = fit_least_squares(x[:-1], u, x[1:])
        new_x, new_u = log(seed + 100, 200)
        error = np.abs(new_x[1:] - new_x[:-1] @ fit.A.T - new_u @ fit.B.T - fit.offset)
        misses.append(np.mean(error > fit.error_set(new_x[:-1], new_u, 0.95)))
    assert np.mean(misses) <= 0.05


def test_subspace_finds_order_poles_and_outputs():
    x, u = log(1, 1500, noise=0.005)
    y = (x[:-1] - x[:-1].mean(0)) @ C.T
    fit = fit_subspace(y, u)
    assert fit.A.shape == (2, 2)
    np.testing.assert_allclose(np.sort(np.linalg.eigvals(fit.A)), np.sort(np.linalg.eigvals(A)), atol=0.02)
    assert fit.fit[0] > 0.9


def test_data_that_cannot_identify_are_refused():
    x, u = log(2)
    with pytest.raises(DataError, match="at least 12"):
        fit_least_squares(x[:10], u[:10], x[1:11])
    with pytest.raises(DataError, match="excite"):
        fit_least_squares(x[:-1], np.ones_like(u), x[1:])
    with pytest.raises(DataError, match="finite"):
        fit_least_squares(x[:-1], u * np.nan, x[1:])
    with pytest.raises(DataError, match="samples"):
        fit_subspace(x[:50, :1], u[:50])
