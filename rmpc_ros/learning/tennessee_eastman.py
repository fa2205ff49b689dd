"""Agents on the set-points of the Tennessee Eastman plant (tep-studio), through the interfaces of this room.

Ricker's loops run the plant every 36 s; every hour three agents (reactor, feed, cooling) move two set-points each,
within a reach around the loops' own values and no faster than a rate. Zero actions are the plant's own loops. The
reward is the profit of the hour in $/h, by terms:

    product   = price min(flow, demand)          operation = -(feeds lost, product lost, compressor, steam)
    quality   = -penalty where |G - base| > 5 %  violation = -price * share of samples outside Downs and Vogel's limits
    shutdown  = -price in the hour the plant trips, which ends the campaign

Operation is the plant's own cost (Downs and Vogel 1993). The product's price is theirs for G and H, by volume; the
other prices are ours. tep-studio is an optional extra: `pip install "rmpc_ros[tennessee]"`.
"""

from __future__ import annotations

import dataclasses
import importlib.util
from dataclasses import dataclass
from typing import Any

import numpy as np
from gymnasium.spaces import Box
from numpy.typing import NDArray
from pettingzoo import ParallelEnv

from rmpc_ros.errors import ConfigError, DataError, NumericalError
from rmpc_ros.learning.policy import Actor, Kind

Array = NDArray[np.float64]

INTERVAL = 0.01
"""Hours between two moves of the plant's own loops; the plant itself is integrated in steps of 1.8 s."""
TERMS = ("product", "operation", "quality", "violation", "shutdown")
SEED_STEP = 1000.0
LARGEST = 100.0


@dataclass(frozen=True)
class Setpoint:
    """A set-point an agent moves.

    Attributes
    ----------
    field : its name in tep-studio's ControllerSetpoints
    measurement : name of what it is compared with; two for a ratio or a sum of two
    unit : of both
    reach : the action 1 moves it this far from the loops' own value
    rate : fastest change, per hour
    """

    field: str
    measurement: tuple[str, ...]
    unit: str
    reach: float
    rate: float


A, C = "reactor_feed_A_concentration", "reactor_feed_C_concentration"
AGENTS: dict[str, tuple[Setpoint, Setpoint]] = {
    "reactor": (
        Setpoint("reactor_pressure", ("reactor_pressure",), "kPa", 100.0, 15.0),
        Setpoint("reactor_level", ("reactor_level",), "%", 10.0, 1.5),
    ),
    "feed": (
        Setpoint("ya", (A, C), "%", 4.0, 0.6),
        Setpoint("yac", (A, C), "mol%", 3.0, 0.4),
    ),
    "cooling": (
        Setpoint("reactor_temperature", ("reactor_temperature",), "degC", 1.5, 0.2),
        Setpoint("separator_level", ("separator_level",), "%", 10.0, 1.5),
    ),
}
ACTIONS = 2
OBSERVATIONS = len(AGENTS) + ACTIONS + 2
"""Which agent, its two controlled variables, the plant's cost and its pressure margin."""

LIMITS = {
    "reactor_pressure": (0.0, 2895.0),  # kPa
    "reactor_level": (50.0, 100.0),  # %
    "reactor_temperature": (0.0, 150.0),  # degC
    "separator_level": (30.0, 100.0),  # %
    "stripper_level": (30.0, 100.0),  # %
}
"""Operating limits of Downs and Vogel (1993), table 6."""


@dataclass(frozen=True)
class Prices:
    """What the hour's profit is made of.

    Attributes
    ----------
    product : $/m3 of product, up to `demand` m3/h (22.95: the base case)
    quality : $/h while the product's share of G is more than `tolerance` mol% off
    violation : $/h while a limit is broken
    shutdown : $ once
    """

    product: float = 245.0
    demand: float = 22.95
    tolerance: float = 5.0
    quality: float = 1000.0
    violation: float = 2000.0
    shutdown: float = 100_000.0


def installed() -> bool:
    """Whether tep-studio is there."""
    return importlib.util.find_spec("tep_studio") is not None


def actor(kind: Kind) -> Actor:
    """Shape of a policy for this plant."""
    return Actor(kind, len(AGENTS), OBSERVATIONS, ACTIONS)


