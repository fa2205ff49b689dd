"""The agent's promises: kept by optimiser, candidate and actuator side, mended when the truth leaves them."""

import itertools
from dataclasses import replace

import numpy as np
import pytest

from rmpc_ros.config import load_plant
from rmpc_ros.config.shipped import shipped_plant
from rmpc_ros.errors import NumericalError, PromiseError
from rmpc_ros.mpc.backup import PlanFollower
from rmpc_ros.network.agent import Agent
from rmpc_ros.network.closed_loop import run
from rmpc_ros.network.nominal import NominalAgent
from rmpc_ros.network.system import design_agents
from rmpc_ros.plants import make_plant
from rmpc_ros.studies.guarantee import tightened, vertex_disturbances


@pytest.fixture(scope="module")
def config():
    base = load_plant(shipped_plant("reactor_separator"))
    return base.model_copy(update={"simulation": base.simulation.model_copy(update={"model": "linear"})})


@pytest.fixture(scope="module")
def designs(config):
    return design_agents(config)


def draw(config, seed):
    return vertex_disturbances(*config.disturbance_bounds(), seed)


def with_form(designs, form, horizon=6):
    return {n: Agent(replace(d, form=form, horizon=horizon)) for n, d in designs.items()}


def simulate(config, agents, steps, seed=0, act=None, forecasts=None, deliver=lambda k, sender, receiver: True):
    """Lockstep by hand: `act` may replace an agent's input, `deliver` may lose a promise."""
    plant, disturbances = make_plant(config, seed=seed), draw(config, seed)
    announced = forecasts or {n: a.start(0) for n, a in agents.items()}
    history = []
    for k in range(steps):
        measured = plant.measure()
        decisions = {}
        for name, agent in agents.items():
            for other in agent.design.neighbours if k else ():
                if deliver(k, other, name):
                    agent.receive(announced[other])
            decisions[name] = agent.step(k, measured[name], {o: measured[o] for o in agent.design.neighbours})
        inputs = {n: d.input for n, d in decisions.items()}
        if act is not None:
            inputs |= act(k, measured, decisions)
        announced = {n: d.forecast for n, d in decisions.items()}
        history.append((measured, decisions))
        plant.step(inputs, disturbances(k))
    return history


@pytest.mark.parametrize("form", ["fixed", "toeplitz", "full"])
def test_every_feedback_form_keeps_limits_and_promises_at_the_vertices(config, designs, form):
    horizon = 12 if form == "fixed" else 5
    agents = with_form(designs, form, horizon)
    result = run(agents, make_plant(config), 120 if form == "fixed" else 25, draw(config, 1))
    assert result.violations == 0
    assert result.promises_broken == 0
    assert result.modes["optimal"] >= 0.95 * sum(result.modes.values())


def test_nominal_agents_violate_on_the_draws_that_robust_ones_survive(config):
    close = tightened(config, 1.0, 0.045, 0.7)
    designs = design_agents(close)
    robust = run({n: Agent(d) for n, d in designs.items()}, make_plant(close), 150, draw(close, 3))
    nominal = run({n: NominalAgent(d) for n, d in designs.items()}, make_plant(close), 150, draw(close, 3))
    assert robust.violations == 0 and robust.promises_broken == 0
    assert nominal.violations > 0


def test_promises_only_shrink_and_are_narrower_than_the_invariant_box(config, designs):
    agents = {n: Agent(d) for n, d in designs.items()}
    history = simulate(config, agents, 30)
    for (_, before), (_, after) in itertools.pairwise(history):
        for name, decision in after.items():
            old, new = before[name].forecast, decision.forecast
            center, scale = old.window(new.step, new.horizon + 1)
            slack = 1e-9 * old.terminal_scale
            assert np.all(np.abs(new.center - center)[1:] + new.scale[1:] <= scale[1:] + slack)
            nx = agents[name].design.nx
            assert np.all(new.scale[1:6, :nx] < new.terminal_scale[:nx])


def test_candidate_keeps_every_promise_when_no_solver_ever_answers_again(config, designs):
    agents = {n: Agent(d) for n, d in designs.items()}

    def fail():
        raise NumericalError("no answer", "test")

    plant, disturbances = make_plant(config), draw(config, 5)
    announced = {n: a.start(0) for n, a in agents.items()}
    for k in range(140):
        if k == 20:
            for agent in agents.values():
                agent.controller.solve = fail
        measured = plant.measure()
        decisions = {}
        for name, agent in agents.items():
            for other in agent.design.neighbours if k else ():
                agent.receive(announced[other])
            decisions[name] = agent.step(k, measured[name], {})
            assert decisions[name].report.promise_kept
            assert decisions[name].mode == ("optimal" if k < 20 else "certified")
            assert min(decisions[name].report.margins.values()) > 0
        announced = {n: d.forecast for n, d in decisions.items()}
        plant.step({n: d.input for n, d in decisions.items()}, disturbances(k))


