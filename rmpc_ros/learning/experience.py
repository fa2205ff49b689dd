"""Experience for policy gradients: surrogate campaigns lived by a policy that explores.

The actors' outputs before their bound, z, get Gaussian noise: z ~ N(mean(o), diag sigma^2), action = bound(z). The
probability of z is known exactly also where the bound saturates.

What a day pays is split: every agent counts the steam and emissions of its own inputs, the product and the quality
penalty belong to the agent whose state is sold or limited, the catalyst to those whose temperatures age it (in equal
parts), violations to all. The sum over the agents is the team's profit. The income of the file's steady state at the
day's price is left out: no action changes it, and it is nearly all of the reward's variance. What is learned from is
the difference to the agent's own mean over the campaign: decay differs between campaigns and nobody observes it, and
the value of a plant that runs on is that of the differential rewards (average-reward criterion).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rmpc_ros.learning.campaign import Campaigns
from rmpc_ros.learning.case import LearningCase
from rmpc_ros.learning.day import Day, DayModel
from rmpc_ros.learning.policy import Actor
from rmpc_ros.learning.scenario import Scenarios, draw_scenarios
from rmpc_ros.learning.targets import Targets
from rmpc_ros.learning.weights import arranged

Array = NDArray[np.float64]

TRAINING_SEEDS = 1_000_000
MONEY = 100.0  # per hour: one unit of learned reward, so that gains are about one in size


@dataclass(frozen=True)
class Experience:
    """S campaigns of T days of a agents.

    Attributes
    ----------
    observations : (S, T + 1, a, o)
    outputs : (S, T, a, actions) before the bound
    noise : (S, T, a, actions) standard normal part of them
    rewards : (S, T, a) each agent's own, in units of `MONEY` per hour
    """

    observations: Array
    outputs: Array
    noise: Array
    rewards: Array

    @property
    def differential(self) -> Array:
        """Rewards less their mean over the campaign, (S, T, a)."""
        return np.asarray(self.rewards - self.rewards.mean(axis=1, keepdims=True))


def training_scenarios(case: LearningCase, count: int, generator: np.random.Generator) -> Scenarios:
    """`count` fresh training campaigns, the first half of the file's decay, the others harsh."""
    drawn = (TRAINING_SEEDS + generator.integers(0, 1_000_000, count)).tolist()
    both = [draw_scenarios(case, drawn[::2]), draw_scenarios(case, drawn[1::2], harsh=True)]
    return Scenarios(
        *(np.concatenate([getattr(s, f) for s in both]) for f in ("seeds", "supply", "product", "steam", "decay"))
    )


def gather(
    case: LearningCase,
    targets: Targets,
    model: DayModel,
    actor: Actor,
    parameters: Array,
    spread: Array,
    count: int,
    generator: np.random.Generator,
) -> Experience:
    """Live `count` fresh training campaigns with exploration of standard deviation `spread` (actions,)."""
    campaigns = Campaigns(case, targets, model, training_scenarios(case, count, generator))
    seen = [campaigns.reset()]
    outputs, noises, rewards = [], [], []
    while not campaigns.done:
        noise = generator.standard_normal((count, actor.agents, actor.actions))
        output = actor.output(parameters[None], seen[-1][None])[0] + spread * noise
        income = campaigns.outlook().product
        observation, terms = campaigns.step(arranged(actor.bound(output), case.moves))
        rewards.append(local_rewards(case, campaigns.yesterday, terms, income) / MONEY)
        seen.append(observation)
        outputs.append(output)
        noises.append(noise)
    return Experience(*(np.stack(rows, axis=1) for rows in (seen, outputs, noises, rewards)))


def local_rewards(case: LearningCase, day: Day, terms: dict[str, Array], product_factor: Array) -> Array:
    """Each agent's part of a day's reward per hour, (S, a); summed: the reward without the steady state's income."""
    prices = case.learning.prices.product
    steady_income = prices.price * prices.flow * case.steady[case.product] * product_factor
    heat = day.inputs[:, case.steam]
    share = heat / heat.sum(axis=1, keepdims=True)
    linear = case.config.linear
    out = np.tile(terms["violation"][:, None] / len(case.agents), len(case.agents))
    for i, agent in enumerate(case.agents):
        states, inputs = _indices(linear.rows(agent)), _indices(linear.columns(agent))
        paid = np.isin(case.steam, inputs)
        out[:, i] += (terms["steam"] + terms["emissions"]) * share[:, paid].sum(axis=1)
        out[:, i] += terms["catalyst"] * np.isin(case.temperatures, states).mean()
        if case.product in states:
            out[:, i] += terms["product"] - steady_income
        if case.quality in states:
            out[:, i] += terms["quality"]
    return out


def _indices(part: slice) -> range:
    return range(part.start, part.stop)
