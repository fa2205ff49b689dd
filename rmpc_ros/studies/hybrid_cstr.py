"""Physics, network and hybrid models before, during and after a change of the plant, and the robust MPC on each.

Two plants whose catalyst decays and which have a side reaction the physics does not know: the stirred tank of Henson
and Seborg, and the reactor-separator network. Errors are of predictions `horizon` steps ahead (each state over its
spread in the training log). The closed loops run at a temperature limit through the change, with each model's own
calibrated radius.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import matplotlib
import numpy as np
from numpy.typing import NDArray

from rmpc_ros.models.calibration import CalibrationSettings, MultiStepCalibrator
from rmpc_ros.models.hybrid import HybridModel, Transitions, fit_hybrid, untrained
from rmpc_ros.models.physics import Physics
from rmpc_ros.mpc.learned import LearnedMpcSettings, decide
from rmpc_ros.plants import cstr, reactor_separator
from rmpc_ros.studies import _worn_cstr, _worn_reactor
from rmpc_ros.studies.registry import Settings, Study

matplotlib.use("Agg")
Vector = NDArray[np.float64]
Wear = Mapping[str, float]
MODELS = ("physics", "network", "hybrid_offline", "hybrid_online", "hybrid_from_scratch")
BURN_IN = 80
"""Periods before the closed loop is judged: the calibrators start without a single score."""
ONLINE = ("hybrid_online", "hybrid_from_scratch")


class World(Protocol):
    """A simulated plant: `measured` now, `state` truly, `step` one period on."""

    state: Vector
    measured: Vector

    def step(self, u: Vector, wear: Wear) -> Vector:
        """Advance and measure."""
        ...


@dataclass(frozen=True)
class Scenario:
    """One plant of the study."""

    physics: Physics
    feed: Vector
    noise: Vector
    log: Callable[[int, int, Sequence[Wear] | Wear], Transitions]
    world: Callable[[int], World]
    old: Wear
    new: Wear
    control: LearnedMpcSettings
    first_input: Vector
    cap: Vector
    limited: int


class _CstrWorld(_worn_cstr.World):
    def step(self, u: Any, wear: Wear) -> Vector:
        return super().step(float(np.ravel(u)[0]), wear)


def scenario(name: str, horizon: int) -> Scenario:
    """Numbers of one plant."""
    if name == "cstr":
        limit = 346.0
        control = LearnedMpcSettings(
            horizon,
            np.array([0.5, limit]),
            np.array([0.0, 1.0]),
            np.array([0.2]),
            np.full(2, -np.inf),
            np.array([np.inf, limit]),
            np.array([_worn_cstr.INPUT_LIMITS[0]]),
            np.array([_worn_cstr.INPUT_LIMITS[1]]),
            np.array([0.01, 1.0]),
        )
        return Scenario(
            Physics.from_model(cstr.build({}), _worn_cstr.PERIOD, ("k0", "UA")),
            _worn_cstr.NOMINAL_FEED,
            np.array([5e-4, 0.1]),
            _worn_cstr.excited_log,
            _CstrWorld,
            {"activity": 1.0, "side": 0.6},
            {"activity": 0.8, "side": 1.6, "transfer": 0.92},
            control,
            np.array([300.0]),
            np.array([0.05, 4.0]),
            1,
        )
    start = _worn_reactor.World(0).state
    upper = np.full(9, np.inf)
    upper[2] = start[2] + 2.0
    target = start.copy()
    target[[2, 5, 8]] += [2.0, 0.5, 0.5]
    weight = np.tile([0.0, 0.0, 1.0], 3)
    control = LearnedMpcSettings(
        horizon,
        target,
        weight,
        np.full(3, 0.2),
        np.full(9, -np.inf),
        upper,
        _worn_reactor.NOMINAL_INPUT - _worn_reactor.INPUT_REACH,
        _worn_reactor.NOMINAL_INPUT + _worn_reactor.INPUT_REACH,
        np.tile([0.01, 0.01, 1.0], 3),
    )
    return Scenario(
        Physics.from_model(reactor_separator.build({}), _worn_reactor.PERIOD, ("k1", "k2")),
        _worn_reactor.NOMINAL_FEED,
        np.tile([2e-4, 2e-4, 0.05], 3),
        _worn_reactor.excited_log,
        _worn_reactor.World,
        {"activity": 1.0, "side": 0.6},
        {"activity": 0.85, "side": 2.0},
        control,
        _worn_reactor.NOMINAL_INPUT,
        np.tile([0.02, 0.02, 3.0], 3),
        2,
    )


def wear_between(old: Wear, new: Wear, step: int, begin: int, end: int) -> dict[str, float]:
    """Old wear until `begin`, half of the change as a jump, the other half as a ramp until `end`."""
    share = 0.0 if step < begin else 0.5 + 0.5 * min((step - begin) / max(end - begin, 1), 1.0)
    names = set(old) | set(new)
    return {n: (1 - share) * old.get(n, 1.0) + share * new.get(n, 1.0) for n in names}


def models_of(s: Scenario, training: int, kind: str, seed: int) -> tuple[dict[str, HybridModel], Vector]:
    """All models, fitted to a log of the old plant, and each state's spread in it."""
    data = s.log(training, seed, s.old)
    none = Transitions(data.x, data.u, np.zeros((len(data), 0)), data.after, data.time)
    persistence = Physics.persistence("no physics", s.physics.states, s.physics.inputs, s.physics.period)
    ranges = untrained(s.physics, data.x, data.u, data.d, s.noise)
    hybrid = fit_hybrid(s.physics, data, kind, seed=seed, count=48)
    return {
        "physics": ranges,
        "network": fit_hybrid(persistence, none, "network", seed=seed, count=64),
        "hybrid_offline": hybrid,
        "hybrid_online": hybrid,
        "hybrid_from_scratch": ranges,
    }, data.x.std(0)


