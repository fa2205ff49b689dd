"""PID gains learned from an MPC against SIMC and relay tuning, on ten plants with dead time.

Per plant: an MPC controls it through set-point steps, load steps and noise; its moves give the start, the loops of an
ensemble of five plants refine it with the nominal Ms limited to what SIMC has. Reported on the nominal plant for unit
steps of set-point and load: IAE, total variation, Ms; stability is also checked on 50 random plants.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rmpc_ros.errors import DataError
from rmpc_ros.models.delayed import DelayProcess
from rmpc_ros.mpc.autotune import MoveRegression, refine
from rmpc_ros.mpc.loop_quality import LoopModel
from rmpc_ros.mpc.pid import PidSettings
from rmpc_ros.mpc.pid_loop import PidMpcLoop
from rmpc_ros.mpc.pid_mpc import OutputLimits, augment, tracking_cost
from rmpc_ros.mpc.simc import relay_experiment, simc, tyreus_luyben
from rmpc_ros.studies.registry import Settings, Study

Vector = NDArray[np.float64]

PLANTS = {
    "lag 1, delay 2": DelayProcess(1.0, (1.0,), 2.0),
    "lag 1, delay 1": DelayProcess(1.0, (1.0,), 1.0),
    "lag 3, delay 1": DelayProcess(2.0, (3.0,), 1.0),
    "lag 6, delay 1": DelayProcess(0.5, (6.0,), 1.0),
    "lag 15, delay 1": DelayProcess(1.0, (15.0,), 1.0),
    "lag 5, delay 1, reverse": DelayProcess(-3.0, (5.0,), 1.0),
    "lags 2 1, delay 1": DelayProcess(1.0, (2.0, 1.0), 1.0),
    "lags 5 2, delay 1": DelayProcess(2.0, (5.0, 2.0), 1.0),
    "lags 10 1, delay 1": DelayProcess(1.0, (10.0, 1.0), 1.0),
    "lags 4 4, delay 1": DelayProcess(1.5, (4.0, 4.0), 1.0),
}
VARIANTS = ((1.2, 1.0, 1.2), (0.8, 1.0, 1.2), (1.2, 0.8, 1.0), (0.8, 1.2, 0.8))


def mpc_log(process: DelayProcess, period: float, seed: int) -> tuple[MoveRegression, float]:
    """Closed loop under an MPC that knows the plant, excited by set-point and load steps; its moves' regression."""
    plant = process.sampled(period)
    idle = PidSettings(0.0, 0.0, 0.0, period)
    system = augment(plant, idle)
    loop = PidMpcLoop(plant, idle, OutputLimits(), 20, tracking_cost(system, 1.0, 100.0 * process.gain**2), noise=0.3)
    rng = np.random.default_rng(seed)
    hold = round((6 * process.delay + 3 * sum(process.lags)) / period)
    setpoints = np.repeat(rng.normal(size=4), 2 * hold)
    loads = np.repeat(rng.normal(size=8), hold)
    regression = MoveRegression(period, sign=process.gain, filter_time=process.delay)
    x, before = np.zeros(plant.A.shape[0]), 0.0
    loop.start(0.0, 0.0, 0.0)
    for target, load in zip(setpoints, loads, strict=True):
        y = float((plant.C @ x)[0]) + 0.002 * rng.normal()
        u = loop.step(float(target), y)
        regression.update(float(target) - y, y, u - before)
        x, before = plant.A @ x + plant.B[:, 0] * (u + load / abs(process.gain)), u
    return regression, hold * period


