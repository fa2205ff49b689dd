"""Checks of a plant file that need more than one key: cross-references, shapes, and the model's facts.

`structural` needs only the file; `physical` also needs the model, its steady state and the linear network.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import numpy as np

from rmpc_ros.config.derive import model_names
from rmpc_ros.config.source import KeyPath, Problem, did_you_mean
from rmpc_ros.config.units import unit_error
from rmpc_ros.models.nonlinear import Variable

if TYPE_CHECKING:
    from rmpc_ros.config.plant_config import PlantConfig
    from rmpc_ros.config.sections import Agent, Matrices

COUPLING = 1e-9
"""Share of an agent's limit that an unlisted agent may move it by, within its own limits and one period."""


def structural(config: PlantConfig) -> list[Problem]:
    """Problems visible in the file alone."""
    return [
        *_model_section(config),
        *_ownership(config),
        *(p for name, agent in config.agents.items() for p in _agent(config, name, agent)),
        *_references(config),
        *_loops(config),
        *_duration(config),
        *_wiring(config),
        *_resources(config),
        *_learning(config),
        *_estimator(config),
    ]


def physical(config: PlantConfig) -> list[Problem]:
    """Problems that show once the model is built: names, units, limits about the steady state, unlisted neighbours."""
    return [*_limits_and_start(config), *_coupling(config)]


def against_model(config: PlantConfig) -> list[Problem]:
    """States, inputs, disturbances, drifts and their units against the differential equations."""
    model = config.nonlinear
    if model is None:
        return []
    out: list[Problem] = []
    states: list[KeyPath] = [("agents", a, "states", s) for a, v in config.agents.items() for s in v.states]
    inputs: list[KeyPath] = [("agents", a, "inputs", u) for a, v in config.agents.items() for u in v.inputs]
    out += _match(config, "state", states, model.states, True)
    out += _match(config, "input", inputs, model.inputs, True)
    out += _match(
        config,
        "disturbance",
        [("plant", "disturbances", d) for d in config.plant.disturbances],
        model.disturbances,
        False,
    )
    for name in config.simulation.drifts:
        if name not in model.parameters:
            hint = did_you_mean(name, model.parameters)
            out.append(
                Problem(
                    ("simulation", "drifts", name),
                    f"the model has no such parameter{hint}; it has {', '.join(model.parameters)}",
                )
            )
    return out


# -- the file alone ---------------------------------------------------------------------------------------------------
def _model_section(config: PlantConfig) -> Iterator[Problem]:
    plant = config.plant
    known = model_names()
    if plant.model not in known:
        yield Problem(
            ("plant", "model"), f"unknown model{did_you_mean(plant.model, known)}; allowed: {', '.join(known)}"
        )
    if (plant.equations is not None) != (plant.model == "equations"):
        yield Problem(("plant", "equations"), "equations are given exactly where the model is 'equations'")
    if plant.model != "linear" and plant.time != "discrete":
        yield Problem(("plant", "time"), "time is for the matrices of model 'linear'; equations are always continuous")
    for name, agent in config.agents.items():
        if (agent.matrices is not None) != (plant.model == "linear"):
            yield Problem(
                ("agents", name, "matrices"), "matrices are given by every agent exactly where the model is 'linear'"
            )
        if agent.period is not None and agent.period != plant.period:
            yield Problem(("agents", name, "period"), f"every agent keeps the plant's period, here {plant.period:g} s")
    if not config.agents:
        yield Problem(("agents",), "a plant has at least one agent")
    if plant.model == "linear" and config.simulation.drifts:
        yield Problem(("simulation", "drifts"), "a linear model has no parameters that could drift")
    for name in config.agents:
        if not name.replace("_", "a").isalnum() or not name[0].isalpha() or not name.isascii():
            yield Problem(
                ("agents", name), "an agent's name holds letters, digits and underscores and begins with a letter"
            )


