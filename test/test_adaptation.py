"""The learning loop of a running agent: the set follows the residuals, grows at once, and lying data move nothing."""

import numpy as np
import pytest

from rmpc_ros.config import load_plant
from rmpc_ros.config.adapting import Adaptation as Settings
from rmpc_ros.config.shipped import shipped_plant
from rmpc_ros.learning.adaptation import Adaptation, AdaptiveNetwork
from rmpc_ros.learning.residual_mean import MeanLearner
from rmpc_ros.network.agent import Agent
from rmpc_ros.network.closed_loop import run
from rmpc_ros.network.system import design_agents
from rmpc_ros.plants import make_plant
from rmpc_ros.studies.adaptation import STUDY, feeds


@pytest.fixture(scope="module")
def config():
    return load_plant(shipped_plant("reactor_separator"))


@pytest.fixture(scope="module")
def designs(config):
    return design_agents(config)


class Stream:
    """Feeds one agent's loop with residuals of our choice: the agent rests, its state is the residual itself."""

    def __init__(self, designs, settings=None):
        self.design = designs["reactor1"]
        self.agent = Agent(self.design)
        self.agent.start(0)
        self.loop = Adaptation(self.agent, settings or Settings(least=40, window=200))
        self.others = {o: designs[o].steady_state for o in self.design.neighbours}
        self.rest = {o: np.zeros(1) for o in self.others}
        self.half = self.agent.disturbance.design_set.radius / self.design.scale[:3]
        self.step, self.x = 0, np.zeros(3)

    def feed(self, residual, lie=0.0):
        """One step after which the residual is `residual` times the design's half-widths.

        The sensors show the state of the step plus `lie` times them.
        """
        design, data = self.design, self.agent.controller.data
        shown = self.x + np.asarray(lie) * self.half
        data.x[:] = shown
        self.agent.disturbance.move(data, np.zeros(1))  # what a decision does first
        report = self.loop.step(
            self.step, design.physical_states(shown), self.others, self.applied() if self.step else None, self.rest
        )
        closed = self.design.model.A @ self.x  # under the law
        self.u_before = design.model.K @ self.x
        self.x = closed + np.asarray(residual) * self.half
        self.step += 1
        return report

    def applied(self):
        return self.design.physical_inputs(self.u_before)


def test_the_set_follows_small_residuals_by_the_rate_and_grows_at_once(designs):
    stream, rng = Stream(designs), np.random.default_rng(0)
    shares = [stream.feed(0.2 * rng.uniform(-1, 1, 3)).share.max() for _ in range(200)]
    assert shares[39] == 1.0  # nothing is adopted before there are enough residuals
    assert np.all(np.diff(shares) >= -0.1 - 1e-9)
    assert 0.2 <= shares[-1] < 0.3
    reports = [stream.feed(0.8 * rng.choice([-1.0, 1.0], 3)) for _ in range(8)]
    assert reports[2].share.min() > 0.8  # one step to make the residual, one to see it
    shares = [stream.feed(0.2 * rng.uniform(-1, 1, 3)).share.max() for _ in range(280)]
    assert shares[-1] < 0.3  # recovery


def test_residuals_that_run_away_from_the_set_are_a_drift_and_the_designs_set_is_back(designs):
    stream, rng = Stream(designs), np.random.default_rng(5)
    for _ in range(120):
        stream.feed(0.1 * rng.uniform(-1, 1, 3))
    reports = [stream.feed([0.12 * 1.4**k] * 3) for k in range(7)]
    assert any("drift" in r.event for r in reports)
    assert np.all(reports[-1].share == 1.0) and not stream.agent.disturbance.learned
    assert "drift" in stream.agent.disturbance.lost


def test_ten_per_cent_wild_outliers_do_not_move_the_set(designs):
    clean, poisoned = Stream(designs), Stream(designs)
    rng = np.random.default_rng(1)
    for _ in range(250):
        residual = 0.3 * rng.uniform(-1, 1, 3)
        kept = clean.feed(residual)
        lied = poisoned.feed(residual, (rng.random() < 0.1) * 50 * rng.standard_normal(3))
    assert lied.counts["outliers"] >= 15
    assert np.allclose(lied.share, kept.share, rtol=0.15)
    assert poisoned.loop.counts["drifts"] == 0


