"""CCG with unions as an agent's controller mode, on the reactor plant with two feed suppliers."""

from dataclasses import replace

import numpy as np
import pytest

from rmpc_ros.config import load_plant
from rmpc_ros.config.shipped import shipped_plant
from rmpc_ros.errors import ConfigError
from rmpc_ros.mpc.union_feedback import UnionFeedback
from rmpc_ros.network.agent import Agent
from rmpc_ros.network.closed_loop import run
from rmpc_ros.network.system import design_agents
from rmpc_ros.plants import make_plant


@pytest.fixture(scope="module")
def config():
    return load_plant(shipped_plant("reactor_separator_bimodal"))


def test_union_mode_keeps_limits_and_promises_on_bimodal_feeds(config):
    designs = design_agents(config)
    assert all(d.form == "union" for d in designs.values())
    agents = {n: Agent(d) for n, d in designs.items()}
    result = run(agents, make_plant(config, seed=4), 6)
    assert result.violations == 0 and result.promises_broken == 0
    assert result.modes["optimal"] == sum(result.modes.values())


def test_first_move_is_the_nearest_certified_one_to_that_of_the_two_stage_problem(config):
    design = design_agents(config)["reactor1"]
    controller = UnionFeedback(design.model, design.cost, design.horizon)
    data = controller.data
    terminal = design.terminal
    data.x[:] = 0.3 * terminal[:3]
    data.x_upper[:], data.x_lower[:] = terminal[:3], -terminal[:3]
    data.c_upper[:], data.c_lower[:] = terminal[3:], -terminal[3:]
    plan = controller.solve()
    wanted = controller._short.solve().c
    assert plan.v[0] == pytest.approx(np.clip(wanted, -terminal[3:], terminal[3:]), abs=2e-3 * terminal[3])


def test_without_a_union_the_mode_is_refused(config):
    design = design_agents(config)["reactor1"]
    other = replace(design.model, disturbances=design.model.disturbances[1:])
    with pytest.raises(ConfigError, match="family 'union'"):
        UnionFeedback(other, design.cost, design.horizon)
