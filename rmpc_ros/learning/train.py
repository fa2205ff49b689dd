"""Training on the surrogate: the surrogate is identified, the reference policies are tuned, then the policy is learned.

Training campaigns have seeds from `TRAINING_SEEDS` on, evaluation ones lie below: no policy has seen what it is judged
on. Every second training campaign has the harsh decay.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, get_args

import numpy as np
from numpy.typing import NDArray

from rmpc_ros.errors import DataError
from rmpc_ros.learning.campaign import observation_size
from rmpc_ros.learning.case import LearningCase
from rmpc_ros.learning.consensus import ConsensusTrainer, metropolis
from rmpc_ros.learning.cross_entropy import CemOptions, CemTrainer
from rmpc_ros.learning.curves import EventLog, Row, write_curves
from rmpc_ros.learning.day import RobustDays
from rmpc_ros.learning.experience import Experience, gather
from rmpc_ros.learning.objectives import campaign_objective, reference_policies, unseen
from rmpc_ros.learning.policy import KINDS, Actor, Kind, Policy, write_atomically
from rmpc_ros.learning.surrogate import Surrogate, identify_surrogate
from rmpc_ros.learning.targets import Targets

Array = NDArray[np.float64]
Progress = Callable[[str, int, int], None]

Algorithm = Literal["cem", "mappo", "consensus", "value"]
ALGORITHMS: tuple[Algorithm, ...] = get_args(Algorithm)
Identify = Callable[[], Surrogate]

VALIDATION = 64  # training campaigns that every policy is compared on while it is trained
EVERY = 5  # cross-entropy: iterations between two validations


@dataclass(frozen=True)
class TrainOptions:
    """What a training is made of; equal options and seed give equal results.

    Attributes
    ----------
    kind : of the actor; None for "value", whose result is a plan (`value_training.train_plan`)
    campaigns : lived per iteration; cross-entropy: by every sample
    windows : days of the real controllers that the surrogate is fitted to
    population : samples of cross-entropy, also of the constant baselines
    reference_iterations, reference_campaigns : of cross-entropy for the constant baselines
    horizon : days that a plan looks ahead; "value" alone
    """

    kind: Kind | None = "affine"
    seed: int = 0
    iterations: int = 40
    campaigns: int = 16
    windows: int = 120
    population: int = 64
    algorithm: Algorithm = "cem"
    reference_iterations: int = 60
    reference_campaigns: int = 16
    horizon: int | None = None


def usual_options(algorithm: Algorithm) -> TrainOptions:
    """Settings that were tested for an algorithm."""
    match algorithm:
        case "cem":
            return TrainOptions("affine", iterations=60)
        case "mappo":
            return TrainOptions("network", iterations=120, campaigns=256, algorithm="mappo")
        case "consensus":
            return TrainOptions("network", iterations=150, campaigns=256, algorithm="consensus")
        case "value":
            return TrainOptions(None, iterations=4, campaigns=128, algorithm="value", horizon=3)


@dataclass(frozen=True)
class Trained:
    """Result: the policy, its learning curve (named figures per iteration, per hour), the surrogate's errors."""

    policy: Policy
    curve: list[Row]
    surrogate: Surrogate


class Trainer(Protocol):
    """A training that goes on iteration by iteration and can be stopped between any two."""

    @property
    def iteration(self) -> int:
        """Completed ones."""

    @property
    def curve(self) -> list[Row]:
        """Named figures per iteration."""

    def iterate(self) -> None:
        """One more iteration."""

    def save(self, path: Path, what: dict[str, Any]) -> None:
        """Write a checkpoint."""

    def load(self, path: Path, what: dict[str, Any]) -> None:
        """Go on from a checkpoint."""

    def result(self) -> Array:
        """Parameters of the policy."""


def train(
    case: LearningCase,
    options: TrainOptions,
    folder: Path,
    resume: bool = False,
    progress: Progress | None = None,
    identify: Identify | None = None,
) -> Trained:
    """Train; writes surrogate.json, a checkpoint after every iteration, event files, curves, and policy.json.

    Parameters
    ----------
    case, options, folder : what, how, where to
    resume : go on from the folder's checkpoint
    progress : told what, done and wanted
    identify : makes the surrogate; default: `identify_surrogate` in this process

    Raises
    ------
    DataError
        `resume` without a fitting checkpoint, or options without an actor.
    """
    if options.kind is None:
        raise DataError(f"algorithm '{options.algorithm}' without a kind of actor; known: {', '.join(KINDS)}")
    tell = progress or (lambda what, done, wanted: None)
    ready = prepare(case, options, folder, resume, tell, identify)
    actor = Actor(options.kind, len(case.agents), observation_size(case), len(case.moves))
    trainer = _trainer(case, ready.days.targets, ready.surrogate, actor, options, ready.references)
    learn(trainer, ready.what, options, folder, resume, tell)
    training = {**asdict(options), "iterations_done": trainer.iteration}
    policy = Policy(
        case.config.plant.name,
        actor,
        actor.still(trainer.result(), unseen(case)),
        trainer.iteration,
        ready.references,
        ready.surrogate.to_dict(),
        training,
        case.moves,
    )
    policy.save(folder / "policy.json")
    return Trained(policy, trainer.curve, ready.surrogate)


