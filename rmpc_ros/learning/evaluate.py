"""Policies compared on held-out campaigns with the real robust controllers in the loop, paired by seed.

Baselines: the published set-points (zero actions), the constant that is best on the nominal day, the constant that is
best over campaigns, and myopic real-time optimisation, which knows today's delivery, prices and catalyst exactly and
maximises today's profit on the identified model, blind to the catalyst it uses up. An economic plan (`plan`) comes with
two more: the same plan without its learned value, and one that looks `LONGER` times as far.

Held-out campaigns have seeds from `HELD_OUT` on: the prices of the shipped plant were shaped on seeds 0 to 19. Several
policies that differ in their training's seed only are one row: per campaign the mean over them, and their spread.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rmpc_ros.config.learning import LEAST_MOVES, MOVES
from rmpc_ros.errors import DataError
from rmpc_ros.learning.campaign import Campaigns, deviations_of, observation_size
from rmpc_ros.learning.case import HOURS, LearningCase
from rmpc_ros.learning.day import DayModel, RobustDays
from rmpc_ros.learning.economics import reward_terms, total
from rmpc_ros.learning.experience import TRAINING_SEEDS
from rmpc_ros.learning.intervals import confidence_interval
from rmpc_ros.learning.plan import LONGER, Plan
from rmpc_ros.learning.policy import Policy
from rmpc_ros.learning.rollouts import PlantFile, Workers, spread
from rmpc_ros.learning.scenario import draw_scenarios
from rmpc_ros.learning.surrogate import Surrogate, fluctuation_seeds
from rmpc_ros.learning.targets import Targets
from rmpc_ros.learning.weights import arranged

Array = NDArray[np.float64]
Act = Callable[[Array, Campaigns], Array]

GRID = np.linspace(-1.0, 1.0, 7)  # of each agent's set-point, myopic optimisation
HELD_OUT = 1000
REFERENCES = ("published", "nominal_optimal", "best_constant", "myopic")
ENDS = {
    f"{move}_{end}": side * np.eye(len(MOVES))[MOVES.index(move)]
    for move in MOVES
    if move not in LEAST_MOVES
    for end, side in (("least", -1.0), ("most", 1.0))
}
"""Actions (4,) of every agent in further baselines: the published set-points with one weight at an end of its range."""


@dataclass(frozen=True)
class Outcome:
    """A policy on one campaign.

    Attributes
    ----------
    profit : per hour, the sum of `terms`
    terms : per hour, by name
    violation_hours : with a state or input outside its limits
    quality_hours : with the customer's limit exceeded
    energy : mean sum of the paid inputs, per hour
    regenerations : of the catalyst
    steps, broken : control steps simulated, promises broken
    not_optimal : agents' steps in which the robust problem was not solved to optimality
    """

    profit: float
    terms: dict[str, float]
    violation_hours: float
    quality_hours: float
    energy: float
    regenerations: float
    steps: int
    broken: int
    not_optimal: int


Row = tuple[str, int, bool, Outcome]  # contestant, seed, harsh, what came of it


def label(policy: Policy | Plan) -> str:
    """Name of a policy's row: what was learned, and how where that is not the usual way."""
    if isinstance(policy, Plan):
        return f"{_days(policy.horizon)}_with_value"
    algorithm = policy.training.get("algorithm", "cem")
    more = "".join(f"+{move}" for move in policy.moves if move not in LEAST_MOVES)
    if algorithm == "consensus":
        return "learned_consensus" + more
    usual = "mappo" if policy.actor.kind == "network" else "cem"
    return f"learned_{policy.actor.kind}" + ("" if algorithm == usual else f"_{algorithm}") + more


def _days(horizon: int) -> str:
    return f"plan_{horizon}_days"


