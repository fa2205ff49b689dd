"""State estimation with bad sensors: 10 % of readings missing, compositions every tenth step, one temperature stuck.

The reactor-separator network of `reactor_separator_sensors.yaml` under its cooperating robust controllers, which get
estimates instead of measurements, each agent by its own observer. On the same disturbances and readings:

    filter        observer, fault detector, and a state that follows the estimate as fast as the design reckons with
    unbounded     the same, but the agents take the estimate as it comes
    no_detection  the first without fault detection
    last_reading  the last reading held

A moving-horizon estimator sees the same readings for the first part of the first seed.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from numpy.typing import NDArray

from rmpc_ros.config import PlantConfig, load_plant
from rmpc_ros.config.shipped import shipped_plant
from rmpc_ros.network.agent import Agent
from rmpc_ros.network.agent_design import AgentDesign
from rmpc_ros.network.estimation import Estimated, Estimation
from rmpc_ros.network.observer import Observer
from rmpc_ros.network.system import design_agents
from rmpc_ros.plants import make_plant
from rmpc_ros.studies.registry import Settings, Study

matplotlib.use("Agg")
Vector = NDArray[np.float64]

METHODS = ("filter", "unbounded", "no_detection", "last_reading")


def bad_sensors(settings: Settings) -> PlantConfig:
    """The shipped plant file with the study's shares of missing and stuck readings."""
    config = load_plant(shipped_plant("reactor_separator_sensors"))
    begin, every = float(settings["stuck_at"]) * config.period, int(settings["composition_every"])
    assert config.estimator is not None
    faults = []
    for fault in config.simulation.faults:
        if fault.kind == "dropout":
            faults.append(fault.model_copy(update={"probability": float(settings["missing"])}))
        else:
            faults.append(fault.model_copy(update={"begin": begin, "state": str(settings["stuck"])}))
    slow = {name: every for name in config.estimator.every}
    return config.model_copy(
        update={
            "simulation": config.simulation.model_copy(update={"faults": faults}),
            "estimator": config.estimator.model_copy(update={"every": slow}),
        }
    )


class _Held:
    """The last reading of each sensor, from the steady state on."""

    def __init__(self, designs: Mapping[str, AgentDesign]) -> None:
        self._last = {name: design.steady_state.copy() for name, design in designs.items()}

    def take(self, measured: Mapping[str, Vector]) -> dict[str, Vector]:
        """States to control with."""
        for name, y in measured.items():
            self._last[name] = np.where(np.isfinite(y), y, self._last[name])
        return {name: values.copy() for name, values in self._last.items()}


def closed_loop(
    config: PlantConfig,
    designs: dict[str, AgentDesign],
    settings: Settings,
    method: str,
    seed: int,
    shadow: Observer | None = None,
) -> dict[str, Any]:
    """One run; everything that is reported, and the errors of the state controlled with, (steps, n)."""
    plant = make_plant(config, seed=seed)
    agents = {name: Agent(design) for name, design in designs.items()}
    promises = {name: agent.start(0) for name, agent in agents.items()}
    detecting = method != "no_detection"
    loops = {n: Estimation(a, Observer(config, n, detecting), designs) for n, a in agents.items()}
    held = _Held(designs)
    count, stuck, at = int(settings["steps"]), str(settings["stuck"]), int(settings["stuck_at"])
    errors, doubts, margins = np.empty((count, len(config.linear.steady_state))), np.empty(count), np.empty(count)
    inputs: dict[str, Vector] = {}
    out: dict[str, Any] = {"promises_broken": 0, "modes": {}, "fault": None}
    shadowed: list[tuple[Vector, Vector]] = []
    seconds = 0.0
    for k in range(count):
        measured, truth = plant.measure(), plant.true_state()
        found: dict[str, Estimated] = {}
        for name, loop in loops.items():
            readings = {other: measured[other] for other in (name, *designs[name].neighbours)}
            found[name] = loop.estimate(k, readings, inputs.get(name), promises[name])
        used = {name: f.state if method != "unbounded" else f.view.states[name] for name, f in found.items()}
        used = held.take(measured) if method == "last_reading" else used
        if shadow is not None and k < int(settings["mhe_steps"]):
            began = time.process_time()
            view = shadow.update(k, measured, inputs)
            seconds += time.process_time() - began
            whole = np.concatenate(list(truth.values()))
            shadowed.append(
                (
                    np.concatenate([view.states[n] for n in designs]) - whole,
                    np.concatenate([found[n].view.states[n] for n in designs]) - whole,
                )
            )
        inputs = {}
        decisions = {n: a.step(k, used[n], {o: used[o] for o in designs[n].neighbours}) for n, a in agents.items()}
        for name, decision in decisions.items():
            loops[name].used({other: used[other] for other in designs[name].neighbours})
            out["promises_broken"] += decision.report.promise_broken
            out["modes"][decision.mode] = out["modes"].get(decision.mode, 0) + 1
            inputs[name], promises[name] = decision.input, decision.forecast
            for fault in found[name].view.faults:
                if out["fault"] is None and fault.sensor == stuck and stuck in designs[name].state_names and k >= at:
                    out["fault"] = {"step": k, "sensor": stuck, "kind": fault.kind, "evidence": fault.evidence}
        for name, decision in decisions.items():
            for other, agent in agents.items():
                if name in agent.design.neighbours:
                    agent.receive(decision.forecast)
                    loops[other].promised(decision.forecast)
        errors[k] = np.concatenate([used[n] - truth[n] for n in designs])
        doubts[k] = max(float(np.max(f.followed.doubt)) for f in found.values())
        margins[k] = min(min(designs[n].margins(truth[n], inputs[n]).values()) for n in designs)
        plant.step(inputs)
    units = [state.unit for agent in config.agents.values() for state in agent.states.values()]
    hot = np.array([unit == "K" for unit in units])
    names = [state for design in designs.values() for state in design.state_names]
    assert config.estimator is not None
    bound = np.array([config.estimator.error[name] for name in names])
    out |= {
        "seed": seed,
        "constraint_violations": int(np.sum(margins < -1e-9)),
        "worst_margin": float(margins.min()),
        "temperature_rmse": float(np.sqrt(np.mean(errors[:, hot] ** 2))),
        "composition_rmse": float(np.sqrt(np.mean(errors[:, ~hot] ** 2))),
        "stuck_sensor_rmse_after": float(np.sqrt(np.mean(errors[at:, names.index(stuck)] ** 2))),
        "largest_error_over_bound": float(np.max(np.abs(errors) / bound)),
        "share_of_steps_in_doubt": float(np.mean(doubts > 1.0)),
        "fault_named_after_steps": None if out["fault"] is None else out["fault"]["step"] - at,
        "errors": errors,
    }
    if shadowed:
        mhe, ekf = (np.array(rows)[:, hot] for rows in zip(*shadowed, strict=True))
        out["mhe"] = {
            "steps": len(mhe),
            "temperature_rmse": float(np.sqrt(np.mean(mhe**2))),
            "filter_temperature_rmse": float(np.sqrt(np.mean(ekf**2))),
            "seconds_per_step": seconds / len(mhe),
        }
    return out


