"""From a plant file to models: the differential equations by name, by expressions, and the linear network."""

from __future__ import annotations

import importlib
import pkgutil
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from rmpc_ros.config.source import did_you_mean
from rmpc_ros.config.units import SECONDS
from rmpc_ros.errors import ConfigError
from rmpc_ros.models.expressions import evaluate
from rmpc_ros.models.linear import AgentVariables, LinearNetwork, discretise, network_from_matrices, network_from_model
from rmpc_ros.models.nonlinear import NonlinearModel, Variable

if TYPE_CHECKING:
    from rmpc_ros.config.plant_config import PlantConfig

Matrix = NDArray[np.float64]
WITHOUT_MODULE = ("linear", "equations")


def model_names() -> list[str]:
    """Models a plant file can name: those of `rmpc_ros.plants` that have a `build`, and the two written in the file."""
    package = importlib.import_module("rmpc_ros.plants")
    modules = [m.name for m in pkgutil.iter_modules(package.__path__)]
    return [*WITHOUT_MODULE, *(m for m in modules if m not in package.NOT_MODELS)]


def nonlinear_model(config: PlantConfig) -> NonlinearModel | None:
    """The differential equations of the file's model; None for `model: linear`.

    Raises
    ------
    ConfigError
        The model, one of its parameters or a name in an expression does not exist.
    """
    plant = config.plant
    if plant.model == "linear":
        return None
    if plant.model == "equations":
        return _model_from_equations(config)
    known = model_names()
    if plant.model not in known:
        raise ConfigError(
            f"model '{plant.model}' is unknown{did_you_mean(plant.model, known)}; known: {', '.join(known)}"
        )
    model = importlib.import_module(f"rmpc_ros.plants.{plant.model}").build(plant.parameters)
    assert isinstance(model, NonlinearModel)
    return model


def agent_variables(config: PlantConfig) -> dict[str, AgentVariables]:
    """Who owns which states and inputs, and in which coordinates."""
    out = {}
    for name, agent in config.agents.items():
        states = tuple(agent.states)
        transform = np.eye(len(states))
        if agent.coordinates:
            transform = np.array([[c.weights.get(s, 0.0) for s in states] for c in agent.coordinates.values()])
        out[name] = AgentVariables(states, tuple(agent.inputs), tuple(agent.coordinates or agent.states), transform)
    return out


def operating_vectors(config: PlantConfig, model: NonlinearModel) -> tuple[Matrix, Matrix, Matrix]:
    """Inputs, disturbances and the guess of the state at the operating point, in the model's order."""
    point = config.plant.operating_point
    inputs = np.array([point.inputs.get(v.name, v.nominal) for v in model.inputs], float)
    nominal = {name: d.nominal for name, d in config.plant.disturbances.items()}
    disturbances = np.array([nominal.get(v.name, v.nominal) for v in model.disturbances], float)
    guess = np.array([point.states.get(v.name, v.nominal) for v in model.states], float)
    return inputs, disturbances, guess


def linear_network(config: PlantConfig) -> LinearNetwork:
    """The linear network in the agents' coordinates.

    Raises
    ------
    ConfigError
        A variable has no owner, a matrix the wrong shape, or coordinates are not independent.
    NumericalError
        No steady state is found from the operating point.
    """
    considered = tuple(config.plant.disturbances)
    variables = agent_variables(config)
    if config.nonlinear is None:
        return _network_from_agent_matrices(config, variables)
    model = config.nonlinear
    inputs, disturbances, guess = operating_vectors(config, model)
    steady = model.steady_state(inputs, disturbances, guess)
    return network_from_model(
        model, steady, inputs, disturbances, variables, considered, config.period, config.plant.discretisation
    )


def _model_from_equations(config: PlantConfig) -> NonlinearModel:
    plant, equations = config.plant, config.plant.equations
    assert equations is not None  # checked when the file was loaded
    point = plant.operating_point
    states = {n: v for a in config.agents.values() for n, v in a.states.items()}
    inputs = {n: v for a in config.agents.values() for n, v in a.inputs.items()}

    def derivatives(*groups):  # type: ignore[no-untyped-def]
        names = {name: symbol for group in groups for name, symbol in group.items()}
        for name, text in equations.definitions.items():
            names[name] = evaluate(text, names, f"plant.equations.definitions.{name}")
        return [evaluate(equations.derivatives[s], names, f"plant.equations.derivatives.{s}") for s in states]

    return NonlinearModel(
        plant.name,
        [Variable(n, v.unit, point.states.get(n, 0.0 if v.initial is None else v.initial)) for n, v in states.items()],
        [Variable(n, v.unit, point.inputs.get(n, 0.0)) for n, v in inputs.items()],
        [Variable(n, v.unit, v.nominal) for n, v in plant.disturbances.items()],
        {n: float(v) for n, v in plant.parameters.items() if not isinstance(v, list)},
        derivatives,
        time_unit=SECONDS[equations.time_unit],
    )


def _network_from_agent_matrices(config: PlantConfig, variables: dict[str, AgentVariables]) -> LinearNetwork:
    """x_i+ = A_i x_i + sum_j B_ij x_j + D_i u_i + sum_j F_ij u_j + E_i w about the operating point (default zero)."""
    disturbances = tuple(config.plant.disturbances)
    sizes = {name: (len(v.states), len(v.inputs)) for name, v in variables.items()}
    starts = dict(zip(sizes, np.cumsum([[0, 0], *sizes.values()], axis=0)[:-1].tolist(), strict=True))
    n, m = np.sum(list(sizes.values()), axis=0)
    A, B, E = np.zeros((n, n)), np.zeros((n, m)), np.zeros((n, len(disturbances)))
    for name, agent in config.agents.items():
        assert agent.matrices is not None  # checked when the file was loaded
        rows = slice(starts[name][0], starts[name][0] + sizes[name][0])
        A[rows, rows] = agent.matrices.A
        for other, block in agent.matrices.B.items():
            A[rows, starts[other][0] : starts[other][0] + sizes[other][0]] = block
        B[rows, starts[name][1] : starts[name][1] + sizes[name][1]] = agent.matrices.D
        for other, block in agent.matrices.F.items():
            B[rows, starts[other][1] : starts[other][1] + sizes[other][1]] = block
        if agent.matrices.E is not None:
            names = disturbances if agent.matrices.disturbances is None else agent.matrices.disturbances
            E[np.ix_(range(rows.start, rows.stop), [disturbances.index(d) for d in names])] = agent.matrices.E
    if config.plant.time == "continuous":
        A, B, E = discretise(A, B, E, config.period)
    point = config.plant.operating_point
    return network_from_matrices(
        A,
        B,
        E,
        variables,
        disturbances,
        config.period,
        [point.states.get(s, 0.0) for v in variables.values() for s in v.states],
        [point.inputs.get(u, 0.0) for v in variables.values() for u in v.inputs],
        [d.nominal for d in config.plant.disturbances.values()],
    )
