"""A network that loses, delays, re-orders and duplicates messages, for studies and tests."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

import numpy as np

from rmpc_ros.errors import ConfigError
from rmpc_ros.network.forecast import ForecastSet


@dataclass(frozen=True)
class Faults:
    """What a channel does to each message, independently.

    Attributes
    ----------
    loss : probability that it never arrives
    delay : largest delay in steps; each message draws 0..delay, so that later ones may overtake it
    duplicate : probability that it arrives a second time, after another delay
    silent : (agent, first step, last step) whose messages and measurements all vanish
    """

    loss: float = 0.0
    delay: int = 0
    duplicate: float = 0.0
    silent: tuple[tuple[str, int, int], ...] = ()

    def __post_init__(self) -> None:
        for name in ("loss", "duplicate"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"channel {name} = {getattr(self, name)}: give a probability")
        if self.delay < 0:
            raise ConfigError(f"channel delay = {self.delay}: give steps >= 0")


class Channel:
    """Carries promises between agents step by step.

    Parameters
    ----------
    faults : what happens to messages
    seed : int or Generator
    """

    def __init__(self, faults: Faults, seed: int | np.random.Generator) -> None:
        self.faults = faults
        self._generator = np.random.default_rng(seed)
        self._waiting: dict[tuple[str, int], list[ForecastSet]] = defaultdict(list)
        self.sent = self.lost = 0

    def silent(self, agent: str, step: int) -> bool:
        """Whether nothing leaves this agent at a step."""
        return any(name == agent and first <= step <= last for name, first, last in self.faults.silent)

    def send(self, step: int, receiver: str, promise: ForecastSet) -> None:
        """Hand over a promise at a step; it can be received from the next step on."""
        faults, draw = self.faults, self._generator
        copies = 1 + (draw.random() < faults.duplicate)
        for _ in range(copies):
            self.sent += 1
            if draw.random() < faults.loss or self.silent(promise.agent, step):
                self.lost += 1
                continue
            arrival = step + 1 + int(draw.integers(faults.delay + 1))
            self._waiting[receiver, arrival].append(promise)

    def receive(self, step: int, receiver: str) -> list[ForecastSet]:
        """What arrives for an agent at a step, in random order."""
        arrived = self._waiting.pop((receiver, step), [])
        self._generator.shuffle(arrived)
        return arrived

    def measurement_arrives(self, step: int, sender: str) -> bool:
        """Whether a neighbour's measurement of this step arrives in time."""
        return self._generator.random() >= self.faults.loss and not self.silent(sender, step)
