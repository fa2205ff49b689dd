"""The learned mean of an agent's one-step residual: a hybrid model whose physics is the agent's own linear prediction.

    x+ = A x + B (u - K x) + G zeta + S W' (1, x, zeta),      everything normalised

W is refined with every step on three quarters of the data; the rest is held out. A newer W replaces the certified one
only when it explains the held-out steps better, is not overconfident, moves no prediction by more than a stated step,
and the robust problem has a plan with it (`models.certification`).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import replace

import casadi as ca
import numpy as np
from numpy.typing import NDArray

from rmpc_ros.config.adapting import Adaptation as Settings
from rmpc_ros.errors import DataError
from rmpc_ros.models.certification import AdoptionRule, Verdict, consider
from rmpc_ros.models.features import LinearFeatures
from rmpc_ros.models.hybrid import HybridModel, Structure, Transitions
from rmpc_ros.models.parameters import ParameterBelief
from rmpc_ros.models.physics import Physics
from rmpc_ros.models.residual import BayesianLayer
from rmpc_ros.network.agent_design import AgentDesign

Vector = NDArray[np.float64]
Matrix = NDArray[np.float64]

HELD_OUT = 4  # every fourth step is held out
FADED = 1e9  # scale that takes a model input out of the features
NOISE_SHARE = 0.3  # expected size of a residual over the design's half-width, before data
WIDER = 10.0  # factor on the layer's covariance after a drift


def predictor(design: AgentDesign) -> Physics:
    """The agent's linear one-step prediction: states x, inputs u, disturbances zeta, all normalised."""
    model = design.model
    x, u, d, theta = (ca.MX.sym(n, s) for n, s in (("x", model.nx), ("u", model.nu), ("d", model.ng), ("theta", 0)))
    after = ca.DM(model.A - model.B @ model.K) @ x + ca.DM(model.B) @ u + ca.DM(model.G) @ d
    quantities = tuple(f"{name}.{q}" for name, other in design.neighbours.items() for q in other.names)
    names = design.names[: design.nx], design.input_names
    return Physics(design.name, *names, quantities, (), design.period, ca.Function("F", [x, u, d, theta], [after]))


class LearnedMean:
    """Mean of the residual by a hybrid model; the input does not enter, since it is decided after the mean."""

    def __init__(self, model: HybridModel) -> None:
        self.model = model

    def __call__(self, x: Vector, last_input: Vector, zeta: Vector) -> Vector:
        """(nx,) at a state (nx,) and neighbours' quantities (ng,), normalised."""
        return np.asarray(self.many(x[None], last_input[None], zeta[None])[0])

    def many(self, x: Matrix, u: Matrix, zeta: Matrix) -> Matrix:
        """The same for rows, (N, nx)."""
        s = self.model.structure
        return np.asarray(s.residual_scale * (s.features(s.normalised(x, u, zeta)) @ self.model.layer.mean))


class MeanLearner:
    """Learns the mean of one agent's residual and says when a newer one may be used.

    Parameters
    ----------
    design, settings : of the agent

    Attributes
    ----------
    certified : the model in force; version 0 is the design's prediction itself
    verdict : of the last judgement
    """

    def __init__(self, design: AgentDesign, settings: Settings) -> None:
        self._settings = settings
        half = (
            design.model.disturbance_support(np.eye(design.nx)) + design.model.disturbance_support(-np.eye(design.nx))
        ) / 2
        ranges = [design.terminal[: design.nx], np.full(design.nu, FADED)]
        ranges += [other.terminal for other in design.neighbours.values()]
        physics = predictor(design)
        scale = np.concatenate(ranges)
        features = LinearFeatures(scale.size)
        structure = Structure(physics, features, np.zeros(scale.size), scale, NOISE_SHARE * half)
        layer = BayesianLayer.empty(features.count, np.ones(design.nx), prior=1.0)
        self.certified = HybridModel(structure, layer, ParameterBelief.nominal(0))
        self._trial = self.certified
        self._rule = AdoptionRule(settings.gain, 2.0, settings.change * half)
        self._held: deque[tuple[Vector, Vector, Vector, Vector, float]] = deque(maxlen=4 * self._rule.least)
        self._count = 0
        self.verdict: Verdict | None = None

    def observe(self, x: Vector, u: Vector, zeta: Vector, after: Vector, time: float) -> None:
        """Take in one step, normalised.

        Raises
        ------
        DataError
            A value is not finite: the step is left out.
        """
        if not np.all(np.isfinite(np.concatenate([x, u, zeta, after]))):
            raise DataError("a transition holds values that are not finite: leave it out")
        self._count += 1
        if self._count % HELD_OUT == 0:
            self._held.append((x, u, zeta, after, time))
        else:
            self._trial = self._trial.updated(
                x, u, zeta, after, time, self._settings.forgetting, learn_parameters=False
            )

    def judge(self, feasible: Callable[[HybridModel], bool]) -> bool:
        """Whether the newer model has taken the place of the certified one."""
        if not self._held:
            return False
        held_out = Transitions(*(np.array(column) for column in zip(*self._held, strict=True)))
        candidate = self._towards_trial(held_out)
        self.verdict = consider(self.certified, candidate, held_out, self._rule, feasible)
        if self.verdict.adopted:
            self.certified = replace(candidate, version=self.certified.version + 1)
        return self.verdict.adopted

    def _towards_trial(self, rows: Transitions) -> HybridModel:
        """The newer model, or as far towards it as one adoption may move a prediction (the mean is linear in W)."""
        (new, _), (old, _) = (m.predict_many(rows.x, rows.u, rows.d) for m in (self._trial, self.certified))
        share = min(1.0, 0.99 / max(float(np.max(np.abs(new - old) / self._rule.change)), 1e-12))
        present, trial = self.certified.layer, self._trial.layer
        return replace(self._trial, layer=replace(trial, mean=(1 - share) * present.mean + share * trial.mean))

    def drifted(self) -> None:
        """The past counts for less, and the design's prediction is in force until something better is certified."""
        fresh = BayesianLayer.empty(self._trial.structure.features.count, self._trial.layer.noise, prior=1.0)
        self.certified = replace(self.certified, layer=fresh, version=self.certified.version + 1)
        self._trial = self._trial.widened(WIDER)
        self._held.clear()