def _ownership(config: PlantConfig) -> Iterator[Problem]:
    """No state or input belongs to two agents."""
    for kind in ("states", "inputs"):
        owner: dict[str, str] = {}
        for name, agent in config.agents.items():
            for variable in getattr(agent, kind):
                if variable in owner:
                    what = "state" if kind == "states" else "actuator"
                    yield Problem(
                        ("agents", name, kind, variable), f"this {what} is already claimed by agent '{owner[variable]}'"
                    )
                owner.setdefault(variable, name)


def _agent(config: PlantConfig, name: str, agent: Agent) -> Iterator[Problem]:
    here: KeyPath = ("agents", name)
    if not agent.states:
        yield Problem((*here, "states"), "an agent has at least one state")
    if not agent.inputs:
        yield Problem((*here, "inputs"), "an agent has at least one input")
    for n, other in enumerate(agent.neighbours):
        if other == name:
            yield Problem((*here, "neighbours", n), "an agent is not its own neighbour")
        elif other not in config.agents:
            hint = did_you_mean(other, config.agents)
            yield Problem((*here, "neighbours", n), f"no such agent{hint}; agents: {', '.join(config.agents)}")
        elif other in agent.neighbours[:n]:
            yield Problem((*here, "neighbours", n), "this neighbour is listed twice")
    if agent.coordinates:
        if len(agent.coordinates) != len(agent.states):
            yield Problem(
                (*here, "coordinates"),
                f"there are {len(agent.coordinates)}; one per state, {len(agent.states)}, is needed",
            )
        for key, coordinate in agent.coordinates.items():
            yield from _unknown((*here, "coordinates", key, "weights"), coordinate.weights, agent.states, "state")
        if len(agent.coordinates) == len(agent.states):
            rows = [[c.weights.get(s, 0.0) for s in agent.states] for c in agent.coordinates.values()]
            if np.linalg.matrix_rank(np.array(rows)) < len(rows):
                yield Problem((*here, "coordinates"), "these coordinates are not independent of each other")
    if agent.matrices is not None:
        yield from _matrix_shapes(config, (*here, "matrices"), agent, agent.matrices)


def _matrix_shapes(config: PlantConfig, here: KeyPath, agent: Agent, matrices: Matrices) -> Iterator[Problem]:
    n = len(agent.states)
    yield from _shape((*here, "A"), matrices.A, (n, n), "states x states")
    yield from _shape((*here, "D"), matrices.D, (n, len(agent.inputs)), "states x inputs")
    for other, block in matrices.B.items():
        if other not in config.agents:
            yield Problem((*here, "B", other), f"no such agent{did_you_mean(other, config.agents)}")
            continue
        yield from _shape(
            (*here, "B", other), block, (n, len(config.agents[other].states)), f"states x states of {other}"
        )
    for other, block in matrices.F.items():
        if other not in config.agents:
            yield Problem((*here, "F", other), f"no such agent{did_you_mean(other, config.agents)}")
            continue
        yield from _shape(
            (*here, "F", other), block, (n, len(config.agents[other].inputs)), f"states x inputs of {other}"
        )
    names = list(config.plant.disturbances) if matrices.disturbances is None else matrices.disturbances
    for k, word in enumerate(names):
        if word not in config.plant.disturbances:
            hint = did_you_mean(word, config.plant.disturbances)
            yield Problem((*here, "disturbances", k), f"no such disturbance in plant.disturbances{hint}")
    if matrices.E is not None:
        yield from _shape((*here, "E"), matrices.E, (n, len(names)), "states x disturbances")


def _shape(path: KeyPath, rows: list[list[float]], wanted: tuple[int, int], meaning: str) -> Iterator[Problem]:
    widths = {len(row) for row in rows}
    if len(widths) > 1:
        yield Problem(
            path, f"its rows have different lengths {sorted(widths)}; needed {wanted[0]} x {wanted[1]} ({meaning})"
        )
    elif (len(rows), *widths) != wanted and not (wanted[1] == 0 and len(rows) == wanted[0] and widths == {0}):
        width = widths.pop() if widths else 0
        yield Problem(path, f"it is {len(rows)} x {width}; needed {wanted[0]} x {wanted[1]} ({meaning})")