@dataclass(frozen=True)
class Prepared:
    """What every training begins with.

    Attributes
    ----------
    days : the real controllers
    what : tells one training's files from another's
    surrogate : identified, or the one of the training that goes on
    references : constant baselines by name
    """

    days: RobustDays
    what: dict[str, Any]
    surrogate: Surrogate
    references: dict[str, Array]


def prepare(
    case: LearningCase,
    options: TrainOptions,
    folder: Path,
    resume: bool,
    tell: Progress,
    identify: Identify | None = None,
) -> Prepared:
    """Surrogate and baselines; the arguments are those of `train`."""
    days = RobustDays(case)
    what = {"plant": case.config.plant.name, "learning": _learning(case), **asdict(options)}
    surrogate = _surrogate(case, days, options, folder, what, resume, tell, identify)
    references = reference_policies(
        case,
        days.targets,
        surrogate,
        options.seed,
        options.reference_iterations,
        options.reference_campaigns,
        options.population,
        tell,
    )
    return Prepared(days, what, surrogate, references)


def learn(
    trainer: Trainer, what: dict[str, Any], options: TrainOptions, folder: Path, resume: bool, tell: Progress
) -> None:
    """All iterations, a checkpoint after each, event files and curves."""
    checkpoint = folder / ("checkpoint.pt" if options.algorithm == "mappo" else "checkpoint.json")
    if resume:
        trainer.load(checkpoint, what)
    log = EventLog(folder, trainer.iteration)
    try:
        while trainer.iteration < options.iterations:
            trainer.iterate()
            trainer.save(checkpoint, what)
            log.write(trainer.iteration, trainer.curve[-1])
            tell("policy", trainer.iteration, options.iterations)
    finally:
        log.close()
    subject = options.kind or f"plan of {options.horizon} days"
    write_curves(folder, trainer.curve, f"{options.algorithm}, {subject}, seed {options.seed}")


def _trainer(
    case: LearningCase,
    targets: Targets,
    surrogate: Surrogate,
    actor: Actor,
    options: TrainOptions,
    references: dict[str, Array],
) -> Trainer:
    def gather_some(parameters: Array, spread: Array, generator: np.random.Generator) -> Experience:
        return gather(case, targets, surrogate, actor, parameters, spread, options.campaigns, generator)

    validate = _validation(case, targets, surrogate, actor, options, references["best_constant"])
    match options.algorithm:
        case "cem":
            objective = campaign_objective(case, targets, surrogate, actor, options.campaigns)
            start = actor.start(np.random.default_rng([19, options.seed]))
            return CemTrainer(
                start, options.seed, CemOptions(population=options.population), objective, validate, EVERY
            )
        case "mappo":
            from rmpc_ros.learning.mappo import MappoTrainer  # torch: only where it is used

            return MappoTrainer(actor, options.iterations, options.seed, gather_some, validate)
        case "consensus":
            weights = metropolis({name: case.config.agents[name].neighbours for name in case.agents})
            return ConsensusTrainer(actor, weights, options.iterations, options.seed, gather_some, validate)
        case "value":
            raise DataError(f"algorithm 'value' has no actor; one of kind '{actor.kind}' was asked for")


def _validation(
    case: LearningCase,
    targets: Targets,
    surrogate: Surrogate,
    actor: Actor,
    options: TrainOptions,
    best_constant: Array,
) -> Callable[[Array], float]:
    """Profit per hour over the best constant, without exploration, always on the same training campaigns."""
    reference = profit_of_constant(case, targets, surrogate, options.seed, best_constant)
    return lambda parameters: _profit(case, targets, surrogate, options.seed, actor, parameters) - reference


def profit_of_constant(case: LearningCase, targets: Targets, surrogate: Surrogate, seed: int, constant: Array) -> float:
    """Profit per hour of constant actions (a * moves,) on the training campaigns of every validation."""
    actor = Actor("constant", len(case.agents), observation_size(case), len(case.moves))
    return _profit(case, targets, surrogate, seed, actor, constant)


def validation_generator(seed: int) -> np.random.Generator:
    """Of the campaigns of every validation of a training seed."""
    return np.random.default_rng([31, seed])


def _profit(
    case: LearningCase, targets: Targets, surrogate: Surrogate, seed: int, actor: Actor, parameters: Array
) -> float:
    objective = campaign_objective(case, targets, surrogate, actor, VALIDATION)
    return float(objective(parameters[None], validation_generator(seed))[0])


def _learning(case: LearningCase) -> dict[str, Any]:
    assert case.config.learning is not None
    return dict(case.config.learning.model_dump(mode="json"))


def _surrogate(
    case: LearningCase,
    days: RobustDays,
    options: TrainOptions,
    folder: Path,
    what: dict[str, Any],
    resume: bool,
    tell: Progress,
    identify: Identify | None,
) -> Surrogate:
    path = folder / "surrogate.json"
    if resume:
        try:
            document = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise DataError(f"nothing to resume: {path}: {error}") from error
        if document.get("what") != json.loads(json.dumps(what)):
            raise DataError(f"{path} belongs to another training; use another --out, or leave --resume out")
        return Surrogate.from_dict(document["surrogate"])
    if identify is not None:
        surrogate = identify()
    else:
        surrogate = identify_surrogate(
            case, days, options.seed, options.windows, lambda done, wanted: tell("surrogate", done, wanted)
        )
    write_atomically(path, json.dumps({"what": what, "surrogate": surrogate.to_dict()}))
    return surrogate
