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
from rmpc_ros.network.carry import carried
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


@pytest.mark.parametrize("form", ["fixed", "toeplitz", "full", "two_rate"])
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


@pytest.mark.parametrize("moved, wider", [(0.0, 1.01), (0.5, 1.0), (np.nan, 1.0)])
def test_a_new_epoch_does_not_make_a_neighbours_box_for_all_time_larger_than_its_design(designs, moved, wider):
    agent = Agent(designs["reactor2"])
    agent.start(0)
    own = designs["reactor1"].terminal_promise(3, epoch=1)
    half = own.terminal_scale
    larger = replace(own, terminal_center=own.terminal_center + moved * half, terminal_scale=wider * half)
    with pytest.raises(PromiseError, match=r"'reactor1' promises \w+ in .* for all time; its design allows"):
        agent.receive(larger)
    assert agent.epoch == 0  # nobody starts afresh because of it
    smaller = replace(own, terminal_scale=0.5 * half)
    agent.receive(smaller)  # less may be promised in a new epoch too
    assert agent.epoch == 1


def test_without_a_valid_measurement_the_input_is_safe_and_said_to_be(config, designs):
    agents = {n: Agent(d) for n, d in designs.items()}
    simulate(config, agents, 3)
    agent = agents["separator"]
    decision = agent.step(3, np.array([np.nan, 0.7, 448.0]))
    assert decision.mode == "safe" and "no valid measurement" in decision.report.reason
    assert decision.report.promise_kept is None  # nobody knows, and nobody counts it
    assert np.all(np.isfinite(decision.input))
    assert np.all(decision.input >= agent.design.input_lower) and np.all(decision.input <= agent.design.input_upper)


def test_a_journal_of_another_plant_is_refused(designs):
    first, second = Agent(designs["reactor1"]), Agent(designs["reactor2"])
    with pytest.raises(PromiseError, match="the journal holds a promise"):
        first.start(0, second.start(0))


def no_answer():
    raise NumericalError("no answer", "test")


def crowd(config, designs, steps, act=lambda k, inputs: inputs, before=lambda k, agents, announced: None):
    """Lockstep that lets nothing be refused; yields (step, decisions)."""
    agents = {n: Agent(d) for n, d in designs.items()}
    plant, disturbances = make_plant(config, seed=0), draw(config, 0)
    announced = {n: a.start(0) for n, a in agents.items()}
    for k in range(steps):
        measured = plant.measure()
        for agent in agents.values():
            for other in agent.design.neighbours if k else ():
                agent.receive(announced[other])
        before(k, agents, announced)
        decisions = {
            n: a.step(k, measured[n], {o: measured[o] for o in a.design.neighbours}) for n, a in agents.items()
        }
        yield k, decisions
        announced = {n: d.forecast for n, d in decisions.items()}
        plant.step(act(k, {n: d.input for n, d in decisions.items()}), disturbances(k))


def test_whatever_a_plant_gone_astray_makes_agents_promise_is_believed_and_they_recover(config, designs):
    def shove(k, inputs):
        return inputs | {"reactor1": inputs["reactor1"] + 2e6} if 10 <= k < 13 else inputs

    history = list(crowd(config, designs, 30, act=shove))  # a refused promise would raise
    modes = {d.mode for k, decisions in history if 10 < k < 20 for d in decisions.values()}
    assert "backup" in modes or "safe" in modes
    assert "certified" not in modes  # a softened plan is nobody's candidate
    assert all(d.mode == "optimal" and d.report.promise_kept for d in history[-1][1].values())


def test_the_backup_law_is_called_certified_only_where_it_keeps_the_promise(config, designs):
    def come_back_without_solver(k, agents, announced):
        agent = agents["reactor1"]
        agent.controller = agent.design.build_controller()
        if k == 12:  # within the horizon of what it promised
            agent.start(k, carried(announced["reactor1"], k))
            agent.controller.solve = no_answer

    for k, decisions in crowd(config, designs, 25, before=come_back_without_solver):
        assert all(d.report.promise_kept for d in decisions.values())
        assert decisions["reactor1"].mode == ("backup" if k == 12 else "optimal")


def test_the_backup_law_alone_keeps_every_promise_from_the_start(config, designs):
    def silence(k, agents, announced):
        for agent in agents.values():
            agent.controller.solve = no_answer

    for _, decisions in crowd(config, designs, 60, before=silence):
        assert {d.mode for d in decisions.values()} == {"certified"}
        assert all(d.report.promise_kept and min(d.report.margins.values()) > 0 for d in decisions.values())


def test_a_promise_taken_up_again_does_not_forget_what_the_neighbours_promised(config, designs):
    agents = {n: Agent(d) for n, d in designs.items()}
    history = simulate(config, agents, 8)
    measured, decisions = history[-1]
    agent = agents["reactor1"]
    agent.start(8, carried(decisions["reactor1"].forecast, 8))
    agent.controller.solve, seen = no_answer, agent.controller.data
    agent.step(8, measured["reactor1"])
    slices = [n.columns for n in agent.design.neighbours.values()]
    terminal = np.concatenate([n.terminal for n in agent.design.neighbours.values()])
    assert all(np.any(seen.radius[1, c] < 0.9 * terminal[c]) for c in slices)


def test_without_measurement_the_actuators_get_the_backup_law_itself(config, designs):
    agents = {n: Agent(d) for n, d in designs.items()}
    decisions = simulate(config, agents, 8)[-1][1]
    agent = agents["reactor1"]
    design = agent.design
    agent.start(8, carried(decisions["reactor1"].forecast, 8))
    plan = agent.step(8, None).plan
    state = design.steady_state + np.array([1e-3, 0.0, 0.2])
    law = design.steady_input + design.physical_gain(design.model.K) @ (state - design.steady_state)
    assert np.any(agent.controller.data.drive[design.nx :])  # it had moved before
    for step in (8, 9, 15, 40):
        assert PlanFollower(plan).input(step, state) == pytest.approx(law, rel=1e-12)


def test_a_step_before_the_promise_in_force_is_one_clear_error(config, designs):
    agent = Agent(designs["reactor1"])
    agent.start(0, designs["reactor1"].terminal_promise(500))
    with pytest.raises(PromiseError, match="begins at step 500"):
        agent.step(3, designs["reactor1"].steady_state)
