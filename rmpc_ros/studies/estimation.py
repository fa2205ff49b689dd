"""State estimation with bad sensors: 10 % of readings missing, compositions every tenth step, one temperature stuck.

The reactor-separator network runs under its cooperating robust controllers, which get estimates instead of
measurements: an extended Kalman filter with feed disturbances as states, and a fault detector that decides whom to
trust. The estimation error's bound enters the robust design as sensor noise (an output-feedback tube). Baselines: the
last reading held, and the filter without fault detection; a moving-horizon estimator sees the same readings for part
of the run.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from numpy.typing import NDArray

from rmpc_ros.config import PlantConfig, load_plant
from rmpc_ros.config.shipped import shipped_plant
from rmpc_ros.models.estimator import Estimate, ExtendedKalman, Sensors, error_box, with_disturbance_states
from rmpc_ros.models.moving_horizon import MovingHorizon
from rmpc_ros.models.physics import Physics
from rmpc_ros.models.sensor_faults import FaultDetector
from rmpc_ros.network.agent import Agent
from rmpc_ros.network.system import design_agents
from rmpc_ros.plants import make_plant
from rmpc_ros.studies.registry import Settings, Study

matplotlib.use("Agg")
Vector = NDArray[np.float64]

FEEDS = ("T10", "xA10", "T20")
FEED_REACH = np.array([2.0, 0.008, 2.0])
READING_NOISE = {"K": 0.01, "mass fraction": 1e-4}
ERROR_BOUND = {"K": 0.02, "mass fraction": 1e-4}
"""Largest estimation error for which this plant has jointly invariant boxes; the study reports how often it holds."""


def narrowed(config: PlantConfig) -> PlantConfig:
    """The shipped plant with feeds that vary less and the estimation error's bound as its sensor noise."""
    disturbances = {}
    for name, reach in zip(FEEDS, FEED_REACH, strict=True):
        old = config.plant.disturbances[name]
        nominal = float(config.linear.steady_disturbance[config.linear.disturbances.index(name)])
        disturbances[name] = old.model_copy(update={"bounds": (nominal - reach, nominal + reach)})
    agents = {}
    for name, agent in config.agents.items():
        states = {k: v.model_copy(update={"noise": ERROR_BOUND[v.unit]}) for k, v in agent.states.items()}
        agents[name] = agent.model_copy(update={"states": states})
    plant = config.plant.model_copy(update={"disturbances": disturbances})
    return config.model_copy(update={"plant": plant, "agents": agents})


class Readings:
    """Sensors with noise, schedules, losses and one stuck temperature."""

    def __init__(self, config: PlantConfig, settings: Settings) -> None:
        variables = [(k, v) for agent in config.agents.values() for k, v in agent.states.items()]
        self.names = tuple(name for name, _ in variables)
        self.noise = np.array([READING_NOISE[v.unit] for _, v in variables])
        self.fast = np.array([v.unit == "K" for _, v in variables])
        self.every = int(settings["composition_every"])
        self.missing = float(settings["missing"])
        self.stuck, self.stuck_at = self.names.index(str(settings["stuck"])), int(settings["stuck_at"])
        self._held = np.nan
        self._rng = np.random.default_rng(int(settings["seed"]) + 10)

    def read(self, step: int, truth: Vector) -> tuple[Vector, NDArray[np.bool_]]:
        """Readings, NaN where none came, and which were due."""
        due = self.fast | (step % self.every == 0)
        y = truth + self.noise * np.clip(self._rng.normal(size=truth.size), -3, 3)
        lost = self._rng.random(truth.size) < self.missing
        if step >= self.stuck_at:
            self._held = y[self.stuck] if np.isnan(self._held) else self._held
            y[self.stuck] = self._held
        return np.where(due & ~lost, y, np.nan), due


