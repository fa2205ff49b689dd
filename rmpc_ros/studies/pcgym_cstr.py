"""pc-gym's stirred-tank task: return and time per decision of the robust MPC, the same under a policy, and an oracle.

The oracle is nonlinear MPC with the exact model through IPOPT, run here, bare (pc-gym's goes through do-mpc and takes
longer). All three are shown the same set-points; `late` says how (see `studies/_pcgym_cstr.py`). The policy is trained
by cross-entropy on other set-points and on tanks that differ from the model. Times are medians of the decisions' CPU
times over `rounds` episodes, the controllers taking turns.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rmpc_ros.errors import ConfigError
from rmpc_ros.learning.cross_entropy import CemOptions, first_state, iterate
from rmpc_ros.models.physics import Physics
from rmpc_ros.studies._pcgym_cstr import (
    ACTOR,
    PUBLISHED,
    START,
    STATE_LIMITS,
    Controller,
    Oracle,
    Replay,
    RobustMpc,
    Task,
    error_radius,
    physics,
)
from rmpc_ros.studies.registry import Settings, Study

Vector = NDArray[np.float64]
Matrix = NDArray[np.float64]

PUBLISHED_ORACLE = -11.83
"""Return of pc-gym 0.1.8's oracle; its best PID: -14.15."""
RANGE = (0.855, 0.915)
"""Set-points drawn for training and for the tanks that differ, mol/L."""


def other_task(plant: Physics, mismatch: float, rng: np.random.Generator) -> Task:
    """A tank that differs from the model, two random set-points, the step at a random sample."""
    first, second = rng.uniform(*RANGE, 2)
    step = int(rng.integers(30, 70))
    setpoints = np.where(np.arange(len(PUBLISHED)) < step, first, second)
    return Task(plant, setpoints, 0, rng.uniform(1 - mismatch, 1 + mismatch, 2))


def train(plant: Physics, radius: Matrix, settings: Settings) -> tuple[Vector, list[float]]:
    """Parameters of the policy, and the mean gain over the robust MPC on validation tasks by iteration.

    What is kept is the best mean of any iteration, zeros among them: never worse than the robust MPC in validation.
    """
    options = CemOptions(int(settings["population"]), 0.25, 0.2, 0.02)
    seed, mismatch = int(settings["seed"]), float(settings["mismatch"])
    state = first_state(np.zeros(ACTOR.size), options, seed)
    episodes = int(settings["episodes"])
    best, most, curve = state.mean.copy(), 0.0, []

    def drawn(count: int, rng: np.random.Generator) -> Callable[[Vector], float]:
        """Mean gain of parameters over the robust MPC on `count` tasks, every second one with an exact model."""
        tasks = [other_task(plant, mismatch * (n % 2), rng) for n in range(count)]
        base = [task.play(RobustMpc(plant, radius)).reward for task in tasks]
        return lambda v: float(
            np.mean([task.play(RobustMpc(plant, radius, v)).reward - b for task, b in zip(tasks, base, strict=True)])
        )

    validate = drawn(2 * episodes, np.random.default_rng([45, seed]))

    def gain(samples: Vector, rng: np.random.Generator) -> Vector:
        of = drawn(episodes, rng)
        return np.array([of(v) for v in samples])

    for _ in range(int(settings["iterations"])):
        iterate(state, gain, options)
        curve.append(validate(state.mean))
        if curve[-1] > most:
            best, most = state.mean.copy(), curve[-1]
    return best, curve


def timing(plant: Physics, controllers: Mapping[str, Controller], rounds: int) -> dict[str, Any]:
    """Median CPU time of a decision in ms, and its ratio to the oracle's."""
    task = Task(plant)
    played = [{name: task.play(c).cpu_s for name, c in controllers.items()} for _ in range(rounds)]
    step = {name: 1e3 * float(np.median([episode[name] for episode in played])) for name in controllers}
    ratios = {f"time_ratio_{name}": value / step["oracle"] for name, value in step.items() if name != "oracle"}
    return {"step_ms": step} | ratios