def contestants(policies: Sequence[Policy | Plan]) -> dict[str, tuple[str, Policy | Plan]]:
    """What is compared, by a unique name: its row and the policy; the first policy's file holds the baselines.

    Raises
    ------
    DataError
        No policy, two equal ones, or the first one's file holds no reference policies or no surrogate.
    """
    if not policies:
        raise DataError("give at least one policy")
    first = policies[0]
    missing = {"nominal_optimal", "best_constant"} - set(first.references)
    if missing or not first.surrogate:
        raise DataError(
            f"the policy file lacks {', '.join(sorted(missing)) or 'the surrogate'}, which the baselines need; "
            "`rmpc train` writes them"
        )
    further = [name for name in ENDS if any(name.rpartition("_")[0] in policy.moves for policy in policies)]
    out = {name: (name, first) for name in (*REFERENCES, *further)}
    for policy in policies:
        if isinstance(policy, Plan):  # what its value has to be compared with
            for horizon in (policy.horizon, LONGER * policy.horizon):
                out.setdefault(_days(horizon), (_days(horizon), policy))
        name = f"{label(policy)}:{policy.training.get('seed', 0)}"
        if name in out:
            raise DataError(f"two policies are '{name}' (row:training seed)")
        out[name] = (label(policy), policy)
    return out


def actor_of(case: LearningCase, targets: Targets, policy: Policy | Plan, name: str) -> Act:
    """What a contestant does: observations (S, a, o) and the campaigns' outlook in, actions (S, a, 2 to 4) out."""
    a = len(case.agents)

    def constant(values: Array) -> Act:
        return lambda observations, campaigns: np.broadcast_to(values, (len(observations), *values.shape))

    if name == "published":
        return constant(np.zeros((a, len(LEAST_MOVES))))
    if name in ENDS:
        return constant(np.tile(ENDS[name], (a, 1)))
    if name in policy.references:
        return constant(arranged(policy.references[name].reshape(a, -1), policy.moves))
    if name == "myopic":
        return myopic(case, targets, Surrogate.from_dict(policy.surrogate))
    if isinstance(policy, Plan):
        longer = name == _days(LONGER * policy.horizon)
        horizon = LONGER * policy.horizon if longer else policy.horizon
        return policy.planner(case, targets, horizon, with_value=name == label(policy)).act
    return lambda observations, campaigns: arranged(policy.act(observations), policy.moves)


def myopic(case: LearningCase, targets: Targets, model: Surrogate) -> Act:
    """Best actions of a grid for today's profit without the catalyst's use."""
    offsets = np.stack(np.meshgrid(*[GRID] * len(case.agents), indexing="ij"), axis=-1).reshape(-1, len(case.agents))
    candidates = np.stack([offsets, np.full_like(offsets, -1.0)], axis=-1)  # no back-off: all the authority
    deviations = deviations_of(case, targets, candidates)

    def act(observations: Array, campaigns: Campaigns) -> Array:
        del observations
        today = campaigns.outlook()
        day = model.day(deviations[None], today.activity[:, None], today.supply[:, None])
        terms = reward_terms(
            case, day.states, day.inputs, today.product[:, None], today.steam[:, None], day.violation, 0.0
        )
        best: Array = candidates[np.argmax(total(terms), axis=1)]
        return best

    return act


def live(case: LearningCase, targets: Targets, model: DayModel, act: Act, seed: int, harsh: bool) -> Outcome:
    """One campaign of one policy."""
    campaigns = Campaigns(case, targets, model, draw_scenarios(case, [seed], harsh))
    before = _counts(model)
    observations = campaigns.reset()
    terms: list[dict[str, Array]] = []
    energy, violated, spoilt = 0.0, 0.0, 0
    while not campaigns.done:
        observations, paid = campaigns.step(act(observations, campaigns))
        terms.append(paid)
        day = campaigns.yesterday
        energy += float(day.inputs[0, case.steam].sum())
        violated += float(day.violation[0])
        spoilt += bool(day.states[0, case.quality] > case.learning.prices.quality.limit)
    means = {name: float(np.mean([t[name][0] for t in terms])) for name in terms[0]}
    steps, broken, not_optimal = (new - old for new, old in zip(_counts(model), before, strict=True))
    return Outcome(
        sum(means.values()),
        means,
        HOURS * violated,
        HOURS * spoilt,
        energy / len(terms),
        int(campaigns.regenerations[0]),
        steps,
        broken,
        not_optimal,
    )


