"""From a plant file to the agents' designs: model error, invariant boxes, backup laws, local models.

Deterministic and done at configure time by every node for itself, so that all agents hold the same design without
asking each other. The steps (math.md 3.1, 3.2):

1. The exact linear network in the agents' coordinates, normalised: 1 is the distance from the steady state to the
   nearer limit.
2. What disturbs one step: the disturbance set, the linear model's error, and sensor noise. The controller works on
   measured states xm = x + n, for which  xm+ = A xm + B u + E d + error + n+ - A n  holds exactly, so bounded noise is
   one more disturbance and the limits of the true state are tightened by its bound.
3. Invariant boxes and backup laws for all agents: one linear program. The model error is bounded over these boxes, so
   both are computed in turn until the error used covers the error found.
4. Per agent: own block with the law closed, the neighbours' states and law deviations as promised disturbances.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import solve_discrete_lyapunov

from rmpc_ros.config import PlantConfig
from rmpc_ros.errors import ConfigError, SetError
from rmpc_ros.models.error_bound import MOST_VERTICES, model_error_bound
from rmpc_ros.models.linear import LinearNetwork
from rmpc_ros.mpc.local import Cost, LocalModel
from rmpc_ros.network.agent_design import AgentDesign, NeighbourDesign
from rmpc_ros.network.invariant import InvariantBoxes, invariant_boxes
from rmpc_ros.sets.base import UncertaintySet
from rmpc_ros.sets.box import Box

Vector = NDArray[np.float64]
Matrix = NDArray[np.float64]

ROUNDS = 10  # of model error and invariant boxes in turn


@dataclass(frozen=True)
class NetworkDesign:
    """All agents together, normalised; what `design_agents` splits up and `rmpc check` prints.

    Attributes
    ----------
    linear : the network in physical coordinates
    A (n, n), B (n, m), E (n, q) : normalised states and inputs, physical disturbance deviations
    x_scale (n,), u_scale (m,)
    disturbance : set of physical disturbance deviations
    noise : (n,) sensor noise bounds, physical states
    model_error : (n,) normalised bound that is included and covers what was found over the boxes
    authority : (m,) normalised
    boxes : invariant boxes and backup laws
    """

    linear: LinearNetwork
    A: Matrix
    B: Matrix
    E: Matrix
    x_scale: Vector
    u_scale: Vector
    disturbance: UncertaintySet
    noise: Vector
    model_error: Vector
    authority: Vector
    boxes: InvariantBoxes


def design_network(config: PlantConfig, model_error: Vector | None = None) -> NetworkDesign:
    """Joint design of invariant boxes and backup laws; `model_error` as in `design_agents`.

    Raises
    ------
    ConfigError
        Limits exclude the steady state, or the disturbance set has the wrong dimension.
    InfeasibleError
        No invariant box exists in the chosen coordinates.
    """
    linear = config.linear
    x_scale, u_scale, input_limit = _scales(config)
    A = linear.A / x_scale[:, None] * x_scale
    B = linear.B / x_scale[:, None] * u_scale
    E = linear.E / x_scale[:, None]
    disturbance = _disturbance_set(config)
    noise = np.concatenate([config.noise(agent) for agent in linear.agents])
    transform = linear.transform / x_scale[:, None]
    noise_step = np.abs(transform) @ noise + np.abs(A @ transform) @ noise
    w_support = np.maximum(disturbance.support(E), disturbance.support(-E)) + noise_step
    margins = config.controller.margins
    authority = margins.authority * input_limit
    rows, limits = _limit_rows(config, x_scale, noise + estimation_error(config))
    blocks = [linear.rows(agent) for agent in linear.agents]
    columns = [linear.columns(agent) for agent in linear.agents]
    stated = _stated_error(config, x_scale) if margins.model_error != "sampled" else model_error
    error = np.zeros(len(x_scale)) if stated is None else stated
    thorough = stated is not None
    for _ in range(ROUNDS):
        boxes = invariant_boxes(
            A, B, w_support + error, input_limit, authority, blocks, columns, rows, limits, margins.room
        )
        design = NetworkDesign(linear, A, B, E, x_scale, u_scale, disturbance, noise, error, authority, boxes)
        if stated is not None and model_error is not None:
            return design  # checked when it was found
        found = _model_error(config, design, thorough)
        if np.all(found <= error):
            if thorough:
                return design
            thorough = True
        elif margins.model_error != "sampled":
            _refuse_stated_error(design, found)
        else:
            error = np.maximum(error, found * 1.1)  # a little more than found: the larger boxes are covered too
    raise ConfigError(
        "the linear model's error grows with the sets that must contain it: no consistent bound was found in "
        f"{ROUNDS} rounds; narrow the disturbances, controller.margins.authority or controller.margins.room"
    )


def _refuse_stated_error(design: NetworkDesign, found: Vector) -> None:
    n = int(np.argmax(found / np.maximum(design.model_error, 1e-300)))
    name = [c for v in design.linear.agents.values() for c in v.coordinates][n]
    unit = design.x_scale[n]
    raise ConfigError(
        f"controller.margins.model_error: {name} is given as {design.model_error[n] * unit:.3g}, but the linear "
        f"model is wrong by up to {found[n] * unit:.3g} over the invariant boxes: give more, or 'sampled'"
    )


def design_agents(config: PlantConfig, model_error: Vector | None = None) -> dict[str, AgentDesign]:
    """Designs of all agents of a plant file.

    Parameters
    ----------
    config : PlantConfig
    model_error : (n,) normalised bound that an earlier `design_network` of the same file found; saves finding it again

    Raises
    ------
    ConfigError, InfeasibleError
        See `design_network`.
    """
    return agents_of(config, design_network(config, model_error))


def agents_of(config: PlantConfig, network: NetworkDesign) -> dict[str, AgentDesign]:
    """The agents' parts of a network's design."""
    return {agent: _agent(config, network, agent) for agent in network.linear.agents}


def sampled_error(config: PlantConfig, network: NetworkDesign) -> Vector:
    """Bound (n,), normalised, of the linear model's error over a network's boxes; zero where the plant is linear."""
    return _model_error(config, network, thorough=True)


# -- one agent --------------------------------------------------------------------------------------------------------
def _agent(config: PlantConfig, network: NetworkDesign, name: str) -> AgentDesign:
    linear, boxes = network.linear, network.boxes
    rows, columns = linear.rows(name), linear.columns(name)
    variables = linear.agents[name]
    nx = len(variables.states)
    closed = network.A + network.B @ boxes.K
    neighbours: dict[str, NeighbourDesign] = {}
    blocks: list[Matrix] = []
    start = 0
    for other in linear.neighbours(name):
        if other not in config.agents[name].neighbours:
            raise ConfigError(
                f"agents.{name}.neighbours: '{other}' is missing, but its states or inputs move those of '{name}' "
                f"within one period; write neighbours: [{', '.join(linear.neighbours(name))}]"
            )
        block = np.hstack([closed[rows, linear.rows(other)], network.B[rows, linear.columns(other)]])
        blocks.append(block)
        neighbours[other] = _neighbour(network, other, slice(start, start + block.shape[1]))
        start += block.shape[1]
    G = np.hstack(blocks) if blocks else np.zeros((nx, 0))
    K = boxes.K[columns, rows]
    own = linear.transform[rows] / network.x_scale[rows, None]
    through = network.A[rows] @ (linear.transform / network.x_scale[:, None])
    disturbances: list[tuple[Matrix, UncertaintySet]] = [(network.E[rows], network.disturbance)]
    if np.any(network.model_error[rows]):
        disturbances.append((np.eye(nx), Box.around(np.zeros(nx), network.model_error[rows])))
    if np.any(network.noise):
        disturbances.append(
            (np.hstack([own, -through]), Box.around(np.zeros(2 * network.noise.size), np.tile(network.noise, 2)))
        )
    input_lower, input_upper = config.input_limits(name)
    steady_input = linear.steady_input[columns]
    u_scale = network.u_scale[columns]
    model = LocalModel(
        closed[rows, rows],
        network.B[rows, columns],
        K,
        G,
        tuple(disturbances),
        (input_lower - steady_input) / u_scale,
        (input_upper - steady_input) / u_scale,
    )
    state_lower, state_upper = config.state_limits(name)
    target = linear.to_coordinates(name, config.setpoint(name)) / network.x_scale[rows]
    reference = _target_input(network, rows, columns, target)
    neighbour = _neighbour(network, name, slice(0, 0))
    agent = config.agents[name]
    return AgentDesign(
        name,
        config.period,
        config.controller.horizon,
        config.controller.feedback,
        variables.states,
        variables.inputs,
        neighbour.names,
        variables.transform,
        linear.steady_state[rows],
        steady_input,
        neighbour.scale,
        neighbour.terminal,
        state_lower,
        state_upper,
        input_lower,
        input_upper,
        model,
        _cost(config, model, name),
        target,
        reference,
        config.controller.margins.promise,
        np.array([config.controller.safe_inputs.get(n, s) for n, s in zip(agent.inputs, steady_input, strict=True)]),
        network.model_error[rows],
        boxes.room,
        neighbours,
    )


def promised_names(config: PlantConfig, agent: str) -> tuple[str, ...]:
    """Names of what an agent promises (nx + nu,): its coordinates, then its inputs' deviations from its law."""
    variables = config.linear.agents[agent]
    return (*variables.coordinates, *(f"{u}_law_deviation" for u in variables.inputs))