def run(settings: Settings, folder: Path) -> dict[str, Any]:
    """Calibrate, train, play the task, then tanks that differ from the model."""
    del folder
    least = {"episodes": 1, "population": 2, "rounds": 1}
    if any(settings[name] < value for name, value in least.items()):
        given = ", ".join(f"{name} = {settings[name]}" for name in least)
        raise ConfigError(f"{given}: give at least {', '.join(map(str, least.values()))}")
    plant = physics()
    horizon, mismatch, seed = int(settings["horizon"]), float(settings["mismatch"]), int(settings["seed"])
    radius = error_radius(plant, horizon, mismatch, float(settings["coverage"]), seed)
    parameters, curve = train(plant, radius, settings)
    controllers: dict[str, Controller] = {
        "robust": RobustMpc(plant, radius),
        "learned": RobustMpc(plant, radius, parameters),
        "oracle": Oracle(int(settings["oracle_horizon"])),
    }
    result: dict[str, Any] = dict(settings) | {"published_oracle_reward": PUBLISHED_ORACLE, "gain_curve": curve}
    for late, suffix in ((0, ""), (1, "_published_timing")):
        played = {name: Task(plant, late=late).play(controller) for name, controller in controllers.items()}
        for name, episode in played.items():
            result[f"reward_{name}{suffix}"] = episode.reward
        if late == 0:
            temperatures = played["robust"].states[:, 1]
            margin = min(STATE_LIMITS[1, 1] - temperatures.max(), temperatures.min() - STATE_LIMITS[0, 1])
            result["temperature_margin_K"] = float(margin - radius[:, 1].max())
    result |= timing(plant, controllers, int(settings["rounds"]))
    inputs = Oracle(len(PUBLISHED) - 1).plan(START, PUBLISHED[1:])
    result["reward_whole_trajectory_known"] = Task(plant).play(Replay(inputs)).reward
    rng = np.random.default_rng([43, seed])
    tasks = [other_task(plant, mismatch, rng) for _ in range(int(settings["other_tanks"]))]
    result["other_tanks_reward"] = (
        {
            name: float(np.mean([task.play(controller).reward for task in tasks]))
            for name, controller in controllers.items()
        }
        if tasks
        else {}
    )
    for suffix in ("", "_published_timing"):  # like for like is the second: the published figure was shown it late
        result[f"reached{suffix}"] = {
            name: result[f"reward_{name}{suffix}"] >= PUBLISHED_ORACLE and result[f"time_ratio_{name}"] <= 1 / 20
            for name in ("robust", "learned")
        }
    return result


def table(result: dict[str, Any]) -> Iterable[str]:
    """Lines to print."""
    yield f"{'controller':12}{'return':>10}{'shown late':>12}{'other tanks':>13}{'ms/step':>10}{'of oracle':>11}"
    for name in ("robust", "learned", "oracle"):
        other = result["other_tanks_reward"].get(name, float("nan"))
        ratio = result.get(f"time_ratio_{name}", 1.0)
        yield (
            f"{name:12}{result[f'reward_{name}']:10.3f}{result[f'reward_{name}_published_timing']:12.3f}"
            f"{other:13.3f}{result['step_ms'][name]:10.3f}{ratio:11.4f}"
        )
    yield f"pc-gym's oracle as published: {result['published_oracle_reward']}, its best PID -14.15"
    yield f"whole trajectory known beforehand: {result['reward_whole_trajectory_known']:.3f}"


STUDY = Study(
    {
        "horizon": 8,
        "oracle_horizon": 20,
        "mismatch": 0.03,
        "coverage": 0.95,
        "population": 16,
        "iterations": 12,
        "episodes": 4,
        "other_tanks": 6,
        "rounds": 5,
        "seed": 1,
    },
    run,
    table,
)