class TennesseeEastman:
    """The plant under its own loops, with set-points that can be moved; one campaign per `reset`.

    Parameters
    ----------
    prices : of the profit
    disturbances : numbers (1 to 28) of the plant's disturbances that are active; 9, 10 and 11 are temperatures of two
        feeds and of the reactor's cooling water that wander

    Raises
    ------
    ConfigError
        tep-studio is not installed, or a disturbance does not exist.
    """

    def __init__(self, prices: Prices | None = None, disturbances: tuple[int, ...] = (9, 10, 11)) -> None:
        if not installed():
            raise ConfigError('the Tennessee Eastman plant needs tep-studio: pip install "rmpc_ros[tennessee]"')
        if not all(1 <= number <= 28 for number in disturbances):
            raise ConfigError(f"disturbances = {list(disturbances)}: Tennessee Eastman has the numbers 1 to 28")
        import tep_studio

        self.prices = prices or Prices()
        self._library = tep_studio
        self._active = np.zeros(28)
        self._active[[number - 1 for number in disturbances]] = 1.0
        names = [name for name, _, _ in tep_studio.list_measurements()]
        wanted = {m for pair in AGENTS.values() for s in pair for m in s.measurement} | set(LIMITS)
        self._index = {name: names.index(name) for name in wanted}
        self._flow, self._g = names.index("stripper_underflow"), names.index("stripper_underflow_G_concentration")
        self._low, self._high = (np.array([limit[k] for limit in LIMITS.values()]) for k in (0, 1))
        self._limited = [self._index[name] for name in LIMITS]

    def reset(self, seed: int) -> Array:
        """Base case of Downs and Vogel; the seed decides noise and disturbances. Observations (agents, o)."""
        self._plant = self._library.TennesseeEastmanProcess()
        self._measured, _ = self._plant.reset(seed=SEED_STEP * (seed + 1) + 1.0, disturbances=self._active)
        self._loops = self._library.RickerMultiLoopController(enable_overrides=True)
        clean = self._library.TennesseeEastmanProcess().reset()[0]  # set-points of the noise-free base case
        self._loops.reset(clean, time=0.0)
        self.base = self._loops.setpoints
        self._base_g = float(clean[self._g])
        self.ended = False
        self._mean, self._cost = self._measured.copy(), 0.0
        return self._observe()

    def hour(self, actions: Array) -> tuple[Array, dict[str, float]]:
        """Live an hour under actions (agents, 2) in [-1, 1]: observations, terms of the profit in $/h.

        Raises
        ------
        DataError
            Actions are not finite or of another shape, or the campaign has ended.
        NumericalError
            The plant's integration failed.
        """
        if actions.shape != (len(AGENTS), ACTIONS) or not np.all(np.isfinite(actions)):
            raise DataError(f"actions {actions.tolist()}: {len(AGENTS)} x {ACTIONS} finite numbers are needed")
        if self.ended:
            raise DataError("the plant has shut down; reset it first")
        goals = {
            s.field: (getattr(self.base, s.field) + s.reach * float(np.clip(a, -1, 1)), s.rate)
            for pair, row in zip(AGENTS.values(), actions, strict=True)
            for s, a in zip(pair, row, strict=True)
        }
        costs, rows = [], []
        for _ in range(round(1 / INTERVAL)):
            now = {f: getattr(self._loops.setpoints, f) for f in goals}
            moved = {f: now[f] + float(np.clip(g - now[f], -r * INTERVAL, r * INTERVAL)) for f, (g, r) in goals.items()}
            self._loops.setpoints = dataclasses.replace(self._loops.setpoints, **moved)
            valves, _ = self._loops.compute_action(self._measured, time=self._plant.time)
            try:
                result = self._plant.advance(valves, control_interval=INTERVAL, disturbances=self._active)
            except RuntimeError as error:
                raise NumericalError(f"Tennessee Eastman at {self._plant.time:.2f} h: {error}") from error
            self._measured = result.measurements
            rows.append(self._measured)
            costs.append(result.objective_terms["operating_cost_internal_per_hour"])
            if result.shutdown_status["terminated"]:
                self.ended = True
                break
        return self._account(np.array(rows), np.array(costs))

    @property
    def setpoints(self) -> dict[str, float]:
        """The agents' set-points in force, in their units."""
        return {s.field: float(getattr(self._loops.setpoints, s.field)) for pair in AGENTS.values() for s in pair}

    def _account(self, rows: Array, costs: Array) -> tuple[Array, dict[str, float]]:
        p, share = self.prices, len(rows) * INTERVAL  # of the hour: below 1 where the plant tripped
        self._mean, self._cost = rows.mean(axis=0), float(costs.mean())
        limited = rows[:, self._limited]
        outside = np.mean(np.any((limited < self._low) | (limited > self._high), axis=1))
        off = abs(float(self._mean[self._g]) - self._base_g) > p.tolerance
        terms = {
            "product": share * p.product * min(float(self._mean[self._flow]), p.demand),
            "operation": -share * self._cost,
            "quality": -share * p.quality * float(off),
            "violation": -share * p.violation * float(outside),
            "shutdown": -p.shutdown * float(self.ended),
        }
        return self._observe(), terms

    def _value(self, setpoint: Setpoint) -> float:
        values = [float(self._mean[self._index[m]]) for m in setpoint.measurement]
        if setpoint.field == "ya":
            return 100.0 * values[0] / max(sum(values), 1e-9)
        return sum(values)

    def _observe(self) -> Array:
        margin = (LIMITS["reactor_pressure"][1] - float(self._mean[self._index["reactor_pressure"]])) / 200.0
        out = np.zeros((len(AGENTS), OBSERVATIONS))
        for row, (out_row, pair) in enumerate(zip(out, AGENTS.values(), strict=True)):
            out_row[row] = 1.0
            own = [(self._value(s) - getattr(self.base, s.field)) / s.reach for s in pair]
            out_row[len(AGENTS) :] = [*own, (self._cost - 170.0) / 100.0, margin]
        return np.clip(out, -LARGEST, LARGEST)