def _neighbour(network: NetworkDesign, name: str, columns: slice) -> NeighbourDesign:
    linear = network.linear
    variables = linear.agents[name]
    rows, inputs = linear.rows(name), linear.columns(name)
    transform = variables.transform
    return NeighbourDesign(
        name,
        (*variables.coordinates, *(f"{u}_law_deviation" for u in variables.inputs)),
        transform,
        np.concatenate([transform @ linear.steady_state[rows], np.zeros(len(variables.inputs))]),
        np.concatenate([network.x_scale[rows], network.u_scale[inputs]]),
        np.concatenate([network.boxes.y[rows], network.authority[inputs]]),
        columns,
    )


def _cost(config: PlantConfig, model: LocalModel, name: str) -> Cost:
    """Weights per physical unit of the limits; the terminal weight is the law's own cost to go."""
    cost, agent = config.controller.cost, config.agents[name]
    linear = config.linear
    rows = linear.rows(name)
    x_scale = _coordinate_scale(config, name)
    back = np.linalg.inv(linear.agents[name].transform) * x_scale  # physical state of normalised coordinates
    lower, upper = config.state_limits(name)
    steady = linear.steady_state[rows]
    reach = np.minimum(upper - steady, steady - lower)
    reach = np.where(np.isfinite(reach), reach, 1.0)
    weights = np.array([cost.states.get(s, cost.state) for s in agent.states])
    Q = back.T @ np.diag(weights / reach**2) @ back
    R = np.diag([cost.inputs.get(u, cost.input) for u in agent.inputs])
    P = solve_discrete_lyapunov(model.A.T, Q + model.K.T @ R @ model.K)
    return Cost(Q, R, (P + P.T) / 2)


