"""On ROS: the learner plans the day, the agents take its targets, and prices are its parameters."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("rmpc_ros.msg", reason="needs the package's messages (make setup)")

from rclpy.parameter import Parameter
from ros_plant import PlantHere, own_domain

from rmpc_ros.config import load_plant
from rmpc_ros.config.shipped import shipped_plant
from rmpc_ros.learning.case import learning_case
from rmpc_ros.learning.day import RobustDays
from rmpc_ros.learning.plan import Plan
from rmpc_ros.learning.surrogate import identify_surrogate
from rmpc_ros.learning.terminal_value import KNOTS, POWERS, TerminalValue

pytestmark = pytest.mark.processes

STEPS, DEARER = 105, 60


@pytest.fixture(scope="module", autouse=True)
def ros() -> Iterator[None]:
    with own_domain():
        yield


def test_the_learner_node_plans_and_the_agents_aim_at_it(tmp_path: Path) -> None:
    file, stored = tmp_path / "plant.yaml", tmp_path / "policy.json"
    text = shipped_plant("reactor_separator_campaign").read_text(encoding="utf-8")
    file.write_text(text + "  online: {plan_hours: 0.4}\n", encoding="utf-8")
    case = learning_case(load_plant(file))
    surrogate = identify_surrogate(case, RobustDays(case), 0, 30)
    value = TerminalValue(np.zeros((KNOTS, POWERS)), 0.96, 1.0, 0.004, (0.001, 0.02))
    Plan(case.config.plant.name, 2, value, 1, {}, surrogate.to_dict(), {}, case.moves).save(stored)
    here = PlantHere(
        file, ("agent", "plant", "learner"), learn=tmp_path / "learning", policy=stored, duration=36.0 * STEPS
    )
    learner = here.nodes["learner"]
    moved: dict[str, Any] = {}

    def after(k: int, inputs: dict[str, np.ndarray]) -> None:
        if k == DEARER:
            moved.update({name: node.controller.design.x_ref for name, node in agents.items()})
            learner.set_parameters([Parameter("market.product", value=9.0)])

    agents = {name: here.nodes[name] for name in case.agents}
    here.run(after)
    (made,) = learner.ledger.entries("policy")  # prices outside the market: the second day is not planned
    said = [s.message for s in learner.diagnostics.statuses()]
    assert made.certificate["stage"] == "planned" and made.certificate["activity"] == pytest.approx(0.98, abs=0.008)
    assert any("price of product = 9" in words for words in said)
    assert learner.learner.series.row(learner.learner.series.newest).versions["separator"].policy == made.version
    wished = dict(zip(case.agents, made.certificate["offsets"], strict=True))
    for name, x_ref in moved.items():
        design = agents[name].controller.design
        moves = list(design.state_names).index(case.learning.actions.setpoints[name])
        offset = (design.physical_states(x_ref) - design.steady_state)[moves] / case.learning.actions.span
        assert np.sign(offset) == np.sign(wished[name]) or abs(wished[name]) < 0.3
    here.close()