def _references(config: PlantConfig) -> Iterator[Problem]:
    """Words that must name a state, an input or a disturbance."""
    states = [s for a in config.agents.values() for s in a.states]
    inputs = [u for a in config.agents.values() for u in a.inputs]
    yield from _unknown(("controller", "setpoint"), config.controller.setpoint, states, "state")
    yield from _unknown(("controller", "cost", "states"), config.controller.cost.states, states, "state")
    yield from _unknown(("controller", "cost", "inputs"), config.controller.cost.inputs, inputs, "input")
    yield from _unknown(("controller", "safe_inputs"), config.controller.safe_inputs, inputs, "input")
    yield from _unknown(("plant", "operating_point", "inputs"), config.plant.operating_point.inputs, inputs, "input")
    yield from _unknown(("plant", "operating_point", "states"), config.plant.operating_point.states, states, "state")
    if isinstance(config.controller.margins.model_error, dict):
        coordinates = [c for a in config.agents.values() for c in (a.coordinates or a.states)]
        errors = config.controller.margins.model_error
        here: KeyPath = ("controller", "margins", "model_error")
        yield from _unknown(here, errors, coordinates, "coordinate")
        missing = [c for c in coordinates if c not in errors]
        if missing:
            yield Problem(here, f"'{missing[0]}' is missing; give every coordinate, or the word 'sampled'")
    yield from _unknown(
        ("simulation", "disturbances"), config.simulation.disturbances, config.plant.disturbances, "disturbance"
    )
    for name, realisation in config.simulation.disturbances.items():
        if name not in config.plant.disturbances:
            continue
        here = ("simulation", "disturbances", name)
        bounds = realisation.bounds or config.plant.disturbances[name].bounds
        if realisation.value is not None and not bounds[0] <= realisation.value <= bounds[1]:
            yield Problem((*here, "value"), f"it must lie in the bounds [{bounds[0]:g}, {bounds[1]:g}]")
        if realisation.kind == "constant" and realisation.value is None:
            yield Problem((*here, "value"), "a constant disturbance needs its value")
    for n, fault in enumerate(config.simulation.faults):
        if fault.state not in states:
            hint = did_you_mean(fault.state, states)
            yield Problem(("simulation", "faults", n, "state"), f"no such state{hint}; known: {', '.join(states)}")
        if not fault.begin < fault.end:
            yield Problem(("simulation", "faults", n, "end"), f"a fault ends after it begins at {fault.begin:g} s")


def _loops(config: PlantConfig) -> Iterator[Problem]:
    """A PID works from an own state to an own input."""
    for name, agent in config.agents.items():
        here: KeyPath = ("agents", name, "pid")
        yield from _unknown(here, agent.pid, agent.inputs, "input of this agent")
        for key, loop in agent.pid.items():
            if loop.state is not None and loop.state not in agent.states:
                hint = did_you_mean(loop.state, agent.states)
                known = ", ".join(agent.states)
                yield Problem((*here, key, "state"), f"no such state of this agent{hint}; it has {known}")


def _estimator(config: PlantConfig) -> Iterator[Problem]:
    """Names in the section, and what it needs of the plant."""
    section = config.estimator
    if section is None:
        return
    states = [name for agent in config.agents.values() for name in agent.states]
    yield from _unknown(("estimator", "every"), section.every, states, "state")
    yield from _unknown(("estimator", "error"), section.error, states, "state")
    for n, name in enumerate(section.disturbances):
        if name not in config.plant.disturbances:
            hint = did_you_mean(name, config.plant.disturbances)
            yield Problem(("estimator", "disturbances", n), f"no such disturbance{hint}")
    if config.plant.model == "linear":
        yield Problem(("estimator",), "an estimator needs differential equations; this plant is given by matrices")
    if config.simulation.timing == "free":
        yield Problem(("simulation", "timing"), "agents with an estimator run in lockstep")