def test_a_poisoned_stream_does_not_move_the_certified_mean(designs):
    stream, rng = Stream(designs, Settings(model="linear", least=40, window=200, certify=20)), np.random.default_rng(6)

    def mean():
        learned = stream.agent.disturbance.mean
        return np.zeros(3) if learned is None else learned(np.zeros(3), np.zeros(1), np.zeros(8)) / stream.half

    for _ in range(250):
        report = stream.feed(0.3 + 0.05 * rng.uniform(-1, 1, 3))
    assert report.model_version >= 1 and np.allclose(mean(), 0.3, atol=0.05)
    for _ in range(250):
        report = stream.feed(0.3 + 0.05 * rng.uniform(-1, 1, 3), (rng.random() < 0.1) * 50 * rng.standard_normal(3))
    assert report.counts["outliers"] >= 15
    assert np.allclose(mean(), 0.3, atol=0.05)
    assert np.all(report.share < 0.5)


def test_residuals_that_stay_beyond_the_design_are_a_drift_that_is_named(designs):
    stream, rng = Stream(designs), np.random.default_rng(2)
    for _ in range(120):
        stream.feed(0.2 * rng.uniform(-1, 1, 3))
    events = [stream.feed([3.0, 3.0, 3.0]).event for _ in range(20)]
    assert any("beyond what the design reckons with" in event for event in events)
    assert not stream.agent.disturbance.learned


def test_steps_with_missing_numbers_are_left_out_and_counted(designs):
    stream, rng = Stream(designs), np.random.default_rng(3)
    for k in range(100):
        stream.x = stream.x * (np.nan if k == 50 else 1.0)
        report = stream.feed(0.2 * rng.uniform(-1, 1, 3))
        if k == 50:
            stream.x = np.zeros(3)
    assert report.counts["skipped"] >= 2
    assert report.counts["residuals"] >= 95
    assert np.all(np.isfinite(report.share))


def test_a_learned_mean_is_adopted_only_when_it_explains_held_out_steps_better(designs):
    design, rng = designs["separator"], np.random.default_rng(4)
    learner = MeanLearner(design, Settings(model="linear"))
    half = design.model.disturbance_support(np.eye(3))

    def observe(slope, count):
        for k in range(count):
            x = design.terminal[:3] * rng.uniform(-1, 1, 3)
            u, zeta = design.model.K @ x, np.zeros(design.model.ng)
            after = design.model.A @ x + slope * half * x / design.terminal[:3] + 0.05 * half * rng.uniform(-1, 1, 3)
            learner.observe(x, u, zeta, after, float(k))

    observe(0.0, 160)
    assert not learner.judge(lambda model: True)
    assert "times the present ones" in learner.verdict.reason
    observe(0.6, 400)
    assert not learner.judge(lambda model: False)
    assert "infeasible" in learner.verdict.reason
    assert learner.judge(lambda model: True) and learner.certified.version == 1
    moved = learner.certified.layer.mean.copy()
    assert learner.judge(lambda model: True)  # the rest of the way: one adoption moves a prediction by a bounded step
    assert not np.allclose(moved, learner.certified.layer.mean)
    learner.drifted()
    assert not np.any(learner.certified.layer.mean)


def test_the_loop_narrows_promises_in_closed_loop_and_keeps_limits(config, designs):
    widths = {}
    for settings in (None, Settings(least=40), Settings(least=40, model="linear", certify=20)):
        agents = {name: Agent(design) for name, design in designs.items()}
        plant = make_plant(config, seed=7)
        watch = AdaptiveNetwork(agents, plant, settings).watch if settings else None
        result = run(agents, plant, 150, feeds(config, 7, 450, 0.25, 0.25), watch=watch)
        assert result.violations == 0
        assert result.promises_broken <= 3
        widths[settings.model if settings else "off"] = float(np.median(result.promise_width[-3000:]))
    assert widths["none"] < 0.75 * widths["off"]


def test_study_reports_what_the_issue_asks(tmp_path):
    result = STUDY.run({**STUDY.defaults, "steps": 450, "seeds": 1}, tmp_path)
    assert result["violations"] == {"off": 0, "on": 0}
    assert result["promise_narrower"]["before"] > 0
    assert result["broken_share"] < 0.02
    assert (tmp_path / result["figure"]).is_file()
    assert list(STUDY.table(result))
