"""Five controllers in one agent: each does what it is known for, and nobody notices when they change."""

import itertools
import json
import os
import subprocess
from dataclasses import replace

import numpy as np
import pytest

from rmpc_ros.config import load_plant
from rmpc_ros.config.sections import PidLoop
from rmpc_ros.config.shipped import shipped_plant
from rmpc_ros.errors import ConfigError, DataError, RmpcError
from rmpc_ros.learning.intervals import confidence_interval
from rmpc_ros.mpc.backup import PlanFollower
from rmpc_ros.mpc.pid_bank import PidBank, PidMpcBank
from rmpc_ros.mpc.pid_mpc import OutputLimits
from rmpc_ros.network.closed_loop import run
from rmpc_ros.network.decision import CONTROLLERS
from rmpc_ros.network.ladder import CERTIFIED, LadderAgent
from rmpc_ros.network.loop_design import design_loops, own_block, reach
from rmpc_ros.network.system import design_agents
from rmpc_ros.plants import make_plant
from rmpc_ros.run import mode as mode_command
from rmpc_ros.studies.ladder import STUDY, paired, schedule

AGENTS = ("reactor1", "reactor2", "separator")


@pytest.fixture(scope="module")
def config():
    base = load_plant(shipped_plant("reactor_separator"))
    return base.model_copy(update={"simulation": base.simulation.model_copy(update={"model": "linear"})})


@pytest.fixture(scope="module")
def designs(config):
    return design_agents(config)


def ladder(designs, mode):
    return {name: LadderAgent(design, {}, mode) for name, design in designs.items()}


# -- the lower rungs --------------------------------------------------------------------------------------------------
def test_loops_are_found_and_tuned_without_a_word_from_the_user(designs):
    for name, design in designs.items():
        (loop,) = design_loops(design, {})
        assert design.state_names[loop.state] == f"T{AGENTS.index(name) + 1}"  # heat moves the temperature
        assert loop.settings.kp > 0 and loop.settings.ki > 0


def test_what_the_file_says_about_a_loop_is_taken_in_its_units(designs):
    design = designs["reactor1"]
    (loop,) = design_loops(design, {"Q1": PidLoop(state="T1", kp=2.0e4, ki=100.0, filter_time=0.0)})
    unit = reach(design)[2] / design.scale[design.nx]
    assert loop.settings.kp == pytest.approx(2.0e4 * unit)
    bank, x = PidBank([loop]), np.array([0.0, 0.0, 0.1])
    bank.start(np.zeros(3), x, np.zeros(1))
    moved = design.physical_inputs(bank.step(np.zeros(3), x)) - design.steady_input
    assert moved[0] == pytest.approx(-100.0 * design.period * 0.1 * reach(design)[2])  # ki Ts e


@pytest.mark.parametrize(
    ("loops", "words"),
    [
        ({"Q1": PidLoop(kp=-1.0e5, ki=-1.0)}, "not stable"),
        ({"Q1": PidLoop(kp=1.0e7, ki=1.0e5)}, "not stable"),
    ],
)
def test_an_unstable_pid_is_refused_and_the_agent_stays_on_its_rung(designs, loops, words):
    agent = LadderAgent(designs["reactor1"], loops, "robust")
    with pytest.raises(ConfigError, match=words):
        agent.set_mode("pid")
    assert agent.mode == "robust"
    with pytest.raises(ConfigError, match=words):
        LadderAgent(designs["reactor1"], loops, "pid_mpc")


def test_unknown_modes_are_refused_by_name(designs):
    agent = LadderAgent(designs["reactor1"], {}, "robust")
    with pytest.raises(ConfigError, match=r"'fuzzy'; give one of pid, pid_mpc, robust, cooperative, learned"):
        agent.set_mode("fuzzy")


def test_the_pid_mpc_makes_the_pids_moves_where_no_limit_is_near(designs):
    (loop,) = design_loops(designs["reactor1"], {})
    pid, mpc = PidBank([loop]), PidMpcBank([loop])
    generator = np.random.default_rng(0)
    x, setpoint = np.array([0.0, 0.0, 0.02]), np.array([0.0, 0.0, 0.01])
    for bank in (pid, mpc):
        bank.start(setpoint, x, np.zeros(1))
    A, B = own_block(designs["reactor1"])
    for _ in range(40):
        u = pid.step(setpoint, x)
        assert mpc.step(setpoint, x) == pytest.approx(u, abs=1e-9)
        x = A @ x + B @ u + 0.002 * generator.uniform(-1, 1, 3)


