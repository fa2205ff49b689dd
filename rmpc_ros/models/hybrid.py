"""A plant model that learns:  x+ = F(x, u, d, theta) + S W' phi(z),   z = ((x, u, d) - centre) / scale.

F is physics, phi a fixed feature map learned offline, S the scale of the residuals; W (a Bayesian layer) and theta
(physical parameters) are refined with every measurement. Before any data W = 0 and the model is its physics. Models
are immutable: `updated` returns a new one, so a controller can keep the last certified model while a newer one is on
trial. Source: learning.md, "Hybrid models"; math.md section 4.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import casadi as ca
import numpy as np
from numpy.typing import ArrayLike, NDArray

from rmpc_ros.errors import DataError
from rmpc_ros.models.features import FeatureMap, fit_features
from rmpc_ros.models.parameters import ParameterBelief
from rmpc_ros.models.physics import Physics
from rmpc_ros.models.residual import BayesianLayer, fit_layer

Vector = NDArray[np.float64]
Matrix = NDArray[np.float64]


@dataclass(frozen=True)
class DataWindow:
    """Which data a model has seen: number of transitions and the times of the first and the last, in seconds."""

    samples: int = 0
    begin: float = float("nan")
    end: float = float("nan")

    def extended(self, time: float) -> DataWindow:
        """One more transition."""
        return DataWindow(self.samples + 1, time if self.samples == 0 else self.begin, time)


@dataclass(frozen=True)
class Transitions:
    """Logged steps: x (N, n), u (N, m), d (N, q), after (N, n) one period later, time (N,) in seconds."""

    x: Matrix
    u: Matrix
    d: Matrix
    after: Matrix
    time: Vector

    def __len__(self) -> int:
        return len(self.x)

    def rows(self, index: Any) -> Transitions:
        """A part of them."""
        return Transitions(self.x[index], self.u[index], self.d[index], self.after[index], self.time[index])


@dataclass(frozen=True)
class Structure:
    """What does not change online: physics, features, scaling. CasADi functions are built once, on first use."""

    physics: Physics
    features: FeatureMap
    centre: Vector
    scale: Vector
    residual_scale: Vector

    def normalised(self, x: Matrix, u: Matrix, d: Matrix) -> Matrix:
        """Z of each row, (N, n + m + q)."""
        return (np.hstack([x, u, d]) - self.centre) / self.scale

    @cached_property
    def function(self) -> Any:
        """CasADi function (x, u, d, theta, W) -> mean of x+; as W is an argument, learning needs no rebuild."""
        n, m, q, k = self.physics.sizes
        x, u, d, theta = (ca.MX.sym(s, size) for s, size in zip(("x", "u", "d", "theta"), (n, m, q, k), strict=True))
        W = ca.MX.sym("W", self.features.count, n)
        z = (ca.vertcat(x, u, d) - ca.DM(self.centre)) / ca.DM(self.scale)
        learned = ca.DM(self.residual_scale) * ca.mtimes(W.T, self.features.casadi(z))
        return ca.Function("hybrid", [x, u, d, theta, W], [self.physics.function(x, u, d, theta) + learned])

    @cached_property
    def derivatives(self) -> Any:
        """CasADi function of the same arguments -> mean, its Jacobians by x, u and d."""
        n, m, q, k = self.physics.sizes
        arguments = [ca.MX.sym(s, size) for s, size in zip(("x", "u", "d", "theta"), (n, m, q, k), strict=True)]
        arguments.append(ca.MX.sym("W", self.features.count, n))
        mean = self.function(*arguments)
        parts = [ca.densify(ca.jacobian(mean, s)) for s in arguments[:3]]
        return ca.Function("hybrid_derivatives", arguments, [mean, *parts])


@dataclass(frozen=True)
class Prediction:
    """Mean (n,) and variance (n,) of the next state.

    What the update needs again: features `phi` (p,), the physics' prediction `base` (n,), its derivative `J` (n, k) by
    theta.
    """

    mean: Vector
    variance: Vector
    phi: Vector = field(repr=False)
    base: Vector = field(repr=False)
    J: Matrix = field(repr=False)


@dataclass(frozen=True)
class Rollout:
    """Means and standard deviations (H, n) of the next H states under given inputs."""

    mean: Matrix
    deviation: Matrix


@dataclass(frozen=True)
class HybridModel:
    """Physics, learned residual and beliefs about parameters, with version and data window."""

    structure: Structure
    layer: BayesianLayer
    belief: ParameterBelief
    version: int = 0
    window: DataWindow = DataWindow()

    # -- prediction ---------------------------------------------------------------------------------------------------
    def predict(self, x: ArrayLike, u: ArrayLike, d: ArrayLike) -> Prediction:
        """One step ahead."""
        s = self.structure
        rows = [np.atleast_2d(np.asarray(v, float)) for v in (x, u, d)]
        phi = s.features(s.normalised(*rows))
        mean, variance = self.layer.predict(phi)
        base, J = s.physics.with_sensitivity(x, u, d, self.belief.mean)
        return Prediction(base + s.residual_scale * mean[0], s.residual_scale**2 * variance[0], phi[0], base, J)

    def predict_many(self, x: Matrix, u: Matrix, d: Matrix) -> tuple[Matrix, Matrix]:
        """Mean and variance (N, n), one step ahead of each row."""
        s = self.structure
        mean, variance = self.layer.predict(s.features(s.normalised(x, u, d)))
        base = s.physics.advance_many(x, u, d, self.belief.mean)
        return base + s.residual_scale * mean, s.residual_scale**2 * variance

    def rollout(self, x: ArrayLike, inputs: Matrix, disturbances: Matrix) -> Rollout:
        """Several steps: means by iteration, variances carried along by the exact Jacobian.

        Parameters
        ----------
        x : (n,) state now;  inputs : (H, m);  disturbances : (H, q)
        """
        s = self.structure
        now, spread = np.asarray(x, float), np.zeros((len(np.asarray(x)), len(np.asarray(x))))
        means, deviations = np.empty((len(inputs), now.size)), np.empty((len(inputs), now.size))
        for k, (u, d) in enumerate(zip(inputs, disturbances, strict=True)):
            phi = s.features(s.normalised(now[None], np.reshape(u, (1, -1)), np.reshape(d, (1, -1))))
            _, variance = self.layer.predict(phi)
            mean, A, _, _ = s.derivatives(now, u, d, self.belief.mean, self.layer.mean)
            A = np.asarray(A)
            now = np.asarray(mean).ravel()
            spread = A @ spread @ A.T + np.diag(s.residual_scale**2 * variance[0])
            means[k], deviations[k] = now, np.sqrt(np.diag(spread))
        return Rollout(means, deviations)

    def linearised(self, x: ArrayLike, u: ArrayLike, d: ArrayLike) -> tuple[Vector, Matrix, Matrix, Matrix]:
        """Exact x+ (n,) and its Jacobians A (n, n), B (n, m), E (n, q) at a point."""
        mean, A, B, E = self.structure.derivatives(x, u, d, self.belief.mean, self.layer.mean)
        n = len(self.structure.physics.states)
        return np.asarray(mean).ravel(), np.asarray(A), np.asarray(B).reshape(n, -1), np.asarray(E).reshape(n, -1)

    # -- learning -----------------------------------------------------------------------------------------------------
    def updated(
        self,
        x: ArrayLike,
        u: ArrayLike,
        d: ArrayLike,
        after: ArrayLike,
        time: float,
        forgetting: float = 0.998,
        prediction: Prediction | None = None,
        learn_parameters: bool = True,
        noise_rate: float = 0.005,
    ) -> HybridModel:
        """Take in one transition (x, u, d) -> after.

        The parameters explain what they can first (their belief is a Kalman filter on theta), the residual layer the
        rest.

        Raises
        ------
        DataError
            A value is not finite: the caller leaves the sample out.
        """
        measured = np.asarray(after, float)
        if not np.all(np.isfinite(np.concatenate([np.ravel(v) for v in (x, u, d, measured)]))):
            raise DataError("a transition holds values that are not finite: leave it out")
        s = self.structure
        before = prediction or self.predict(x, u, d)
        belief = self.belief
        if learn_parameters and len(s.physics.parameters):
            belief = belief.updated(before.J, measured - before.mean, np.sqrt(before.variance))
        base = before.base + before.J @ (belief.mean - self.belief.mean)  # theta moves little in one step
        layer = self.layer.updated(before.phi, (measured - base) / s.residual_scale, forgetting, noise_rate=noise_rate)
        return replace(self, layer=layer, belief=belief, window=self.window.extended(time))

    def widened(self, factor: float) -> HybridModel:
        """After a detected change: the past counts for less, in the residual and in the parameters."""
        return replace(self, layer=self.layer.widened(factor), belief=self.belief.widened(factor))


def untrained(physics: Physics, x: Matrix, u: Matrix, d: Matrix, noise: Vector, kind: str = "linear") -> HybridModel:
    """A model before data: exactly its physics, ready to learn a linear residual.

    Parameters
    ----------
    x, u, d : rows that tell the ranges of states, inputs and disturbances (their limits will do)
    noise : (n,) expected one-step error of the physics, in state units
    """
    centre, scale = _scaling(np.hstack([x, u, d]))
    features = fit_features(kind, np.zeros((1, centre.size)), np.zeros((1, len(noise))))
    structure = Structure(physics, features, centre, scale, np.asarray(noise, float))
    layer = BayesianLayer.empty(features.count, np.ones(len(noise)), prior=1.0)
    return HybridModel(structure, layer, ParameterBelief.nominal(len(physics.parameters)))


def fit_hybrid(
    physics: Physics,
    data: Transitions,
    kind: str = "network",
    seed: int = 0,
    belief: ParameterBelief | None = None,
    count: int = 64,
    prior: float = 1.0,
) -> HybridModel:
    """Fit features and layer offline; theta stays at `belief` (see `parameters.fit_parameters`).

    Parameters
    ----------
    kind : "network", "inducing" or "linear"
    count : features aimed at
    prior : prior variance of a weight over the noise variance

    Raises
    ------
    DataError
        Too few transitions.
    """
    if len(data) < 50:
        raise DataError(f"{len(data)} transitions: at least 50 are needed to learn a residual")
    start = belief or ParameterBelief.nominal(len(physics.parameters))
    residual = data.after - physics.advance_many(data.x, data.u, data.d, start.mean)
    centre, scale = _scaling(np.hstack([data.x, data.u, data.d]))
    size = np.maximum(np.sqrt(np.mean(residual**2, axis=0)), 1e-9 * np.maximum(np.abs(data.x).max(0), 1e-3))
    z = (np.hstack([data.x, data.u, data.d]) - centre) / scale
    features = fit_features(kind, z, residual / size, seed=seed, count=count)
    layer = fit_layer(features(z), residual / size, prior=prior)
    structure = Structure(physics, features, centre, scale, size)
    window = DataWindow(len(data), float(data.time[0]), float(data.time[-1]))
    return HybridModel(structure, layer, start, 1, window)


def _scaling(rows: Matrix) -> tuple[Vector, Vector]:
    centre, scale = rows.mean(0), rows.std(0)
    return centre, np.where(scale > 1e-9 * np.maximum(np.abs(centre), 1.0), scale, 1.0)
