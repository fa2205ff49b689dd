"""Cross-entropy method: sample parameters from N(m, diag s^2), keep the best share, refit m and s, repeat.

The policy that is handed back is the mean m. Everything random comes from one generator, whose state is part of the
checkpoint: a training that was stopped and resumed ends at the same numbers as one that was not.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rmpc_ros.errors import DataError
from rmpc_ros.learning.curves import GAIN, Row
from rmpc_ros.learning.policy import read_checkpoint, write_atomically

Array = NDArray[np.float64]
Objective = Callable[[Array, np.random.Generator], Array]


@dataclass(frozen=True)
class CemOptions:
    """Samples per iteration, share kept, first spread, least spread, weight of the new fit."""

    population: int = 64
    elite: float = 0.2
    spread: float = 0.5
    least_spread: float = 0.02
    step: float = 0.7


@dataclass
class CemState:
    """Everything a resumed training needs.

    Attributes
    ----------
    mean, spread : (size,)
    iteration : completed ones
    curve : per iteration: mean and best objective of the samples
    generator : of everything random
    """

    mean: Array
    spread: Array
    iteration: int
    curve: list[Row]
    generator: np.random.Generator

    def save(self, path: Path, what: dict[str, Any]) -> None:
        """Write a checkpoint; `what` says which training it belongs to."""
        document = {
            "what": what,
            "mean": self.mean.tolist(),
            "spread": self.spread.tolist(),
            "iteration": self.iteration,
            "curve": self.curve,
            "generator": self.generator.bit_generator.state,
        }
        write_atomically(path, json.dumps(document))

    @staticmethod
    def load(path: Path, what: dict[str, Any]) -> CemState:
        """Read a checkpoint.

        Raises
        ------
        DataError
            It cannot be read, or belongs to another training.
        """
        try:
            document = read_checkpoint(path, what)
            generator = np.random.default_rng()
            generator.bit_generator.state = document["generator"]
            curve = [{str(n): float(v) for n, v in row.items()} for row in document["curve"]]
            mean, spread = np.array(document["mean"], float), np.array(document["spread"], float)
            return CemState(mean, spread, int(document["iteration"]), curve, generator)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DataError(f"checkpoint {path} cannot be used: {error!r}") from error


def first_state(start: Array, options: CemOptions, seed: int) -> CemState:
    """State before the first iteration."""
    return CemState(start.copy(), np.full(start.size, options.spread), 0, [], np.random.default_rng([17, seed]))


def iterate(state: CemState, objective: Objective, options: CemOptions) -> None:
    """One iteration, in place; `objective` maps parameters (P, size) to what is maximised (P,)."""
    noise = state.generator.standard_normal((options.population, state.mean.size))
    samples = state.mean + state.spread * noise
    samples[0] = state.mean
    values = objective(samples, state.generator)
    count = max(2, round(options.elite * options.population))
    best = samples[np.argsort(-values, kind="stable")[:count]]
    state.mean = (1 - options.step) * state.mean + options.step * best.mean(axis=0)
    state.spread = np.maximum((1 - options.step) * state.spread + options.step * best.std(axis=0), options.least_spread)
    state.iteration += 1
    state.curve.append({"samples_mean": float(values.mean()), "samples_best": float(values.max())})


class CemTrainer:
    """Cross-entropy as a training: curve rows hold the samples' mean and best, and now and then the validation."""

    def __init__(
        self,
        start: Array,
        seed: int,
        options: CemOptions,
        objective: Objective,
        validate: Callable[[Array], float],
        every: int,
    ) -> None:
        self._options, self._objective, self._validate, self._every = options, objective, validate, every
        self.state = first_state(start, options, seed)

    @property
    def iteration(self) -> int:
        """Completed ones."""
        return self.state.iteration

    @property
    def curve(self) -> list[Row]:
        """One row of named figures per iteration."""
        return self.state.curve

    def iterate(self) -> None:
        """One more iteration."""
        iterate(self.state, self._objective, self._options)
        if self.state.iteration % self._every == 0:
            self.state.curve[-1][GAIN] = self._validate(self.state.mean)

    def save(self, path: Path, what: dict[str, Any]) -> None:
        """Write a checkpoint."""
        self.state.save(path, what)

    def load(self, path: Path, what: dict[str, Any]) -> None:
        """Go on from a checkpoint."""
        self.state = CemState.load(path, what)

    def result(self) -> Array:
        """The mean of the samples' distribution."""
        return self.state.mean