def run(settings: Settings, folder: Path) -> dict[str, Any]:
    """All methods on all seeds."""
    config = bad_sensors(settings)
    designs = design_agents(config)
    first = int(settings["seed"])
    runs: dict[str, list[dict[str, Any]]] = {method: [] for method in METHODS}
    for seed in range(first, first + int(settings["seeds"])):
        for method in METHODS:
            shadow = None
            if method == "filter" and seed == first and int(settings["mhe_steps"]):
                assert config.estimator is not None
                moving = config.model_copy(update={"estimator": config.estimator.model_copy(update={"kind": "mhe"})})
                shadow = Observer(moving, next(iter(designs)))
            runs[method].append(closed_loop(config, designs, settings, method, seed, shadow))
    _figure({method: found[0]["errors"] for method, found in runs.items()}, settings, designs, folder)
    for found in runs.values():
        for one in found:
            del one["errors"]
    main = runs["filter"]
    delays = [one["fault_named_after_steps"] for one in main]
    return {
        "constraint_violations": sum(one["constraint_violations"] for one in main),
        "promises_broken": sum(one["promises_broken"] for one in main),
        "fault_named_after_steps": None if None in delays else max(delays),
        "fault": main[0]["fault"],
        "settings": {k: settings[k] for k in ("steps", "seeds", "missing", "composition_every", "stuck", "stuck_at")},
        "mhe": main[0].get("mhe"),
        **{method: _together(found) for method, found in runs.items()},
        "runs": runs,
        "figure": "estimation.png",
    }


def _together(found: list[dict[str, Any]]) -> dict[str, Any]:
    """Counts summed, root mean squares over all seeds, extremes."""
    out: dict[str, Any] = {
        name: sum(one[name] for one in found) for name in ("constraint_violations", "promises_broken")
    }
    out["worst_margin"] = min(one["worst_margin"] for one in found)
    for name in ("temperature_rmse", "composition_rmse", "stuck_sensor_rmse_after"):
        out[name] = float(np.sqrt(np.mean([one[name] ** 2 for one in found])))
    out["largest_error_over_bound"] = max(one["largest_error_over_bound"] for one in found)
    out["share_of_steps_in_doubt"] = float(np.mean([one["share_of_steps_in_doubt"] for one in found]))
    return out


def _figure(errors: dict[str, Vector], settings: Settings, designs: dict[str, AgentDesign], folder: Path) -> None:
    from matplotlib import pyplot as plt

    names = [state for design in designs.values() for state in design.state_names]
    figure, axis = plt.subplots(figsize=(8, 3.5))
    for method, rows in errors.items():
        axis.plot(rows[:, names.index(str(settings["stuck"]))], label=method.replace("_", " "), lw=0.9)
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
        f"{'used for control':16} {'violations':>10} {'broken promises':>16} {'T rmse K':>9} {'x rmse':>9} "
        f"{'stuck sensor rmse':>18} {'error over bound':>17}"
    )
    for method in METHODS:
        r = result[method]
        yield (
            f"{method:16} {r['constraint_violations']:10d} {r['promises_broken']:16d} {r['temperature_rmse']:9.4f} "
            f"{r['composition_rmse']:9.6f} {r['stuck_sensor_rmse_after']:18.4f} {r['largest_error_over_bound']:17.2f}"
        )
    yield f"fault: {result['fault']}, named after at most {result['fault_named_after_steps']} steps"
    if result["mhe"]:
        m = result["mhe"]
        yield (
            f"moving horizon, {m['steps']} steps: T rmse {m['temperature_rmse']:.4f} K "
            f"(filter {m['filter_temperature_rmse']:.4f} K), {1e3 * m['seconds_per_step']:.0f} ms a step"
        )


STUDY = Study(
    defaults={
        "steps": 400,
        "seeds": 3,
        "seed": 201,
        "missing": 0.1,
        "composition_every": 10,
        "stuck": "T1",
        "stuck_at": 150,
        "mhe_steps": 40,
    },
    run=run,
    table=table,
)