def fixed_feed(model: HybridModel, feed: Vector) -> Vector:
    """The disturbances a model wants: the nominal feed, or none."""
    return feed if model.structure.physics.disturbances else feed[:0]


def prediction_errors(
    models: dict[str, HybridModel], s: Scenario, data: Transitions, spread: Vector, horizon: int, forgetting: float
) -> dict[str, Vector]:
    """Normalised error `horizon` steps ahead from every second step, (len(data)/2,), learning as the log goes by."""
    out = {}
    for name, first in models.items():
        model, d = first, fixed_feed(first, s.feed)
        errors = []
        for k in range(len(data) - horizon):
            if k % 2 == 0:
                x = data.x[k]
                for j in range(horizon):
                    x = model.predict(x, data.u[k + j], d).mean
                errors.append(float(np.sqrt(np.mean(((x - data.after[k + horizon - 1]) / spread) ** 2))))
            if name in ONLINE:
                model = model.updated(data.x[k], data.u[k], d, data.after[k], float(data.time[k]), forgetting)
        out[name] = np.array(errors)
    return out


def closed_loop(
    model: HybridModel, online: bool, s: Scenario, steps: int, begin: int, end: int, seed: int, forgetting: float
) -> dict[str, float]:
    """Robust MPC at the limit through the change: mean stage cost, share of steps over the limit, mean radius there."""
    horizon = s.control.horizon
    calibrator = MultiStepCalibrator(horizon, s.cap, CalibrationSettings(0.95, 0.01, 200))
    world, d = s.world(seed), fixed_feed(model, s.feed)
    x, u = world.measured.copy(), s.first_input.copy()
    history: deque[tuple[HybridModel, Vector, list[float]]] = deque(maxlen=horizon)
    applied: deque[Vector] = deque(maxlen=horizon)
    cost, over, radii = 0.0, 0, []
    limit = s.control.upper[s.limited]
    for k in range(-BURN_IN, steps):
        mean, A, B, _ = model.linearised(x, u, d)
        roll = model.rollout(x, np.tile(u, (horizon, 1)), np.tile(d, (horizon, 1)))
        radius = calibrator.radius(roll.deviation)
        previous, u = u, decide(s.control, x, u, (mean, A, B), radius).input
        history.append((model, x, [q.value for q in calibrator.quantiles]))
        applied.append(u)
        after = world.step(u, wear_between(s.old, s.new, k, begin, end))
        if len(history) == horizon:
            past, start, promised = history[0]
            ahead = past.rollout(start, np.array(applied), np.tile(d, (horizon, 1)))
            for j in range(horizon):  # what was true then is known now: the last state is `after`
                truth = after if j == horizon - 1 else history[j + 1][1]
                calibrator.observe(j + 1, truth - ahead.mean[j], ahead.deviation[j], promised[j])
        if online:
            model = model.updated(x, u, d, after, (k + 1) * s.physics.period, forgetting)
        x = after
        if k < 0:
            continue
        gap = (world.state - s.control.setpoint) / s.control.scale
        cost += float(
            s.control.state_weight @ gap**2 + s.control.move_weight @ ((u - previous) / s.control.input_reach) ** 2
        )
        over += world.state[s.limited] > limit
        radii.append(radius[0, s.limited])
    return {"cost": cost / steps, "violations": over / steps, "mean_radius": float(np.mean(radii))}


