"""The actuator never gets a wrong value: commands inside limits, the plan while the agent is silent."""

from __future__ import annotations

import numpy as np

from rmpc_ros.mpc.backup import BackupPlan
from rmpc_ros.nodes.actuator import ActuatorSide
from rmpc_ros.nodes.convert import Command

LOW, HIGH, SAFE = np.array([-1.0]), np.array([1.0]), np.array([0.25])


def plan(step: int, gain: float = -0.5, memory: bool = False) -> BackupPlan:
    N = 3
    L = np.zeros((N, N, 1, 1))
    if memory:
        L[2, 0] = 10.0
    return BackupPlan(
        step=step,
        nominal_inputs=np.full((N, 1), 0.1),
        nominal_states=np.zeros((N + 1, 1)),
        gain=np.array([[gain]]),
        memory_gain=L if memory else np.zeros((0, 0, 1, 1)),
        terminal_state=np.array([0.5]),
        terminal_input=np.array([0.2]),
        input_lower=LOW,
        input_upper=HIGH,
    )


def command(step: int, value: float, **more: bool) -> Command:
    return Command("a", step, "optimal", np.array([value]), plan(step, **more))


def test_before_any_command_the_safe_input_is_applied() -> None:
    side = ActuatorSide(LOW, HIGH, SAFE)
    assert side.input(0, np.array([0.0])) == (SAFE, "safe")


def test_a_command_drives_its_own_step_only_then_the_plan() -> None:
    side = ActuatorSide(LOW, HIGH, SAFE)
    side.command(command(4, 0.7))
    assert side.heard(4)
    u, source = side.input(4, np.array([0.0]))
    assert (u[0], source) == (0.7, "agent")
    u, source = side.input(5, np.array([0.4]))
    assert source == "plan"
    assert np.isclose(u[0], 0.1 - 0.5 * 0.4)
    u, _ = side.input(100, np.array([0.7]))
    assert np.isclose(u[0], 0.2 - 0.5 * (0.7 - 0.5))


def test_values_outside_the_actuators_limits_are_cut_and_counted() -> None:
    side = ActuatorSide(np.array([-0.3]), np.array([0.3]), SAFE)
    side.command(command(0, 0.9))
    assert side.input(0, np.array([0.0]))[0] == 0.3
    assert side.cut == 1


def test_an_older_command_does_not_replace_a_newer_one() -> None:
    side = ActuatorSide(LOW, HIGH, SAFE)
    side.command(command(5, 0.5))
    side.command(command(4, -0.5))
    assert side.input(5, np.array([0.0]))[0] == 0.5


def test_a_plan_with_memory_has_seen_the_steps_its_agent_commanded() -> None:
    side = ActuatorSide(LOW, HIGH, SAFE)
    side.command(command(0, 0.0, memory=True))
    side.input(0, np.array([0.01]))
    side.input(1, np.array([0.0]))
    u, _ = side.input(2, np.array([0.0]))
    assert np.isclose(u[0], 0.1 + 10.0 * 0.01)


def test_without_agent_and_without_measurement_the_nominal_plan_goes_on() -> None:
    side = ActuatorSide(LOW, HIGH, SAFE)
    side.command(command(0, 0.0))
    assert side.input(1, np.array([np.nan])) == (np.array([0.1]), "nominal")
    assert side.input(50, np.array([np.nan])) == (np.array([0.2]), "nominal")


def test_wired_values_drive_the_step_they_came_in_where_nobody_commands() -> None:
    side = ActuatorSide(LOW, HIGH, SAFE)
    side.wired(3, np.array([0.6]))
    assert side.input(3, np.array([0.0])) == (np.array([0.6]), "agent")
    assert side.input(4, np.array([0.0]))[1] == "safe"


def test_a_wired_value_without_the_command_of_its_step_may_be_late_and_does_not_drive() -> None:
    side = ActuatorSide(LOW, HIGH, SAFE)
    side.command(command(0, 0.0))
    side.wired(3, np.array([0.6]))
    assert side.input(3, np.array([0.0]))[1] == "plan"


def test_a_second_command_of_a_step_brings_its_own_plan() -> None:
    side = ActuatorSide(LOW, HIGH, SAFE)
    side.command(command(2, 0.3, gain=-0.5))
    side.command(command(2, 0.4, gain=-0.1))  # the agent came back within the step and planned anew
    assert side.input(2, np.array([0.0])) == (0.4, "agent")
    assert side.input(3, np.array([1.0])) == (0.1 - 0.1, "plan")
