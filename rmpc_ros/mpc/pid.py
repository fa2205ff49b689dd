"""The industrial PID controller.

    u = Kp (b r - y) + I + D,
    I+ = I + Ki Ts (r - y) + Ts/Tt (u_applied - u),
    D+ = a D + (1 - a) Kd/Ts ((c r - y)+ - (c r - y)),   a = Tf / (Tf + Ts)

Set-point weights b and c, a first-order filter on the derivative, back-calculation against wind-up (the integral
follows what the actuator really did within the tracking time Tt) and a start that continues the input in force
(bumpless). Where no limit acts its moves are exactly the linear law of `velocity_law`, which is what `pid_mpc`
reproduces. Source: Astrom and Hagglund, "Advanced PID control" (2006), chapters 3 and 13; learning.md, "PID and MPC".
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from rmpc_ros.errors import ConfigError, DataError

Vector = NDArray[np.float64]


@dataclass(frozen=True)
class PidSettings:
    """Numbers of one PID loop.

    Attributes
    ----------
    kp, ki, kd : gains of the parallel form, in input unit per output unit (ki per time, kd times time); of one sign
    period : sampling period Ts
    filter_time : Tf of the derivative filter
    setpoint_weight : b in [0, 1]
    derivative_weight : c in [0, 1]; 0 takes the derivative of the measurement only
    tracking_time : Tt; None takes sqrt(Ti Td) with derivative action, else Ti
    input_lower, input_upper : limits of u
    move_limit : largest change of u in one period
    """

    kp: float
    ki: float
    kd: float
    period: float
    filter_time: float = 0.0
    setpoint_weight: float = 1.0
    derivative_weight: float = 0.0
    tracking_time: float | None = None
    input_lower: float = -math.inf
    input_upper: float = math.inf
    move_limit: float = math.inf

    def __post_init__(self) -> None:
        gains = (self.kp, self.ki, self.kd)
        if not all(math.isfinite(g) for g in gains) or (min(gains) < 0 < max(gains)):
            raise ConfigError(f"PID gains (kp, ki, kd) = {gains}: give finite numbers of one sign")
        if not self.period > 0:
            raise ConfigError(f"PID period = {self.period}: must be positive")
        if not self.filter_time >= 0:
            raise ConfigError(f"PID filter_time = {self.filter_time}: must be 0 or more")
        if not (0 <= self.setpoint_weight <= 1 and 0 <= self.derivative_weight <= 1):
            raise ConfigError(
                f"PID set-point weights ({self.setpoint_weight}, {self.derivative_weight}): each must lie in [0, 1]"
            )
        if self.tracking_time is not None and not self.tracking_time >= self.period:
            raise ConfigError(f"PID tracking_time = {self.tracking_time}: must be at least the period {self.period}")
        if not self.input_lower < self.input_upper:
            raise ConfigError(f"PID input limits [{self.input_lower}, {self.input_upper}]: lower must be below upper")
        if not self.move_limit > 0:
            raise ConfigError(f"PID move_limit = {self.move_limit}: must be positive")

    @property
    def filter_pole(self) -> float:
        """Pole of the derivative filter, a = Tf / (Tf + Ts)."""
        return self.filter_time / (self.filter_time + self.period)

    @property
    def tracking(self) -> float:
        """Tracking time in force, at least one period."""
        if self.tracking_time is not None:
            return self.tracking_time
        if self.ki == 0.0:
            return self.period
        integral = self.kp / self.ki
        derivative = self.kd / self.kp if self.kp else 0.0
        return max(math.sqrt(integral * derivative) if derivative else integral, self.period)


@dataclass(frozen=True)
class PidState:
    """What the loop remembers: integral I, derivative D, last measurement, set-point and applied input."""

    integral: float
    derivative: float
    measurement: float
    setpoint: float
    applied: float


def start(settings: PidSettings, setpoint: float, measurement: float, applied: float) -> PidState:
    """State from which the next input continues `applied` without a bump."""
    _finite(setpoint=setpoint, measurement=measurement, applied=applied)
    integral = applied - settings.kp * (settings.setpoint_weight * setpoint - measurement)
    return PidState(integral, 0.0, measurement, setpoint, applied)


def step(settings: PidSettings, state: PidState, setpoint: float, measurement: float) -> tuple[float, PidState]:
    """One period: the input to apply, within the limits, and the next state.

    Raises
    ------
    DataError
        A value is not finite: a controller must not integrate a missing measurement; skip the step instead.
    """
    _finite(setpoint=setpoint, measurement=measurement)
    s, a = settings, settings.filter_pole
    proportional = s.kp * (s.setpoint_weight * setpoint - measurement)
    integral = state.integral + s.ki * s.period * (setpoint - measurement)
    rise = s.derivative_weight * (setpoint - state.setpoint) - (measurement - state.measurement)
    derivative = a * state.derivative + (1 - a) * s.kd / s.period * rise
    wanted = proportional + integral + derivative
    applied = min(max(wanted, state.applied - s.move_limit), state.applied + s.move_limit)
    applied = min(max(applied, s.input_lower), s.input_upper)
    integral += settings.period / settings.tracking * (applied - wanted)
    return applied, PidState(integral, derivative, measurement, setpoint, applied)


def track(settings: PidSettings, state: PidState, applied: float) -> PidState:
    """Back-calculation after the fact: the actuator (or another mode) applied `applied`, not what `step` returned."""
    _finite(applied=applied)
    share = settings.period / settings.tracking
    return replace(state, integral=state.integral + share * (applied - state.applied), applied=applied)


def velocity_law(settings: PidSettings) -> Vector:
    """Row K of the law  du = -K (y_k - r_k, y_{k-1} - r_k, r_{k-1} - r_k, D_{k-1}),  (4,).

    The move of `step` while no limit acts. With c = 1, b = 1 and no filter it is the velocity form
    du = Kp (e_k - e_{k-1}) + Ki Ts e_k + Kd/Ts (e_k - 2 e_{k-1} + e_{k-2}).
    """
    s, a = settings, settings.filter_pole
    slope = (1 - a) * s.kd / s.period
    return np.array(
        [
            s.kp + s.ki * s.period + slope,
            -(s.kp + slope),
            s.setpoint_weight * s.kp + s.derivative_weight * slope,
            1.0 - a,
        ]
    )


def gains_from_law(law: Vector, settings: PidSettings) -> tuple[float, float, float]:
    """(kp, ki, kd) of a row of the form of `velocity_law`, given period, filter and set-point weights of `settings`.

    Raises
    ------
    ConfigError
        b = c: the row then fixes kp + kd / (Tf + Ts) only.
    """
    b, c = settings.setpoint_weight, settings.derivative_weight
    if b == c:
        raise ConfigError(f"set-point weights b = c = {b}: the law does not tell kp from kd")
    total = float(-law[1])
    kp = (float(law[2]) - c * total) / (b - c)
    return kp, float(law[0] + law[1]) / settings.period, (total - kp) * (settings.period + settings.filter_time)


def _finite(**values: float) -> None:
    for name, value in values.items():
        if not math.isfinite(value):
            raise DataError(f"PID {name} = {value}: must be finite")
