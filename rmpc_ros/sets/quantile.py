"""Ellipsoid, box, budget set and zonotope fitted by quantiles: a shape from some rows, its size from the others.

    U = { u : g(u) <= theta },  g the gauge of the shape (1 on its boundary),  theta = k-th smallest g of fresh samples

The shape rows give the centre and the proportions; the calibration rows give theta by order statistics (see
`calibrate`), so that the promise P(u in U) >= 1 - epsilon holds with the stated confidence for any distribution.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from rmpc_ros.errors import DataError
from rmpc_ros.sets.base import Matrix, UncertaintySet, Vector
from rmpc_ros.sets.box import Box
from rmpc_ros.sets.budget import Budget
from rmpc_ros.sets.calibrate import calibrate, split_rows
from rmpc_ros.sets.certificate import Certificate, FittedSet
from rmpc_ros.sets.combine import Intersection
from rmpc_ros.sets.ellipsoid import Ellipsoid
from rmpc_ros.sets.fit import FitOptions, fitter
from rmpc_ros.sets.svc import membership_promise
from rmpc_ros.sets.zonotope import Zonotope


@dataclass(frozen=True)
class Shape:
    """A shape without a size.

    Attributes
    ----------
    gauge : scores of points (m, d) -> (m,), 1 on the boundary of the unit set
    build : the set of a given size theta
    """

    gauge: Callable[[Matrix], Vector]
    build: Callable[[float], UncertaintySet]


def ellipsoid_shape(data: Matrix) -> Shape:
    """Mean and covariance.

    Raises
    ------
    DataError
        The columns are linearly dependent.
    """
    center = data.mean(axis=0)
    try:
        factor = np.linalg.cholesky(np.atleast_2d(np.cov(data, rowvar=False)))
    except np.linalg.LinAlgError:
        raise DataError("the covariance is singular: a column depends linearly on the others; remove it") from None
    unit = Ellipsoid(center, factor)
    return Shape(unit.norms, lambda theta: Ellipsoid(center, factor, theta))


def _middle(data: Matrix, epsilon: float) -> tuple[Vector, Vector]:
    """Midpoints and half-distances of every column's epsilon/(2d) and 1 - epsilon/(2d) quantiles."""
    tail = epsilon / (2 * data.shape[1])
    low, high = np.quantile(data, [tail, 1 - tail], axis=0)
    radius = 0.5 * (high - low)
    for i in np.flatnonzero(radius <= 0):
        raise DataError(f"column {i + 1}: its quantiles at {tail:g} and {1 - tail:g} coincide; no box can be scaled")
    return 0.5 * (low + high), radius


def box_shape(data: Matrix, epsilon: float) -> Shape:
    """Central quantiles of every column."""
    center, radius = _middle(data, epsilon)
    return Shape(
        lambda points: np.max(np.abs(points - center) / radius, axis=1),
        lambda theta: Box.around(center, theta * radius),
    )


def budget_shape(data: Matrix, epsilon: float, budget: float) -> Shape:
    """The same with sum_i abs(z_i) <= budget."""
    center, radius = _middle(data, epsilon)

    def gauge(points: Matrix) -> Vector:
        z = np.abs(points - center) / radius
        return np.asarray(np.maximum(z.max(axis=1), z.sum(axis=1) / budget))

    return Shape(gauge, lambda theta: Budget(center, theta * radius, budget))


def zonotope_shape(data: Matrix, epsilon: float) -> Shape:
    """Central quantiles along the principal axes: a parallelotope that follows correlation."""
    mean = data.mean(axis=0)
    axes = np.linalg.svd(data - mean, full_matrices=False)[2]
    center, radius = _middle((data - mean) @ axes.T, epsilon)
    origin = mean + center @ axes
    return Shape(
        lambda points: np.max(np.abs((points - origin) @ axes.T) / radius, axis=1),
        lambda theta: Zonotope(origin, theta * axes.T * radius),
    )


def _fit(
    name: str, data: Matrix, options: FitOptions, learn: Callable[[Matrix], Shape], extra: dict[str, Any]
) -> FittedSet:
    count = int(options.number("n_calibration")) if options.has("n_calibration") else None
    if count is not None and (count < 0 or count != options.number("n_calibration")):
        raise DataError(f"n_calibration = {options.parameters['n_calibration']!r}: give a whole number >= 0")
    box = options.box(data)
    if count == 0:
        shape = learn(data)
        theta = float(np.quantile(shape.gauge(data), 1 - options.epsilon, method="higher"))
        thresholds: dict[str, Any] = {"theta": theta, "n_calibration": 0, **extra}
        certificate = Certificate(
            name,
            None,
            None,
            len(data),
            "sample quantile, not calibrated",
            thresholds,
            options.window,
            f"No promise: the set holds at least {100 * (1 - options.epsilon):g} % of the samples it was fitted to; "
            "calibrate it on fresh samples for a guarantee.",
            options.columns,
        )
    else:
        rows = split_rows(len(data), data.shape[1] + 2, options.epsilon, options.confidence, options.seed, count)
        shape = learn(data[rows.shape])
        level = calibrate(shape.gauge(data[rows.calibration]), options.epsilon, options.confidence)
        theta = level.level
        thresholds = {"theta": theta, "n_calibration": level.samples, "k": level.index, **extra}
        thresholds["attained_confidence"] = level.attained_confidence
        certificate = options.certificate(
            name, data, "order statistics (binomial tail)", thresholds, membership_promise(options)
        )
    inner = shape.build(theta)
    return FittedSet(inner if box is None else Intersection([inner, Box(*box)]), certificate)


@fitter("ellipsoid", "n_calibration", "box")
def fit_ellipsoid(data: Matrix, options: FitOptions) -> FittedSet:
    """Ellipsoid of mean and covariance, sized by order statistics."""
    return _fit("ellipsoid", data, options, ellipsoid_shape, {})


@fitter("box", "n_calibration", "box")
def fit_box(data: Matrix, options: FitOptions) -> FittedSet:
    """Box of column quantiles, sized by order statistics (see family m for one without a split)."""
    return _fit("box", data, options, lambda rows: box_shape(rows, options.epsilon), {})


@fitter("budget", "gamma", "n_calibration", "box")
def fit_budget(data: Matrix, options: FitOptions) -> FittedSet:
    """Budget set; `gamma` (default sqrt(d)) is the budget, in [1, d]."""
    d = data.shape[1]
    gamma = options.number("gamma", float(np.sqrt(d)))
    if not 1 <= gamma <= d:
        raise DataError(f"gamma = {gamma!r} is outside its range: give a number from 1 to {d}, the number of columns")
    return _fit("budget", data, options, lambda rows: budget_shape(rows, options.epsilon, gamma), {"gamma": gamma})


@fitter("zonotope", "n_calibration", "box")
def fit_zonotope(data: Matrix, options: FitOptions) -> FittedSet:
    """Zonotope along the principal axes, sized by order statistics."""
    return _fit("zonotope", data, options, lambda rows: zonotope_shape(rows, options.epsilon), {})