def filter_of(config: PlantConfig, readings: Readings) -> tuple[ExtendedKalman, Estimate, Vector]:
    """Filter, first estimate, and the fixed disturbances it still needs."""
    model = config.nonlinear
    if model is None:
        raise ValueError("the estimation study needs a plant with differential equations")
    nominal = np.array(
        [_nominal(config, name, v) for name, v in zip(model.disturbance_names, model.disturbances, strict=True)]
    )
    physics = Physics.from_model(model, config.period)
    extended = with_disturbance_states(physics, FEEDS, nominal)
    order = [model.state_names.index(name) for name in readings.names]
    if order != list(range(len(order))):
        raise ValueError("the study reads states in the model's order")
    feeds = nominal[[model.disturbance_names.index(name) for name in FEEDS]]
    quiet = np.where(readings.fast, 2e-3, 2e-5)
    noise = np.concatenate([quiet, 0.15 * FEED_REACH])
    low = np.concatenate([np.where(readings.fast, 250.0, 0.0), feeds - FEED_REACH])
    high = np.concatenate([np.where(readings.fast, 600.0, 1.0), feeds + FEED_REACH])
    sensors = Sensors(readings.names, tuple(order), readings.noise)
    kalman = ExtendedKalman(extended, noise, sensors, lower=low, upper=high)
    start = np.concatenate([config.linear.steady_state, feeds])
    spread = np.concatenate([np.where(readings.fast, 0.1, 1e-3), 0.5 * FEED_REACH])
    fixed = np.array([v for name, v in zip(model.disturbance_names, nominal, strict=True) if name not in FEEDS])
    return kalman, Estimate(start, np.diag(spread**2)), fixed


def _nominal(config: PlantConfig, name: str, variable: Any) -> float:
    if name in config.linear.disturbances:
        return float(config.linear.steady_disturbance[config.linear.disturbances.index(name)])
    return float(variable.nominal)


def closed_loop(config: PlantConfig, settings: Settings, method: str, mhe_steps: int = 0) -> dict[str, Any]:
    """One run with `method` "filter", "no detection" or "last reading"; everything that is reported."""
    plant = make_plant(config, model="nonlinear", seed=int(settings["seed"]))
    agents = {name: Agent(design) for name, design in design_agents(config).items()}
    for agent in agents.values():
        agent.start(0)
    readings = Readings(config, settings)
    kalman, estimate, fixed = filter_of(config, readings)
    detector = FaultDetector(readings.names)
    window = MovingHorizon(kalman, estimate, 5, disturbances=fixed) if mhe_steps else None
    n, count = len(readings.names), int(settings["steps"])
    errors, bounds, mhe_errors = np.empty((count, n)), np.empty((count, n)), []
    margins, states, held = np.empty(count), np.empty((count, n)), config.linear.steady_state.copy()
    named: dict[str, Any] | None = None
    delay: int | None = None
    seconds, broken, modes = 0.0, 0, dict.fromkeys(("optimal", "certified", "backup", "safe"), 0)
    inputs = config.linear.steady_input.copy()
    for k in range(count):
        truth = np.concatenate(list(plant.true_state().values()))
        y, due = readings.read(k, truth)
        prior = kalman.predicted(estimate, inputs, fixed) if k else estimate
        trusted = detector.update(k, y, kalman.innovations(prior, y), due)
        if method == "no detection":
            trusted = np.isfinite(y)
        estimate = kalman.corrected(prior, y, trusted)
        held = np.where(np.isfinite(y), y, held)
        used = held if method == "last reading" else estimate.mean[:n]
        if window is not None and 0 < k <= mhe_steps:
            began = time.perf_counter()
            mhe_errors.append(window.update(inputs, y, trusted)[:n] - truth)
            seconds += time.perf_counter() - began
        for fault in detector.faults:
            if named is None and fault.sensor == readings.names[readings.stuck] and k >= readings.stuck_at:
                delay = k - readings.stuck_at
                named = {"step": k, "sensor": fault.sensor, "kind": fault.kind, "evidence": fault.evidence}
        seen = {name: used[config.linear.rows(name)] for name in agents}
        decisions = {name: agent.step(k, seen[name], seen) for name, agent in agents.items()}
        for name, decision in decisions.items():
            broken += not decision.report.promise_kept
            modes[decision.mode] += 1
            for other, agent in agents.items():
                if other != name and name in agent.design.neighbours:
                    agent.receive(decision.forecast)
        inputs = np.concatenate([d.input for d in decisions.values()])
        errors[k], bounds[k] = used - truth, error_box(estimate.deviation[:n])
        states[k] = truth
        rows = {name: truth[config.linear.rows(name)] for name in agents}
        margins[k] = min(min(a.design.margins(rows[m], decisions[m].input).values()) for m, a in agents.items())
        plant.step({name: d.input for name, d in decisions.items()})
    after = slice(readings.stuck_at, None)
    limit = np.where(readings.fast, ERROR_BOUND["K"], ERROR_BOUND["mass fraction"])
    out = {
        "constraint_violations": int(np.sum(margins < -1e-9)),
        "worst_margin": float(margins.min()),
        "temperature_rmse": float(np.sqrt(np.mean(errors[:, readings.fast] ** 2))),
        "composition_rmse": float(np.sqrt(np.mean(errors[:, ~readings.fast] ** 2))),
        "stuck_sensor_rmse_after": float(np.sqrt(np.mean(errors[after, readings.stuck] ** 2))),
        "largest_temperature_error": float(np.max(np.abs(errors[:, readings.fast]))),
        "share_inside_design_bound": float(np.mean(np.abs(errors) <= limit)),
        "share_inside_filter_bound": float(np.mean(np.abs(errors) <= bounds)),
        "promises_broken": int(broken),
        "modes": modes,
        "fault_named": named,
        "fault_named_after_steps": delay,
    }
    if mhe_errors:
        mhe = np.array(mhe_errors)
        ekf = errors[1 : len(mhe) + 1]
        out["mhe"] = {
            "steps": len(mhe),
            "temperature_rmse": float(np.sqrt(np.mean(mhe[:, readings.fast] ** 2))),
            "filter_temperature_rmse": float(np.sqrt(np.mean(ekf[:, readings.fast] ** 2))),
            "seconds_per_step": seconds / len(mhe),
        }
    return {"summary": out, "errors": errors, "bounds": bounds, "states": states}