def tune(process: DelayProcess, seed: int, evaluations: int, checks: int) -> dict[str, Any]:
    """All tunings of one plant."""
    period = process.delay / 10
    loops = [LoopModel(process, period), *(LoopModel(process.perturbed(*v), period, points=150) for v in VARIANTS)]
    nominal = loops[0]
    reference = simc(process, period)
    baseline = nominal.judge(reference)
    regression, _ = mpc_log(process, period, seed)
    kp, ki, kd = regression.solve()
    start = PidSettings(kp, ki, kd, period, filter_time=0.1 * kd / kp if kp else 0.0)
    raw = nominal.judge(start)
    result = refine(loops, start, baseline, ms_limit=baseline.ms, evaluations=evaluations)
    pi_only = refine(
        loops, replace(start, kd=0.0, filter_time=0.0), baseline, baseline.ms, derivative=False, evaluations=evaluations
    )
    relay = tyreus_luyben(relay_experiment(process, period), period)
    rng = np.random.default_rng(seed + 1)
    random = [LoopModel(process.perturbed(*rng.uniform(0.75, 1.25, 3)), period, points=20) for _ in range(checks)]
    unstable = sum(not loop.judge(result.settings).stable for loop in random)
    rows = {
        "simc": (reference, baseline),
        "relay": (relay, nominal.judge(relay)),
        "regression": (start, raw),
        "tuned_pi": (pi_only.settings, pi_only.quality),
        "tuned": (result.settings, result.quality),
    }
    quality = result.quality
    return {
        "tunings": {
            name: {"kp": s.kp, "ki": s.ki, "kd": s.kd, "setpoint_weight": s.setpoint_weight, **asdict(q)}
            for name, (s, q) in rows.items()
        },
        "better_setpoint": quality.iae_setpoint < baseline.iae_setpoint,
        "better_load": quality.iae_load < baseline.iae_load,
        "ms_within": quality.ms <= baseline.ms,
        "ensemble_ms": result.ensemble_ms,
        "unstable_random_plants": unstable,
        "excitation": regression.excitation(),
    }


def run(settings: Settings, folder: Path) -> dict[str, Any]:
    """Tune every plant."""
    names = list(PLANTS)[: int(settings["plants"])]
    if not names:
        raise DataError("plants = 0: choose 1 to 10")
    plants = {
        name: tune(PLANTS[name], int(settings["seed"]), int(settings["evaluations"]), int(settings["random_plants"]))
        for name in names
    }
    both = [p["better_setpoint"] and p["better_load"] and p["ms_within"] for p in plants.values()]
    ratios = {
        key: float(np.mean([p["tunings"]["tuned"][key] / p["tunings"]["simc"][key] for p in plants.values()]))
        for key in ("iae_setpoint", "iae_load", "tv_setpoint", "tv_load", "ms")
    }
    (folder / "table.md").write_text("\n".join(markdown(plants)) + "\n", encoding="utf-8")
    return {
        "plants_better": int(sum(both)),
        "plants_total": len(plants),
        "unstable_loops": int(
            sum(p["unstable_random_plants"] + (not p["tunings"]["tuned"]["radius"] < 1) for p in plants.values())
        ),
        "mean_ratio_to_simc": ratios,
        "plants": plants,
    }


def markdown(plants: dict[str, Any]) -> Iterable[str]:
    """The table of docs/pid.md: IAE set-point / IAE load / total variation (both steps) / Ms."""
    columns = ("simc", "relay", "regression", "tuned_pi", "tuned")
    yield "| plant | SIMC | relay (Tyreus-Luyben) | regression alone | tuned, PI only | tuned |"
    yield "|---|---|---|---|---|---|"
    for name, p in plants.items():
        cells = []
        for column in columns:
            t = p["tunings"][column]
            variation = t["tv_setpoint"] + t["tv_load"]
            cells.append(
                f"{t['iae_setpoint']:.2f} / {t['iae_load']:.2f} / {variation:.1f} / {t['ms']:.2f}"
                if t["radius"] < 1
                else "unstable"
            )
        yield f"| {name} | " + " | ".join(cells) + " |"


def table(result: dict[str, Any]) -> Iterable[str]:
    """Lines for people."""
    yield from markdown(result["plants"])
    yield (
        f"tuned PID better than SIMC on set-point and load at no larger Ms: {result['plants_better']} of "
        f"{result['plants_total']} plants; unstable loops: {result['unstable_loops']}"
    )
    yield "mean ratio to SIMC: " + ", ".join(f"{k} {v:.2f}" for k, v in result["mean_ratio_to_simc"].items())


STUDY = Study(
    defaults={"plants": 10, "seed": 1, "evaluations": 240, "random_plants": 50},
    run=run,
    table=table,
)
