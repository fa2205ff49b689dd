"""The single loops of one agent side by side: a PID, or a PID written as an MPC, for each of its inputs.

Loop j reads the state y_j = x[state_j] and moves the input u_j; the loops know nothing of each other. All states are
measured, so the PID-MPC needs no observer: the increments x_k - x_{k-1} of its problem (`pid_mpc`) are differences of
measurements. States, inputs and gains are normalised deviations, 1 is the distance to the nearer limit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from rmpc_ros.errors import SolverError
from rmpc_ros.models.delayed import SampledProcess
from rmpc_ros.mpc.pid import PidSettings, velocity_law
from rmpc_ros.mpc.pid_loop import PidLoop
from rmpc_ros.mpc.pid_mpc import OutputLimits, PidMpc, PidSystem, StageCost, augment, blend, pid_cost, tracking_cost

Vector = NDArray[np.float64]
Matrix = NDArray[np.float64]


@dataclass(frozen=True)
class LoopDesign:
    """One loop, normalised.

    Attributes
    ----------
    input, state : indices of what it moves and of what it reads
    settings : gains and limits of the input
    process : x+ = A x + B u of all the agent's states, C selects the one that is read
    limits : of the state that is read
    horizon : moves of the PID-MPC
    blend : alpha of the PID-MPC's cost; below 1 it also tracks, with weights 1 on y - r and `move_weight` on moves
    """

    input: int
    state: int
    settings: PidSettings
    process: SampledProcess
    limits: OutputLimits
    horizon: int
    blend: float = 1.0
    move_weight: float = 0.1


class Bank(Protocol):
    """What the ladder needs of an agent's loops."""

    trouble: str

    def start(self, setpoint: Vector, x: Vector, applied: Vector) -> None:
        """Take over from whatever applied `applied` (nu,), at states x (nx,)."""

    def step(self, setpoint: Vector, x: Vector) -> Vector:
        """Inputs (nu,) for this period; setpoint (nx,) of all states, only those that are read count."""
        ...

    def track(self, applied: Vector) -> None:
        """Note what the actuators did instead of what `step` returned."""


class PidBank:
    """Industrial PIDs."""

    def __init__(self, designs: Sequence[LoopDesign]) -> None:
        self.designs = tuple(designs)
        self._loops = [PidLoop(design.settings) for design in designs]
        self.trouble = ""

    def start(self, setpoint: Vector, x: Vector, applied: Vector) -> None:
        """Continue `applied` (nu,)."""
        for design, loop in zip(self.designs, self._loops, strict=True):
            loop.start(setpoint[design.state], x[design.state], applied[design.input])

    def step(self, setpoint: Vector, x: Vector) -> Vector:
        """Inputs (nu,), within their limits."""
        u = np.zeros(len(self._loops))
        for design, loop in zip(self.designs, self._loops, strict=True):
            u[design.input] = loop.step(setpoint[design.state], x[design.state])
        return u

    def track(self, applied: Vector) -> None:
        """Back-calculate from what was applied."""
        for design, loop in zip(self.designs, self._loops, strict=True):
            loop.track(applied[design.input])


class PidMpcBank:
    """PIDs that see limits.

    Attributes
    ----------
    trouble : why the last step was not optimal; the PID's own move, cut at the input's limits, was taken then
    """

    def __init__(self, designs: Sequence[LoopDesign]) -> None:
        self.designs = tuple(designs)
        self._problems = [_problem(design) for design in designs]
        self.trouble = ""

    def start(self, setpoint: Vector, x: Vector, applied: Vector) -> None:
        """Continue `applied` from rest: no increments are known yet."""
        self._x, self._applied, self._setpoint = x.copy(), applied.copy(), setpoint.copy()
        self._derivative = np.zeros(len(self.designs))

    def step(self, setpoint: Vector, x: Vector) -> Vector:
        """Inputs (nu,), within their limits."""
        u = self._applied.copy()
        troubles = []
        for j, (design, problem) in enumerate(zip(self.designs, self._problems, strict=True)):
            s = design.state
            r, y = setpoint[s], x[s]
            memory = [y - r, self._x[s] - r, self._setpoint[s] - r, self._derivative[j]]
            xi = np.concatenate([x - self._x, memory])
            before = self._applied[design.input]
            try:
                move = problem.move(xi, before, r, x).du
            except SolverError as error:
                move = float(-(problem.system.K @ xi)[0])
                troubles.append(f"input {design.input}: {error} ({error.status}); the PID's own move")
            limits = design.settings
            u[design.input] = min(max(before + move, limits.input_lower), limits.input_upper)
            self._derivative[j] = float(problem.system.F[-1] @ xi)
        self._x, self._applied, self._setpoint = x.copy(), u.copy(), setpoint.copy()
        self.trouble = "; ".join(troubles)
        return u

    def track(self, applied: Vector) -> None:
        """Moves start from what was applied."""
        self._applied = applied.copy()


def _problem(design: LoopDesign) -> PidMpc:
    system = augment(design.process, design.settings)
    return PidMpc(system, _cost(system, design), design.settings, design.limits, design.horizon, design.process)


def _cost(system: PidSystem, design: LoopDesign) -> StageCost:
    if design.blend >= 1.0:
        return pid_cost(system)
    return blend(system, design.blend, tracking_cost(system, 1.0, design.move_weight))


def spectral_radius(A: Matrix, B: Matrix, designs: Sequence[LoopDesign]) -> float:
    """Largest closed-loop pole of x+ = A x + B u with these loops and no limit active; below 1 is stable.

    Parameters
    ----------
    A (n, n), B (n, m) : in the units of the loops; one loop for each input
    """
    n, m = B.shape
    C = np.zeros((m, n))
    laws = np.zeros((m, 4))
    poles, slopes = np.zeros(m), np.zeros(m)
    for design in designs:
        j, s = design.input, design.settings
        C[j, design.state] = 1.0
        laws[j] = velocity_law(s)
        poles[j], slopes[j] = s.filter_pole, (1 - s.filter_pole) * s.kd / s.period
    # z = (x, u_{k-1}, y_{k-1}, D_{k-1}),  u = u_{k-1} - k0 y - k1 y_{k-1} - k3 D_{k-1}
    zero, one = np.zeros((m, m)), np.eye(m)
    u = np.hstack([-laws[:, :1] * C, one, np.diag(-laws[:, 1]), np.diag(-laws[:, 3])])
    y = np.hstack([C, zero, zero, zero])
    D = np.hstack([-slopes[:, None] * C, zero, np.diag(slopes), np.diag(poles)])
    x = np.hstack([A, np.zeros((n, 3 * m))]) + B @ u
    return float(np.max(np.abs(np.linalg.eigvals(np.vstack([x, u, y, D])))))
