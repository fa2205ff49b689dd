"""An agent joins a running network: who is touched, and what each of them has to be able to bear.

The network runs with its boxes y, laws K and promises; the newcomer stands beside it, coupled to nobody. Connecting it
changes the dynamics by (dA, dB) in the rows of the newcomer and of the agents it touches, nowhere else. To those agents
the connection is one more disturbance,

    |dA x + dB u| <= e = |dA + dB K| y + |dB| gamma     for all states in the boxes, deviations within the authority,

and 0 is in that set as well, so who bears it is safe before, while and after the connection is made. Everybody solves
its own small problem with the others' boxes fixed:

host       keeps its box and law, so that nobody else notices anything:
           |A + B K| y + |B| gamma + w + e <= y  in its own rows.  Room for that is `controller.margins.room` > 1.
newcomer   has promised nobody anything yet: the smallest box and law of its own that bear the hosts' boxes.

For a host the connection is a neighbour that promises 0 while the newcomer is apart, and e for ever after the horizon.
So everything that holds for promises holds for it (`newcomer`): it grows in its last row, or sooner by consent.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from rmpc_ros.config import PlantConfig
from rmpc_ros.errors import ConfigError, InfeasibleError
from rmpc_ros.network.agent_design import AgentDesign, Matrix, NeighbourDesign, Vector
from rmpc_ros.network.invariant import InvariantBoxes, invariant_boxes
from rmpc_ros.network.system import NetworkDesign, agents_of, design_network, sampled_error
from rmpc_ros.sets.box import Box

ROUNDS = 20  # of the newcomer's box and what it has to bear, which grows with the box
GROWN = 1.05  # a disturbance that turned out larger is taken a little larger still
TOLERANCE = 1e-9
NOTHING = 1e-12  # normalised: no change of the dynamics


@dataclass(frozen=True)
class JoinPlan:
    """What a join takes.

    Attributes
    ----------
    newcomer : who joins
    hosts : whom it touches
    designs : every agent's design; the newcomer's always bears the connection, a host's has it as a neighbour
    borne : (nx,) per touched agent, normalised half-widths e of what the connection adds to a step
    """

    newcomer: str
    hosts: tuple[str, ...]
    designs: dict[str, AgentDesign]
    borne: dict[str, Vector]


def plan_join(apart: PlantConfig, joined: PlantConfig, newcomer: str) -> JoinPlan:
    """Plan a join, or say who cannot bear it.

    Parameters
    ----------
    apart : plant file of the running network with the newcomer beside it, coupled to nobody
    joined : the same with the newcomer connected
    newcomer : name of an agent of both

    Raises
    ------
    ConfigError
        The two files are not about the same agents, or the newcomer is already coupled, stays apart, or touches nobody.
    InfeasibleError
        Somebody cannot bear it; the message names who, which quantity, what it needs and what it has.
    """
    _check_pair(apart, joined, newcomer)
    network = design_network(apart)
    own = apart.linear.rows(newcomer)
    dA = (joined.linear.A - apart.linear.A) / network.x_scale[:, None] * network.x_scale
    dB = (joined.linear.B - apart.linear.B) / network.x_scale[:, None] * network.u_scale
    dE = (joined.linear.E - apart.linear.E) / network.x_scale[:, None]
    fixed = np.maximum(network.disturbance.support(dE), network.disturbance.support(-dE))
    touched = [
        agent
        for agent in apart.linear.agents
        if any(np.any(np.abs(d[apart.linear.rows(agent)]) > NOTHING) for d in (dA, dB, dE))
    ]
    if newcomer not in touched:
        raise ConfigError(f"'{newcomer}' joins nothing: the plant file that connects it does not change its dynamics")
    if touched == [newcomer]:
        raise ConfigError(
            f"'{newcomer}' has no host: connecting it changes the dynamics of no other agent, so there is nobody to "
            "ask; connect it in the plant file from the start"
        )
    error = np.zeros(len(network.x_scale))  # of the linear model, beyond what the design apart includes
    for _ in range(ROUNDS):
        borne = _borne(dA, dB, network) + fixed + error
        needed = _growth(network) + borne
        if np.any(needed[own] > network.boxes.y[own] * (1 + TOLERANCE)):
            network = _larger_newcomer(apart, network, newcomer, borne[own] * GROWN)
            continue
        found = sampled_error(joined, _connected(joined, network)) - network.model_error - error
        if np.all(found <= 0):
            break
        error = np.where(found > 0, (error + found) * GROWN, error)
    else:
        raise InfeasibleError(
            f"'{newcomer}' cannot join: no box of its own bears the connection, because what it has to bear grows with "
            "the box",
            "refused",
        )
    for agent in apart.linear.agents:
        _check_bears(agent, newcomer, network, needed)
    designs = agents_of(apart, network)
    parts = {agent: borne[apart.linear.rows(agent)] for agent in touched}
    designs[newcomer] = _bearing(designs[newcomer], parts[newcomer])
    hosts = tuple(agent for agent in touched if agent != newcomer)
    for agent in hosts:
        designs[agent] = _hosting(designs[agent], newcomer, parts[agent])
    return JoinPlan(newcomer, hosts, designs, parts)


def joined_plant(apart: PlantConfig) -> PlantConfig:
    """The plant file with the parameters of `network.join`.

    Raises
    ------
    ConfigError
        There is no such section, or agents negotiate about their objectives, where a connection has no place.
    """
    join = apart.network.join
    if join is None:
        raise ConfigError("network.join is missing: it says who may join, and the plant's parameters then")
    modes = {name: agent.mode or apart.controller.mode for name, agent in apart.agents.items()}
    cooperating = [name for name, mode in modes.items() if mode in ("cooperative", "learned")]
    if cooperating:
        raise ConfigError(f"network.join: {', '.join(cooperating)} cooperates; write controller: {{mode: robust}}")
    parameters = {**apart.plant.parameters, **join.parameters}
    joined = apart.model_copy(update={"plant": apart.plant.model_copy(update={"parameters": parameters})})
    for name in ("linear", "nonlinear"):
        joined.__dict__.pop(name, None)  # derived from the parameters before
    return joined


def _check_pair(apart: PlantConfig, joined: PlantConfig, newcomer: str) -> None:
    before, after = apart.linear, joined.linear
    if newcomer not in before.agents:
        raise ConfigError(f"'{newcomer}' is not an agent of the plant file; its agents are {', '.join(before.agents)}")
    same = list(before.agents) == list(after.agents) and all(
        before.agents[a].coordinates == after.agents[a].coordinates
        and before.agents[a].inputs == after.agents[a].inputs
        and np.array_equal(before.agents[a].transform, after.agents[a].transform)
        for a in before.agents
    )
    if not same or before.disturbances != after.disturbances or apart.period != joined.period:
        raise ConfigError(
            "the plant files before and after a join must have the same agents, states, inputs and period"
        )
    coupled = [a for a in before.agents if newcomer in before.neighbours(a)] + list(before.neighbours(newcomer))
    if coupled:
        raise ConfigError(f"'{newcomer}' is coupled to {', '.join(sorted(set(coupled)))} before it has joined")


def _borne(dA: Matrix, dB: Matrix, network: NetworkDesign) -> Vector:
    """Half-widths (n,) of what the connection adds to one step."""
    boxes = network.boxes
    return np.asarray(np.abs(dA + dB @ boxes.K) @ boxes.y + np.abs(dB) @ network.authority)


def _disturbed(network: NetworkDesign) -> Vector:
    """Half-widths (n,) of everything but states and inputs that moves one step apart."""
    E, members = network.E, network.disturbance
    transform = network.linear.transform / network.x_scale[:, None]
    noise = np.abs(transform) @ network.noise + np.abs(network.A @ transform) @ network.noise
    return np.asarray(np.maximum(members.support(E), members.support(-E)) + noise + network.model_error)


def _growth(network: NetworkDesign) -> Vector:
    """Half-widths (n,) that one step needs apart."""
    closed = network.A + network.B @ network.boxes.K
    return np.asarray(np.abs(closed) @ network.boxes.y + np.abs(network.B) @ network.authority + _disturbed(network))


def _larger_newcomer(apart: PlantConfig, network: NetworkDesign, newcomer: str, borne: Vector) -> NetworkDesign:
    """The newcomer's own problem: its smallest box and law that bear `borne` (nx,)."""
    own, columns = network.linear.rows(newcomer), network.linear.columns(newcomer)
    lower, upper = apart.coordinate_limits(newcomer)
    reach = np.minimum(upper, -lower) / network.x_scale[own]
    limited = np.isfinite(reach)
    nx, nu = reach.size, columns.stop - columns.start
    try:
        found = invariant_boxes(
            network.A[own, own],
            network.B[own, columns],
            _disturbed(network)[own] + borne,
            np.ones(nu),
            network.authority[columns],
            [slice(0, nx)],
            [slice(0, nu)],
            np.eye(nx)[limited],
            reach[limited],
        )
    except InfeasibleError as error:
        raise InfeasibleError(
            f"'{newcomer}' cannot join: it has no invariant box of its own with its hosts' boxes fixed", "refused"
        ) from error
    y, K = network.boxes.y.copy(), network.boxes.K.copy()
    y[own], K[columns, own] = found.y, found.K
    return replace(network, boxes=InvariantBoxes(y, K, network.boxes.room))