def _duration(config: PlantConfig) -> Iterator[Problem]:
    """A run is at least one period."""
    if config.simulation.duration < config.plant.period:
        yield Problem(("simulation", "duration"), f"it must be at least one period, here {config.plant.period:g} s")


def _resources(config: PlantConfig) -> Iterator[Problem]:
    """A user is an agent with one input that draws; what limits inputs robustly is feedback 'fixed'."""
    for name, resource in config.resources.items():
        here: KeyPath = ("resources", name, "users")
        yield from _unknown(here, resource.users, config.agents, "agent")
        if len(resource.users) < 2:
            yield Problem(here, "a shared resource has at least two users")
        if config.controller.feedback != "fixed":
            yield Problem(("resources", name), "shares limit the inputs of controller.feedback 'fixed' only")
        for user, drawn in resource.users.items():
            if user in config.agents:
                yield from _unknown((*here, user), drawn, config.agents[user].inputs, "input of this agent")
            if len(drawn) != 1:
                yield Problem((*here, user), f"one input draws, here are {len(drawn)}")
            if any(user in other.users for key, other in config.resources.items() if key < name):
                yield Problem((*here, user), "an agent draws from one resource")
    users = {user for resource in config.resources.values() for user in resource.users}
    yield from _unknown(("simulation", "liars"), config.simulation.liars, users, "user of a resource")


def _learning(config: PlantConfig) -> Iterator[Problem]:
    """Of the feedback forms, 'fixed' alone can have its terminal weight changed between steps."""
    learning, form = config.learning, config.controller.feedback
    if learning is not None and learning.actions.terminal_weight is not None and form != "fixed":
        here: KeyPath = ("learning", "actions", "terminal_weight")
        yield Problem(here, f"controller.feedback '{form}' has its terminal weight compiled in; choose 'fixed'")


def _wiring(config: PlantConfig) -> Iterator[Problem]:
    """Sensors read own states, actuators take own inputs, and no topic or input is claimed by two actuators."""
    topics: dict[str, str] = {}
    for name, agent in config.agents.items():
        for n, sensor in enumerate(agent.sensors):
            path: KeyPath = ("agents", name, "sensors", n)
            if sensor.state not in agent.states:
                hint = did_you_mean(sensor.state, agent.states)
                yield Problem((*path, "state"), f"no such state of this agent{hint}; it has {', '.join(agent.states)}")
            if sensor.scale == 0:
                yield Problem((*path, "scale"), "a scale is not zero")
        claimed: set[str] = set()
        for n, actuator in enumerate(agent.actuators):
            path = ("agents", name, "actuators", n)
            if actuator.input not in agent.inputs:
                hint = did_you_mean(actuator.input, agent.inputs)
                yield Problem((*path, "input"), f"no such input of this agent{hint}; it has {', '.join(agent.inputs)}")
            if actuator.scale == 0:
                yield Problem((*path, "scale"), "a scale is not zero")
            if actuator.input in claimed:
                yield Problem((*path, "input"), f"the input '{actuator.input}' is claimed by two actuators")
            claimed.add(actuator.input)
            topic = (
                actuator.topic if actuator.topic.startswith("/") else f"/{config.plant.name}/{name}/{actuator.topic}"
            )
            if topic in topics:
                yield Problem((*path, "topic"), f"the actuator {topic} is already claimed by agent '{topics[topic]}'")
            topics.setdefault(topic, name)


def _unknown(path: KeyPath, used: Iterable[str], known: Iterable[str], what: str) -> Iterator[Problem]:
    names = list(known)
    for word in used:
        if word not in names:
            yield Problem(
                (*path, word), f"no such {what}{did_you_mean(word, names)}; known: {', '.join(names) or 'none'}"
            )


