"""What `rmpc train` and `rmpc evaluate` do."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from rmpc_ros.errors import ConfigError
from rmpc_ros.learning.curves import GAIN
from rmpc_ros.learning.day import RobustDays
from rmpc_ros.learning.evaluate import evaluate
from rmpc_ros.learning.plan import LONGER, MOST_DAYS, load_learned
from rmpc_ros.learning.policy import KINDS, Kind
from rmpc_ros.learning.rollouts import PlantFile, Workers
from rmpc_ros.learning.surrogate import Surrogate, identify_with
from rmpc_ros.learning.train import ALGORITHMS, Algorithm, TrainOptions, train, usual_options
from rmpc_ros.learning.value_training import train_plan


def run_train(
    plant: Path,
    algorithm: str,
    kind: str | None,
    seed: int,
    iterations: int | None,
    windows: int,
    resume: bool,
    out: Path | None,
    workers: Workers,
    moves: str | None = None,
    horizon: int | None = None,
) -> tuple[dict[str, Any], Iterator[str]]:
    """Train a policy; figures and lines for people.

    Raises
    ------
    ConfigError
        Unknown algorithm or kind, or the plant file cannot be learned on.
    DataError
        Nothing to resume.
    """
    options = _options(algorithm, kind, seed, iterations, windows, horizon)
    file = PlantFile.read(plant)
    case = file.case()
    if moves is not None:
        case = case.moving(moves.split(","))
    name = "-".join(["train", case.config.plant.name, algorithm, *([options.kind] if options.kind else [])])
    folder = out or Path("runs") / name
    began, used = time.perf_counter(), time.process_time()
    with Bars() as bars:

        def identify() -> Surrogate:
            authority = RobustDays(case).targets.authority
            return identify_with(file, case, authority, seed, windows, workers, partial(bars, "surrogate"))

        spread_out = workers.count > 1 or workers.ray
        elsewhere = identify if spread_out else None
        learned: dict[str, Any]
        if options.kind is None:
            planned = train_plan(case, options, folder, resume, bars, elsewhere)
            learned, curve, surrogate = {"horizon": planned.plan.horizon}, planned.curve, planned.surrogate
            size = planned.plan.value.weights.size
        else:
            trained = train(case, options, folder, resume, bars, elsewhere)
            learned, curve, surrogate = {"actor": options.kind}, trained.curve, trained.surrogate
            size = trained.policy.actor.size
    n, m, a = surrogate.sizes
    result = {
        "plant": case.config.plant.name,
        "algorithm": algorithm,
        **learned,
        "seed": seed,
        "iterations": options.iterations,
        "actions": len(case.moves),
        "moves": case.moves,
        "seconds": time.perf_counter() - began,
        "cpu_seconds": time.process_time() - used,
        "workers": dataclasses.asdict(workers),
        "policy": folder / "policy.json",
        "picture": folder / "curve.png",
        "events": folder / "events",
        "parameters": size,
        "surrogate_state_error": surrogate.error[:n],
        "surrogate_input_error": surrogate.error[n : n + m],
        "curve": curve,
    }

    def lines() -> Iterator[str]:
        what = options.kind or f"value at the end of a plan of {options.horizon} days"
        yield f"policy    {result['policy']} ({what}, {result['parameters']} parameters for all {a} agents)"
        yield f"curves    {result['picture']}, {folder / 'curve.csv'}; tensorboard --logdir {result['events']}"
        yield f"time      {result['seconds']:.0f} s ({result['cpu_seconds']:.0f} s of this process's CPU)"
        yield "iteration  over the best constant   (profit per hour, surrogate, validation campaigns, no exploration)"
        looked = [(k, row[GAIN]) for k, row in enumerate(curve) if GAIN in row]
        for k, gain in looked[:: max(1, len(looked) // 10)]:
            yield f"{k + 1:9} {gain:23.1f}"

    return result, lines()


def _options(
    algorithm: str, kind: str | None, seed: int, iterations: int | None, windows: int, horizon: int | None
) -> TrainOptions:
    known: Algorithm | None = next((name for name in ALGORITHMS if name == algorithm), None)
    if known is None:
        raise ConfigError(f"--algo {algorithm}: known: {', '.join(ALGORITHMS)}")
    usual = usual_options(known)
    chosen: Kind | None = usual.kind
    if kind is not None:
        chosen = next((k for k in KINDS if k == kind), None)
        if usual.kind is None:
            raise ConfigError(f"--actor {kind}: --algo {algorithm} learns the end of a plan, which has no actor")
        if chosen is None:
            raise ConfigError(f"--actor {kind}: known: {', '.join(KINDS)}")
    days = usual.horizon if horizon is None else horizon
    if horizon is not None and (usual.horizon is None or not 1 <= horizon <= MOST_DAYS // LONGER):
        raise ConfigError(f"--days {horizon}: 1 to {MOST_DAYS // LONGER}, of a plan (--algo value)")
    wanted = usual.iterations if iterations is None else iterations
    if wanted < 1:
        raise ConfigError(f"--iterations {wanted}: give at least 1")
    return dataclasses.replace(usual, kind=chosen, seed=seed, iterations=wanted, windows=windows, horizon=days)


def run_evaluate(
    plant: Path, policies: Sequence[Path], seeds: int, first_seed: int, workers: Workers
) -> tuple[dict[str, Any], Iterator[str]]:
    """Compare policies with the baselines on held-out campaigns; figures and lines for people."""
    with Bars() as bars:
        loaded = [load_learned(path) for path in policies]
        result = evaluate(plant, loaded, seeds, workers, first_seed, partial(bars, "campaigns"))

    def lines() -> Iterator[str]:
        which = f"seeds {first_seed} to {first_seed + seeds - 1}"
        for label in ("campaign", "harsh"):
            yield f"{label}: {which}, real controllers; per hour [95 % confidence]"
            heads = f"{'over best constant':>26} {'violation h':>12} {'quality h':>10} {'regen.':>7} {'energy':>10}"
            width = max(map(len, result[label]))
            yield f"{'policy':{width}} {'profit':>9} {heads}  gain by training seed"
            for name, row in result[label].items():
                low, high = row["gain_over_best_constant_ci95"]
                gain = f"{row['gain_over_best_constant']:8.1f} [{low:6.1f}, {high:6.1f}]"
                seen = "  ".join(f"{s}: {g:.1f}" for s, g in row.get("gain_by_training_seed", {}).items())
                yield (
                    f"{name:{width}} {row['profit_per_hour']:9.1f} {gain:>26} {row['violation_hours']:12.1f} "
                    f"{row['quality_hours']:10.1f} {row['regenerations']:7.2f} {row['energy_per_hour']:10.4g}  {seen}"
                )

    return result, lines()


class Bars:
    """Progress bars on standard error, one per stage; elsewhere than on a terminal only what is finished."""

    def __init__(self) -> None:
        from rich.console import Console

        columns = (TextColumn("{task.description:16}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        self._progress = Progress(*columns, console=Console(stderr=True))
        self._tasks: dict[str, TaskID] = {}

    def __enter__(self) -> Bars:
        self._progress.start()
        return self

    def __exit__(self, *reason: object) -> None:
        self._progress.stop()

    def __call__(self, what: str, done: int, wanted: int) -> None:
        """Move a stage's bar."""
        if what not in self._tasks:
            self._tasks[what] = self._progress.add_task(what, total=wanted)
        self._progress.update(self._tasks[what], completed=done, total=wanted)
