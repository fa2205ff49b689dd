"""What the robust layer does for a learned policy: the same policy with it, and without it acting on the inputs itself.

    mpc      the policy's wishes become the nearest certified targets, which the robust controllers keep
    wishes   the wished set-points become the inputs that hold them at rest by the linear model; nobody feeds back
    inputs   the policy's first action is the input, over its whole range; nobody feeds back

All live the same campaigns of the simulated plant (never do this to a real one), under the plant file's limits and
under close ones just outside the invariant boxes, as economics would have them. An exploring policy (random actions,
what training does) is counted beside the learned one; with `weights` it moves economic and terminal weights too.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rmpc_ros.config import PlantConfig, load_plant
from rmpc_ros.config.learning import LEAST_MOVES
from rmpc_ros.config.shipped import plant_path
from rmpc_ros.learning.campaign import Campaigns
from rmpc_ros.learning.case import LearningCase, learning_case
from rmpc_ros.learning.day import CampaignPlant, Day, RobustDays
from rmpc_ros.learning.evaluate import Act, Outcome, live
from rmpc_ros.learning.policy import Policy, load_policy
from rmpc_ros.learning.targets import Targets
from rmpc_ros.learning.train import TrainOptions, train
from rmpc_ros.learning.weights import arranged
from rmpc_ros.studies.registry import Settings, Study

Array = NDArray[np.float64]


class DirectDays:
    """Days of the plant alone: inputs = steady input + direction @ deviations, held all day.

    Parameters
    ----------
    case : LearningCase
    direction : (m, m) physical inputs per deviation

    Attributes
    ----------
    worst : largest deviation of a state as a share of its limit
    """

    def __init__(self, case: LearningCase, direction: Array) -> None:
        self.case, self._direction = case, direction
        self._plant = CampaignPlant(case.config, case.learning.campaign.catalyst.parameter)
        self._bounds = case.config.disturbance_bounds()
        config = case.config
        self._states = [np.concatenate([config.state_limits(a)[n] for a in case.agents]) for n in (0, 1)]
        self._inputs = [np.concatenate([config.input_limits(a)[n] for a in case.agents]) for n in (0, 1)]
        self.worst = 0.0

    def restart(self, seeds: NDArray[np.int64]) -> None:
        """Begin one campaign at the steady state."""
        self._plant.reset(int(seeds[0]))
        self._generator = np.random.default_rng([11, int(seeds[0])])

    def day(self, deviations: Array, activity: Array, supply: Array, terminal: Array | None = None) -> Day:
        """Hold the inputs for a window; the same disturbances as `RobustDays` draws."""
        del terminal  # there is no MPC
        case, campaign = self.case, self.case.learning.campaign
        linear = case.config.linear
        u = linear.steady_input + self._direction @ deviations[0]
        disturbances = self._generator.uniform(*self._bounds, (campaign.window, len(self._bounds[0])))
        disturbances[:, case.supply] = supply[0]
        self._plant.activity = float(activity[0])
        outside_inputs = bool(np.any(u < self._inputs[0] - 1e-9) or np.any(u > self._inputs[1] + 1e-9))
        states, broken = [], 0
        for d in disturbances:
            self._plant.step({agent: u[linear.columns(agent)] for agent in case.agents}, d)
            state = self._plant.state.copy()
            states.append(state)
            outside = np.any(state < self._states[0] - 1e-9) or np.any(state > self._states[1] + 1e-9)
            broken += bool(outside) or outside_inputs
            reach = np.where(state > case.steady, self._states[1] - case.steady, case.steady - self._states[0])
            self.worst = max(self.worst, float(np.max(np.abs(state - case.steady) / reach)))
        m = len(case.agents)
        return Day(
            np.mean(states[-campaign.average :], axis=0)[None],
            u[None],
            np.zeros((1, m)),
            np.ones((1, m)),
            np.array([broken / campaign.window]),
        )


def direct_targets(case: LearningCase, targets: Targets) -> Targets:
    """Wishes as they are: one deviation per set-point, nothing certified, the back-off of no effect but its share."""
    m = len(case.agents)
    eye, none = np.eye(m), np.zeros((m, m))
    span = case.learning.actions.span * np.ones(m)
    slopes = {term: none for term in targets.slopes}  # wishes are of set-points alone
    return Targets(none, none, eye, span, targets.base, targets.rows, targets.columns, slopes)


def close_limits(config: PlantConfig, temperature: float, fraction: float) -> PlantConfig:
    """The same plant with limits close about the steady state."""
    agents = {}
    for name, agent in config.agents.items():
        states = {
            state: variable.model_copy(
                update={"limits": None, "deviation": (-temperature, temperature)}
                if state.startswith("T")
                else {"limits": None, "deviation": (-fraction, fraction)}
            )
            for state, variable in agent.states.items()
        }
        agents[name] = agent.model_copy(update={"states": states})
    return config.model_copy(update={"agents": agents})


def run(settings: Settings, folder: Path) -> dict[str, Any]:
    """Train a policy unless one is given, then count."""
    config = load_plant(plant_path(settings["plant"]))
    if settings["policy"]:
        policy = load_policy(Path(settings["policy"]))
    else:
        options = TrainOptions(
            seed=settings["seed"],
            iterations=settings["iterations"],
            windows=settings["windows"],
            reference_iterations=settings["iterations"],
        )
        policy = train(learning_case(config), options, folder).policy
    result: dict[str, Any] = dict(settings) | {"policy_kind": policy.actor.kind}
    close = close_limits(config, settings["temperature"], settings["fraction"])
    for label, plant in (("file_limits", config), ("close_limits", close)):
        result[label] = _compare(learning_case(plant), policy, settings)
    rows = [row for label in ("file_limits", "close_limits") for row in result[label].values()]
    result["violation_hours_with_mpc"] = sum(v["mpc"]["violation_hours"] for v in rows)
    result["violation_hours_without_mpc"] = sum(v[n]["violation_hours"] for v in rows for n in ("wishes", "inputs"))
    return result


def _compare(case: LearningCase, policy: Policy, settings: Settings) -> dict[str, Any]:
    robust = RobustDays(case)
    targets = robust.targets
    linear = case.config.linear
    physical = _inputs_per_wish(case, robust)
    lower, upper = (np.concatenate([case.config.input_limits(a)[n] for a in case.agents]) for n in (0, 1))
    half = np.minimum(upper - linear.steady_input, linear.steady_input - lower)
    direct = direct_targets(case, targets)
    whole = np.diag(half / case.learning.actions.span)
    moves = case.learning.actions.bounded() if settings["weights"] else LEAST_MOVES
    out: dict[str, Any] = {}
    for kind in ("learned", "exploring"):
        rows: dict[str, list[Outcome]] = {"mpc": [], "wishes": [], "inputs": []}
        wishes, inputs = DirectDays(case, physical), DirectDays(case, whole)
        for seed in range(settings["first_seed"], settings["first_seed"] + settings["campaigns"]):
            for harsh in (False, True):
                for name, model, reach in (
                    ("mpc", robust, targets),
                    ("wishes", wishes, direct),
                    ("inputs", inputs, direct),
                ):
                    act = _learned(policy) if kind == "learned" else _random(seed, len(case.agents), len(moves))
                    rows[name].append(live(case, reach, model, act, seed, harsh))
        out[kind] = {
            name: {
                "violation_hours": float(np.mean([o.violation_hours for o in each])),
                "campaigns_with_violation": int(sum(o.violation_hours > 0 for o in each)),
                "profit_per_hour": float(np.mean([o.profit for o in each])),
                "profit_without_violation_penalty": float(np.mean([o.profit - o.terms["violation"] for o in each])),
                "quality_hours": float(np.mean([o.quality_hours for o in each])),
                "regenerations": float(np.mean([o.regenerations for o in each])),
            }
            for name, each in rows.items()
        }
        out[kind]["mpc"]["promises_broken"] = sum(o.broken for o in rows["mpc"])
        out[kind]["wishes"]["largest_share_of_a_limit"] = wishes.worst
        out[kind]["inputs"]["largest_share_of_a_limit"] = inputs.worst
    return out


def _inputs_per_wish(case: LearningCase, days: RobustDays) -> Array:
    """Physical steady inputs (m, m) per wished offset of a set-point, by the linear model."""
    targets, m = days.targets, len(case.agents)
    columns = []
    for wish in np.eye(m):
        c = np.asarray(np.linalg.solve(targets.D, wish), np.float64)
        references = targets.references(c)
        columns.append(np.concatenate([days.input_scale(agent) * references[agent][1] for agent in case.agents]))
    return np.stack(columns, axis=1)


def _learned(policy: Policy) -> Act:
    return lambda observations, campaigns: arranged(policy.act(observations), policy.moves)


def _random(seed: int, agents: int, actions: int) -> Act:
    generator = np.random.default_rng([47, seed])

    def act(observations: Array, campaigns: Campaigns) -> Array:
        del campaigns
        return generator.uniform(-1.0, 1.0, (len(observations), agents, actions))

    return act


def table(result: dict[str, Any]) -> Iterable[str]:
    """Lines for people."""
    yield f"{result['campaigns']} campaigns, each mild and harsh; per campaign, profit per hour"
    for label in ("file_limits", "close_limits"):
        yield f"{label}"
        yield f"{'policy':10} {'acts through':12} {'violation h':>12} {'campaigns':>10} {'profit':>9} {'of limit':>9}"
        for kind, rows in result[label].items():
            for name, row in rows.items():
                worst = row.get("largest_share_of_a_limit")
                yield (
                    f"{kind:10} {name:12} {row['violation_hours']:12.1f} {row['campaigns_with_violation']:10} "
                    f"{row['profit_per_hour']:9.1f} {'' if worst is None else f'{worst:.2f}':>9}"
                )


STUDY = Study(
    {
        "plant": "reactor_separator_campaign",
        "policy": "",
        "iterations": 30,
        "windows": 120,
        "campaigns": 5,
        "first_seed": 1000,
        "temperature": 1.2,
        "fraction": 0.06,
        "seed": 0,
        "weights": False,
    },
    run,
    table,
)