# -- with the model ---------------------------------------------------------------------------------------------------
def _match(
    config: PlantConfig, what: str, paths: list[KeyPath], variables: tuple[Variable, ...], all_needed: bool
) -> Iterator[Problem]:
    known = {v.name: v for v in variables}
    for path in paths:
        name = str(path[-1])
        if name not in known:
            yield Problem(path, f"the model has no such {what}{did_you_mean(name, known)}; it has {', '.join(known)}")
            continue
        section = (
            config.plant.disturbances if path[0] == "plant" else getattr(config.agents[str(path[1])], str(path[2]))
        )
        wrong = unit_error(section[name].unit, known[name].unit)
        if wrong:
            yield Problem((*path, "unit"), f"'{section[name].unit}' {wrong}")
    missing = [name for name in known if all_needed and name not in {path[-1] for path in paths}]
    if missing:
        yield Problem(("agents",), f"no agent owns the model's {what} '{missing[0]}'")


def _limits_and_start(config: PlantConfig) -> Iterator[Problem]:
    for name, agent in config.agents.items():
        centred = True
        for kind, variables in (("states", agent.states), ("inputs", agent.inputs)):
            lower, upper = config.state_limits(name) if kind == "states" else config.input_limits(name)
            steady = (
                config.linear.steady_state[config.linear.rows(name)]
                if kind == "states"
                else config.linear.steady_input[config.linear.columns(name)]
            )
            for key, low, high, value in zip(variables, lower, upper, steady, strict=True):
                if not low < value < high:
                    centred = False
                    path: KeyPath = ("agents", name, kind, key, "limits")
                    yield Problem(path, f"the steady state {value:.6g} is not inside [{low:g}, {high:g}]")
        lower, upper = config.state_limits(name)
        for key, low, high, value in zip(agent.states, lower, upper, config.initial_state(name), strict=True):
            if not low <= value <= high:
                yield Problem(
                    ("agents", name, "states", key, "initial"),
                    f"the initial state {value:.6g} is outside its limits [{low:.6g}, {high:.6g}]",
                )
        for key, low, high in zip(agent.states, lower, upper, strict=True):
            wanted = config.controller.setpoint.get(key)
            if wanted is not None and not low <= wanted <= high:
                yield Problem(
                    ("controller", "setpoint", key), f"it is outside the state's limits [{low:.6g}, {high:.6g}]"
                )
        for key, low, high in zip(agent.inputs, *config.input_limits(name), strict=True):
            safe = config.controller.safe_inputs.get(key)
            if safe is not None and not low <= safe <= high:
                yield Problem(
                    ("controller", "safe_inputs", key), f"it is outside the input's limits [{low:.6g}, {high:.6g}]"
                )
        inside = np.all((lower <= config.initial_state(name)) & (config.initial_state(name) <= upper))
        H, h = config.limit_rows(name) if centred and inside else (np.zeros((0, len(lower))), np.zeros(0))
        start = config.linear.to_coordinates(name, config.initial_state(name))
        if not np.all(H @ start <= h + 1e-12):
            yield Problem(("agents", name, "states"), "the initial state is outside the limits of the coordinates")


def _coupling(config: PlantConfig) -> Iterator[Problem]:
    """An agent that moves another one's states must be among its neighbours."""
    network = config.linear
    reach = {}
    for name in config.agents:
        lower, upper = config.coordinate_limits(name)
        half = (upper - lower) / 2
        reach[name] = np.where(np.isfinite(half), half, 1.0)
    for name, agent in config.agents.items():
        for other in config.agents:
            if other == name or other in agent.neighbours:
                continue
            lower, upper = config.input_limits(other)
            span = np.where(np.isfinite(upper - lower), (upper - lower) / 2, 1.0)
            moved = (
                np.abs(network.state_block(name, other)) @ reach[other]
                + np.abs(network.input_block(name, other)) @ span
            )
            share = float(np.max(moved / reach[name]))
            if share > COUPLING:
                yield Problem(
                    ("agents", name, "neighbours"),
                    f"'{other}' is missing: within one period it moves this agent's states by up to "
                    f"{share:.2g} of their limits",
                )