def one_plant(name: str, settings: Settings) -> tuple[dict[str, Any], dict[str, Vector]]:
    """Everything about one plant."""
    s = scenario(name, 4)
    phase, horizon = int(settings["phase"]), int(settings["horizon"])
    forgetting = float(settings["forgetting"])
    models, spread = models_of(s, int(settings["training"]), str(settings["kind"]), int(settings["seed"]))
    wear = [wear_between(s.old, s.new, k, phase, 2 * phase) for k in range(4 * phase)]
    log = s.log(4 * phase, int(settings["seed"]) + 50, wear)
    errors = prediction_errors(models, s, log, spread, horizon, forgetting)
    half = phase // 2
    parts = {"before": slice(0, half), "during": slice(half, 2 * half), "after": slice(3 * half, None)}
    table = {m: {p: float(np.sqrt(np.mean(e[v] ** 2))) for p, v in parts.items()} for m, e in errors.items()}
    early = {
        str(n): float(
            np.sqrt(np.mean(errors["hybrid_from_scratch"][: n // 2] ** 2) / np.mean(errors["physics"][: n // 2] ** 2))
        )
        for n in (2, 10, 20, 50)
        if n // 2 <= half
    }
    steps = int(settings["closed_loop_steps"])
    loops = {
        m: closed_loop(models[m], m in ONLINE, s, steps, steps // 3, steps // 2, int(settings["seed"]) + 9, forgetting)
        for m in MODELS
    }
    return {
        "prediction_error": table,
        "online_to_physics_after": table["hybrid_online"]["after"] / table["physics"]["after"],
        "from_scratch_to_physics_first_steps": early,
        "worst_ratio_before_data": max(early.values()),
        "closed_loop": loops,
    }, errors


def run(settings: Settings, folder: Path) -> dict[str, Any]:
    """Both plants, or those of `plants`."""
    plants, curves = {}, {}
    for name in settings["plants"]:
        plants[name], curves[name] = one_plant(str(name), settings)
    _figure(curves, int(settings["phase"]), folder)
    return {
        "online_to_physics_after": {n: p["online_to_physics_after"] for n, p in plants.items()},
        "worst_ratio_before_data": {n: p["worst_ratio_before_data"] for n, p in plants.items()},
        "horizon": int(settings["horizon"]),
        "plants": plants,
        "figure": "hybrid-cstr.png",
    }


def _figure(curves: dict[str, dict[str, Vector]], phase: int, folder: Path) -> None:
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(len(curves), 1, figsize=(9, 3 * len(curves)), squeeze=False)
    for axis, (plant, errors) in zip(axes[:, 0], curves.items(), strict=True):
        for name, values in errors.items():
            smooth = np.sqrt(np.convolve(values**2, np.ones(10) / 10, "valid"))
            axis.semilogy(2 * np.arange(smooth.size), smooth, label=name, lw=0.9)
        axis.axvline(phase, color="0.6", lw=0.8)
        axis.axvline(2 * phase, color="0.6", lw=0.8)
        axis.set_title(plant)
        axis.set_ylabel("prediction error")
    axes[-1, 0].set_xlabel("step")
    axes[0, 0].legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(folder / "hybrid-cstr.png", dpi=120)
    plt.close(figure)


def table(result: dict[str, Any]) -> Iterable[str]:
    """Lines for people."""
    for plant, p in result["plants"].items():
        yield f"{plant}: error {result['horizon']} steps ahead (over each state's spread), closed loop at the limit"
        yield f"  {'model':20} {'before':>8} {'during':>8} {'after':>8} {'cost':>10} {'violations':>11} {'radius K':>9}"
        for name, e in p["prediction_error"].items():
            c = p["closed_loop"][name]
            yield (
                f"  {name:20} {e['before']:8.4f} {e['during']:8.4f} {e['after']:8.4f} {c['cost']:10.3f} "
                f"{100 * c['violations']:9.2f} % {c['mean_radius']:9.3f}"
            )
        yield f"  hybrid online after adaptation over physics only: {p['online_to_physics_after']:.2f}"
        yield f"  hybrid without data over physics, first steps: {p['from_scratch_to_physics_first_steps']}"


STUDY = Study(
    defaults={
        "plants": ["cstr", "reactor_separator"],
        "seed": 1,
        "training": 500,
        "phase": 200,
        "horizon": 10,
        "kind": "inducing",
        "forgetting": 0.995,
        "closed_loop_steps": 400,
    },
    run=run,
    table=table,
)