def _connected(joined: PlantConfig, network: NetworkDesign) -> NetworkDesign:
    """The connected network with the same boxes and laws."""
    linear = joined.linear
    scale = network.x_scale[:, None]
    return replace(
        network,
        linear=linear,
        A=linear.A / scale * network.x_scale,
        B=linear.B / scale * network.u_scale,
        E=linear.E / scale,
    )


def _check_bears(agent: str, newcomer: str, network: NetworkDesign, needed: Vector) -> None:
    rows = network.linear.rows(agent)
    y = network.boxes.y[rows]
    excess = needed[rows] / y
    worst = int(np.argmax(excess))
    if excess[worst] > 1 + 1e-6:
        name, unit = network.linear.agents[agent].coordinates[worst], network.x_scale[rows][worst]
        raise InfeasibleError(
            f"'{newcomer}' cannot join: '{agent}' cannot stay in its invariant box: {name} would need "
            f"+-{needed[rows][worst] * unit:.4g} and has promised +-{y[worst] * unit:.4g}; a looser connection or more "
            "controller.margins.room would do",
            "refused",
        )


def _bearing(design: AgentDesign, borne: Vector) -> AgentDesign:
    """The same agent with more to bear, always."""
    more = (np.eye(design.nx), Box.around(np.zeros(design.nx), borne))
    return replace(design, model=replace(design.model, disturbances=(*design.model.disturbances, more)))


def _hosting(design: AgentDesign, newcomer: str, borne: Vector) -> AgentDesign:
    """The same agent with the connection as a neighbour that acts on each of its coordinates."""
    nx, at = design.nx, design.model.ng
    connection = NeighbourDesign(
        newcomer,
        tuple(f"connection_to_{name}" for name in design.names[:nx]),
        np.eye(nx),
        np.zeros(nx),
        design.scale[:nx],
        borne,
        slice(at, at + nx),
    )
    model = replace(design.model, G=np.hstack([design.model.G, np.eye(nx)]))
    return replace(design, model=model, neighbours={**design.neighbours, newcomer: connection})
