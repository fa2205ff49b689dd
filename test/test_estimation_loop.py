"""Control by estimates: the state controlled with moves as the design reckons with, whatever the filter does."""

import re

import numpy as np
import pytest

from rmpc_ros.config import load_plant
from rmpc_ros.config.shipped import shipped_plant
from rmpc_ros.errors import ConfigError, InfeasibleError
from rmpc_ros.network.agent import Agent
from rmpc_ros.network.observer import Observer
from rmpc_ros.network.output_feedback import OutputFeedback
from rmpc_ros.network.residual_set import one_step_residual
from rmpc_ros.network.system import design_agents
from rmpc_ros.plants import make_plant


@pytest.fixture(scope="module")
def config():
    return load_plant(shipped_plant("reactor_separator_sensors"))


@pytest.fixture(scope="module")
def designs(config):
    return design_agents(config)


def test_the_followed_state_breaks_no_promise_when_the_estimate_jumps_and_catches_up(designs):
    design = designs["reactor1"]
    agent = Agent(design)
    promise = agent.start(0)
    feedback = OutputFeedback(agent, np.array([0.008, 0.008, 1.0]))
    others = {o: designs[o].steady_state for o in design.neighbours}
    rest = {o: np.zeros(1) for o in others}
    tiny, u, estimate, lags = np.full(3, 1e-6), None, design.steady_state.copy(), []
    inverse = design.inverse_transform
    for k in range(25):
        jump = inverse @ (np.array([2.5, -2.5, 2.0]) * agent.disturbance.design_set.highest)
        estimate = design.steady_state + (jump if k >= 5 else 0.0)
        before = feedback._before[1] if feedback._before else None
        found = feedback.follow(k, estimate, tiny, u, others, rest, promise)
        if before is not None:
            r = one_step_residual(design, before, u, found.state, others, rest) / design.scale[:3]
            used = agent.disturbance.design_set
            away = agent.disturbance.directions @ r
            assert np.all(away <= used.upper + 1e-9) and np.all(-away <= used.lower + 1e-9)
        decision = agent.step(k, found.state, others)
        assert decision.report.promise_kept and decision.mode == "optimal"
        promise, u = decision.forecast, decision.input
        lags.append(np.max(found.lag / design.scale[:3]))
    assert max(lags) > 1e-3 and lags[5] > 2 * lags[7]
    assert agent.epoch == 0


def test_a_neighbour_that_is_not_heard_leaves_the_promise_as_the_bound(designs):
    design = designs["reactor2"]
    agent = Agent(design)
    promise = agent.start(0)
    feedback = OutputFeedback(agent, np.zeros(3))
    feedback.follow(0, design.steady_state, np.zeros(3), None, {}, {}, promise)
    first = agent.step(0, design.steady_state, {})
    wild = design.steady_state + np.array([0.04, 0.04, 9.0])
    found = feedback.follow(1, wild, np.zeros(3), first.input, {}, {}, first.forecast)
    assert first.forecast.contains(1, design.coordinates(found.state), 1e-9)
    assert np.all(np.isinf(found.doubt))  # no bound was stated
    assert agent.step(1, found.state, {}).report.promise_kept


def test_an_observer_finds_states_that_nobody_measures_now_and_survives_lost_steps(config):
    plant, observer = make_plant(config, seed=5), Observer(config, "separator")
    inputs = {name: config.linear.steady_input[config.linear.columns(name)] for name in config.agents}
    for k in range(45):
        truth = plant.true_state()
        if k not in (12, 13, 14):  # the agent was away
            view = observer.update(k, plant.measure(), inputs)
        plant.step(inputs)
    for name, state in view.states.items():
        assert np.all(np.abs(state - truth[name]) < [0.006, 0.006, 0.3])
    observer.reset()
    assert not observer.update(0, plant.measure(), {}).faults


def test_readings_come_as_often_as_the_file_says_and_stuck_ones_survive_dropouts(config):
    plant, name = make_plant(config, seed=2), "reactor1"
    inputs = {a: config.linear.steady_input[config.linear.columns(a)] for a in config.agents}
    rows = []
    for _ in range(200):
        rows.append(plant.measure()[name])
        plant.step(inputs)
    rows = np.array(rows)
    compositions = np.isfinite(rows[:, 0])
    assert not np.any(compositions[np.arange(200) % 10 != 0]) and 14 <= compositions.sum() <= 20
    stuck = rows[152:, 2]
    assert 0.7 < np.isfinite(stuck).mean() < 1.0
    assert np.unique(stuck[np.isfinite(stuck)]).size == 1


@pytest.mark.parametrize(
    ("wrong", "word"),
    [
        ("every: {xA9: 10}", "xA9"),
        ("disturbances: [T10, T99]", "T99"),
        ("kind: guess", "kind"),
    ],
)
def test_a_section_with_wrong_names_is_refused(tmp_path, wrong, word):
    text = shipped_plant("reactor_separator_sensors").read_text(encoding="utf-8")
    head, section = text.split("estimator:\n")
    section = re.sub(rf"^  {wrong.partition(':')[0]}:.*$", f"  {wrong}", section, count=1, flags=re.MULTILINE)
    path = tmp_path / "plant.yaml"
    path.write_text(f"{head}estimator:\n{section}", encoding="utf-8")
    with pytest.raises(ConfigError, match=word):
        load_plant(path)


def test_the_estimators_bound_tightens_the_limits(config):
    assert config.estimator is not None
    wide = {name: 0.049 if name.startswith("x") else 1.0 for name in config.estimator.error}
    section = config.estimator.model_copy(update={"error": wide})
    with pytest.raises((ConfigError, InfeasibleError), match=r"nothing is guaranteed|no box"):
        design_agents(config.model_copy(update={"estimator": section}))