def _target_input(network: NetworkDesign, rows: slice, columns: slice, target: Vector) -> Vector:
    """Normalised input that holds a normalised target as nearly as it can while the neighbours rest (least squares)."""
    own, B = network.A[rows, rows], network.B[rows, columns]
    wanted = target - own @ target
    return np.asarray(np.linalg.lstsq(B, wanted, rcond=None)[0], float)


# -- the parts of the joint design ------------------------------------------------------------------------------------
def _coordinate_scale(config: PlantConfig, agent: str) -> Vector:
    lower, upper = config.coordinate_limits(agent)
    reach = np.minimum(upper, -lower)
    return np.where(np.isfinite(reach), reach, 1.0)


def _scales(config: PlantConfig) -> tuple[Vector, Vector, Vector]:
    """Units of coordinates (n,) and inputs (m,), and the normalised distance (m,) of steady inputs to their limits."""
    linear = config.linear
    x_scale = np.concatenate([_coordinate_scale(config, agent) for agent in linear.agents])
    u_scale = []
    for agent in linear.agents:
        lower, upper = config.input_limits(agent)
        steady = linear.steady_input[linear.columns(agent)]
        for name, low, high, value in zip(linear.agents[agent].inputs, lower, upper, steady, strict=True):
            if not low < value < high:
                raise ConfigError(
                    f"agents.{agent}.inputs.{name}: the steady input {value:.6g} is not inside its limits "
                    f"[{low:.6g}, {high:.6g}]"
                )
        u_scale.append(np.minimum(upper - steady, steady - lower))
    scale = np.concatenate(u_scale)
    return x_scale, scale, np.ones(len(scale))


