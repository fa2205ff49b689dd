"""Single loops in closed form: a PID or a PID-MPC from a measurement to an input, with the same three calls.

`start` continues the input in force without a bump, `step` gives the next input, `track` says what was really applied.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from scipy import linalg

from rmpc_ros.models.delayed import SampledProcess
from rmpc_ros.mpc import pid
from rmpc_ros.mpc.pid import PidSettings
from rmpc_ros.mpc.pid_mpc import OutputLimits, PidMpc, PidMpcMove, StageCost, augment, pid_cost

Vector = NDArray[np.float64]


class Loop(Protocol):
    """What a node needs from a single loop."""

    def start(self, setpoint: float, measurement: float, applied: float) -> None:
        """Take over from whatever applied `applied`."""

    def step(self, setpoint: float, measurement: float) -> float:
        """Input for this period."""
        ...

    def track(self, applied: float) -> None:
        """Note what the actuator did instead of what `step` returned."""


class PidLoop:
    """`pid.step` with its state."""

    def __init__(self, settings: PidSettings) -> None:
        self.settings = settings
        self.state = pid.start(settings, 0.0, 0.0, 0.0)

    def start(self, setpoint: float, measurement: float, applied: float) -> None:
        """Continue the input `applied`."""
        self.state = pid.start(self.settings, setpoint, measurement, applied)

    def step(self, setpoint: float, measurement: float) -> float:
        """Input for this period, within its limits."""
        value, self.state = pid.step(self.settings, self.state, setpoint, measurement)
        return value

    def track(self, applied: float) -> None:
        """Back-calculate from what was applied."""
        self.state = pid.track(self.settings, self.state, applied)


class PidMpcLoop:
    """`PidMpc` with an observer of the plant's increments and the PID's memory.

    Parameters
    ----------
    process : sampled plant
    settings : PID gains and input limits
    limits : output limits
    horizon : moves
    cost : stage cost, default `pid_cost`
    noise : standard deviation of the measurement over that of a load step's effect per period; larger is slower
    """

    def __init__(
        self,
        process: SampledProcess,
        settings: PidSettings,
        limits: OutputLimits,
        horizon: int,
        cost: StageCost | None = None,
        noise: float = 0.1,
    ) -> None:
        self.process, self.settings = process, settings
        self.system = augment(process, settings)
        self.problem = PidMpc(self.system, cost or pid_cost(self.system), settings, limits, horizon)
        self._gain = observer_gain(process, noise)
        self.last: PidMpcMove | None = None
        self.start(0.0, 0.0, 0.0)

    def start(self, setpoint: float, measurement: float, applied: float) -> None:
        """Continue `applied` from rest: no increments are known yet."""
        n = self.process.A.shape[0]
        self._increments = np.zeros(n)
        self._predicted = measurement
        self._measured, self._setpoint, self._derivative, self._applied = measurement, setpoint, 0.0, applied

    def step(self, setpoint: float, measurement: float) -> float:
        """Input for this period."""
        increments = self._increments + self._gain * (measurement - self._predicted)
        before = np.array(
            [
                measurement - setpoint,
                self._measured - setpoint,
                self._setpoint - setpoint,
                self._derivative,
            ]
        )
        xi = np.concatenate([increments, before])
        self.last = self.problem.move(xi, self._applied, setpoint)
        self._derivative = float(self.system.F[-1] @ xi)
        self._measured, self._setpoint = measurement, setpoint
        self._corrected = increments
        self._before = self._applied
        self._predict(self._applied + self.last.du)
        return self._applied

    def track(self, applied: float) -> None:
        """Predict again with what was applied."""
        self._predict(applied)

    def _predict(self, applied: float) -> None:
        self._increments = self.process.A @ self._corrected + self.process.B[:, 0] * (applied - self._before)
        self._predicted = self._measured + float(self.process.C[0] @ self._increments)
        self._applied = applied


def observer_gain(process: SampledProcess, noise: float) -> Vector:
    """Kalman gain of the increments for loads at the plant's input and measurement noise, (n,).

    State (x_k - x_{k-1}, y_k), where a load enters as the input does, at every place of the delay line's end.
    """
    n = process.A.shape[0]
    F = np.zeros((n + 1, n + 1))
    F[:n, :n], F[n, :n], F[n, n] = process.A, (process.C @ process.A)[0], 1.0
    entry = np.concatenate([process.B[:, 0], process.C @ process.B[:, 0]])
    covariance = np.zeros((n + 1, n + 1))
    for _ in range(n):  # a load may enter anywhere along the delay
        covariance += np.outer(entry, entry)
        entry = F @ entry
    covariance = covariance / np.max(np.abs(covariance)) + 1e-9 * np.eye(n + 1)
    H = np.zeros((1, n + 1))
    H[0, n] = 1.0
    R = np.array([[noise**2]])
    prior = linalg.solve_discrete_are(F.T, H.T, covariance, R)
    gain = prior @ H.T / (H @ prior @ H.T + R)
    return np.asarray(gain[:n, 0])
