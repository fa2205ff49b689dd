"""Proposals in closed loop: a moved target is reached sooner, and on a bad network nothing is endangered."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from rmpc_ros.errors import DataError, PromiseError
from rmpc_ros.mpc.backup import PlanFollower
from rmpc_ros.network.agent import Agent
from rmpc_ros.network.channel import Channel, Faults
from rmpc_ros.network.proposal import from_record, to_record
from rmpc_ros.network.setpoint import certified_target
from rmpc_ros.network.system import design_agents
from rmpc_ros.plants import make_plant
from rmpc_ros.studies.guarantee import vertex_disturbances
from rmpc_ros.studies.proposals import STUDY, plant, resting_point, simulate

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


def test_crashes_in_the_middle_of_negotiations_break_nothing(config, designs):
    """Agents die at random and come back from their journals; the actuator side runs their plans meanwhile."""
    draw, rng = vertex_disturbances(*config.disturbance_bounds(), 7), np.random.default_rng(7)
    followers = {n: [o for o in designs if n in designs[o].neighbours] for n in designs}
    agents: dict[str, Agent | None] = {n: Agent(d, followers[n]) for n, d in designs.items()}
    newest = {n: a.start(0) for n, a in agents.items()}
    journal = {n: to_record(promise, ()) for n, promise in newest.items()}
    plans, away = {}, dict.fromkeys(designs, 0)
    channel, plant_now = Channel(Faults(delay=1), 7), make_plant(config, seed=7)
    crashes, asked, adopted = 0, set(), set()
    for k in range(220):
        measured, inputs = plant_now.measure(), {}
        spoken = []
        for name, design in designs.items():
            assert newest[name].contains(k, design.coordinates(measured[name]), 1e-6) or k == 0
            received = channel.receive(k, name)
            agent = agents[name]
            if agent is None and away[name] == 0:
                promise, acknowledged = from_record(journal[name])
                agent = agents[name] = Agent(design, followers[name])
                agent.start(promise.step, promise, acknowledged)
                received = [newest[other] for other in design.neighbours]  # what a late reader gets
            if agent is None:
                away[name] -= 1
                inputs[name] = plans[name].input(k, measured[name])
                continue
            for message in received:
                try:
                    agent.receive(message)
                except PromiseError as error:
                    assert "is in force" in str(error)
            if k % 25 == 20 and name == list(designs)[k // 25 % 3]:
                x_ref, u_ref = resting_point(design, float(rng.uniform(-0.7, 0.7)))
                agent.set_target(x_ref, u_ref)
            decision = agent.step(k, measured[name], {o: measured[o] for o in design.neighbours})
            assert decision.mode == "optimal" and decision.report.promise_kept
            assert min(decision.report.margins.values()) > 0
            inputs[name], plans[name] = decision.input, PlanFollower(decision.plan)
            inputs[name] = plans[name].input(k, measured[name])
            journal[name] = to_record(decision.forecast, agent.acknowledged())
            messages = agent.speak(decision)
            asked |= {(name, m.iteration) for m in messages if m.kind == "proposal"}
            if decision.forecast.adopted:
                adopted.add((name, decision.forecast.adopted))
            spoken.append((name, decision.forecast, messages))
            if rng.random() < 0.03 and k > 2:  # after its last word
                agents[name], away[name], crashes = None, int(rng.integers(0, 15)), crashes + 1
        for name, promise, messages in spoken:
            newest[name] = promise
            for other in followers[name]:
                channel.send(k, other, promise)
            for message in messages:
                for to in followers[name] if message.kind == "proposal" else [message.acknowledged_agent]:
                    channel.send(k, to, message)
        plant_now.step(inputs, draw(k))
    assert crashes >= 10
    assert adopted and adopted < asked