def _limit_rows(config: PlantConfig, x_scale: Vector, noise: Vector) -> tuple[Matrix, Vector]:
    """All state limits H z <= h of the network, normalised, tightened by `noise` (n,), between state and truth."""
    linear = config.linear
    H, h = [], []
    for agent in linear.agents:
        rows = linear.rows(agent)
        own, limits = config.limit_rows(agent)
        full = np.zeros((len(limits), len(x_scale)))
        full[:, rows] = own * x_scale[rows]
        H.append(full)
        h.append(limits - np.abs(own @ linear.agents[agent].transform) @ noise[rows])
    stacked = np.concatenate(h)
    if np.any(stacked <= 0):
        raise ConfigError(
            "sensor noise and estimation error are as large as a state's distance to its limit: nothing is guaranteed"
        )
    return np.vstack(H), stacked


def estimation_error(config: PlantConfig) -> Vector:
    """Bound (n,) of the difference between the states that agents control with and the true ones; 0 without estimator.

    It only tightens limits: the states that agents control with move as the design reckons with (`output_feedback`).
    """
    stated = config.estimator.error if config.estimator is not None else {}
    return np.array([stated.get(state, 0.0) for agent in config.linear.agents.values() for state in agent.states])


def _disturbance_set(config: PlantConfig) -> UncertaintySet:
    """Set of deviations from the nominal disturbances, physical units."""
    chosen = config.controller.set
    lower, upper = config.disturbance_bounds()
    nominal = config.linear.steady_disturbance
    if not chosen.parameters:
        if chosen.family != "box":
            raise ConfigError(f"controller.set: family '{chosen.family}' needs parameters; only 'box' has a default")
        return Box(lower - nominal, upper - nominal)
    try:
        members = UncertaintySet.from_dict({"family": chosen.family, **chosen.parameters})
    except SetError as error:
        raise ConfigError(f"controller.set: {error}") from error
    if members.dim != nominal.size:
        raise ConfigError(
            f"controller.set: the {chosen.family} has dimension {members.dim}; the plant has {nominal.size} "
            "disturbances"
        )
    return members


def _stated_error(config: PlantConfig, x_scale: Vector) -> Vector:
    stated = config.controller.margins.model_error
    assert isinstance(stated, dict)
    names = [c for v in config.linear.agents.values() for c in v.coordinates]
    return np.array([stated.get(name, 0.0) for name in names]) / x_scale


def _model_error(config: PlantConfig, design: NetworkDesign, thorough: bool) -> Vector:
    """Bound (n,), normalised, of the linear model's one-step error over the invariant boxes with the laws in force.

    Zero where the plant is linear. A quick look with few points serves the rounds, a thorough one the last word.
    """
    model, linear = config.nonlinear, config.linear
    if model is None or config.simulation.model == "linear":
        return np.zeros(len(design.x_scale))
    disturbances = config.plant.disturbances
    nominal = [disturbances[v.name].nominal if v.name in disturbances else v.nominal for v in model.disturbances]
    margins, axes, disturbance = config.controller.margins, np.eye(design.disturbance.dim), design.disturbance
    reach = design.boxes.y * design.x_scale + np.abs(linear.transform) @ design.noise
    authority = design.authority * design.u_scale
    found = model_error_bound(
        model,
        linear,
        (-reach, reach),
        (-authority, authority),
        (-disturbance.support(-axes), disturbance.support(axes)),
        nominal,
        margins.samples if thorough else 200,
        margins.factor,
        gain=design.boxes.K * design.u_scale[:, None] / design.x_scale,
        vertices=MOST_VERTICES if thorough else 512,
    )
    return np.asarray(found.bound / design.x_scale)
