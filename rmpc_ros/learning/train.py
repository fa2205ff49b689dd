"""Training on the surrogate: the surrogate is identified, the reference policies are tuned, then the policy is learned.

Training campaigns have seeds from `TRAINING_SEEDS` on, evaluation ones lie below: no policy has seen what it is judged
on. Every second training campaign has the harsh decay.
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
from rmpc_ros.learning.campaign import ACTIONS, Campaigns, deviations_of, observation_size
from rmpc_ros.learning.case import LearningCase
from rmpc_ros.learning.cross_entropy import CemOptions, CemState, Objective, first_state, iterate
from rmpc_ros.learning.day import RobustDays
from rmpc_ros.learning.economics import reward_terms, total
from rmpc_ros.learning.policy import Actor, Kind, Policy, write_atomically
from rmpc_ros.learning.scenario import Scenarios, draw_scenarios
from rmpc_ros.learning.surrogate import Surrogate, identify_surrogate
from rmpc_ros.learning.targets import Targets

Array = NDArray[np.float64]
Progress = Callable[[str, int, int], None]

TRAINING_SEEDS = 1_000_000
CONSTANTS = np.linspace(-1.0, 1.0, 6)  # of each agent's set-point, grid of the constant baselines


@dataclass(frozen=True)
class TrainOptions:
    """What a training is made of; equal options and seed give equal results."""

    kind: Kind = "affine"
    seed: int = 0
    iterations: int = 40
    campaigns: int = 16
    windows: int = 120
    population: int = 64


@dataclass(frozen=True)
class Trained:
    """Result: the policy, its learning curve (mean, best per iteration, per hour), the surrogate's errors."""

    policy: Policy
    curve: list[tuple[float, float]]
    surrogate: Surrogate


def train(
    case: LearningCase,
    options: TrainOptions,
    folder: Path,
    resume: bool = False,
    progress: Progress | None = None,
) -> Trained:
    """Train by cross-entropy; writes surrogate.json, checkpoint.json after every iteration, and policy.json.

    Raises
    ------
    DataError
        `resume` without a fitting checkpoint.
    """
    tell = progress or (lambda what, done, wanted: None)
    days = RobustDays(case)
    what = {"plant": case.config.plant.name, "learning": _learning(case), **asdict(options)}
    surrogate = _surrogate(case, days, options, folder, what, resume, tell)
    actor = Actor(options.kind, len(case.agents), observation_size(case), ACTIONS)
    cem = CemOptions(population=options.population)
    references = _references(case, days.targets, surrogate, options, tell)
    checkpoint = folder / "checkpoint.json"
    if resume:
        state = CemState.load(checkpoint, what)
    else:
        state = first_state(actor.start(np.random.default_rng([19, options.seed])), cem, options.seed)
    objective = campaign_objective(case, days.targets, surrogate, actor, options.campaigns)
    while state.iteration < options.iterations:
        iterate(state, objective, cem)
        state.save(checkpoint, what)
        tell("policy", state.iteration, options.iterations)
    training = {"algorithm": "cem", **asdict(options), "iterations_done": state.iteration}
    policy = Policy(
        case.config.plant.name, actor, state.mean, state.iteration, references, surrogate.to_dict(), training
    )
    policy.save(folder / "policy.json")
    return Trained(policy, state.curve, surrogate)


def rollout(
    campaigns: Campaigns, act: Callable[[Array, Campaigns], Array]
) -> tuple[dict[str, Array], list[dict[str, Array]]]:
    """Live campaigns to their end; mean reward terms per hour (S,) and the days' terms."""
    observations = campaigns.reset()
    days = []
    while not campaigns.done:
        observations, terms = campaigns.step(act(observations, campaigns))
        days.append(terms)
    return {name: np.mean([terms[name] for terms in days], axis=0) for name in days[0]}, days