def _counts(model: DayModel) -> tuple[int, int, int]:
    if not isinstance(model, RobustDays):
        return 0, 0, 0
    return model.steps, model.broken, sum(count for mode, count in model.modes.items() if mode != "optimal")


@lru_cache(maxsize=1)
def _controllers(plant: PlantFile) -> tuple[LearningCase, RobustDays]:
    """Case and controllers of this process."""
    case = plant.case()
    return case, RobustDays(case)


def live_all(plant: PlantFile, policies: Sequence[Policy | Plan], jobs: Sequence[tuple[int, bool]]) -> list[Row]:
    """All contestants on some campaigns (seed, harsh), with controllers of this process's own."""
    case, days = _controllers(plant)
    acts = {name: actor_of(case, days.targets, policy, row) for name, (row, policy) in contestants(policies).items()}
    return [
        (name, seed, harsh, live(case, days.targets, days, act, seed, harsh))
        for seed, harsh in jobs
        for name, act in acts.items()
    ]


def _check_fit(case: LearningCase, policy: Policy | Plan) -> None:
    if isinstance(policy, Plan):
        if policy.plant != case.config.plant.name:
            raise DataError(f"the plan is for plant '{policy.plant}'; this is '{case.config.plant.name}'")
        return
    actor, wanted = policy.actor, (len(case.agents), observation_size(case))
    if policy.plant != case.config.plant.name or (actor.agents, actor.observations) != wanted:
        raise DataError(
            f"the policy is for plant '{policy.plant}' with (agents, observations) = "
            f"{(actor.agents, actor.observations)}; '{case.config.plant.name}' has {wanted}"
        )
    unbounded = [move for move in policy.moves if move not in case.learning.actions.bounded()]
    if unbounded:
        raise DataError(
            f"the policy moves {', '.join(unbounded)}, for which plant '{case.config.plant.name}' has no bounds "
            "(learning.actions)"
        )


