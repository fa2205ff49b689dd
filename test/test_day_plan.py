"""The economic plan at run time: estimates from transitions, targets through the learner's updates, taken back."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from rmpc_ros.config import PlantConfig, load_plant
from rmpc_ros.config.shipped import shipped_plant
from rmpc_ros.errors import DataError
from rmpc_ros.learning.case import learning_case
from rmpc_ros.learning.day import CampaignPlant, RobustDays
from rmpc_ros.learning.day_plan import DayPlan
from rmpc_ros.learning.learner import Learner
from rmpc_ros.learning.ledger import Ledger
from rmpc_ros.learning.plan import Plan
from rmpc_ros.learning.surrogate import identify_surrogate
from rmpc_ros.learning.terminal_value import KNOTS, POWERS, TerminalValue
from rmpc_ros.learning.together import Together
from rmpc_ros.network.agent_design import AgentDesign
from rmpc_ros.network.system import design_agents

HOURS = 1.0  # 100 steps between two plans


@pytest.fixture(scope="module")
def plant(tmp_path_factory: pytest.TempPathFactory) -> tuple[PlantConfig, dict[str, AgentDesign]]:
    text = shipped_plant("reactor_separator_campaign").read_text(encoding="utf-8")
    path = tmp_path_factory.mktemp("plant") / "hourly.yaml"
    path.write_text(text + f"  online: {{plan_hours: {HOURS}}}\n", encoding="utf-8")
    config = load_plant(path)
    return config, design_agents(config)


@pytest.fixture(scope="module")
def plan(plant: tuple[PlantConfig, dict[str, AgentDesign]]) -> Plan:
    """A value by which a fresh catalyst is worth a regeneration more than one at its floor."""
    case = learning_case(plant[0])
    surrogate = identify_surrogate(case, RobustDays(case), 0, 60)
    catalyst = case.learning.campaign.catalyst
    weights = np.zeros((KNOTS, POWERS))
    weights[:, 0] = np.linspace(0.0, case.learning.prices.regeneration / 24, KNOTS)
    value = TerminalValue(weights, catalyst.floor, catalyst.fresh, catalyst.decay_per_day, (0.001, 0.02))
    return Plan(plant[0].plant.name, 3, value, 1, {}, surrogate.to_dict(), {}, case.moves)


def aged(together: Together, config: PlantConfig, activity: float) -> CampaignPlant:
    """The plant with a catalyst of that activity."""
    plant = CampaignPlant(config, "activity")
    plant.activity = activity
    plant.reset(3)
    together._plant = plant
    return plant


def learner_of(plant: tuple[PlantConfig, dict[str, AgentDesign]], plan: Plan | None, path: Path) -> Learner:
    config, designs = plant
    planned = None if plan is None else DayPlan(config, plan)
    return Learner(config, designs, Ledger(path / "versions.db", "r"), subjects=("policy",), day_plan=planned)


def test_the_day_is_planned_from_what_the_plant_shows_and_all_agents_take_it(
    plant: tuple[PlantConfig, dict[str, AgentDesign]], plan: Plan, tmp_path: Path
) -> None:
    config, designs = plant
    chosen, estimates = {}, {}
    for activity in (0.965, 0.995):
        folder = tmp_path / str(activity)
        learner = learner_of(plant, plan, folder)
        together = Together(config, designs, learner)
        aged(together, config, activity)
        result = together.run(240)
        made = learner.ledger.entries("policy")
        assert [u.certificate["stage"] for u in made] == ["planned", "planned"]
        assert made[1].certificate["made_at"] - made[0].certificate["made_at"] >= 100
        assert result.violations == 0 and not together.account.refused
        assert together.account.policies[-1] == (2, 2, 2)
        for update in made:
            assert update.certificate["activity"] == pytest.approx(activity, abs=0.006)
            assert update.certificate["miss"] < 3
        chosen[activity] = np.array(made[0].certificate["offsets"])
        estimates[activity] = made[0].certificate["activity"]

        again = learner_of(plant, plan, folder)  # killed and started anew: nothing is planned twice
        again.add(together.transitions)
        assert again.think() == []
    assert estimates[0.995] > estimates[0.965]
    assert not np.array_equal(chosen[0.965], chosen[0.995])


def test_the_decay_is_between_the_files_and_what_was_lost_and_a_regeneration_begins_anew(
    plant: tuple[PlantConfig, dict[str, AgentDesign]], plan: Plan
) -> None:
    case, day = learning_case(plant[0]), DayPlan(plant[0], plan)
    catalyst = case.learning.campaign.catalyst
    first = day._wear({}, 0.995, case.steady, 0.0)
    assert first["decay_per_day"] == pytest.approx(catalyst.decay_per_day)
    states = case.steady.copy()
    states[case.temperatures] += catalyst.reference - states[case.temperatures].mean()
    seen, true, activity = first, 0.01, 0.995
    for _ in range(3):
        activity *= np.exp(-true)
        before, seen = seen, day._wear(seen, activity, states, 1.0)
        assert before["decay_per_day"] < seen["decay_per_day"] < true
    assert seen["wear"] == pytest.approx(3.0) and seen["anchor"] == 0.995
    renewed = day._wear(seen, 1.0, states, 1.0)
    assert renewed["wear"] == 0.0 and renewed["anchor"] == 1.0
    wild = day._wear(first, catalyst.floor, states, 1e-3)  # a bad estimate does not leave what was learned from
    assert wild["decay_per_day"] == plan.value.seen[1]


def test_targets_are_taken_back_near_a_limit_and_a_learner_without_the_plan_goes_on(
    plant: tuple[PlantConfig, dict[str, AgentDesign]], plan: Plan, tmp_path: Path
) -> None:
    config, designs = plant
    careful = config.learning.online.model_copy(update={"least_margin": 0.999})
    config = config.model_copy(update={"learning": config.learning.model_copy(update={"online": careful})})
    learner = learner_of((config, designs), plan, tmp_path)
    together = Together(config, designs, learner)
    aged(together, config, 0.98)
    together.run(80)
    made = learner.ledger.entries("policy")
    assert [u.certificate["stage"] for u in made] == ["planned", "roll-back"]
    assert not np.any(made[1].content["parameters"]) and "limit" in made[1].certificate["reason"]
    assert together.account.policies[-1] == (2, 2, 2) and learner.rollbacks == 1
    assert all(np.array_equal(agent.design.x_ref, designs[name].x_ref) for name, agent in together.agents.items())
    without = learner_of((config, designs), None, tmp_path)
    without.add(together.transitions)
    assert without.think() == [] and without.status().figures["policy_stage"] == "roll-back"


def test_a_foreign_plan_and_prices_outside_the_market_are_refused(
    plant: tuple[PlantConfig, dict[str, AgentDesign]], plan: Plan, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match="for plant 'elsewhere'"):
        DayPlan(plant[0], dataclasses.replace(plan, plant="elsewhere"))
    learner = learner_of(plant, plan, tmp_path)
    together = Together(plant[0], plant[1], None)
    aged(together, plant[0], 0.98)
    together.run(60)
    learner.add(together.transitions)
    learner._day_plan.market = (9.0, 1.0)
    with pytest.raises(DataError, match="price of product = 9"):
        learner.think()
    assert learner.ledger.entries("policy") == []