def campaign_objective(
    case: LearningCase, targets: Targets, surrogate: Surrogate, actor: Actor, count: int
) -> Objective:
    """Mean reward per hour of P parameter vectors over `count` fresh campaigns, the same for all of them."""

    def objective(parameters: Array, generator: np.random.Generator) -> Array:
        P = len(parameters)
        drawn = (TRAINING_SEEDS + generator.integers(0, 1_000_000, count)).tolist()
        both = [draw_scenarios(case, drawn[::2]), draw_scenarios(case, drawn[1::2], harsh=True)]
        scenarios = Scenarios(
            *(
                np.tile(np.concatenate([getattr(s, f) for s in both]), (P,) + (1,) * (getattr(both[0], f).ndim - 1))
                for f in ("seeds", "supply", "product", "steam", "decay")
            )
        )

        def act(observations: Array, campaigns: Campaigns) -> Array:
            del campaigns
            shaped = observations.reshape(P, count, *observations.shape[1:])
            return actor.act(parameters, shaped).reshape(P * count, actor.agents, actor.actions)

        terms, _ = rollout(Campaigns(case, targets, surrogate, scenarios), act)
        means: Array = total(terms).reshape(P, count).mean(axis=1)
        return means

    return objective


def day_objective(case: LearningCase, targets: Targets, surrogate: Surrogate) -> Objective:
    """Profit per hour of constant actions (P, a * 2) on the nominal day, blind to the catalyst's use."""
    market = case.learning.campaign.market

    def objective(parameters: Array, generator: np.random.Generator) -> Array:
        del generator
        P = len(parameters)
        deviations = deviations_of(case, targets, parameters.reshape(P, len(case.agents), ACTIONS))
        middle = np.full(P, np.mean(case.supply_bounds))
        day = surrogate.day(deviations, np.full(P, case.middle_activity), middle)
        terms = reward_terms(
            case,
            day.states,
            day.inputs,
            float(np.mean(market.product)),
            float(np.mean(market.steam)),
            day.violation,
            0.0,
        )
        return total(terms)

    return objective


def _references(
    case: LearningCase, targets: Targets, surrogate: Surrogate, options: TrainOptions, tell: Progress
) -> dict[str, Array]:
    """Best constants, for the nominal day and for whole campaigns: a grid, cross-entropy from its best, the better one.

    A baseline deserves at least the care that the policy gets: cross-entropy alone was found to stop below the grid.
    """
    a = len(case.agents)
    actor = Actor("constant", a, observation_size(case), ACTIONS)
    cem = CemOptions(population=options.population, spread=0.2)
    day = day_objective(case, targets, surrogate)
    campaigns = campaign_objective(case, targets, surrogate, actor, options.campaigns)
    judged = campaign_objective(case, targets, surrogate, actor, 3 * options.campaigns)
    offsets = np.stack(np.meshgrid(*[CONSTANTS] * a, indexing="ij"), axis=-1).reshape(-1, a)
    grid = np.stack([offsets, np.full_like(offsets, -1.0)], axis=-1).reshape(-1, actor.size)  # all the authority
    out = {}
    for name, objective, judge in (("nominal_optimal", day, day), ("best_constant", campaigns, judged)):
        values = judge(grid, np.random.default_rng([23, options.seed]))
        state = first_state(grid[np.argmax(values)], cem, options.seed)
        for n in range(options.iterations):
            iterate(state, objective, cem)
            tell(name, n + 1, options.iterations)
        pair = np.stack([grid[np.argmax(values)], np.clip(state.mean, -1.0, 1.0)])
        out[name] = pair[np.argmax(judge(pair, np.random.default_rng([29, options.seed])))]
    return out


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
    surrogate = identify_surrogate(
        case, days, options.seed, options.windows, lambda done, wanted: tell("surrogate", done, wanted)
    )
    write_atomically(path, json.dumps({"what": what, "surrogate": surrogate.to_dict()}))
    return surrogate