class TennesseeEastmanEnv(ParallelEnv):
    """PettingZoo's ParallelEnv over a campaign of `hours`; every agent's reward is the profit of the hour."""

    metadata = {"name": "rmpc_tennessee_eastman_v0", "render_modes": []}  # noqa: RUF012 - the API's class attribute

    def __init__(
        self, hours: int = 24, prices: Prices | None = None, disturbances: tuple[int, ...] = (9, 10, 11)
    ) -> None:
        self.plant, self.hours = TennesseeEastman(prices, disturbances), hours
        self.possible_agents = list(AGENTS)
        self.agents: list[str] = []
        self.render_mode = None
        self._observation_spaces = {a: Box(-LARGEST, LARGEST, (OBSERVATIONS,), np.float64) for a in AGENTS}
        self._action_spaces = {a: Box(-1.0, 1.0, (ACTIONS,), np.float64) for a in AGENTS}
        self._seed = 0

    def observation_space(self, agent: str) -> Box:
        """The same object at every call."""
        return self._observation_spaces[agent]

    def action_space(self, agent: str) -> Box:
        """The same object at every call."""
        return self._action_spaces[agent]

    def reset(
        self, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, Array], dict[str, dict[str, Any]]]:
        """Begin the campaign of a seed; without one, the next."""
        del options
        self._seed = self._seed + 1 if seed is None else int(seed)
        self._hour, self.agents = 0, list(self.possible_agents)
        return self._split(self.plant.reset(self._seed)), {a: {} for a in self.agents}

    def step(
        self, actions: dict[str, Array]
    ) -> tuple[dict[str, Array], dict[str, float], dict[str, bool], dict[str, bool], dict[str, dict[str, Any]]]:
        """Live an hour.

        Raises
        ------
        DataError
            An agent's action is missing, of the wrong shape or not finite.
        """
        acted = self.agents
        rows = [np.asarray(actions.get(agent, np.nan), float) for agent in acted]
        for agent, row in zip(acted, rows, strict=True):
            if row.shape != (ACTIONS,) or not np.all(np.isfinite(row)):
                raise DataError(f"action of agent '{agent}' = {row.tolist()}; {ACTIONS} finite numbers are needed")
        observations, terms = self.plant.hour(np.array(rows))
        self._hour += 1
        over = self._hour >= self.hours
        self.agents = [] if over or self.plant.ended else list(acted)
        return (
            self._split(observations),
            dict.fromkeys(acted, float(sum(terms.values()))),
            dict.fromkeys(acted, self.plant.ended),
            dict.fromkeys(acted, over and not self.plant.ended),
            {a: terms | self.plant.setpoints for a in acted},
        )

    def render(self) -> None:
        """Nothing to draw: `rmpc study tennessee-eastman` prints the figures."""

    def close(self) -> None:
        """Nothing to release."""

    def _split(self, observations: Array) -> dict[str, Array]:
        return dict(zip(AGENTS, observations, strict=True))
