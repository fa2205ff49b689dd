"""PID gains that learn from an MPC, then from the loop itself.

1. Start:  (kp, ki, kd) = argmin_{>= 0} sum_k w_k (du_k - kp (e_k - e_{k-1}) - ki Ts e_k + kd/Ts (y_k - 2 y_{k-1} +
y_{k-2}))^2
   over logged closed-loop moves of an MPC, recursive with forgetting, only with enough excitation.
2. Refine:  min  mean over an ensemble of plants of the integrated errors  s.t.  Ms of the nominal loop <= its limit
and every
   member stable with the wider limit.
The start alone imitates the MPC badly (a PID has less memory); the refinement is what makes it good (learning.md).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import optimize

from rmpc_ros.errors import ConfigError, DataError
from rmpc_ros.mpc.loop_quality import LoopModel, LoopQuality
from rmpc_ros.mpc.pid import PidSettings
from rmpc_ros.mpc.simc import FILTER_SHARE

Vector = NDArray[np.float64]


class MoveRegression:
    """Recursive non-negative least squares on an MPC's moves.

    Keeps the weighted normal equations  H <- lam H + phi phi',  h <- lam h + phi du  and solves them when asked.

    Parameters
    ----------
    period : sampling period
    forgetting : lam in (0, 1]
    sign : +1 or -1, the sign of the plant's gain
    filter_time : both sides pass a first-order filter; noise in the differences would otherwise hide kp and kd
    """

    def __init__(self, period: float, forgetting: float = 1.0, sign: float = 1.0, filter_time: float = 0.0) -> None:
        if not 0.0 < forgetting <= 1.0:
            raise ConfigError(f"forgetting = {forgetting}: must lie in (0, 1]")
        self.period, self.forgetting, self.sign = period, forgetting, float(np.sign(sign))
        self._H, self._h, self._count = np.zeros((3, 3)), np.zeros(3), 0
        self._past: list[tuple[float, float]] = []
        self._pole = filter_time / (filter_time + period)
        self._filtered = np.zeros(4)

    def update(self, error: float, measurement: float, move: float) -> None:
        """One period: e_k = r - y, y_k and the move du_k that answered it."""
        if not np.all(np.isfinite([error, measurement, move])):
            raise DataError(f"log row (error {error}, measurement {measurement}, move {move}) holds no finite numbers")
        if len(self._past) == 2:
            (e1, y1), (_, y2) = self._past[1], self._past[0]
            curve = (measurement - 2 * y1 + y2) / self.period
            row = np.array([error - e1, self.period * error, -curve, self.sign * move])
            self._filtered = self._pole * self._filtered + (1 - self._pole) * row
            phi = self._filtered[:3]
            self._H = self.forgetting * self._H + np.outer(phi, phi)
            self._h = self.forgetting * self._h + phi * self._filtered[3]
            self._count += 1
            self._past.pop(0)
        self._past.append((error, measurement))

    def excitation(self) -> float:
        """Smallest eigenvalue of the correlation matrix of the regressors: 1 is best, 0 tells nothing."""
        scale = np.sqrt(np.diag(self._H))
        if np.any(scale < 1e-12):
            return 0.0
        return float(np.linalg.eigvalsh(self._H / np.outer(scale, scale))[0])

    def solve(self, least_excitation: float = 1e-4, least_samples: int = 50) -> tuple[float, float, float]:
        """(kp, ki, kd) with the plant's sign.

        Raises
        ------
        DataError
            Too few samples or too little excitation.
        """
        if self._count < least_samples:
            raise DataError(f"{self._count} logged moves: at least {least_samples} are needed to fit a PID")
        found = self.excitation()
        if found < least_excitation:
            raise DataError(
                f"excitation {found:.1e} is below {least_excitation:.0e}: the log must hold set-point or load changes"
            )
        scale = np.sqrt(np.diag(self._H))
        root = np.linalg.cholesky(self._H / np.outer(scale, scale) + 1e-12 * np.eye(3)).T
        gains, _ = optimize.nnls(root, np.linalg.solve(root.T, self._h / scale))
        kp, ki, kd = self.sign * gains / scale
        return float(kp), float(ki), float(kd)


@dataclass(frozen=True)
class TuneResult:
    """Gains after each stage and their figures on the nominal loop.

    Attributes
    ----------
    start, settings : the regression's shape at the Ms limit, and after the refinement
    start_quality, quality : on the nominal loop
    ensemble_ms : largest Ms over the ensemble, finite
    evaluations : shapes tried
    """

    start: PidSettings
    settings: PidSettings
    start_quality: LoopQuality
    quality: LoopQuality
    ensemble_ms: float
    evaluations: int


def refine(
    loops: Sequence[LoopModel],
    start: PidSettings,
    reference: LoopQuality,
    ms_limit: float = 1.6,
    ensemble_ms_limit: float = 3.0,
    variation_weight: float = 0.1,
    derivative: bool = True,
    evaluations: int = 240,
) -> TuneResult:
    """Closed-loop refinement: a simplex search on the shape (Ti, Td, set-point weight).

    The gain follows from the shape: the largest one with Ms <= ms_limit on the nominal loop and <= ensemble_ms_limit
    on the others (`largest_gain`), so the search never leaves the robust loops. With a, b the logarithms of the two
    integrated errors (set-point, load) relative to `reference` it minimises, averaged over the ensemble,
    log(e^{8a} + e^{8b})/8 + (a + b)/10 + variation_weight log TV: a smooth maximum, so both shall gain.

    Parameters
    ----------
    loops : the first is the nominal loop, the others differ in gain, lags and delay
    start : gains of the regression
    reference : figures of the tuning to beat, usually the one in force
    ms_limit, ensemble_ms_limit : for the nominal loop and for every member
    variation_weight : price of the input's total variation beside the errors
    derivative : allow derivative action
    evaluations : budget of the search

    Raises
    ------
    DataError
        No shape tried keeps the limits (a plant that a PID cannot stabilise).
    """
    nominal = loops[0]
    sign = float(np.sign(nominal.process.gain))
    slow = sum(nominal.process.lags) + 2 * nominal.process.delay + start.period
    count = 0

    def settings_of(v: Vector) -> PidSettings | None:
        integral, differential = np.exp(np.clip(v[:2], -30.0, 30.0))
        shape = replace(
            start,
            kp=sign,
            ki=sign / integral,
            kd=sign * differential if derivative else 0.0,
            filter_time=FILTER_SHARE * differential if derivative else 0.0,
            setpoint_weight=float(np.clip(v[2], 0.0, 1.0)),
        )
        gain = largest_gain(loops, shape, ms_limit, ensemble_ms_limit)
        return None if gain is None else scaled(shape, gain)

    def cost(v: Vector) -> float:
        nonlocal count
        count += 1
        settings = settings_of(v)
        if settings is None:
            return 1e6
        total = 10.0 * float(max(v[2] - 1.0, 0.0) + max(-v[2], 0.0))
        for n, loop in enumerate(loops):
            q = loop.judge(settings)
            if not q.stable:
                return 1e6
            share = 1.0 if n == 0 else 0.25 / (len(loops) - 1)
            variation = variation_weight * np.log(q.tv_setpoint + q.tv_load)
            a, b = np.log(q.iae_setpoint / reference.iae_setpoint), np.log(q.iae_load / reference.iae_load)
            total += share * float(np.logaddexp(8 * a, 8 * b) / 8 + 0.1 * (a + b) + variation)
        return total

    kp, ki, kd = np.abs([start.kp, start.ki, start.kd])
    integral = np.clip(kp / ki if ki else slow, 0.1 * slow, 10 * slow)
    differential = np.clip(kd / kp if kp else 0.0, 0.02 * slow, 0.25 * integral)
    guess = np.array([np.log(integral), np.log(differential), start.setpoint_weight])
    first = settings_of(guess)
    slower, sharper = np.log([0.25, 0.5, 1.0, 2.0, 4.0, 8.0]), np.log([0.25, 0.5, 1.0, 2.0, 4.0])
    shapes = [guess + np.array([a, b, 0.0]) for a in slower for b in (sharper if derivative else [0.0])]
    best = shapes[int(np.argmin([cost(v) for v in shapes]))]
    for spread in (0.6, 0.2):  # the search restarts, since its simplex may have collapsed along a kink
        simplex = np.vstack([best, best + spread * np.diag([1.0, 1.0, -0.6])])
        options = {"initial_simplex": simplex, "maxfev": evaluations // 2, "xatol": 1e-3, "fatol": 1e-5}
        found = optimize.minimize(cost, best, method="Nelder-Mead", options=options)
        best = np.asarray(found.x)
    settings = settings_of(best)
    if settings is None or not nominal.judge(settings).stable:
        raise DataError(
            f"no PID shape near kp={start.kp:.3g}, ki={start.ki:.3g}, kd={start.kd:.3g} keeps Ms <= {ms_limit} on the "
            f"nominal plant and <= {ensemble_ms_limit} on all {len(loops)} plants"
        )
    worst = max(loop.judge(settings).ms for loop in loops)
    begin = start if first is None else first
    return TuneResult(begin, settings, nominal.judge(begin), nominal.judge(settings), worst, count)


def scaled(settings: PidSettings, factor: float) -> PidSettings:
    """All three gains times `factor`."""
    return replace(settings, kp=factor * settings.kp, ki=factor * settings.ki, kd=factor * settings.kd)


def largest_gain(
    loops: Sequence[LoopModel], shape: PidSettings, ms_limit: float, ensemble_ms_limit: float
) -> float | None:
    """Factor on `shape` up to which every loop keeps its Ms limit, rising from a small one; None if there is none.

    A loop that is stable for the smallest factor stays so while its Ms is finite, so the first crossing is what counts.
    """
    best = np.inf
    for n, loop in enumerate(loops):
        limit = ms_limit if n == 0 else ensemble_ms_limit
        unit = 1.0 / (abs(shape.kp) * abs(loop.process.gain))
        factors = unit * np.geomspace(1e-2, 100.0 * max(1.0, loop.process.time_scale / loop.process.delay), 60)
        for _ in range(2):  # a grid, then a finer grid in the cell of the crossing
            over = loop.sensitivity_peaks(shape, factors) > limit
            if over[0]:
                return None
            if not over.any():
                break
            cell = int(np.argmax(over))
            factors = np.linspace(factors[cell - 1], factors[cell], 40)
        best = min(best, float(factors[max(int(np.argmax(over)) - 1, 0)] if over.any() else factors[-1]))
    kept = all(
        loop.sensitivity_peaks(shape, np.array([best]))[0] <= (ms_limit if n == 0 else ensemble_ms_limit)
        for n, loop in enumerate(loops)
    )  # Ms need not rise with the gain where the integral time is short
    return best if kept else None
