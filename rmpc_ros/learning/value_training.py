"""Training of a plan's terminal value: approximate policy iteration on the surrogate, one fit per iteration.

Each iteration lives campaigns with the planner that has the last value at its end (the first one: nothing) and fits the
next value to them (`terminal_value.fit_value`). Everything random comes from one generator, whose state is part of the
checkpoint: a training that was stopped and resumed ends at the same numbers as one that was not.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rmpc_ros.errors import DataError
from rmpc_ros.learning.campaign import Campaigns
from rmpc_ros.learning.case import LearningCase
from rmpc_ros.learning.curves import GAIN, Row
from rmpc_ros.learning.economics import total
from rmpc_ros.learning.experience import training_scenarios
from rmpc_ros.learning.objectives import rollout
from rmpc_ros.learning.plan import Plan
from rmpc_ros.learning.planner import Planner
from rmpc_ros.learning.policy import read_checkpoint, write_atomically
from rmpc_ros.learning.surrogate import Surrogate
from rmpc_ros.learning.targets import Targets
from rmpc_ros.learning.terminal_value import TerminalValue, fit_value, live_passages
from rmpc_ros.learning.train import (
    VALIDATION,
    Identify,
    Progress,
    TrainOptions,
    learn,
    prepare,
    profit_of_constant,
    validation_generator,
)

Array = NDArray[np.float64]


class ValueTrainer:
    """Approximate policy iteration of a planner.

    Parameters
    ----------
    case, targets, surrogate, horizon : what is planned with, for how many days
    campaigns : lived per iteration
    seed : of everything random
    validate : profit per hour of a planner over the best constant; None: not looked at
    """

    def __init__(
        self,
        case: LearningCase,
        targets: Targets,
        surrogate: Surrogate,
        horizon: int,
        campaigns: int,
        seed: int,
        validate: Callable[[Planner], float] | None = None,
    ) -> None:
        self._case, self._targets, self._surrogate = case, targets, surrogate
        self._horizon, self._campaigns, self._validate = horizon, campaigns, validate
        self._generator = np.random.default_rng([43, seed])
        self._value: TerminalValue | None = None
        self._rows: list[Row] = []
        self._planner = Planner(case, targets, surrogate, horizon)

    @property
    def iteration(self) -> int:
        """Completed ones."""
        return len(self._rows)

    @property
    def curve(self) -> list[Row]:
        """Per iteration: mean profit per hour of the days fitted to (without the steady income), and the validation."""
        return self._rows

    @property
    def value(self) -> TerminalValue:
        """The last fit.

        Raises
        ------
        DataError
            Before the first iteration.
        """
        if self._value is None:
            raise DataError("no iteration yet, so there is no value; at least 1 is needed")
        return self._value

    def iterate(self) -> None:
        """One more iteration."""
        lived = live_passages(
            self._case, self._targets, self._surrogate, self._planner, self._campaigns, self._generator
        )
        self._take(fit_value(self._case, lived))
        row = {"profit_fitted": float(lived.reward.mean())}
        if self._validate is not None:
            row[GAIN] = self._validate(self._planner)
        self._rows.append(row)

    def _take(self, value: TerminalValue) -> None:
        self._value = value
        self._planner = Planner(self._case, self._targets, self._surrogate, self._horizon, value)

    def save(self, path: Path, what: dict[str, Any]) -> None:
        """Write a checkpoint; `what` says which training it belongs to."""
        document = {
            "what": what,
            "value": self.value.to_dict(),
            "curve": self._rows,
            "generator": self._generator.bit_generator.state,
        }
        write_atomically(path, json.dumps(document))

    def load(self, path: Path, what: dict[str, Any]) -> None:
        """Go on from a checkpoint.

        Raises
        ------
        DataError
            It cannot be read, or belongs to another training.
        """
        try:
            document = read_checkpoint(path, what)
            value = TerminalValue.from_dict(document["value"])
            rows = [{str(n): float(v) for n, v in row.items()} for row in document["curve"]]
            self._generator.bit_generator.state = document["generator"]
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise DataError(f"checkpoint {path} cannot be used: {error!r}") from error
        self._rows = rows
        self._take(value)

    def result(self) -> Array:
        """The value's weights, flat."""
        return self.value.weights.ravel()


@dataclass(frozen=True)
class TrainedPlan:
    """Result: the plan, its learning curve (named figures per iteration, per hour), the surrogate."""

    plan: Plan
    curve: list[Row]
    surrogate: Surrogate


def train_plan(
    case: LearningCase,
    options: TrainOptions,
    folder: Path,
    resume: bool = False,
    progress: Progress | None = None,
    identify: Identify | None = None,
) -> TrainedPlan:
    """`train.train` for the value at the end of a plan: the same files, policy.json holds the plan.

    Raises
    ------
    DataError
        `resume` without a fitting checkpoint, or no horizon.
    """
    if options.horizon is None:
        raise DataError("a plan needs its horizon in days")
    tell = progress or (lambda what, done, wanted: None)
    ready = prepare(case, options, folder, resume, tell, identify)
    targets, surrogate, constant = ready.days.targets, ready.surrogate, ready.references["best_constant"]
    reference = profit_of_constant(case, targets, surrogate, options.seed, constant)

    def validate(planner: Planner) -> float:
        drawn = training_scenarios(case, VALIDATION, validation_generator(options.seed))
        terms, _ = rollout(Campaigns(case, targets, surrogate, drawn), planner.act)
        return float(total(terms).mean()) - reference

    trainer = ValueTrainer(case, targets, surrogate, options.horizon, options.campaigns, options.seed, validate)
    learn(trainer, ready.what, options, folder, resume, tell)
    plan = Plan(
        case.config.plant.name,
        options.horizon,
        trainer.value,
        trainer.iteration,
        ready.references,
        surrogate.to_dict(),
        {**asdict(options), "iterations_done": trainer.iteration},
        case.moves,
    )
    plan.save(folder / "policy.json")
    return TrainedPlan(plan, trainer.curve, surrogate)
