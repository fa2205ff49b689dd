"""Proposals in closed loop: a moved target is reached sooner, and on a bad network nothing is endangered."""

from __future__ import annotations

import numpy as np
import pytest

from rmpc_ros.config import load_plant
from rmpc_ros.config.shipped import shipped_plant
from rmpc_ros.errors import DataError
from rmpc_ros.network.agent import Agent
from rmpc_ros.network.channel import Channel, Faults
from rmpc_ros.network.closed_loop import run
from rmpc_ros.network.system import design_agents
from rmpc_ros.plants import make_plant
from rmpc_ros.studies.guarantee import vertex_disturbances

MOVED = 30  # step after which the target moves


@pytest.fixture(scope="module")
def config():
    base = load_plant(shipped_plant("reactor_separator"))
    margins = base.controller.margins.model_copy(update={"authority": 0.2})
    return base.model_copy(
        update={
            "simulation": base.simulation.model_copy(update={"model": "linear"}),
            "controller": base.controller.model_copy(update={"margins": margins}),
        }
    )


@pytest.fixture(scope="module")
def designs(config):
    return design_agents(config)


def resting_point(design, share):
    """Where the agent rests with a share of its authority while its neighbours rest (x_ref, u_ref)."""
    model, deviation = design.model, share * design.terminal[design.nx :]
    x = np.linalg.solve(np.eye(design.nx) - model.A, model.B @ deviation)
    return x, model.K @ x + deviation


def simulate(config, designs, asking, steps=70, faults=None, seed=0, draw=None, moves=((MOVED, "reactor1", 0.6),)):
    """Closed loop with moves of targets; returns the result, the agents, and reactor1's temperature over its target."""
    followers = {n: [o for o in designs if n in designs[o].neighbours] for n in designs}
    agents = {n: Agent(d, followers[n] if asking else None) for n, d in designs.items()}
    temperature = []

    def watch(k, decisions):
        for at, name, share in moves:
            if k == at:
                agents[name].set_target(*resting_point(designs[name], share))
        design = designs["reactor1"]
        x = (decisions["reactor1"].forecast.center[0] - design.center) / design.scale
        temperature.append(x[2] / resting_point(design, 0.6)[0][2])

    channel = Channel(faults or Faults(), seed)
    result = run(agents, make_plant(config, seed=seed), steps, draw, channel=channel, watch=watch)
    return result, agents, np.array(temperature)


def steps_to(temperature, share):
    return int(np.flatnonzero(temperature[MOVED + 1 :] >= share)[0]) + 1


def test_a_moved_target_is_reached_in_half_the_steps_when_larger_promises_are_agreed_on(config, designs):
    nominal = config.linear.steady_disturbance
    took = {}
    for asking in (False, True):
        result, agents, temperature = simulate(config, designs, asking, draw=lambda k: nominal)
        assert result.violations == 0 and result.promises_broken == 0
        took[asking] = steps_to(temperature, 0.8)
        counts = agents["reactor1"].negotiation.proposer.counts
        assert counts["adopted"] == (1 if asking else 0)
    assert took[False] > designs["reactor1"].horizon  # a whole horizon until the promise has made room
    assert took[True] <= 0.6 * took[False]


def test_a_refused_proposal_begets_what_it_takes_to_bear_it(config, designs):
    result, agents, _ = simulate(config, designs, True, seed=0)
    assert result.promises_broken == 0
    helpers = [agents[n].negotiation for n in ("reactor2", "separator")]
    assert any(h.counts["refused"] and h.proposer.counts["adopted"] for h in helpers)
    assert agents["reactor1"].negotiation.proposer.adopted == MOVED + 1


def test_every_fault_of_the_network_at_once_breaks_nothing(config, designs):
    faults = Faults(loss=0.3, delay=3, duplicate=0.2, silent=(("separator", 60, 80),))
    moves = [(20 + 25 * n, name, share) for n, (name, share) in enumerate(
        [("reactor1", 0.6), ("reactor2", -0.6), ("separator", 0.5), ("reactor1", -0.6), ("reactor2", 0.3)]
    )]  # fmt: skip
    adopted = proposed = 0
    for seed in range(3):
        draw = vertex_disturbances(*config.disturbance_bounds(), 40 + seed)
        result, agents, _ = simulate(config, designs, True, 160, faults, seed, draw, moves)
        assert result.violations == 0 and result.promises_broken == 0
        assert set(m for m, count in result.modes.items() if count) == {"optimal"}
        adopted += sum(a.negotiation.proposer.counts["adopted"] for a in agents.values())
        proposed += sum(a.negotiation.proposer.counts["proposed"] for a in agents.values())
    assert 0 < adopted < proposed


def test_an_agent_that_does_not_know_who_relies_on_it_never_asks(config, designs):
    _, agents, _ = simulate(config, designs, False, 50)
    assert all(a.negotiation.proposer.counts["proposed"] == 0 for a in agents.values())


def test_a_target_outside_what_is_certified_moves_nothing(designs):
    agent = Agent(designs["reactor1"], ())
    agent.start(0)
    with pytest.raises(DataError, match="outside the certified"):
        agent.set_target(2 * designs["reactor1"].terminal[:3], np.zeros(1))
    assert np.array_equal(agent.design.x_ref, designs["reactor1"].x_ref)
