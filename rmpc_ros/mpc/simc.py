"""Tuning rules that need a simple model or one experiment: the baselines of the auto-tuner.

    SIMC:   Kc = tau1 / (k (tauc + theta)),  tauI = min(tau1, 4 (tauc + theta)),  tauD = tau2   (series form)
    relay:  Ku = 4 d / (pi sqrt(a^2 - h^2)) from the limit cycle of amplitude a and period Pu under a relay +-d,
    hysteresis h

Sources: Skogestad, J. Process Control 13 (2003) 291-309 (SIMC, half rule); Astrom and Hagglund 1984 (relay);
Tyreus and Luyben 1992 (settings from Ku, Pu).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from rmpc_ros.errors import DataError
from rmpc_ros.models.delayed import DelayProcess
from rmpc_ros.mpc.pid import PidSettings

FILTER_SHARE = 0.1  # derivative filter as a share of the derivative time


def parallel(
    gain: float, integral_time: float, derivative_time: float, period: float, series: bool = False
) -> PidSettings:
    """Settings from Kc, tauI, tauD of the ideal (or series) form, with the derivative filter tauD/10."""
    factor = 1.0 + derivative_time / integral_time if series else 1.0
    kp, ti, td = gain * factor, integral_time * factor, derivative_time / factor
    return PidSettings(kp, kp / ti, kp * td, period, filter_time=FILTER_SHARE * td)


def half_rule(process: DelayProcess, order: int) -> DelayProcess:
    """Reduce to `order` lags: the largest neglected lag is shared between delay and the smallest kept lag.

    A negative lead counts as delay; a positive one is refused (Skogestad's rules T1 to T3 are not implemented).
    """
    if process.lead > 0:
        raise DataError(f"lead time {process.lead}: SIMC's half rule is implemented for 0 or negative ones")
    lags = sorted(process.lags, reverse=True)
    delay = process.delay - process.lead
    if len(lags) > order:
        share = lags[order] / 2
        delay += share + sum(lags[order + 1 :])
        if order:
            lags[order - 1] += share
        else:
            delay += share
        lags = lags[:order]
    return DelayProcess(process.gain, tuple(lags), delay, integrating=process.integrating)


def simc(
    process: DelayProcess, period: float, closed_loop_time: float | None = None, derivative: bool | None = None
) -> PidSettings:
    """SIMC settings; tauc = theta unless given, half a period added to the dead time for the hold.

    Parameters
    ----------
    derivative : use the second lag for derivative action; default where the process has one
    """
    lags = len(process.lags) + int(process.integrating)
    use = lags >= 2 if derivative is None else derivative
    model = half_rule(process, (2 if use else 1) - int(process.integrating))
    theta = model.delay + period / 2
    tauc = theta if closed_loop_time is None else closed_loop_time
    slow = 4 * (tauc + theta)
    if model.integrating:
        second = model.lags[0] if use and model.lags else 0.0
        return parallel(1.0 / (model.gain * (tauc + theta)), slow, second, period, series=True)
    second = model.lags[1] if use and len(model.lags) > 1 else 0.0
    return parallel(
        model.lags[0] / (model.gain * (tauc + theta)), min(model.lags[0], slow), second, period, series=True
    )


@dataclass(frozen=True)
class LimitCycle:
    """Outcome of a relay experiment: ultimate gain and period."""

    ultimate_gain: float
    ultimate_period: float


def relay_experiment(
    process: DelayProcess,
    period: float,
    amplitude: float = 1.0,
    hysteresis: float = 0.0,
    noise: float = 0.0,
    seed: int = 0,
    cycles: int = 12,
) -> LimitCycle:
    """Simulate a relay in the loop until its limit cycle has settled.

    Raises
    ------
    DataError
        No steady limit cycle appears (the process has too little phase lag, or noise beats the hysteresis).
    """
    plant = process.sampled(period)
    rng = np.random.default_rng(seed)
    x = np.zeros(plant.A.shape[0])
    sign = float(np.sign(process.gain))
    level, switches, peaks = amplitude, [], []
    high = low = 0.0
    limit = int(60 * cycles * (process.time_scale + process.delay) / period) + 100
    for k in range(limit):
        y = float((plant.C @ x)[0])
        seen = y + noise * rng.normal()
        high, low = max(high, y), min(low, y)
        if (level > 0 and seen > hysteresis) or (level < 0 and seen < -hysteresis):
            level = -level
            if level < 0:
                switches.append(k)
                peaks.append((high - low) / 2)
                high, low = y, y
            if len(switches) > cycles:
                break
        x = plant.A @ x + plant.B[:, 0] * sign * level
    spans = np.diff(switches[-4:])
    if len(switches) <= cycles or np.ptp(spans) > 0.1 * np.mean(spans) + 2 or np.mean(spans) < 4:
        raise DataError(
            f"relay experiment: no steady limit cycle in {limit} samples ({len(switches)} switches, "
            f"hysteresis {hysteresis}, noise {noise})"
        )
    swing = float(np.mean(peaks[-3:]))
    if swing <= hysteresis:
        raise DataError(f"relay experiment: the swing {swing:.3g} is not larger than the hysteresis {hysteresis:.3g}")
    gain = 4 * amplitude / (np.pi * np.sqrt(swing**2 - hysteresis**2))
    return LimitCycle(sign * float(gain), float(np.mean(spans)) * period)


def tyreus_luyben(cycle: LimitCycle, period: float) -> PidSettings:
    """PID settings Kc = Ku/2.2, tauI = 2.2 Pu, tauD = Pu/6.3."""
    ku, pu = cycle.ultimate_gain, cycle.ultimate_period
    return parallel(ku / 2.2, 2.2 * pu, pu / 6.3, period)
