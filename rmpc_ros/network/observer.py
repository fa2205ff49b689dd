"""One agent's view of the plant from partial, noisy, missing and lying sensors: filter, fault detector, disturbances.

Every agent carries the whole plant's equations and estimates all states from the readings it gets, its own and its
neighbours'. The disturbances named in the plant file are states that drift, which is what lets a stuck sensor be
replaced by the others. A moving-horizon estimator may do the estimating; the filter is its arrival cost and its
stand-in where it is not solved.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rmpc_ros.config import PlantConfig
from rmpc_ros.config.derive import operating_vectors
from rmpc_ros.errors import ConfigError, NumericalError
from rmpc_ros.models.estimator import Estimate, ExtendedKalman, Sensors, error_box, with_disturbance_states
from rmpc_ros.models.moving_horizon import MovingHorizon
from rmpc_ros.models.physics import Physics
from rmpc_ros.models.sensor_faults import Fault, FaultDetector

Vector = NDArray[np.float64]
WIDER = 2.0  # estimates stay within the limits widened by this factor about their middle


@dataclass(frozen=True)
class View:
    """What an agent believes after a step's readings.

    Attributes
    ----------
    states : (nx,) of every agent of the plant, physical
    spread : (nx,) bounds of their errors (99.9 % jointly, by the filter's own covariance)
    faults : sensors that are not trusted now
    solved : whether the moving-horizon program was solved; True for the filter
    """

    states: dict[str, Vector]
    spread: dict[str, Vector]
    faults: tuple[Fault, ...]
    solved: bool


class Observer:
    """Estimator of one agent.

    Parameters
    ----------
    config : a plant file with a section `estimator`
    agent : whose readings (and neighbours' readings) it gets
    detecting : sensors with a fault are not trusted; False is for comparison

    Raises
    ------
    ConfigError
        The file has no estimator section, or the plant no differential equations.
    """

    def __init__(self, config: PlantConfig, agent: str, detecting: bool = True) -> None:
        self._detecting = detecting
        settings, model = config.estimator, config.nonlinear
        if settings is None or model is None:
            raise ConfigError("an estimator needs the section `estimator` and a plant with differential equations")
        self._config, self._settings, self._linear = config, settings, config.linear
        read = [agent, *config.agents[agent].neighbours]
        self._read = tuple(name for name in config.agents if name in read)
        names = tuple(state for name in self._read for state in config.agents[name].states)
        order = {state: model.state_names.index(state) for spec in config.agents.values() for state in spec.states}
        self._order = {name: [order[state] for state in spec.states] for name, spec in config.agents.items()}
        self.bound = np.array([settings.error.get(state, 0.0) for state in config.agents[agent].states])
        """Stated bound (nx,) of the own error, physical: what the design's limits are tightened by."""
        self._every = np.array([settings.every.get(name, 1) for name in names])
        self._disturbances = settings.disturbances
        nominal = operating_vectors(config, model)[1]
        low, high, noise = self._ranges(len(order))
        sensor_noise = np.array([noise[order[name]] for name in names])
        physics = with_disturbance_states(Physics.from_model(model, config.period), settings.disturbances, nominal)
        bounds = np.array([config.plant.disturbances[name].bounds for name in settings.disturbances]).reshape(-1, 2)
        reach = (bounds[:, 1] - bounds[:, 0]) / 2
        middle, half = (low + high) / 2, (high - low) / 2
        self.filter = ExtendedKalman(
            physics,
            np.concatenate([settings.process * noise, settings.drift * reach]),
            Sensors(names, tuple(order[name] for name in names), sensor_noise),
            lower=np.concatenate([middle - WIDER * half, bounds[:, 0]]),
            upper=np.concatenate([middle + WIDER * half, bounds[:, 1]]),
        )
        feeds = nominal[[model.disturbance_names.index(name) for name in settings.disturbances]]
        self._fixed = np.array([nominal[model.disturbance_names.index(name)] for name in physics.disturbances])
        steady = np.empty(len(order))
        inputs = np.empty(len(model.input_names))
        self._input_order: dict[str, list[int]] = {}
        for name, spec in config.agents.items():
            steady[self._order[name]] = self._linear.steady_state[self._linear.rows(name)]
            self._input_order[name] = [model.input_names.index(u) for u in spec.inputs]
            inputs[self._input_order[name]] = self._linear.steady_input[self._linear.columns(name)]
        self._steady_inputs = inputs
        spread = np.concatenate([np.where(np.isfinite(half), settings.start * half, 1.0), 0.5 * reach])
        self._first = Estimate(np.concatenate([steady, feeds]), np.diag(spread**2))
        self._window: MovingHorizon | None = None
        self.reset()
        self.filter.predicted(self._estimate, inputs, self._fixed)  # builds the derivatives, which takes a second

    def reset(self) -> None:
        """Forget everything that was read."""
        self._inputs, self._estimate, self._step = self._steady_inputs.copy(), self._first, -1
        self._detector = FaultDetector(self.filter.sensors.names)
        if self._settings.kind == "mhe":
            self._window = MovingHorizon(self.filter, self._first, self._settings.horizon, disturbances=self._fixed)

    def _ranges(self, count: int) -> tuple[Vector, Vector, Vector]:
        """Limits (n,), (n,) and sensor noise (n,) as standard deviations, in the model's order."""
        low, high, noise = np.full(count, -np.inf), np.full(count, np.inf), np.empty(count)
        for name, spec in self._config.agents.items():
            place = self._order[name]
            low[place], high[place] = self._config.state_limits(name)
            bound = np.array([state.noise for state in spec.states.values()])
            size = np.where(np.isfinite(high[place] - low[place]), high[place] - low[place], 1.0)
            noise[place] = np.maximum(bound / np.sqrt(3.0), 1e-6 * size)  # bounded noise as if uniform
        return low, high, noise

    def update(self, step: int, readings: Mapping[str, Vector], inputs: Mapping[str, Vector]) -> View:
        """Take in a step's readings.

        Parameters
        ----------
        readings : (nx,) by agent, physical; NaN where a sensor did not speak
        inputs : (nu,) in force since the step before, by agent; where one is missing its last one is used

        Raises
        ------
        NumericalError
            The plant's equations cannot be integrated from the estimate.
        """
        for name, values in inputs.items():
            self._inputs[self._input_order[name]] = values
        y = np.concatenate([readings.get(name, np.full(len(self._order[name]), np.nan)) for name in self._read])
        before, skipped = self._estimate, max(step - self._step, 1) if self._step >= 0 else 0
        for _ in range(skipped):
            before = self.filter.predicted(before, self._inputs, self._fixed)
        trusted = self._detector.update(step, y, self.filter.innovations(before, y), step % self._every == 0)
        trusted = trusted if self._detecting else np.isfinite(y)
        self._estimate = self.filter.corrected(before, y, trusted)
        mean, solved = self._estimate.mean, True
        if self._window is not None and self._step >= 0:
            try:
                mean = self._window.update(self._inputs, y, trusted)
            except NumericalError:
                solved = False  # the filter's estimate stands in
        self._step = step
        bound = error_box(self._estimate.deviation)
        return View(
            {name: mean[place] for name, place in self._order.items()},
            {name: bound[place] for name, place in self._order.items()},
            self._detector.faults,
            solved,
        )