def evaluate(
    plant: Path,
    policies: Sequence[Policy | Plan],
    seeds: int,
    workers: Workers = Workers(),  # noqa: B008 - frozen
    first_seed: int = HELD_OUT,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Compare on `seeds` campaigns of the file's decay and as many of the harsh one.

    Parameters
    ----------
    plant, policies : the plant file, and what was trained for it
    seeds : number of held-out campaigns, from `first_seed` on
    workers : processes, or a ray cluster; the figures depend on them by the solver's tolerance at most
    progress : told campaigns done and wanted

    Raises
    ------
    DataError
        Fewer than two seeds, some that are training seeds, or a policy belongs to another plant.
    """
    if seeds < 2:
        raise DataError(f"seeds = {seeds}: confidence intervals need at least 2")
    if first_seed < 0 or first_seed + seeds > TRAINING_SEEDS:
        raise DataError(
            f"seeds {first_seed} to {first_seed + seeds - 1}: campaigns to judge on have seeds from 0 on; "
            f"from {TRAINING_SEEDS} on they are training campaigns"
        )
    for policy in policies:
        seen = fluctuation_seeds(int(policy.training.get("seed", 0)))
        if seen.stop > first_seed and seen.start < first_seed + seeds:
            raise DataError(
                f"seeds {first_seed} to {first_seed + seeds - 1}: the surrogate of training seed "
                f"{policy.training.get('seed', 0)} was fitted to the fluctuations of seeds {seen.start} to "
                f"{seen.stop - 1}; judge on others (--first-seed)"
            )
    names = contestants(policies)
    file = PlantFile.read(plant)
    case = file.case()
    for policy in policies:
        _check_fit(case, policy)
    shares = [[(first_seed + k, harsh)] for k in range(seeds) for harsh in (False, True)]
    rows = [row for answer in spread(live_all, (file, policies), shares, workers, progress) for row in answer]
    result: dict[str, Any] = {"plant": case.config.plant.name, "seeds": seeds, "first_seed": first_seed}
    for heading, wanted in (("campaign", False), ("harsh", True)):
        single: dict[str, list[Outcome]] = {name: [] for name in names}
        for name, _, harsh, outcome in rows:
            if harsh == wanted:
                single[name].append(outcome)
        trainings: dict[str, list[str]] = {}
        for name, (row_name, _) in names.items():
            trainings.setdefault(row_name, []).append(name)
        outcomes = {
            row_name: [mean_outcome([single[n][k] for n in members]) for k in range(seeds)]
            for row_name, members in trainings.items()
        }
        table = summarise(outcomes, "best_constant")
        reference = np.mean([o.profit for o in single["best_constant"]])
        for row_name, members in trainings.items():
            if row_name in names:  # a baseline: it has no training seed
                continue
            gains = {n.rpartition(":")[2]: float(np.mean([o.profit for o in single[n]]) - reference) for n in members}
            table[row_name]["gain_by_training_seed"] = gains
            table[row_name]["gain_spread"] = float(np.std(list(gains.values()), ddof=1)) if len(gains) > 1 else None
        if {"learned_consensus", "learned_network"} <= table.keys():  # without a central critic, and with one
            own, central = (table[n]["gain_over_best_constant"] for n in ("learned_consensus", "learned_network"))
            table["learned_consensus"]["share_of_central_gain"] = own / central if central > 0 else None
        for plan in (policy for policy in policies if isinstance(policy, Plan)):
            names_of = (_days(plan.horizon), label(plan), _days(LONGER * plan.horizon))
            short, own, long = (table[n]["profit_per_hour"] for n in names_of)
            share = (own - short) / (long - short) if long > short else None
            table[label(plan)]["share_of_longer_plans_gain"] = share
        result[heading] = table
    return result


def mean_outcome(outcomes: Sequence[Outcome]) -> Outcome:
    """Mean over policies on one campaign; broken promises and steps not optimal are summed."""
    if len(outcomes) == 1:
        return outcomes[0]
    summed = ("steps", "broken", "not_optimal")
    values: dict[str, Any] = {}
    for field in fields(Outcome):
        each = [getattr(o, field.name) for o in outcomes]
        if field.name == "terms":
            values["terms"] = {t: float(np.mean([terms[t] for terms in each])) for t in each[0]}
        else:
            values[field.name] = sum(each) if field.name in summed else float(np.mean(each))
    return Outcome(**values)


def summarise(outcomes: Mapping[str, Sequence[Outcome]], reference: str) -> dict[str, dict[str, Any]]:
    """Means per policy with confidence intervals, and paired differences of the profit to a reference policy."""
    against = np.array([o.profit for o in outcomes[reference]])
    out: dict[str, dict[str, Any]] = {}
    for name, rows in outcomes.items():
        profit = np.array([o.profit for o in rows])
        difference = profit - against
        out[name] = {
            "profit_per_hour": float(profit.mean()),
            "profit_ci95": confidence_interval(profit),
            f"gain_over_{reference}": float(difference.mean()),
            f"gain_over_{reference}_ci95": confidence_interval(difference),
            "violation_hours": float(np.mean([o.violation_hours for o in rows])),
            "quality_hours": float(np.mean([o.quality_hours for o in rows])),
            "energy_per_hour": float(np.mean([o.energy for o in rows])),
            "regenerations": float(np.mean([o.regenerations for o in rows])),
            "promises_broken": int(sum(o.broken for o in rows)),
            "steps_not_optimal": int(sum(o.not_optimal for o in rows)),
            "terms_per_hour": {t: float(np.mean([o.terms[t] for o in rows])) for t in rows[0].terms},
        }
    return out