@pytest.mark.parametrize("form", ["fixed", "toeplitz"])
def test_actuator_side_keeps_the_promise_of_a_silent_agent_for_120_steps(config, designs, form):
    agents = with_form(designs, form, 12 if form == "fixed" else 5)
    silent, since = "reactor2", 8
    steps = 130 if form == "fixed" else 30
    follower, promise = None, None
    plant, disturbances = make_plant(config), draw(config, 2)
    announced = {n: a.start(0) for n, a in agents.items()}
    for k in range(steps):
        measured = plant.measure()
        inputs, spoken = {}, {}
        for name, agent in agents.items():
            if name == silent and k > since:
                inputs[name] = follower.input(k, measured[name])
                assert promise.contains(k, agent.design.coordinates(measured[name]), 1e-6)
                continue
            for other in agent.design.neighbours if k else ():
                agent.receive(announced[other])
            decision = agent.step(k, measured[name], {o: measured[o] for o in agent.design.neighbours})
            assert decision.report.promise_kept
            inputs[name], spoken[name] = decision.input, decision.forecast
            if name == silent:
                follower, promise = PlanFollower(decision.plan), decision.forecast
                if k == since:
                    follower.input(k, measured[name])
        announced |= spoken
        plant.step(inputs, disturbances(k))
    back = Agent(agents[silent].design)
    back.start(steps, promise)
    measured = plant.measure()
    decision = back.step(steps, measured[silent], {})
    assert decision.report.promise_kept and decision.mode == "optimal"


def test_a_lost_promise_endangers_nobody(config, designs):
    agents = {n: Agent(d) for n, d in designs.items()}
    rng = np.random.default_rng(0)
    history = simulate(config, agents, 100, deliver=lambda k, s, r: rng.random() > 0.5)
    assert all(d.report.promise_kept for _, decisions in history for d in decisions.values())
    assert all(min(d.report.margins.values()) > 0 for _, decisions in history for d in decisions.values())


def test_a_broken_promise_is_announced_in_a_new_epoch_and_everybody_recovers(config, designs):
    agents = {n: Agent(d) for n, d in designs.items()}

    def shove(k, measured, decisions):
        if k == 10:  # an actuator that jumps breaks the promise of reactor1
            return {"reactor1": decisions["reactor1"].input + 3e5}
        return {}

    history = simulate(config, agents, 40, act=shove)
    broken = history[11][1]["reactor1"]
    assert not broken.report.promise_kept
    assert "left the promised set" in broken.report.reason
    assert broken.forecast.iteration == 1
    truth = agents["reactor1"].design.coordinates(history[11][0]["reactor1"])
    assert broken.forecast.contains(11, truth)
    last = history[-1][1]
    assert {d.forecast.iteration for d in last.values()} == {1}
    assert all(d.mode == "optimal" and d.report.promise_kept for d in last.values())
    kept = [d.report.promise_kept for _, decisions in history[13:] for d in decisions.values()]
    assert all(kept)


def test_promises_that_grow_or_come_from_strangers_are_refused(config, designs):
    agents = {n: Agent(d) for n, d in designs.items()}
    history = simulate(config, agents, 6)
    listener, promise = agents["reactor1"], history[-1][1]["reactor2"].forecast
    listener.receive(promise)
    with pytest.raises(PromiseError, match="enlarged its promise"):
        listener.receive(replace(promise, step=promise.step + 1, scale=promise.scale * 1.5))
    with pytest.raises(PromiseError, match="not a neighbour"):
        listener.receive(replace(promise, agent="stranger"))
    with pytest.raises(PromiseError, match="is in force"):
        listener.receive(replace(promise, step=promise.step - 1))
    with pytest.raises(PromiseError, match="cannot follow"):
        listener.receive(replace(promise, names=(*promise.names[:-1], "other")))


def test_without_a_valid_measurement_the_input_is_safe_and_said_to_be(config, designs):
    agents = {n: Agent(d) for n, d in designs.items()}
    simulate(config, agents, 3)
    agent = agents["separator"]
    decision = agent.step(3, np.array([np.nan, 0.7, 448.0]))
    assert decision.mode == "safe" and "no valid measurement" in decision.report.reason
    assert np.all(np.isfinite(decision.input))
    assert np.all(decision.input >= agent.design.input_lower) and np.all(decision.input <= agent.design.input_upper)


def test_a_journal_of_another_plant_is_refused(designs):
    first, second = Agent(designs["reactor1"]), Agent(designs["reactor2"])
    with pytest.raises(PromiseError, match="the journal holds a promise"):
        first.start(0, second.start(0))
