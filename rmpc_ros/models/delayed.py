"""Single loops with dead time: the plants that a PID meets.

    g(s) = k (b s + 1) exp(-theta s) / (s^m (tau_1 s + 1) ... (tau_n s + 1)),   m = 0 or 1

sampled exactly under a zero-order hold, also where the delay is no whole number of samples.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import linalg, signal

from rmpc_ros.errors import DataError

Vector = NDArray[np.float64]
Matrix = NDArray[np.float64]


@dataclass(frozen=True)
class DelayProcess:
    """A process of low order with dead time.

    Attributes
    ----------
    gain : k, output unit per input unit (per time unit if integrating); not zero
    lags : time constants tau_i > 0, at most three
    delay : dead time theta >= 0
    lead : b; negative gives inverse response
    integrating : one pole at the origin
    """

    gain: float
    lags: tuple[float, ...]
    delay: float
    lead: float = 0.0
    integrating: bool = False

    def __post_init__(self) -> None:
        if not math.isfinite(self.gain) or self.gain == 0.0:
            raise DataError(f"process gain is {self.gain}: give a finite number other than 0")
        if any(not tau > 0 for tau in self.lags):
            raise DataError(f"time constants are {self.lags}: each must be positive")
        if not self.delay >= 0:
            raise DataError(f"dead time is {self.delay}: give 0 or more")
        if not self.lags and not self.integrating:
            raise DataError("a process needs a lag or an integrator: a pure delay has no state to control")

    @property
    def time_scale(self) -> float:
        """Sum of lags and delay: how long a step response takes, roughly."""
        return sum(self.lags) + self.delay + max(self.lead, 0.0)

    def perturbed(self, gain: float = 1.0, lag: float = 1.0, delay: float = 1.0) -> DelayProcess:
        """The same process with gain, lags and delay multiplied by the given factors."""
        lags = tuple(lag * tau for tau in self.lags)
        return replace(self, gain=gain * self.gain, lags=lags, delay=delay * self.delay)

    def response(self, omega: ArrayLike) -> NDArray[np.complex128]:
        """Frequency response g(i omega), omega in radians per time unit, (m,) -> (m,)."""
        s = 1j * np.asarray(omega, float)
        value = self.gain * (self.lead * s + 1) * np.exp(-self.delay * s)
        for tau in self.lags:
            value = value / (tau * s + 1)
        return np.asarray(value / s if self.integrating else value)

    def sampled(self, period: float) -> SampledProcess:
        """Exact zero-order-hold discretisation with the given sampling period."""
        poles = [*(np.array([tau, 1.0]) for tau in self.lags), *([np.array([1.0, 0.0])] if self.integrating else [])]
        denominator = np.array([1.0])
        for factor in poles:
            denominator = np.convolve(denominator, factor)
        numerator = self.gain * np.array([self.lead, 1.0]) if self.lead else np.array([self.gain])
        if numerator.size >= denominator.size:
            raise DataError("a lead needs at least two poles: the process would answer at once")
        a, b, c, _ = signal.tf2ss(numerator, denominator)
        steps = math.floor(self.delay / period + 1e-9)
        rest = max(self.delay - steps * period, 0.0)
        rest = 0.0 if rest < 1e-9 * period else rest
        old_map, old_part = _hold(a, b, rest)
        late_map, late_part = _hold(a, b, period - rest)
        return _with_delay_line(old_map @ late_map, late_part, late_map @ old_part, c, steps, period)


@dataclass(frozen=True)
class SampledProcess:
    """x+ = A x + B u,  y = C x: the delay line is part of the state.

    Attributes
    ----------
    A : (n, n);  B : (n, 1);  C : (1, n)
    period : sampling period
    numerator, denominator : of y(z)/u(z) in powers of 1/z, denominator[0] = 1
    """

    A: Matrix
    B: Matrix
    C: Matrix
    period: float
    numerator: Vector
    denominator: Vector

    def response(self, omega: ArrayLike) -> NDArray[np.complex128]:
        """Frequency response at z = exp(i omega period)."""
        back = np.exp(-1j * np.asarray(omega, float) * self.period)
        top = np.polynomial.polynomial.polyval(back, self.numerator)
        return np.asarray(top / np.polynomial.polynomial.polyval(back, self.denominator))


def _hold(a: Matrix, b: Matrix, span: float) -> tuple[Matrix, Matrix]:
    n = a.shape[0]
    block = np.zeros((n + 1, n + 1))
    block[:n, :n], block[:n, n:] = a * span, b * span
    full = linalg.expm(block)
    return full[:n, :n], full[:n, n:]


def _with_delay_line(phi: Matrix, new: Matrix, old: Matrix, c: Matrix, steps: int, period: float) -> SampledProcess:
    """x+ = phi x + new u(k-steps) + old u(k-steps-1), with past inputs appended to the state, newest first."""
    n = phi.shape[0]
    fraction = bool(np.any(old != 0.0))
    line = steps + 1 if fraction else steps
    A, B, C = np.zeros((n + line, n + line)), np.zeros((n + line, 1)), np.zeros((1, n + line))
    A[:n, :n], C[:, :n] = phi, c
    if steps == 0:
        B[:n] = new
    else:
        A[:n, n + steps - 1 : n + steps] = new
    if fraction:
        A[:n, n + steps : n + steps + 1] += old
    if line:
        B[n] = 1.0
        A[n + 1 :, n:-1] += np.eye(line - 1)
    denominator: Vector = np.asarray(np.poly(phi), np.float64)
    top = np.zeros(n + 1 + line)
    for part, shift in ((new, steps), (old, steps + 1)):
        if np.any(part != 0.0):
            numerator = np.poly(phi - part @ c) - denominator  # c (zI - phi)^-1 part = det ratio - 1, times -1 twice
            top[shift : shift + n + 1] += numerator
    return SampledProcess(A, B, C, period, top, denominator)
