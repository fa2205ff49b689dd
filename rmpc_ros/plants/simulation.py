"""A plant file's simulated world: the plant with its disturbances, sensor noise, drifts and faults."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rmpc_ros.config import PlantConfig
from rmpc_ros.config.derive import operating_vectors
from rmpc_ros.errors import ConfigError, DataError
from rmpc_ros.plants.disturbances import DisturbanceProcess

Vector = NDArray[np.float64]


class Plant:
    """x(k+1) = F(x(k), u(k), d(k), p(k)) with measurements y(k) = x(k) + e(k), |e| <= noise.

    Vectors are in the units of the plant file, grouped by agent in the order of the file. F integrates the differential
    equations, or is the linear network exactly.

    Parameters
    ----------
    config : a checked plant file
    model : which F; the file's `simulation.model` by default
    seed : the file's `simulation.seed` by default

    Attributes
    ----------
    state : (n,) true state now
    disturbances : (q,) the disturbances of the last period, in the order of `disturbance_names`
    steps : periods since the start
    """

    def __init__(
        self, config: PlantConfig, model: Literal["nonlinear", "linear"] | None = None, seed: int | None = None
    ) -> None:
        self.config = config
        self.linear = config.linear
        self.names = {agent: v.states for agent, v in self.linear.agents.items()}
        self.input_names = {agent: v.inputs for agent, v in self.linear.agents.items()}
        self.disturbance_names = self.linear.disturbances
        equations = config.nonlinear
        wanted = model or config.simulation.model
        if equations is None and model == "nonlinear":
            raise ConfigError(f"plant '{config.plant.name}' is given by matrices; it has no nonlinear model")
        self._equations = equations if wanted == "nonlinear" else None
        if self._equations is not None:
            states = [s for names in self.names.values() for s in names]
            inputs = [u for names in self.input_names.values() for u in names]
            self._stepper = self._equations.stepper(config.period)
            self._state_order = [self._equations.state_names.index(s) for s in states]
            self._input_order = [self._equations.input_names.index(u) for u in inputs]
            self._disturbance_order = [self._equations.disturbance_names.index(d) for d in self.disturbance_names]
            self._nominal = operating_vectors(config, self._equations)[1]
        self._noise = np.concatenate([config.noise(agent) for agent in config.agents])
        self._all_states = [s for names in self.names.values() for s in names]
        self.reset(seed)

    def reset(self, seed: int | None = None) -> None:
        """Back to the initial state; each disturbance, the noise and the faults get their own stream of `seed`."""
        self.seed = self.config.simulation.seed if seed is None else seed
        parts = np.random.SeedSequence(self.seed).spawn(len(self.disturbance_names) + 1)
        realisations = self.config.simulation.disturbances
        self._processes: dict[int, DisturbanceProcess] = {}
        for n, name in enumerate(self.disturbance_names):
            if name in realisations:
                bounds = realisations[name].bounds or self.config.plant.disturbances[name].bounds
                generator = np.random.default_rng(parts[n])
                self._processes[n] = DisturbanceProcess(realisations[name], bounds, self.config.period, generator)
        self._sensor_generator = np.random.default_rng(parts[-1])
        self.steps = 0
        self.state = np.concatenate([self.config.initial_state(agent) for agent in self.config.agents])
        self.disturbances = self.linear.steady_disturbance.copy()
        self._shown = self.state.copy()
        self._read_sensors()

    @property
    def time(self) -> float:
        """Plant time in seconds since the start."""
        return self.steps * self.config.period

    def step(self, inputs: Mapping[str, ArrayLike], disturbances: ArrayLike | None = None) -> None:
        """Advance one period.

        Parameters
        ----------
        inputs : agent -> (nu,), every agent, absolute values
        disturbances : (q,) to use instead of the file's processes, absolute values

        Raises
        ------
        DataError
            An agent's inputs are missing, of the wrong length or not finite.
        NumericalError
            The equations could not be integrated.
        """
        u = self._stacked(inputs)
        drawn = self.linear.steady_disturbance.copy()
        for n, process in self._processes.items():
            drawn[n] = process.next()
        self.disturbances = drawn if disturbances is None else self._given(disturbances)
        if self._equations is None:
            self.state = self.linear.advance(self.state, u, self.disturbances)
        else:
            self.state = self._integrate(u)
        self.steps += 1
        self._read_sensors()

    def obey(self, other: Plant) -> None:
        """Follow another plant's equations from now on, because something was connected or cut off; the state stays.

        Raises
        ------
        ConfigError
            It has other states, inputs or disturbances.
        """
        same = self.names == other.names and self.input_names == other.input_names
        kind = (self._equations is None) == (other._equations is None)
        if not same or not kind or self.disturbance_names != other.disturbance_names:
            raise ConfigError(
                "a plant can only follow the equations of one with the same states, inputs and disturbances"
            )
        self.linear, self._equations = other.linear, other._equations
        if other._equations is not None:
            self._stepper = other._stepper

    def measure(self) -> dict[str, Vector]:
        """What the sensors say now, agent -> (nx,); NaN where a sensor dropped out. The same until the next step."""
        return {agent: self._readings[self.linear.rows(agent)].copy() for agent in self.names}

    def true_state(self) -> dict[str, Vector]:
        """The state without noise and faults, agent -> (nx,)."""
        return {agent: self.state[self.linear.rows(agent)].copy() for agent in self.names}

    def _integrate(self, u: Vector) -> Vector:
        assert self._equations is not None
        x, v, d = (np.empty(len(order)) for order in (self._state_order, self._input_order, self._nominal))
        x[self._state_order] = self.state
        v[self._input_order] = u
        d[:] = self._nominal
        d[self._disturbance_order] = self.disturbances
        return self._stepper.advance(x, v, d, self._parameters())[self._state_order]

    def _parameters(self) -> Vector | None:
        """Parameters now: p(t) = p e^{rate t}, rate per day."""
        assert self._equations is not None
        drifts = self.config.simulation.drifts
        if not drifts:
            return None
        days = self.time / 86400.0
        now = {n: self._equations.parameters[n] * math.exp(rate * days) for n, rate in drifts.items()}
        return self._equations.parameter_vector(now)

    def _read_sensors(self) -> None:
        before = self._shown
        error = self._sensor_generator.uniform(-1.0, 1.0, self.state.size) * self._noise
        faulty = self._sensor_generator.random(len(self.config.simulation.faults))
        self._shown = self.state + error if self.config.simulation.noise else self.state.copy()
        silent = np.zeros(self.state.size, bool)
        for fault, draw in zip(self.config.simulation.faults, faulty, strict=True):
            if fault.begin <= self.time < fault.end and draw < fault.probability:
                n = self._all_states.index(fault.state)
                match fault.kind:
                    case "stuck":
                        self._shown[n] = before[n]
                    case "bias":
                        self._shown[n] += fault.value
                    case "dropout":
                        silent[n] = True
        if self.config.estimator is not None:
            every = self.config.estimator.every
            silent |= np.array([self.steps % every.get(name, 1) != 0 for name in self._all_states])
        self._readings = np.where(silent, np.nan, self._shown)

    def _stacked(self, inputs: Mapping[str, ArrayLike]) -> Vector:
        unknown = set(inputs) - set(self.names)
        if unknown:
            raise DataError(f"inputs for the unknown agent '{min(unknown)}'; agents: {', '.join(self.names)}")
        out = []
        for agent, names in self.input_names.items():
            if agent not in inputs:
                raise DataError(f"agent '{agent}' has no inputs for step {self.steps}; give {', '.join(names)}")
            values = np.atleast_1d(np.asarray(inputs[agent], float))
            if values.shape != (len(names),) or not np.all(np.isfinite(values)):
                raise DataError(
                    f"inputs of agent '{agent}' = {values.tolist()}; "
                    f"give {len(names)} finite numbers: {', '.join(names)}"
                )
            out.append(values)
        return np.concatenate(out)

    def _given(self, disturbances: ArrayLike) -> Vector:
        values = np.atleast_1d(np.asarray(disturbances, float))
        if values.shape != (len(self.disturbance_names),) or not np.all(np.isfinite(values)):
            raise DataError(
                f"disturbances = {values.tolist()}; give {len(self.disturbance_names)} finite numbers: "
                f"{', '.join(self.disturbance_names)}"
            )
        return values


def make_plant(
    config: PlantConfig, model: Literal["nonlinear", "linear"] | None = None, seed: int | None = None
) -> Plant:
    """The plant of a file; see `Plant`."""
    return Plant(config, model, seed)