def run(settings: Settings, folder: Path) -> dict[str, Any]:
    """Filter with detection, and the two baselines on the same disturbances and readings."""
    config = narrowed(load_plant(shipped_plant("reactor_separator")))
    runs = {
        method: closed_loop(config, settings, method, int(settings["mhe_steps"]) if method == "filter" else 0)
        for method in ("filter", "no detection", "last reading")
    }
    _figure(runs, settings, config, folder)
    main = runs["filter"]["summary"]
    return {
        "constraint_violations": main["constraint_violations"],
        "fault_named_after_steps": main["fault_named_after_steps"],
        "fault": main["fault_named"],
        "settings": {k: settings[k] for k in ("steps", "missing", "composition_every", "stuck", "stuck_at")},
        **{method.replace(" ", "_"): r["summary"] for method, r in runs.items()},
        "figure": "estimation.png",
    }


def _figure(runs: dict[str, Any], settings: Settings, config: PlantConfig, folder: Path) -> None:
    from matplotlib import pyplot as plt

    figure, axis = plt.subplots(figsize=(8, 3.5))
    column = Readings(config, settings).stuck
    for method, result in runs.items():
        axis.plot(result["errors"][:, column], label=method, lw=0.9)
    axis.plot(runs["filter"]["bounds"][:, column], "k--", lw=0.6, label="filter's 99.9 % bound")
    axis.plot(-runs["filter"]["bounds"][:, column], "k--", lw=0.6)
    axis.axvline(float(settings["stuck_at"]), color="0.6", lw=0.8)
    axis.set_xlabel("step")
    axis.set_ylabel(f"error of {settings['stuck']} (K)")
    axis.legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(folder / "estimation.png", dpi=120)
    plt.close(figure)


def table(result: dict[str, Any]) -> Iterable[str]:
    """Lines for people."""
    yield (
        f"{'used for control':16} {'violations':>10} {'T rmse K':>9} {'x rmse':>9} {'stuck sensor rmse':>18} "
        f"{'broken promises':>16}"
    )
    for method in ("filter", "no_detection", "last_reading"):
        r = result[method]
        yield (
            f"{method:16} {r['constraint_violations']:10d} {r['temperature_rmse']:9.4f} {r['composition_rmse']:9.6f} "
            f"{r['stuck_sensor_rmse_after']:18.4f} {r['promises_broken']:16d}"
        )
    yield f"fault: {result['fault']}, named after {result['fault_named_after_steps']} steps"


STUDY = Study(
    defaults={
        "steps": 400,
        "seed": 1,
        "missing": 0.1,
        "composition_every": 10,
        "stuck": "T1",
        "stuck_at": 150,
        "mhe_steps": 40,
    },
    run=run,
    table=table,
)
