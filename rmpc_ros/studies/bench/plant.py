"""Simulation speed of the reactor-separator against real time and against CVODES in the same run."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from time import perf_counter
from typing import Any

import casadi as ca
import numpy as np

from rmpc_ros.plants.reactor_separator import build
from rmpc_ros.studies.registry import Settings, Study

DEFAULTS: dict[str, Any] = {"steps": 500, "batch": 1000, "period": 36.0, "seed": 0}


def run(settings: Settings, folder: Path) -> dict[str, Any]:
    """Step the nonlinear plant with changing disturbances by our map, many at once, and by CVODES.

    Returns
    -------
    real_time_ratio, batch_real_time_ratio, cvodes_real_time_ratio : seconds of plant time per second
    step_ms : one step of one plant, median
    error_mass_fraction, error_K : largest difference of one step to CVODES at tolerance 1e-12
    """
    generator = np.random.default_rng(settings["seed"])
    model = build({})
    period, count = settings["period"], settings["steps"]
    inputs, nominal = model.nominal_input, model.nominal_disturbance
    start = model.steady_state(inputs, nominal)
    disturbances = nominal + generator.uniform(-1, 1, (count, nominal.size)) * [5.0, 0.02, 5.0, 0.0]
    disturbances[:, 1] -= 0.02
    stepper = model.stepper(period)
    ours, states = _time_steps(lambda x, d: stepper.advance(x, inputs, d), start, disturbances)

    x, u, d, p = model.symbols
    dae = {"x": x, "p": ca.vertcat(u, d, p), "ode": model.rhs}
    options: Any = {"abstol": 1e-10, "reltol": 1e-8}
    exact_options: Any = {"abstol": 1e-13, "reltol": 1e-12}
    length = period / model.time_unit
    cvodes: Any = ca.integrator("plain", "cvodes", dae, 0.0, length, options)
    exact: Any = ca.integrator("exact", "cvodes", dae, 0.0, length, exact_options)
    rest = model.parameter_vector()

    def by_cvodes(state: Any, now: Any) -> Any:
        return np.asarray(cvodes(x0=state, p=np.concatenate([inputs, now, rest]))["xf"]).ravel()

    theirs, _ = _time_steps(by_cvodes, start, disturbances)
    error = np.zeros(len(start))
    for n in range(0, count, max(1, count // 50)):
        reached = np.asarray(exact(x0=states[n], p=np.concatenate([inputs, disturbances[n], rest]))["xf"]).ravel()
        error = np.maximum(error, np.abs(states[n + 1] - reached))

    rows = settings["batch"]
    batch = [np.tile(v, (rows, 1)) for v in (start, inputs)]
    feeds = disturbances[generator.integers(0, count, rows)]
    stepper.advance_many(batch[0], batch[1], feeds)  # builds the map
    begin = perf_counter()
    stepper.advance_many(batch[0], batch[1], feeds)
    together = (perf_counter() - begin) / rows
    temperature = np.array([name.startswith("T") for name in model.state_names])
    return {
        "period_s": period,
        "steps": count,
        "step_ms": float(np.median(ours) * 1e3),
        "real_time_ratio": period / float(np.mean(ours)),
        "batch_real_time_ratio": period / together,
        "cvodes_real_time_ratio": period / float(np.mean(theirs)),
        "ratio_to_cvodes": float(np.median(theirs) / np.median(ours)),
        "error_mass_fraction": float(error[~temperature].max()),
        "error_K": float(error[temperature].max()),
    }


def table(result: dict[str, Any]) -> Iterator[str]:
    """Lines for people."""
    yield f"one plant       {result['real_time_ratio']:>12.0f} x real time ({result['step_ms']:.3f} ms per step)"
    yield f"many at once    {result['batch_real_time_ratio']:>12.0f} x real time, per plant"
    yield f"CVODES 1e-8     {result['cvodes_real_time_ratio']:>12.0f} x real time"
    yield f"one-step error against CVODES 1e-12: {result['error_mass_fraction']:.1e}, {result['error_K']:.1e} K"


def _time_steps(step: Any, start: Any, disturbances: Any) -> tuple[Any, Any]:
    """Seconds of each step, and the states."""
    times, states = np.empty(len(disturbances)), [start]
    for n, now in enumerate(disturbances):
        begin = perf_counter()
        states.append(step(states[-1], now))
        times[n] = perf_counter() - begin
    return times, states


STUDY = Study(DEFAULTS, run, table)
