"""The stirred tank as it really is: catalyst that decays, a fouling jacket and a side reaction the textbook leaves out.

    r = activity k0 exp(-E/(R T)) CA,   s = side ks exp(-Es/(R T)) CA   (CA only, with its own heat)
    dCA/dt = q/V (Caf - CA) - r - s
    dT/dt  = q/V (Tf - T) - (dH r + dHs s)/(rho Cp) + transfer UA/(V rho Cp) (Tc - T)

The physics of the hybrid model is `plants.cstr`, which knows nothing of this. Excited closed-loop logs come from a
proportional controller on T with dither; Tf varies as a first-order autoregressive process nobody measures.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import casadi as ca
import numpy as np
from numpy.typing import NDArray

from rmpc_ros.models.hybrid import Transitions
from rmpc_ros.models.nonlinear import NonlinearModel, Stepper
from rmpc_ros.plants import cstr

Vector = NDArray[np.float64]

PERIOD = 3.0  # s
NOMINAL_FEED = np.array([1.0, 350.0])  # Caf mol/L, Tf K
INPUT_LIMITS = (270.0, 330.0)  # K
NOISE = np.array([2e-4, 0.02])  # sensor standard deviations of CA and T
FEED_REACH = 6.0  # K, bound of the unmeasured feed temperature's deviation
WEAR = {"activity": 1.0, "transfer": 1.0, "side": 1.0, "ks": 6.0e6, "Es_over_R": 6000.0, "dHs": -2.0e4}


def balances(x: dict[str, Any], u: dict[str, Any], d: dict[str, Any], p: dict[str, Any]) -> Sequence[Any]:
    """Right-hand sides in the order of `cstr.STATES`, per minute."""
    worn = {**p, "k0": p["activity"] * p["k0"], "UA": p["transfer"] * p["UA"]}
    clean = cstr.balances(x, u, d, worn)
    side = p["side"] * p["ks"] * ca.exp(-p["Es_over_R"] / x["T"]) * x["CA"]
    return clean[0] - side, clean[1] - p["dHs"] / (p["rho"] * p["Cp"]) * side


def build() -> NonlinearModel:
    """The true plant."""
    parameters = {**cstr.PARAMETERS, **WEAR}
    return NonlinearModel(
        "worn_cstr", cstr.STATES, cstr.INPUTS, cstr.DISTURBANCES, parameters, balances, time_unit=60.0, elements=2
    )


class World:
    """The true plant with its unmeasured feed temperature; `measured` is what the sensors say."""

    def __init__(self, seed: int, state: Sequence[float] = (0.62, 342.0)) -> None:
        self.model = build()
        self._stepper: Stepper = self.model.stepper(PERIOD)
        self._rng = np.random.default_rng(seed)
        self._feed = 0.0
        self.spread = 0.15  # K per step, of the unmeasured feed temperature's slow part
        self.gust = 0.0  # K, standard deviation of its fast part
        self.state = np.array(state, float)
        self.measured = self.state.copy()

    def step(self, tc: float, wear: Mapping[str, float]) -> Vector:
        """Advance one period and measure, (2,)."""
        self._feed = 0.95 * self._feed + self.spread * self._rng.normal()
        gust = self.gust * np.clip(self._rng.normal(), -3, 3)
        d = NOMINAL_FEED + np.array([0.0, np.clip(self._feed, -FEED_REACH, FEED_REACH) + gust])
        self.state = self._stepper.advance(self.state, [tc], d, self.model.parameter_vector(wear))
        self.measured = self.state + NOISE * np.clip(self._rng.normal(size=2), -3, 3)
        return self.measured


def excited_log(steps: int, seed: int, wear: Sequence[Mapping[str, float]] | Mapping[str, float]) -> Transitions:
    """Closed-loop log under a proportional controller whose set-point jumps between 336 and 350 K, with dither.

    `wear` gives the parameters of the whole log, or of every step.
    """
    world, rng = World(seed), np.random.default_rng(seed + 1)
    x = world.measured.copy()
    states, inputs, target, dither = [x], [], 343.0, 0.0
    for k in range(steps):
        if k % 20 == 0:
            target = rng.uniform(336.0, 349.0)
        if k % 5 == 0:
            dither = rng.uniform(-4.0, 4.0)
        tc = float(np.clip(300.0 + 5.0 * (target - x[1]) + dither, *INPUT_LIMITS))
        x = world.step(tc, wear if isinstance(wear, Mapping) else wear[k])
        states.append(x)
        inputs.append([tc])
    rows = np.array(states)
    feed = np.tile(NOMINAL_FEED, (steps, 1))
    return Transitions(rows[:-1], np.array(inputs), feed, rows[1:], PERIOD * np.arange(1.0, steps + 1))
