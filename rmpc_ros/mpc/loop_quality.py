"""How good a PID loop is: integrated absolute error, total variation of the input, peak of the sensitivity.

    IAE = Ts sum |r - y|,   TV = sum |u_k - u_{k-1}|,   Ms = max_omega 1 / |1 + G(z) C(z)|,  z = exp(i omega Ts)

for a unit step of the set-point and a unit step of load at the plant's input, computed exactly from the sampled loop.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import signal

from rmpc_ros.errors import ConfigError
from rmpc_ros.models.delayed import DelayProcess
from rmpc_ros.mpc.pid import PidSettings

Vector = NDArray[np.float64]


@dataclass(frozen=True)
class LoopQuality:
    """Figures of one loop; infinite where the loop is unstable.

    Attributes
    ----------
    iae_setpoint, iae_load : for unit steps
    tv_setpoint, tv_load : total variation of the input for the same steps
    ms : peak of the sensitivity function
    radius : largest closed-loop pole; below 1 is stable
    """

    iae_setpoint: float
    iae_load: float
    tv_setpoint: float
    tv_load: float
    ms: float
    radius: float

    @property
    def stable(self) -> bool:
        """All closed-loop poles lie inside the unit circle."""
        return self.radius < 1.0


class LoopModel:
    """A sampled process, ready to be judged with many settings.

    Parameters
    ----------
    process : the plant
    period : sampling period
    duration : how long the step responses are watched; default long enough for slow integral action
    points : frequencies of the sensitivity
    """

    def __init__(self, process: DelayProcess, period: float, duration: float | None = None, points: int = 500) -> None:
        self.process, self.period = process, period
        self.plant = process.sampled(period)
        span = 12 * process.time_scale + 40 * process.delay if duration is None else duration
        self.steps = max(round(span / period), 50)
        low = 0.02 / (process.time_scale + process.delay)
        omega = np.geomspace(low, np.pi / period, points)
        self._back = np.exp(-1j * omega * period)
        self._response = self.plant.response(omega)

    def judge(self, settings: PidSettings) -> LoopQuality:
        """All figures for one set of gains.

        Raises
        ------
        ConfigError
            The settings have another period.
        """
        if not np.isclose(settings.period, self.period):
            raise ConfigError(f"the PID has period {settings.period}, the loop {self.period}: must be equal")
        feedback, forward, below = controller_polynomials(settings)
        top, bottom = self.plant.numerator, self.plant.denominator
        closed = _add(np.convolve(bottom, below), np.convolve(top, feedback))
        radius = float(np.max(np.abs(np.roots(closed)), initial=0.0))
        if radius >= 1.0:
            return LoopQuality(np.inf, np.inf, np.inf, np.inf, np.inf, radius)
        ms = float(self.sensitivity_peaks(settings, np.ones(1))[0])
        step = np.ones(self.steps)
        y_set = signal.lfilter(np.convolve(top, forward), closed, step)
        u_set = signal.lfilter(np.convolve(bottom, forward), closed, step)
        y_load = signal.lfilter(np.convolve(top, below), closed, step)
        u_load = signal.lfilter(-np.convolve(top, feedback), closed, step)
        return LoopQuality(
            float(self.period * np.sum(np.abs(1.0 - y_set))),
            float(self.period * np.sum(np.abs(y_load))),
            float(np.sum(np.abs(np.diff(u_set, prepend=0.0)))),
            float(np.sum(np.abs(np.diff(u_load, prepend=0.0)))),
            ms,
            radius,
        )

    def sensitivity_peaks(self, settings: PidSettings, factors: Vector) -> Vector:
        """Ms for the gains of `settings` times each of `factors`, (m,); says nothing about stability."""
        feedback, _, below = controller_polynomials(settings)
        polyval = np.polynomial.polynomial.polyval
        loop = self._response * polyval(self._back, feedback) / polyval(self._back, below)
        peaks: Vector = np.max(1.0 / np.abs(1.0 + np.outer(factors, loop)), axis=1)
        return peaks


def controller_polynomials(settings: PidSettings) -> tuple[Vector, Vector, Vector]:
    """U = (forward r - feedback y) / below, each in powers of 1/z."""
    s, a = settings, settings.filter_pole
    pole, delta = np.array([1.0, -a]), np.array([1.0, -1.0])
    slope = (1 - a) * s.kd / s.period
    curve = slope * np.convolve(delta, delta)
    first = s.kp * np.convolve(delta, pole)
    integral = s.ki * s.period * pole
    feedback = _add(_add(first, integral), curve)
    forward = _add(_add(s.setpoint_weight * first, integral), s.derivative_weight * curve)
    return feedback, forward, np.convolve(delta, pole)


def _add(one: Vector, two: Vector) -> Vector:
    out = np.zeros(max(one.size, two.size))
    out[: one.size] += one
    out[: two.size] += two
    return out