def test_the_pid_mpc_keeps_a_limit_that_the_pid_passes(designs):
    (loop,) = design_loops(designs["reactor1"], {})
    jump = 0.02  # a load of either sign that turns round when it likes
    loop = replace(loop, limits=OutputLimits(-0.14 + jump, 0.14 - jump))
    A, B = own_block(designs["reactor1"])
    largest = {}
    for bank in (PidBank([loop]), PidMpcBank([loop])):
        x, setpoint, seen = np.zeros(3), np.array([0.0, 0.0, 0.115]), []
        bank.start(setpoint, x, np.zeros(1))
        for k in range(90):
            load = np.array([0.0, 0.0, jump if k // 7 % 2 else -jump])
            x = A @ x + B @ bank.step(setpoint, x) + load
            seen.append(x[2])
        largest[type(bank)] = max(seen)
    assert largest[PidBank] > 0.145
    assert largest[PidMpcBank] <= 0.14 + 1e-6


@pytest.mark.parametrize("mode", ["pid", "pid_mpc"])
def test_all_agents_on_a_pid_hold_the_plant_and_certify_nothing(config, designs, mode):
    result = run(ladder(designs, mode), make_plant(config, seed=4), 120)
    assert result.violations == 0 and result.worst_margin > 0.5
    assert result.modes["uncertified"] == 3 * 120
    assert result.refused == 0


def test_a_pid_without_a_measurement_holds_its_input(config, designs):
    agent = LadderAgent(designs["reactor1"], {}, "pid")
    agent.start(0)
    state = designs["reactor1"].steady_state + np.array([0.0, 0.0, 1.0])
    before = agent.step(0, state)
    blind = agent.step(1, None)
    assert before.mode == "uncertified" and before.report.controller == "pid"
    assert blind.mode == "safe" and "holds" in blind.report.reason
    assert blind.input == pytest.approx(before.input)
    again = agent.step(2, state)
    integrated = before.input - designs["reactor1"].steady_input  # by one step with this error
    assert again.input - before.input == pytest.approx(integrated)


def test_while_a_pid_is_silent_the_actuators_run_the_backup_law(designs):
    design = designs["reactor1"]
    agent = LadderAgent(design, {}, "pid")
    agent.start(0)
    decision = agent.step(0, design.steady_state)
    x = design.steady_state + np.array([0.0, 0.0, 0.2])
    law = design.physical_inputs(design.model.K @ design.normalise(x))
    assert PlanFollower(decision.plan).input(7, x) == pytest.approx(law)


def test_actuators_that_did_something_else_are_followed(designs):
    design = designs["reactor1"]
    agent = LadderAgent(design, {}, "pid")
    agent.start(0)
    agent.step(0, design.steady_state)
    elsewhere = design.steady_input + 0.3 * design.scale[design.nx :]
    agent.actuated(elsewhere)
    assert agent.step(1, design.steady_state).input == pytest.approx(elsewhere)


def test_a_decision_that_came_too_late_is_not_what_the_next_one_continues(designs):
    design = designs["reactor1"]
    hot = design.steady_state + np.array([0.0, 0.0, 1.0])
    agent = LadderAgent(design, {}, "pid")
    agent.start(0)
    first = agent.step(0, design.steady_state)
    late = agent.step(1, hot)  # never applied: the actuators run the first one's plan, the backup law
    agent.start(0, first.forecast)
    agent.dropped(1, hot, first.plan)
    ran = PlanFollower(first.plan).input(1, hot)
    assert np.abs(late.input - ran) > 1.0
    assert agent.step(2, design.steady_state).input == pytest.approx(ran)  # the PID begins there
    agent.set_mode("robust")
    agent.step(3, hot)
    assert agent.transfer.step == 3


@pytest.mark.parametrize("plan_known", [True, False])
def test_a_change_of_controller_that_came_too_late_takes_place_in_the_next_step(designs, plan_known):
    design = designs["reactor1"]
    agent = LadderAgent(design, {}, "pid")
    agent.start(0)
    first = agent.step(0, design.steady_state)
    agent.set_mode("robust")
    assert "from pid to robust" in agent.step(1, design.steady_state).report.reason
    agent.start(0, first.forecast)
    agent.dropped(1, design.steady_state if plan_known else np.full(3, np.nan), first.plan)
    assert agent.transfer is None
    again = agent.step(2, design.steady_state)
    assert "from pid to robust" in again.report.reason and agent.transfer.step == 2
    assert agent.transfer.bump <= 0.5 + 1e-6


def test_a_pid_whose_takeover_came_too_late_takes_over_in_the_next_step_with_an_epoch_of_its_own(designs):
    design = designs["reactor1"]
    agent = LadderAgent(design, {}, "robust")
    agent.start(0)
    for step in range(6):
        last = agent.step(step, design.steady_state)
    agent.set_mode("pid")
    assert agent.step(6, design.steady_state).forecast.iteration == last.forecast.iteration + 1
    agent.start(5, last.forecast)
    agent.dropped(6, design.steady_state, last.plan)
    again = agent.step(7, design.steady_state)
    assert "from robust to pid" in again.report.reason
    assert again.forecast.iteration == last.forecast.iteration + 1
    assert again.forecast.scale[1] == pytest.approx(again.forecast.terminal_scale)  # the invariant box, no MPC's tube


# -- transfers --------------------------------------------------------------------------------------------------------
def climb(config, designs, order, dwell=6):
    """All agents through a row of modes; returns every transfer and the loop's figures."""
    agents, seen = ladder(designs, order[0]), []

    def watch(k, decisions):
        for agent in agents.values():
            if agent.transfer is not None and agent.transfer.step == k:
                seen.append(agent.transfer)
        if (k + 1) % dwell == 0 and (k + 1) // dwell < len(order):
            for agent in agents.values():
                agent.set_mode(order[(k + 1) // dwell])

    result = run(agents, make_plant(config, seed=2), dwell * len(order), watch=watch)
    return seen, result


def circuit():
    """Rungs in an order in which every change between two of them occurs once (Euler)."""
    left = {a: [b for b in CONTROLLERS if b != a] for a in CONTROLLERS}
    stack, path = [CONTROLLERS[0]], []
    while stack:
        if left[stack[-1]]:
            stack.append(left[stack[-1]].pop())
        else:
            path.append(stack.pop())
    return path[::-1]


def test_every_change_between_two_rungs_leaves_the_input_where_it_was(config, designs):
    order = circuit()
    seen, result = climb(config, designs, order)
    assert {(t.before, t.after) for t in seen} == set(itertools.permutations(CONTROLLERS, 2))
    assert len(seen) == 3 * 20
    worst = max(seen, key=lambda t: t.bump)
    assert worst.bump < 1.0, worst
    assert result.violations == 0 and result.refused == 0
    for transfer in seen:  # on this quiet plant the input does not run away from the step before either
        assert 100 * np.max(np.abs(transfer.move)) < 3.0


def test_a_pid_that_takes_over_from_an_mpc_promises_its_box_anew(designs):
    design = designs["reactor1"]
    agent = LadderAgent(design, {}, "robust")
    first = agent.start(0)
    tube = agent.step(0, design.steady_state).forecast
    assert np.all(tube.scale[3] < first.terminal_scale)
    agent.set_mode("pid")
    assert agent.mode == "pid" and agent.step(0 + 1, design.steady_state).report.controller == "pid"
    box = agent.step(2, design.steady_state).forecast
    assert box.iteration == tube.iteration + 1
    assert box.scale[1:] == pytest.approx(np.tile(box.terminal_scale, (len(box.scale) - 1, 1)))
    agent.set_mode("robust")
    back = agent.step(3, design.steady_state)
    assert back.mode == "optimal" and back.forecast.iteration == box.iteration
    assert "from pid to robust" in back.report.reason


def test_a_pid_bears_what_its_neighbours_offer(config, designs):
    followers = {n: [m for m, d in designs.items() if n in d.neighbours] for n in designs}
    modes = {"reactor1": "learned", "reactor2": "pid", "separator": "robust"}
    agents = {n: LadderAgent(d, {}, modes[n], followers[n]) for n, d in designs.items()}
    adopted = []

    def watch(k, decisions):
        if k == 20:
            target = np.array([0.0, 0.0, 0.3]) * designs["reactor1"].terminal[:3]
            agents["reactor1"].set_target(target, designs["reactor1"].model.K @ target)
        adopted.append(decisions["reactor1"].forecast.adopted)

    result = run(agents, make_plant(config, seed=1), 45, watch=watch)
    assert adopted[20] == 0 and adopted[-1] > 0
    assert result.violations == 0 and result.refused == 0


def test_an_mpc_glides_from_an_input_that_no_promise_allows(designs):
    design = designs["reactor1"]
    agent = LadderAgent(design, {}, "pid")
    agent.start(0)
    authority = design.terminal[design.nx :]
    u = np.array([3.0 * authority[0]])
    agent.step(0, design.steady_state)
    agent.actuated(design.physical_inputs(u))
    agent.step(1, design.steady_state)
    agent.set_mode("robust")
    quiet = {name: np.linalg.solve(n.transform, n.center[: len(n.transform)]) for name, n in design.neighbours.items()}
    modes, inputs = [], [u]
    for k in range(2, 20):
        decision = agent.step(k, design.steady_state, quiet)
        modes.append(decision.mode)
        inputs.append((decision.input - design.steady_input) / design.scale[design.nx :])
        assert decision.report.controller == "robust"
    assert modes[0] == "uncertified" and modes[-1] == "optimal"
    assert modes == sorted(modes, key=["uncertified", "optimal"].index)  # it does not go back
    steps = np.abs(np.diff(inputs, axis=0))[:, 0] / 2.0  # of the range, which is 2 normalised
    assert steps[0] <= 0.005 + 1e-9
    assert np.all(np.diff(np.maximum.accumulate(steps)) <= 0.005 + 1e-9)


def test_where_the_glide_is_not_sure_safety_wins_and_the_bump_is_told(designs):
    design = designs["reactor1"]
    agent = LadderAgent(design, {"Q1": PidLoop(closed_loop_time=36000.0)}, "pid")  # asleep
    agent.start(0)
    hot = design.steady_state + np.array([0.0, 0.0, 9.0])  # of 10 K
    agent.step(0, hot)
    agent.actuated(design.physical_inputs(np.array([0.4])))  # and heats
    agent.step(1, hot)
    agent.set_mode("robust")
    decision = agent.step(2, hot)
    assert decision.mode in ("backup", "safe")  # the state has left the invariant box long ago
    assert agent.transfer.bump > 1.0 and decision.input < design.steady_input
    assert f"{agent.transfer.bump:.2g} %" in decision.report.reason


def test_a_wish_between_looking_and_deciding_waits_for_the_next_step(designs):
    design = designs["reactor1"]
    agent = LadderAgent(design, {}, "cooperative")
    agent.start(0)
    agent.look(0, design.steady_state)
    agent.set_mode("pid")
    assert agent.takes_part
    assert agent.step(0, design.steady_state).report.controller == "cooperative"
    assert agent.step(1, design.steady_state).report.controller == "pid"
    assert not agent.takes_part


def test_a_policys_target_counts_on_its_rung_alone(designs):
    design = designs["reactor1"]
    agent = LadderAgent(design, {}, "robust")
    agent.start(0)
    target = 0.5 * design.terminal[: design.nx]
    agent.set_target(target, design.model.K @ target)
    assert agent.design.x_ref == pytest.approx(design.x_ref)
    agent.set_mode("learned")
    agent.step(0, design.steady_state)
    assert agent.design.x_ref == pytest.approx(target)
    agent.set_mode("robust")
    agent.step(1, design.steady_state)
    assert agent.design.x_ref == pytest.approx(design.x_ref)
    with pytest.raises(DataError, match="outside the certified"):
        agent.set_target(10 * target, design.u_ref)


def test_every_pid_that_is_not_an_mpc_says_so():
    assert set(CONTROLLERS) - set(CERTIFIED) == {"pid", "pid_mpc"}


# -- the command and the study ----------------------------------------------------------------------------------------
def test_rmpc_mode_finds_the_run_that_is_alive(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    what = {"supervisor": os.getpid(), "base": "/p", "agents": ["a"], "environment": {"ROS_DOMAIN_ID": "7"}}
    for name, pid in (("old", os.getpid()), ("dead", 2**22 + 1)):
        folder = tmp_path / "runs" / name
        folder.mkdir(parents=True)
        (folder / mode_command.FILE).write_text(json.dumps(what | {"supervisor": pid}))
    with pytest.raises(ConfigError, match="no agent 'b'; there are a"):
        mode_command.change("b", "pid", None, None)
    with pytest.raises(ConfigError, match="has ended"):
        mode_command.change("a", "pid", tmp_path / "runs" / "dead", None)


def test_another_users_process_does_not_end_the_search_for_a_run(tmp_path, monkeypatch):
    """The number of a supervisor that has ended may be anybody's by now."""
    monkeypatch.chdir(tmp_path)
    what = {"base": "/p", "agents": ["a"], "environment": {}}
    for age, (name, pid) in enumerate((("foreign", 1), ("mine", os.getpid()))):
        folder = tmp_path / "runs" / name
        folder.mkdir(parents=True)
        (folder / mode_command.FILE).write_text(json.dumps(what | {"supervisor": pid}))
        os.utime(folder / mode_command.FILE, (1e9 - age, 1e9 - age))  # the foreign one is looked at first

    def kill(pid, signal):
        if pid == 1:
            raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "kill", kill)
    with pytest.raises(ConfigError, match="no agent 'b'; there are a"):
        mode_command.change("b", "pid", None, None)
    with pytest.raises(ConfigError, match="foreign has ended, or is another user's"):
        mode_command.change("a", "pid", tmp_path / "runs" / "foreign", None)


def test_paired_differences_have_the_sign_of_an_improvement():
    lower, upper = np.array([1.0, 2.0, 3.0]), np.array([0.9, 1.8, 2.95])
    step = paired(lower, upper)
    assert step["difference"] == pytest.approx(-0.35 / 3)
    assert step["interval"][0] < step["difference"] < step["interval"][1]
    assert step["better_on"] == 3
    assert confidence_interval(np.array([1.0])) == [-np.inf, np.inf]  # one seed shows nothing
    assert confidence_interval(np.array([2.0, 2.0])) == [2.0, 2.0]


def test_the_schedule_changes_every_agent_and_visits_every_pair():
    changes = schedule(["a", "b"], 600, 5, 0)
    at, seen = dict.fromkeys("ab", CONTROLLERS[0]), set()
    for k in sorted(changes):
        for agent, after in changes[k].items():
            assert after != at[agent]
            seen.add((at[agent], after))
            at[agent] = after
    assert len(seen) == 20


def test_ladder_study_on_a_small_case(tmp_path):
    words = {"seeds": 2, "first_seed": 50, "steps": 30, "transfer_steps": 130, "dwell": 6}
    result = STUDY.run(dict(STUDY.defaults) | words, tmp_path)
    assert list(result["modes"]) == list(CONTROLLERS)
    assert list(result["differences"]) == [
        *("pid to pid_mpc", "pid_mpc to robust", "robust to cooperative", "cooperative to learned"),
    ]
    for rung in CERTIFIED:
        row = result["modes"][rung]
        assert row["violations"]["total"] == 0 and row["promises_broken"] == 0
        assert row["mode_counts"]["uncertified"] == 0
    assert result["modes"]["robust"]["cost"]["mean"] < result["modes"]["pid"]["cost"]["mean"]
    shipped = result["transfers"]["shipped"]
    assert shipped["count"] == 3 * 21
    assert shipped["largest_bump"] < 1.0 and shipped["bumpless_share"] == 1.0
    assert (tmp_path / "ladder.png").stat().st_size > 10_000
    assert len(STUDY.table(result)) > 10


def test_an_agent_that_does_not_answer_in_time_is_an_error_in_one_line(monkeypatch):
    def hang(command, **options):
        raise subprocess.TimeoutExpired(command, options["timeout"])

    monkeypatch.setattr(subprocess, "run", hang)
    with pytest.raises(RmpcError, match="mode of reactor1: no answer within 60 s"):
        mode_command.change("reactor1", "", None, shipped_plant("reactor_separator"))
