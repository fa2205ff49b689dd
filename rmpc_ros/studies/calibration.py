"""A hybrid model's radius as the MPC's uncertainty set: coverage, sharpness, violations over abrupt and slow drift.

The worn stirred tank runs at a temperature limit under an MPC that keeps the calibrated radius away from it. The
catalyst decays slowly, jumps when it is changed, the jacket fouls, and the unmeasured feed is badly mixed in
three spells of ten. Two calibrations (90 % and 95 %) run side by side on the same predictions; the MPC uses the one of
`used`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from numpy.typing import NDArray

from rmpc_ros.models.calibration import CalibrationSettings, MultiStepCalibrator
from rmpc_ros.models.hybrid import HybridModel, fit_hybrid
from rmpc_ros.models.physics import Physics
from rmpc_ros.mpc.learned import LearnedMpcSettings, decide
from rmpc_ros.plants import cstr
from rmpc_ros.studies import _worn_cstr as worn
from rmpc_ros.studies.registry import Settings, Study

matplotlib.use("Agg")
Vector = NDArray[np.float64]

LEVELS = (0.9, 0.95)
HORIZON = 4
CAP = np.array([0.02, 2.0])
LIMIT = 346.0


def wear_at(step: int, steps: int) -> dict[str, float]:
    """Slow decay within each of eight campaigns, a jump between them, a fouling jacket over all of them."""
    campaign = step * 8 // steps
    within = step * 8 / steps - campaign
    return {
        "activity": (1.0, 0.9, 1.05, 0.85, 1.0, 0.95, 1.1, 0.9)[campaign] * (1 - 0.08 * within),
        "transfer": 1.0 - 0.1 * step / steps,
        "side": (0.5, 1.5, 0.5, 1.0, 2.0, 0.5, 1.0, 1.5)[campaign],
    }


def feed_gust(step: int, steps: int) -> float:
    """K: 20 spells, three of ten with a badly mixed feed, abruptly."""
    return (0.0, 0.3, 0.0, 8.0, 0.0, 0.3, 10.0, 0.0, 0.3, 8.0)[step * 20 // steps % 10]


def mpc_settings(limit: float = LIMIT, horizon: int = HORIZON) -> LearnedMpcSettings:
    """Track a set-point just above what the limit allows: the limit is what decides."""
    return LearnedMpcSettings(
        horizon,
        np.array([0.5, limit]),
        np.array([0.0, 1.0]),
        np.array([0.2]),
        np.array([-np.inf, -np.inf]),
        np.array([np.inf, limit]),
        np.array([worn.INPUT_LIMITS[0]]),
        np.array([worn.INPUT_LIMITS[1]]),
        np.array([0.01, 1.0]),
    )


@dataclass(frozen=True)
class Promise:
    """What was promised at a step: model, state, and the quantiles in force per level and horizon step."""

    model: HybridModel
    x: Vector
    quantiles: dict[float, list[float]]


def run(settings: Settings, folder: Path) -> dict[str, Any]:
    """Long closed loops, one per seed; the scenario is fixed."""
    first = int(settings["seed"])
    runs = [
        {"seed": seed, **one_run(settings, seed, folder / "calibration.png" if seed == first else None)}
        for seed in range(first, first + int(settings["seeds"]))
    ]

    def mean(name: str) -> dict[str, float]:
        return {level: float(np.mean([one[name][level] for one in runs])) for level in runs[0][name]}

    return {
        "steps": int(settings["steps"]),
        "seeds": [one["seed"] for one in runs],
        "coverage": mean("coverage"),
        "largest_miss_of_coverage": max(abs(c - float(v)) for one in runs for v, c in one["coverage"].items()),
        "sharpness": mean("sharpness"),
        "smallest_sharpness": {level: min(one["sharpness"][level] for one in runs) for level in runs[0]["sharpness"]},
        "violations": float(np.mean([one["violations"] for one in runs])),
        "largest_violations": max(one["violations"] for one in runs),
        "epsilon": runs[0]["epsilon"],
        "coverage_four_steps_ahead": mean("coverage_four_steps_ahead"),
        "runs": runs,
        "figure": "calibration.png",
    }


def one_run(settings: Settings, seed: int, picture: Path | None) -> dict[str, Any]:
    """One closed loop."""
    steps, used = int(settings["steps"]), float(settings["used"])
    physics = Physics.from_model(cstr.build({}), worn.PERIOD, ("k0", "UA"))
    model = fit_hybrid(
        physics, worn.excited_log(int(settings["training"]), seed + 1000, {}), str(settings["kind"]), count=32
    )
    rate = float(settings["rate"])
    window = int(settings["window"])
    calibrators = {v: MultiStepCalibrator(HORIZON, CAP, CalibrationSettings(v, rate, window)) for v in LEVELS}
    world = worn.World(seed)
    control = mpc_settings()
    x, u, d = world.measured.copy(), np.array([300.0]), worn.NOMINAL_FEED
    history: deque[Promise] = deque(maxlen=HORIZON)
    inputs: deque[Vector] = deque(maxlen=HORIZON)
    radii = {v: np.empty((steps, 2)) for v in LEVELS}
    errors, temperature, truth = np.empty((steps, 2)), np.empty(steps), np.empty(steps)
    for k in range(steps):
        mean, A, B, _ = model.linearised(x, u, d)
        deviation = _deviations(model, x, u, d, A)
        radius = calibrators[used].radius(deviation)
        u = decide(control, x, u, (mean, A, B), radius).input
        prediction = model.predict(x, u, d)
        sigma = np.sqrt(prediction.variance)
        history.append(Promise(model, x, {v: [q.value for q in c.quantiles] for v, c in calibrators.items()}))
        inputs.append(u)
        for v in LEVELS:
            radii[v][k] = calibrators[v].radius(sigma[None])[0]
        world.gust = feed_gust(k, steps)
        after = world.step(float(u[0]), wear_at(k, steps))
        errors[k], temperature[k], truth[k] = after - prediction.mean, after[1], world.state[1]
        for c in calibrators.values():
            c.observe(1, errors[k], sigma)
        if k % HORIZON == 0 and len(history) == HORIZON:
            _observe_later(calibrators, history[0], list(inputs), after, d)
        forgetting = float(settings["forgetting"])
        model = model.updated(
            x, u, d, after, (k + 1) * worn.PERIOD, forgetting, prediction, noise_rate=float(settings["noise_rate"])
        )
        x = after
    if picture is not None:
        _figure(radii, errors, temperature, used, picture)
    return _summary(settings, calibrators, radii, errors, truth)


def _deviations(model: HybridModel, x: Vector, u: Vector, d: Vector, A: Vector) -> Vector:
    """Standard deviations (H, n) along the horizon, with the Jacobian held."""
    one = model.predict(x, u, d).variance
    spread, out = np.zeros((2, 2)), np.empty((HORIZON, 2))
    for j in range(HORIZON):
        spread = A @ spread @ A.T + np.diag(one)
        out[j] = np.sqrt(np.diag(spread))
    return out


def _observe_later(
    calibrators: dict[float, MultiStepCalibrator], promise: Promise, inputs: list[Vector], after: Vector, d: Vector
) -> None:
    """Score the prediction made H steps ago with the inputs that were really applied."""
    roll = promise.model.rollout(promise.x, np.array(inputs), np.tile(d, (HORIZON, 1)))
    for v, c in calibrators.items():
        c.observe(HORIZON, after - roll.mean[-1], roll.deviation[-1], promise.quantiles[v][HORIZON - 1])
        for j in range(1, HORIZON - 1):  # steps in between: the quantile of the last one is a safe stand-in
            c.quantiles[j] = c.quantiles[HORIZON - 1]


def _summary(
    settings: Settings,
    calibrators: dict[float, MultiStepCalibrator],
    radii: dict[float, Vector],
    errors: Vector,
    truth: Vector,
) -> dict[str, Any]:
    coverage, sharpness, constant = {}, {}, {}
    for v in LEVELS:
        inside = np.all(np.abs(errors) <= radii[v], axis=1)
        coverage[str(v)] = float(inside.mean())
        scale = np.mean(radii[v], axis=0)
        needed = np.max(np.abs(errors) / scale, axis=1)  # the same shape, constant in time, covering as often
        factor = float(np.quantile(needed, inside.mean()))
        constant[str(v)] = (factor * scale).tolist()
        sharpness[str(v)] = 1.0 - 1.0 / factor
    used = float(settings["used"])
    return {
        "steps": len(errors),
        "coverage": coverage,
        "sharpness": sharpness,
        "violations": float(np.mean(truth > LIMIT)),
        "epsilon": 1.0 - used,
        "mean_radius": {str(v): np.mean(radii[v], axis=0).tolist() for v in LEVELS},
        "constant_radius_of_equal_coverage": constant,
        "coverage_four_steps_ahead": {str(v): c.quantiles[-1].coverage for v, c in calibrators.items()},
        "infinite_radii": {str(v): c.quantiles[0].infinite for v, c in calibrators.items()},
        "mean_distance_to_limit": float(np.mean(LIMIT - truth)),
    }


def _figure(radii: dict[float, Vector], errors: Vector, temperature: Vector, used: float, picture: Path) -> None:
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(2, 1, figsize=(9, 5), sharex=True)
    stride = max(len(errors) // 4000, 1)
    steps = np.arange(0, len(errors), stride)
    axes[0].plot(steps, np.abs(errors[::stride, 1]), ".", ms=1, color="0.6", label="|prediction error of T|")
    for v, values in radii.items():
        axes[0].plot(steps, values[::stride, 1], lw=0.7, label=f"{100 * v:.0f} % radius")
    axes[0].set_ylim(0, float(np.quantile(radii[max(radii)][:, 1], 0.995)) * 1.3)
    axes[0].legend(fontsize=8)
    axes[0].set_ylabel("K")
    axes[1].plot(steps, temperature[::stride], lw=0.5)
    axes[1].axhline(LIMIT, color="r", lw=0.8)
    axes[1].set_ylabel("T (K)")
    axes[1].set_xlabel(f"step (the MPC uses the {100 * used:.0f} % radius)")
    figure.tight_layout()
    figure.savefig(picture, dpi=120)
    plt.close(figure)


def table(result: dict[str, Any]) -> Iterable[str]:
    """Lines for people."""
    yield f"{'level':>6} {'coverage':>9} {'sharper than constant':>22} {'four steps ahead':>17}"
    for level in result["coverage"]:
        yield (
            f"{level:>6} {result['coverage'][level]:9.4f} {100 * result['sharpness'][level]:20.1f} % "
            f"{result['coverage_four_steps_ahead'][level]:17.4f}"
        )
    yield (
        f"steps over the limit: {100 * result['violations']:.2f} %, worst seed "
        f"{100 * result['largest_violations']:.2f} % (allowed {100 * result['epsilon']:.0f} %)"
    )
    yield (
        f"{len(result['seeds'])} seeds: largest difference from a level {100 * result['largest_miss_of_coverage']:.2f} "
        f"points, least gain {', '.join(f'{100 * v:.1f} %' for v in result['smallest_sharpness'].values())}"
    )


STUDY = Study(
    defaults={
        "steps": 20000,
        "seeds": 3,
        "seed": 301,
        "training": 500,
        "kind": "inducing",
        "used": 0.95,
        "rate": 0.01,
        "window": 300,
        "forgetting": 0.99,
        "noise_rate": 0.05,
    },
    run=run,
    table=table,
)
