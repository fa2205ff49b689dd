"""What one control step brings: the input, the new promise, the plan for the actuator side, and a report."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

from rmpc_ros.config.sections import Mode as Controller
from rmpc_ros.mpc.backup import BackupPlan
from rmpc_ros.mpc.local import Matrix, Vector
from rmpc_ros.network.forecast import ForecastSet

Mode = Literal["optimal", "certified", "backup", "safe", "uncertified"]
MODES: tuple[Mode, ...] = get_args(Mode)
CONTROLLERS: tuple[Controller, ...] = get_args(Controller)
"""Rungs of the ladder, from the operator's PID up; see `rmpc_ros.network.ladder`."""


@dataclass(frozen=True)
class StepReport:
    """What a step tells the world.

    Attributes
    ----------
    mode : see `rmpc_ros.network.agent`; "uncertified" where a PID or PID-MPC decided (`rmpc_ros.network.ladder`)
    solver_status : "optimal", or the solver's own word
    solve_ms, step_ms : wall time of the solver and of the whole step
    cost : stage cost at the measured state and chosen input, normalised
    margins : per limited quantity, distance to the nearer limit over half the range (1 centre, 0 at it, < 0 violated)
    promise_width : (N, nx) promised half-width of each coordinate over the distance to its limit, t = 1..N
    promise_kept : the measured state lies in the promise made before; None: nothing was measured, so it is not known
    reason : why the mode is not optimal; empty when it is
    controller : who decided, a rung of the ladder
    """

    mode: Mode
    solver_status: str
    solve_ms: float
    step_ms: float
    cost: float
    margins: dict[str, float]
    promise_width: Matrix
    promise_kept: bool | None
    reason: str
    controller: Controller = "robust"

    @property
    def promise_broken(self) -> bool:
        """Whether the measured state lies outside; without a measurement nobody can tell, and no step is counted."""
        return self.promise_kept is False


def kept_word(said: bool, cost: float) -> bool | None:
    """`StepReport.promise_kept` of a message, which has two words for it: without a measurement there is no cost."""
    return None if math.isnan(cost) else said


@dataclass(frozen=True)
class Decision:
    """Result of a step: input (nu,) for the actuators, promise for the neighbours, plan for the actuator side."""

    step: int
    mode: Mode
    input: Vector
    forecast: ForecastSet
    plan: BackupPlan
    report: StepReport
