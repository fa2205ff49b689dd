"""Agents on the set-points of the Tennessee Eastman plant."""

import importlib.util

import numpy as np
import pytest
from pettingzoo.test import parallel_api_test

from rmpc_ros.errors import ConfigError, DataError
from rmpc_ros.learning import tennessee_eastman as te
from rmpc_ros.learning.policy import load_policy
from rmpc_ros.studies import tennessee_eastman as study

needs_plant = pytest.mark.skipif(
    not te.installed(), reason="the optional extra 'tennessee' (tep-studio) is not installed"
)
STILL = np.zeros((len(te.AGENTS), te.ACTIONS))


@pytest.fixture(scope="module")
def plant():
    return te.TennesseeEastman()


def test_without_the_extra_the_error_says_how_to_get_it(monkeypatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"tep-studio: pip install"):
        te.TennesseeEastman()


@needs_plant
def test_zero_actions_are_the_plants_own_loops(plant) -> None:
    import tep_studio

    plant.reset(3)
    _, terms = plant.hour(STILL)
    bare = tep_studio.TennesseeEastmanProcess()
    measured, _ = bare.reset(seed=te.SEED_STEP * 4 + 1, disturbances=plant._active)
    loops = tep_studio.RickerMultiLoopController(enable_overrides=True)
    loops.reset(tep_studio.TennesseeEastmanProcess().reset()[0], time=0.0)
    costs = []
    for _ in range(100):
        valves, _ = loops.compute_action(measured, time=bare.time)
        result = bare.advance(valves, control_interval=te.INTERVAL, disturbances=plant._active)
        measured = result.measurements
        costs.append(result.objective_terms["operating_cost_internal_per_hour"])
    assert terms["operation"] == pytest.approx(-np.mean(costs), rel=1e-12)
    assert plant.setpoints == {name: pytest.approx(getattr(plant.base, name)) for name in plant.setpoints}


@needs_plant
def test_a_seed_decides_the_campaign_and_another_is_another(plant) -> None:
    hours = []
    for seed in (5, 5, 6):
        plant.reset(seed)
        hours.append(plant.hour(STILL)[1]["operation"])
    assert hours[0] == hours[1] != hours[2]


@needs_plant
def test_set_points_move_no_faster_than_their_rate_and_stay_within_reach(plant) -> None:
    plant.reset(1)
    plant.hour(np.full_like(STILL, 50.0))  # far outside [-1, 1]
    for pair in te.AGENTS.values():
        for s in pair:
            moved = plant.setpoints[s.field] - getattr(plant.base, s.field)
            assert moved == pytest.approx(min(s.rate, s.reach), rel=1e-9)
            limit = te.LIMITS.get(s.field)
            assert limit is None or getattr(plant.base, s.field) + s.reach < limit[1]


@needs_plant
def test_terms_follow_the_prices() -> None:
    prices = te.Prices(product=100.0, demand=10.0, tolerance=0.0, quality=7.0, violation=3.0)
    plant = te.TennesseeEastman(prices)
    plant.reset(2)
    _, terms = plant.hour(STILL)
    assert terms["product"] == pytest.approx(1000.0)  # the demand, not the 22.95 m3/h made
    assert terms["quality"] == -7.0
    assert terms["violation"] == 0.0 == terms["shutdown"]


@needs_plant
def test_a_shutdown_is_charged_once_and_ends_the_campaign() -> None:
    plant = te.TennesseeEastman(disturbances=(6,))  # the A feed is lost
    plant.reset(1)
    for _ in range(20):
        observations, terms = plant.hour(STILL)
        if plant.ended:
            break
    assert plant.ended and terms["shutdown"] == -te.Prices().shutdown
    assert np.all(np.isfinite(observations))
    with pytest.raises(DataError, match="shut down"):
        plant.hour(STILL)


@needs_plant
@pytest.mark.parametrize("wrong", [np.zeros((2, 2)), np.full((3, 2), np.nan)])
def test_wrong_actions_are_refused(plant, wrong) -> None:
    plant.reset(1)
    with pytest.raises(DataError, match="3 x 2 finite numbers"):
        plant.hour(wrong)
    with pytest.raises(ConfigError, match="1 to 28"):
        te.TennesseeEastman(disturbances=(29,))


@needs_plant
def test_environment_passes_pettingzoos_own_test() -> None:
    env = te.TennesseeEastmanEnv(hours=2)
    parallel_api_test(env, num_cycles=3)
    env.reset(seed=4)
    _, rewards, ended, cut, infos = env.step({a: np.zeros(te.ACTIONS) for a in env.possible_agents})
    assert rewards["feed"] == pytest.approx(sum(infos["feed"][name] for name in te.TERMS))
    assert not any(ended.values()) and not any(cut.values())
    with pytest.raises(DataError, match="agent 'reactor'"):
        env.step({"feed": np.zeros(2)})


@needs_plant
def test_study_pairs_campaigns_and_keeps_the_policy(tmp_path) -> None:
    small = {"population": 2, "iterations": 1, "training_hours": 2, "settling": 1, "hours": 2, "seeds": 2}
    result = study.run(dict(study.STUDY.defaults) | small, tmp_path)
    campaigns = result["campaigns"]
    for name in ("published_setpoints", "learned"):
        low, high = result[f"gain_{name}_interval"]
        assert low <= result[f"gain_{name}"] <= high
        assert result[f"gain_{name}"] == pytest.approx(campaigns[name]["profit"] - campaigns["own_loops"]["profit"])
    assert campaigns["learned"]["profit"] == pytest.approx(sum(campaigns["learned"][t] for t in te.TERMS))
    policy = load_policy(tmp_path / "tennessee_eastman_policy.json")
    assert policy.act(np.zeros((3, te.OBSERVATIONS))).shape == (3, te.ACTIONS)
    assert len(list(study.table(result))) == 6


@needs_plant
def test_study_refuses_hours_that_do_not_count(tmp_path) -> None:
    with pytest.raises(ConfigError, match="beyond the settling"):
        study.run(dict(study.STUDY.defaults) | {"settling": 40}, tmp_path)
