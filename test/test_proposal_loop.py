"""Proposals in closed loop: a moved target is reached sooner, and on a bad network nothing is endangered."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from rmpc_ros.errors import DataError
from rmpc_ros.network.agent import Agent
from rmpc_ros.network.setpoint import certified_target
from rmpc_ros.network.system import design_agents
from rmpc_ros.studies.proposals import STUDY, plant, simulate

MOVES = ((30, "reactor1", 0.6),)


@pytest.fixture(scope="module")
def config():
    return plant(0.2)


@pytest.fixture(scope="module")
def designs(config):
    return design_agents(config)


def test_a_moved_target_is_reached_sooner_and_a_bad_network_breaks_nothing(tmp_path: Path):
    result = STUDY.run({**STUDY.defaults, "seeds": 2}, tmp_path)
    assert result["without"]["steps_to_target"] > result["horizon"]  # until the promise has made room by itself
    assert result["with"]["steps_to_target"] <= 0.6 * result["without"]["steps_to_target"]
    assert result["without"]["proposed"] == 0 and result["with"]["adopted"] >= 1
    for kind in ("without", "with", "bad_network"):
        assert result[kind]["violations"] == 0 and result[kind]["promises_broken"] == 0
        assert {mode for mode, count in result[kind]["modes"].items() if count} == {"optimal"}
    assert 0 < result["bad_network"]["adopted"] < result["bad_network"]["proposed"]
    assert (tmp_path / "proposals.png").exists()


def test_a_refused_proposal_begets_what_it_takes_to_bear_it(config, designs):
    result, agents, _ = simulate(config, designs, True, 60, MOVES)
    assert result.promises_broken == 0
    helpers = [agents[n].negotiation for n in ("reactor2", "separator")]
    assert any(h.counts["refused"] and h.proposer.counts["adopted"] for h in helpers)
    assert agents["reactor1"].negotiation.proposer.adopted == MOVES[0][0] + 1


def test_a_pending_proposal_is_given_up_where_the_promise_is_broken(config, designs):
    agents: dict[str, Agent] = {}

    def ask(step):
        agent = agents["reactor1"]
        agent.negotiation.proposer.stepped(step)
        return agent.negotiation.proposer.propose(agent.design.terminal_promise(step))

    agents["reactor1"] = Agent(designs["reactor1"], ("reactor2", "separator"))
    agent = agents["reactor1"]
    agent.start(0)
    agent.step(0, agent.design.steady_state)
    ask(1)
    agent.step(2, agent.design.steady_state + np.array([0.0, 0.0, 3.0]))  # the truth has left the promise
    assert agent.epoch == 1
    assert agent.negotiation.proposer.pending is None
    assert agent.negotiation.proposer.counts["withdrawn"] == 1


def test_a_set_point_beyond_what_is_certified_is_refused_with_how_far_it_may_go(designs):
    design = designs["reactor1"]
    rest = design.steady_state
    with pytest.raises(DataError, match="in this direction at most T1 = ") as refused:
        certified_target(design, rest + np.array([0.0, 0.0, 5.0]), rest)
    allowed = float(str(refused.value).rpartition(" = ")[2])
    assert rest[2] < allowed < rest[2] + 5.0
    x_ref, u_ref = certified_target(design, np.array([*rest[:2], allowed - 1e-4]), rest)
    agent = Agent(design, ())
    agent.start(0)
    agent.set_target(x_ref, u_ref)
    with pytest.raises(DataError, match="outside the certified"):
        agent.set_target(2 * design.terminal[:3], np.zeros(1))
    assert np.array_equal(agent.design.x_ref, x_ref)
