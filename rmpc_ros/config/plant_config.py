"""A checked plant file and what follows from it: the model, the steady state, the linear network, limits as vectors."""

from __future__ import annotations

from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from pydantic import ConfigDict, Field, PrivateAttr

from rmpc_ros.config import derive
from rmpc_ros.config.adapting import Adaptation, Estimator
from rmpc_ros.config.learning import Learning
from rmpc_ros.config.sections import (
    Agent,
    Controller,
    Input,
    Name,
    Network,
    Plant,
    Resource,
    Section,
    Simulation,
    State,
)
from rmpc_ros.config.source import KeyPath, Problem, Source
from rmpc_ros.errors import ConfigError
from rmpc_ros.models.linear import LinearNetwork
from rmpc_ros.models.nonlinear import NonlinearModel

Vector = NDArray[np.float64]
Matrix = NDArray[np.float64]


class PlantConfig(Section):
    """A plant file. Vectors are in the units of the file, in the order of the agent's states or inputs.

    The section `learning` is typed in `config.learning`, `adaptation` and `estimator` in `config.adapting`, the
    others in `sections`.
    """

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, arbitrary_types_allowed=True)

    plant: Plant
    agents: dict[str, Agent]
    controller: Controller = Controller()
    network: Network = Network()
    resources: dict[Name, Resource] = Field(default_factory=dict)
    learning: Learning | None = None
    adaptation: Adaptation | None = None
    estimator: Estimator | None = None
    simulation: Simulation = Simulation()

    _origin: Source | None = PrivateAttr(default=None)

    def error(self, path: KeyPath, message: str) -> ConfigError:
        """An error that points at a key of the file, for what is found out after loading."""
        assert self._origin is not None
        return self._origin.error([Problem(path, message)])

    @property
    def period(self) -> float:
        """Control period in seconds."""
        return self.plant.period

    @cached_property
    def nonlinear(self) -> NonlinearModel | None:
        """The differential equations; None where the file gives matrices."""
        return derive.nonlinear_model(self)

    @cached_property
    def linear(self) -> LinearNetwork:
        """The linear network about the operating point, in the agents' coordinates."""
        return derive.linear_network(self)

    # -- vectors of one agent -----------------------------------------------------------------------------------------
    def state_limits(self, agent: str) -> tuple[Vector, Vector]:
        """Absolute limits (nx,), (nx,); infinite where the file gives none."""
        return _absolute(self.agents[agent].states, self.linear.steady_state[self.linear.rows(agent)])

    def input_limits(self, agent: str) -> tuple[Vector, Vector]:
        """Absolute limits (nu,), (nu,)."""
        return _absolute(self.agents[agent].inputs, self.linear.steady_input[self.linear.columns(agent)])

    def limit_rows(self, agent: str) -> tuple[Matrix, Vector]:
        """All limits of the agent's states as  H z <= h,  z deviations in its coordinates and h > 0.

        Physical limits come first, then limits of coordinates; infinite limits give no row.
        """
        lower, upper = self.state_limits(agent)
        H, h = self.linear.limit_rows(agent, lower, upper)
        size = len(lower)
        for n, coordinate in enumerate(self.agents[agent].coordinates.values()):
            if coordinate.deviation is not None:
                row = np.eye(size)[n]
                H = np.vstack([H, row, -row])
                h = np.concatenate([h, [coordinate.deviation[1], -coordinate.deviation[0]]])
        return H, h

    def coordinate_limits(self, agent: str) -> tuple[Vector, Vector]:
        """Smallest box (nx,), (nx,) around the limits, per coordinate: the most each coordinate can move.

        Exact for coordinates that are single states; for sums it is what limits on the parts allow, cut by the
        coordinate's own limits. Infinite where nothing limits the coordinate.
        """
        T = self.linear.agents[agent].transform
        x_s = self.linear.steady_state[self.linear.rows(agent)]
        lower, upper = self.state_limits(agent)
        with np.errstate(invalid="ignore"):
            low, high = lower - x_s, upper - x_s
            products = np.where(T == 0, 0.0, np.stack([T * low, T * high]))
        box_lower, box_upper = products.min(axis=0).sum(axis=1), products.max(axis=0).sum(axis=1)
        for n, coordinate in enumerate(self.agents[agent].coordinates.values()):
            if coordinate.deviation is not None:
                box_lower[n] = max(box_lower[n], coordinate.deviation[0])
                box_upper[n] = min(box_upper[n], coordinate.deviation[1])
        return box_lower, box_upper

    def initial_state(self, agent: str) -> Vector:
        """Where the simulation starts (nx,); the steady state where the file says nothing."""
        steady = self.linear.steady_state[self.linear.rows(agent)]
        states = self.agents[agent].states.values()
        return np.array([s if v.initial is None else v.initial for s, v in zip(steady, states, strict=True)])

    def noise(self, agent: str) -> Vector:
        """Largest sensor error (nx,)."""
        return np.array([v.noise for v in self.agents[agent].states.values()])

    def setpoint(self, agent: str) -> Vector:
        """Wanted states (nx,); the steady state where the file says nothing."""
        steady = self.linear.steady_state[self.linear.rows(agent)]
        names = self.agents[agent].states
        return np.array([self.controller.setpoint.get(n, s) for n, s in zip(names, steady, strict=True)])

    def disturbance_bounds(self) -> tuple[Vector, Vector]:
        """Absolute bounds (q,), (q,) in the order of `linear.disturbances`."""
        bounds = np.array([v.bounds for v in self.plant.disturbances.values()], float).reshape(-1, 2)
        return bounds[:, 0], bounds[:, 1]


def _absolute(variables: dict[str, State] | dict[str, Input], steady: Vector) -> tuple[Vector, Vector]:
    lower, upper = np.full(steady.size, -np.inf), np.full(steady.size, np.inf)
    for n, variable in enumerate(variables.values()):
        if variable.limits is not None:
            lower[n], upper[n] = variable.limits
        elif variable.deviation is not None:
            lower[n], upper[n] = steady[n] + np.array(variable.deviation)
    return lower, upper
