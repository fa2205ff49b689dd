"""The actuator side of one agent: applies its commands, and its last plan while it is silent.

Holding the last input instead would drift far outside a promise within a few steps (math.md 3.2). Whatever is applied
is cut at the actuator's own limits, which the plant knows from its plant file and not from a message.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from rmpc_ros.mpc.backup import BackupPlan, PlanFollower
from rmpc_ros.nodes.convert import Command

Vector = NDArray[np.float64]
Source = Literal["agent", "plan", "nominal", "safe"]


class ActuatorSide:
    """What drives one agent's actuators, step by step.

    Parameters
    ----------
    lower, upper : (nu,) limits of the actuators
    safe : (nu,) applied while nothing has ever been commanded

    Attributes
    ----------
    cut : how many steps had to be cut at the limits
    commanded : whether the agent sends commands, late ones included: then nothing else drives, for a wired value does
        not say its step
    """

    def __init__(self, lower: Vector, upper: Vector, safe: Vector) -> None:
        self._lower, self._upper, self._safe = lower, upper, np.clip(safe, lower, upper)
        self._follower: PlanFollower | None = None
        self._command: Command | None = None
        self._wired: tuple[int, Vector] | None = None
        self.cut = 0
        self.commanded = False

    def command(self, command: Command) -> None:
        """Take a command (and its plan) over; an older one than the newest is ignored."""
        self.commanded = True
        if self._command is not None and command.step < self._command.step:
            return
        if self._follower is None or not _same_plan(command.plan, self._follower.plan):
            self._follower = PlanFollower(command.plan)
        self._command = command

    def wired(self, step: int, values: Vector) -> None:
        """Values that came on the actuator topics during a step: they drive as they are where nobody commands."""
        self._wired = (step, values)

    def heard(self, step: int) -> bool:
        """Whether the agent has commanded this step."""
        return self._command is not None and self._command.step == step

    def input(self, step: int, measured: Vector) -> tuple[Vector, Source]:
        """Input (nu,) to apply during a step, and who it comes from."""
        values, source = self._choose(step, measured)
        inside = np.clip(values, self._lower, self._upper)
        if not np.array_equal(inside, values):
            self.cut += 1
        return inside, source

    def _choose(self, step: int, measured: Vector) -> tuple[Vector, Source]:
        seen = bool(np.all(np.isfinite(measured)))
        # A plan with memory wants every measurement of its horizon, also those of steps that its agent commanded.
        planned = self._follower.input(step, measured) if self._follower is not None and seen else None
        if self._command is not None and self._command.step == step:
            return self._command.input, "agent"
        if not self.commanded and self._wired is not None and self._wired[0] == step:
            return self._wired[1], "agent"
        if self._follower is None:
            return self._safe, "safe"
        if planned is not None:
            return planned, "plan"
        plan = self._follower.plan
        t = step - plan.step
        return (plan.nominal_inputs[t] if t < plan.horizon else plan.terminal_input), "nominal"


def _same_plan(one: BackupPlan, other: BackupPlan) -> bool:
    """Whether a repeated command repeats its plan too: an agent that comes back within a step may send another."""
    return one.step == other.step and all(
        np.array_equal(getattr(one, name), getattr(other, name))
        for name in ("nominal_inputs", "nominal_states", "gain", "memory_gain", "terminal_state", "terminal_input")
    )
