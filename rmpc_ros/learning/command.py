"""What `rmpc train` and `rmpc evaluate` do."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rmpc_ros.config import load_plant
from rmpc_ros.errors import ConfigError
from rmpc_ros.learning.case import learning_case
from rmpc_ros.learning.evaluate import evaluate
from rmpc_ros.learning.policy import KINDS, Kind, load_policy
from rmpc_ros.learning.train import TrainOptions, train

ALGORITHMS = ("cem",)


def run_train(
    plant: Path, algorithm: str, kind: str, seed: int, iterations: int, windows: int, resume: bool, out: Path | None
) -> tuple[dict[str, Any], Iterator[str]]:
    """Train a policy; figures and lines for people.

    Raises
    ------
    ConfigError
        Unknown algorithm or kind, or the plant file cannot be learned on.
    DataError
        Nothing to resume.
    """
    if algorithm not in ALGORITHMS:
        raise ConfigError(f"--algo {algorithm}: known: {', '.join(ALGORITHMS)}")
    chosen: Kind | None = next((k for k in KINDS if k == kind), None)
    if chosen is None:
        raise ConfigError(f"--actor {kind}: known: {', '.join(KINDS)}")
    if iterations < 1:
        raise ConfigError(f"--iterations {iterations}: give at least 1")
    case = learning_case(load_plant(plant))
    folder = out or Path("runs") / f"train-{case.config.plant.name}-{algorithm}-{kind}"
    began = time.perf_counter()
    trained = train(case, TrainOptions(chosen, seed, iterations, windows=windows), folder, resume, _progress)
    n, m, a = trained.surrogate.sizes
    result = {
        "plant": case.config.plant.name,
        "algorithm": algorithm,
        "actor": kind,
        "seed": seed,
        "iterations": iterations,
        "seconds": time.perf_counter() - began,
        "policy": folder / "policy.json",
        "parameters": trained.policy.actor.size,
        "surrogate_state_error": trained.surrogate.error[:n],
        "surrogate_input_error": trained.surrogate.error[n : n + m],
        "curve_mean": [mean for mean, _ in trained.curve],
        "curve_best": [best for _, best in trained.curve],
    }

    def lines() -> Iterator[str]:
        yield f"policy    {result['policy']} ({kind}, {trained.policy.actor.size} parameters for all {a} agents)"
        yield f"time      {result['seconds']:.0f} s"
        yield "iteration  mean of samples  best sample   (profit per hour on new campaigns: it varies with them)"
        step = max(1, len(trained.curve) // 10)
        for k in range(0, len(trained.curve), step):
            mean, best = trained.curve[k]
            yield f"{k + 1:9} {mean:16.1f} {best:12.1f}"

    return result, lines()


def run_evaluate(plant: Path, policy: Path, seeds: int, workers: int) -> tuple[dict[str, Any], Iterator[str]]:
    """Compare a policy with the baselines on held-out campaigns; figures and lines for people."""
    result = evaluate(plant, load_policy(policy), seeds, workers)

    def lines() -> Iterator[str]:
        for label in ("campaign", "harsh"):
            yield f"{label}: {seeds} campaigns, real controllers; mean per hour [95 % confidence]"
            heads = f"{'over best constant':>26} {'violation h':>12} {'quality h':>10} {'regen.':>7}"
            yield f"{'policy':18} {'profit':>9} {heads}"
            for name, row in result[label].items():
                low, high = row["gain_over_best_constant_ci95"]
                gain = f"{row['gain_over_best_constant']:8.1f} [{low:6.1f}, {high:6.1f}]"
                yield (
                    f"{name:18} {row['profit_per_hour']:9.1f} {gain:>26} {row['violation_hours']:12.1f} "
                    f"{row['quality_hours']:10.1f} {row['regenerations']:7.2f}"
                )

    return result, lines()


def _progress(what: str, done: int, wanted: int) -> None:
    """A line on standard error that overwrites itself on a terminal; elsewhere only the last one."""
    if sys.stderr.isatty() or done == wanted:
        end = "\n" if done == wanted else "\r"
        print(f"{what:16} {done:5}/{wanted}", end=end, file=sys.stderr, flush=True)
