"""What is maximised: profit per hour on the surrogate, over campaigns or on the nominal day; constants best at it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from rmpc_ros.learning.campaign import Campaigns, deviations_of, observation_size
from rmpc_ros.learning.case import LearningCase
from rmpc_ros.learning.cross_entropy import CemOptions, Objective, first_state, iterate
from rmpc_ros.learning.economics import reward_terms, total
from rmpc_ros.learning.experience import training_scenarios
from rmpc_ros.learning.policy import Actor
from rmpc_ros.learning.scenario import Scenarios
from rmpc_ros.learning.surrogate import Surrogate
from rmpc_ros.learning.targets import Targets
from rmpc_ros.learning.weights import arranged

Array = NDArray[np.float64]

CONSTANTS = np.linspace(-1.0, 1.0, 6)  # of each agent's set-point, grid of the constant baselines


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
        drawn = training_scenarios(case, count, generator)
        scenarios = Scenarios(
            *(
                np.tile(values, (P,) + (1,) * (values.ndim - 1))
                for values in (getattr(drawn, f) for f in ("seeds", "supply", "product", "steam", "decay"))
            )
        )

        def act(observations: Array, campaigns: Campaigns) -> Array:
            del campaigns
            shaped = observations.reshape(P, count, *observations.shape[1:])
            actions = actor.act(parameters, shaped).reshape(P * count, actor.agents, actor.actions)
            return arranged(actions, case.moves)

        terms, _ = rollout(Campaigns(case, targets, surrogate, scenarios), act)
        means: Array = total(terms).reshape(P, count).mean(axis=1)
        return means

    return objective


def day_objective(case: LearningCase, targets: Targets, surrogate: Surrogate) -> Objective:
    """Profit per hour of constant actions (P, a * k) on the nominal day, blind to the catalyst's use."""
    market = case.learning.campaign.market
    product, steam = float(np.mean(market.product)), float(np.mean(market.steam))

    def objective(parameters: Array, generator: np.random.Generator) -> Array:
        del generator
        P = len(parameters)
        actions = arranged(parameters.reshape(P, len(case.agents), len(case.moves)), case.moves)
        deviations = deviations_of(case, targets, actions, product, steam)
        middle = np.full(P, np.mean(case.supply_bounds))
        day = surrogate.day(deviations, np.full(P, case.middle_activity), middle)
        terms = reward_terms(
            case,
            day.states,
            day.inputs,
            product,
            steam,
            day.violation,
            0.0,
        )
        return total(terms)

    return objective


def unseen(case: LearningCase) -> list[int]:
    """Columns of actions that have no effect on the surrogate, so that nothing can be learned about them there."""
    return [n for n, move in enumerate(case.moves) if move == "terminal_weight"]


def reference_policies(
    case: LearningCase,
    targets: Targets,
    surrogate: Surrogate,
    seed: int,
    iterations: int,
    campaigns: int,
    population: int,
    tell: Callable[[str, int, int], None],
) -> dict[str, Array]:
    """Best constants, for the nominal day and for whole campaigns: a grid, cross-entropy from its best, the better one.

    A baseline deserves at least the care that the policy gets: cross-entropy alone was found to stop below the grid.
    """
    a = len(case.agents)
    actor = Actor("constant", a, observation_size(case), len(case.moves))
    cem = CemOptions(population=population, spread=0.2)
    day = day_objective(case, targets, surrogate)
    weeks = campaign_objective(case, targets, surrogate, actor, campaigns)
    judged = campaign_objective(case, targets, surrogate, actor, 3 * campaigns)
    offsets = np.stack(np.meshgrid(*[CONSTANTS] * a, indexing="ij"), axis=-1).reshape(-1, a)
    constants = np.zeros((len(offsets), a, actor.actions))
    constants[..., 0], constants[..., 1] = offsets, -1.0  # all the authority; weights as tuned
    grid = constants.reshape(-1, actor.size)
    out = {}
    for name, objective, judge in (("nominal_optimal", day, day), ("best_constant", weeks, judged)):
        values = judge(grid, np.random.default_rng([23, seed]))
        state = first_state(grid[np.argmax(values)], cem, seed)
        for n in range(iterations):
            iterate(state, objective, cem)
            tell(name, n + 1, iterations)
        found = actor.still(np.clip(state.mean, -1.0, 1.0), unseen(case))
        pair = np.stack([grid[np.argmax(values)], found])
        out[name] = pair[np.argmax(judge(pair, np.random.default_rng([29, seed])))]
    return out
