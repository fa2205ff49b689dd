"""What a decision tells others: the promise for the neighbours, and the plan for the actuator side.

Bounds are (N+1, nx+nu), normalised: states at steps k .. k+N, then deviations from the backup law at k .. k+N-1 (the
last row of these is the authority).
"""

from __future__ import annotations

import numpy as np

from rmpc_ros.mpc.backup import BackupPlan, memory_as_state_feedback
from rmpc_ros.mpc.local import LocalPlan, Matrix, Vector
from rmpc_ros.network.agent_design import AgentDesign
from rmpc_ros.network.commitment import TOLERANCE
from rmpc_ros.network.forecast import ForecastSet


def promise_of(design: AgentDesign, step: int, x: Vector, lower: Matrix, upper: Matrix, epoch: int) -> ForecastSet:
    """Promise of these bounds, with the normalised state (nx,) as its first row."""
    lower, upper = lower.copy(), upper.copy()
    lower[0, : design.nx] = upper[0, : design.nx] = x
    return design.forecast(step, lower, upper, epoch)


def narrowed(design: AgentDesign, plan: LocalPlan, lower: Matrix, upper: Matrix) -> tuple[Matrix, Matrix]:
    """Bounds around a plan's tube and the design's margin, cut to the bounds that were promised."""
    nx, room = design.nx, design.margin * design.terminal
    low, high = plan.reach()
    new_lower, new_upper = lower.copy(), upper.copy()
    new_lower[1:, :nx] = np.maximum(lower[1:, :nx], low[:, :nx] - room[:nx])
    new_upper[1:, :nx] = np.minimum(upper[1:, :nx], high[:, :nx] + room[:nx])
    new_lower[:-1, nx:] = np.maximum(lower[:-1, nx:], low[:, nx:] - room[nx:])
    new_upper[:-1, nx:] = np.minimum(upper[:-1, nx:], high[:, nx:] + room[nx:])
    return new_lower, new_upper


def widened(design: AgentDesign, plan: LocalPlan, lower: Matrix, upper: Matrix) -> tuple[Matrix, Matrix]:
    """The bounds that were promised, with a plan's tube: what is true counts, not what was wanted."""
    nx = design.nx
    low, high = plan.reach()
    new_lower, new_upper = lower.copy(), upper.copy()
    new_lower[1:, :nx] = np.minimum(low[:, :nx], lower[1:, :nx])
    new_upper[1:, :nx] = np.maximum(high[:, :nx], upper[1:, :nx])
    new_lower[:-1, nx:] = np.minimum(low[:, nx:], lower[:-1, nx:])
    new_upper[:-1, nx:] = np.maximum(high[:, nx:], upper[:-1, nx:])
    return new_lower, new_upper


def exceeds(design: AgentDesign, plan: LocalPlan, lower: Matrix, upper: Matrix) -> bool:
    """Whether a plan's tube leaves bounds on its states 1..N or its deviations 0..N-1."""
    nx, room = design.nx, TOLERANCE * design.terminal
    low, high = plan.reach()
    below = np.hstack([lower[1:, :nx], lower[:-1, nx:]]) - low
    above = high - np.hstack([upper[1:, :nx], upper[:-1, nx:]])
    return bool(np.any(below > room) or np.any(above > room))


def backup_plan(design: AgentDesign, step: int, state: Vector, plan: LocalPlan) -> BackupPlan:
    """A plan as feedback on the measured state (nx,), in physical units."""
    memory = np.zeros((0, 0, design.nu, design.nx))
    if plan.M.shape[0]:
        memory = memory_as_state_feedback(plan.M, design.model.A, design.model.B)
    nominal = plan.v + plan.x[:-1] @ design.model.K.T
    states = design.physical_states(plan.x)
    states[0] = state
    return BackupPlan(
        step,
        design.physical_inputs(nominal),
        states,
        design.physical_gain(design.model.K),
        design.physical_gain(memory),
        design.steady_state,
        design.steady_input,
        design.input_lower,
        design.input_upper,
    )


def law_for_ever(design: AgentDesign, step: int, state: Vector) -> BackupPlan:
    """The backup law without a plan, which keeps the invariant box."""
    return BackupPlan(
        step,
        np.zeros((0, design.nu)),
        state[None],
        design.physical_gain(design.model.K),
        np.zeros((0, 0, design.nu, design.nx)),
        design.steady_state,
        design.steady_input,
        design.input_lower,
        design.input_upper,
    )
