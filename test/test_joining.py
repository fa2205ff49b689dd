"""Plug and play: neighbours acknowledge before a newcomer is connected; who cannot bear it says so, nothing changes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from rmpc_ros.config.sections import Join
from rmpc_ros.errors import ConfigError, InfeasibleError
from rmpc_ros.network.forecast import ForecastSet
from rmpc_ros.network.joining import JoinPlan, joined_plant, plan_join
from rmpc_ros.network.newcomer import Newcomer
from rmpc_ros.network.proposal import Held, acknowledgement
from rmpc_ros.network.system import design_agents
from rmpc_ros.studies.plug_and_play import APART, STUDY, chain, simulate

SETTINGS = {**STUDY.defaults, "M": 3, "newcomer": 2, "room": 1.6, "steps": 160, "ask": 40, "leave": 110}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("chains")


@pytest.fixture(scope="module")
def configs(folder: Path):
    return chain(SETTINGS, 1.6, APART, folder), chain(SETTINGS, 1.6, 1.0, folder)


@pytest.fixture(scope="module")
def plan(configs) -> JoinPlan:
    return plan_join(*configs, "mass2")


def test_only_who_is_touched_bears_more_and_nobody_changes_what_it_promised(configs, plan):
    before = design_agents(configs[0])
    assert plan.hosts == ("mass1", "mass3")
    assert set(plan.borne) == {"mass1", "mass2", "mass3"}
    for name in ("mass1", "mass3", "mass4"):
        assert np.array_equal(plan.designs[name].terminal, before[name].terminal)
        assert np.array_equal(plan.designs[name].model.K, before[name].model.K)
    assert plan.designs["mass4"].neighbours.keys() == before["mass4"].neighbours.keys()


def test_a_host_stays_in_its_box_with_everything_at_its_worst(plan):
    for name in plan.hosts:
        design = plan.designs[name]
        neighbours = np.concatenate([n.terminal for n in design.neighbours.values()])
        nx = design.nx
        reach = (
            np.abs(design.model.A) @ design.terminal[:nx]
            + np.abs(design.model.B) @ design.terminal[nx:]
            + np.abs(design.model.G) @ neighbours
            + np.maximum(design.model.disturbance_support(np.eye(nx)), design.model.disturbance_support(-np.eye(nx)))
        )
        assert np.all(reach <= design.terminal[:nx] * (1 + 1e-6))


@pytest.mark.parametrize("faults", [{}, {"loss": 0.3, "delay": 3, "duplicate": 0.2}])
def test_a_mass_joins_between_two_others_and_leaves_and_nobody_is_harmed(configs, plan, faults):
    result = simulate(plan, *configs, {**SETTINGS, **faults})
    assert SETTINGS["ask"] + 2 <= result["hooked_on"] < SETTINGS["ask"] + 20
    assert result["taken_off"] == SETTINGS["leave"]
    assert result["violations"] == 0 and result["promises_broken"] == 0
    assert set(result["modes"]) == {"optimal"}
    width = result["host_promise_width"]
    for host in plan.hosts:  # they reckon with the connection while it may exist, and no longer
        assert width["joined"][host] > 1.05 * width["apart"][host]
        assert width["left"][host] == pytest.approx(width["apart"][host], rel=0.05)


def test_what_a_host_bears_is_the_worst_that_the_connection_can_do(configs, plan):
    """At the vertices of the boxes, with the laws in force, the two plants part by e and no more (beyond the error)."""
    apart, joined = (config.linear for config in configs)
    designs, rng = plan.designs, np.random.default_rng(0)
    worst = dict.fromkeys(plan.borne, 0.0)
    for _ in range(4000):
        z, u = np.empty(8), np.empty(4)
        for n, (name, design) in enumerate(designs.items()):
            sign = rng.choice([-1.0, 1.0], 3) * design.terminal
            x = sign[:2]
            z[apart.rows(name)], u[n] = x * design.scale[:2], (design.model.K @ x + sign[2:])[0] * design.scale[2]
        part = (joined.A - apart.A) @ z + (joined.B - apart.B) @ u
        for name, borne in plan.borne.items():
            share = np.abs(part[apart.rows(name)]) / designs[name].scale[:2] / borne
            assert np.all(share <= 1 + 1e-9)
            worst[name] = max(worst[name], float(np.max(share)))
    assert all(share > 0.5 for share in worst.values())


def test_without_everybodys_word_the_newcomer_stays_apart_and_names_who_is_missing(configs, plan):
    result = simulate(plan, *configs, {**SETTINGS, "loss": 1.0, "steps": 90})
    assert result["hooked_on"] == -1
    assert result["refused_by"] == ["mass1", "mass3"]
    assert result["violations"] == 0 and result["promises_broken"] == 0


def test_a_join_that_cannot_be_borne_is_refused_by_name_with_what_it_lacks(folder):
    tight = chain(SETTINGS, 1.02, APART, folder), chain(SETTINGS, 1.02, 1.0, folder)
    with pytest.raises(
        InfeasibleError, match=r"'mass2' cannot join: 'mass[13]' cannot stay in its invariant box: s[13] w"
    ):
        plan_join(*tight, "mass2")


def test_plant_files_that_do_not_describe_a_join_are_refused(configs, folder):
    apart, joined = configs
    with pytest.raises(ConfigError, match="'mass2' is coupled to mass1, mass3 before it has joined"):
        plan_join(joined, joined, "mass2")
    with pytest.raises(ConfigError, match="'mass2' joins nothing"):
        plan_join(apart, apart, "mass2")
    with pytest.raises(ConfigError, match="'mass9' is not an agent"):
        plan_join(apart, joined, "mass9")
    longer = chain({**SETTINGS, "M": 4}, 1.6, 1.0, folder)
    with pytest.raises(ConfigError, match="must have the same agents"):
        plan_join(apart, longer, "mass2")


def test_a_newcomer_whose_connection_touches_no_other_agent_is_one_clear_error(configs):
    apart, _ = configs
    heavier = list(apart.plant.parameters["m"])
    heavier[1] *= 1.1
    join = Join(agent="mass2", parameters={"m": heavier})
    alone = apart.model_copy(update={"network": apart.network.model_copy(update={"join": join})})
    with pytest.raises(ConfigError, match=r"'mass2' has no host: .* there is nobody to ask"):
        plan_join(apart, joined_plant(alone), "mass2")


def answer(plan: JoinPlan, host: str, proposal: ForecastSet) -> ForecastSet:
    return acknowledgement(proposal, plan.designs[host].terminal_promise(proposal.step + 1))


def test_no_connection_before_the_last_acknowledgement_and_what_hosts_hold_contains_it_until_they_hear(plan):
    newcomer = Newcomer(plan)
    held = {
        host: Held(plan.designs[host].neighbours["mass2"].terminal_promise(0, plan.designs[host].period))
        for host in plan.hosts
    }

    def tell(step: int, to: tuple[str, ...] = plan.hosts) -> None:
        for host, messages in newcomer.step(step).items():
            for message in messages if host in to else ():
                known = held[host]
                held[host] = known.offered(message) if message.kind == "proposal" else known.heard(message)

    def strength(host: str, step: int) -> float:
        center, scale = held[host].window(step, 1)
        return float(np.max(np.abs(center) + scale))

    for step in range(3):
        tell(step)
    assert newcomer.where == "apart" and all(strength(host, 6) == 0.0 for host in plan.hosts)
    newcomer.ask()
    tell(3)
    proposals = {host: held[host].offer for host in plan.hosts}
    held = {host: h.answered() for host, h in held.items()}
    newcomer.hear(answer(plan, "mass1", proposals["mass1"]))
    tell(4)
    assert newcomer.where == "asking" and not newcomer.may_connect(50)
    newcomer.hear(answer(plan, "mass3", proposals["mass3"]))
    tell(5, to=())  # nobody hears that it has joined
    assert newcomer.where == "joined" and not newcomer.may_connect(6) and newcomer.may_connect(7)
    assert all(strength(host, step) > 0 for host in plan.hosts for step in (7, 8, 20))
    newcomer.leave()
    tell(9, to=("mass1",))
    assert strength("mass1", 12) == 0.0 and strength("mass3", 12) > 0.0
