"""What `rmpc fit-model` does: a checked log and a plant file in, a model file with its quality on held-out data out."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from rmpc_ros.config import PlantConfig, load_plant
from rmpc_ros.errors import ConfigError
from rmpc_ros.learning.bag_log import is_bag, read_bag_log
from rmpc_ros.models.hybrid import fit_hybrid
from rmpc_ros.models.logs import read_csv, transitions_from_log
from rmpc_ros.models.model_file import save_model
from rmpc_ros.models.parameters import fit_parameters
from rmpc_ros.models.physics import Physics


def plausible_ranges(config: PlantConfig, widen: float = 2.0) -> dict[str, tuple[float, float]]:
    """Interval of each state and input in which a log is believed: the plant's limits, widened about their centre."""
    ranges = {}
    for agent, section in config.agents.items():
        limits = zip(*config.state_limits(agent), strict=True)
        inputs = zip(*config.input_limits(agent), strict=True)
        for name, (low, high) in [*zip(section.states, limits, strict=True), *zip(section.inputs, inputs, strict=True)]:
            middle, half = (low + high) / 2, (high - low) / 2
            if np.isfinite(half):
                ranges[name] = (float(middle - widen * half), float(middle + widen * half))
    return ranges


def run(
    log: Path, plant: Path, kind: str, parameters: list[str], out: Path, seed: int = 0
) -> tuple[dict[str, Any], Iterable[str]]:
    """Fit a hybrid model of the whole plant to a CSV log or to the bag of a run.

    Raises
    ------
    ConfigError
        The plant has no differential equations.
    DataError
        The log is refused, or too short to hold a fifth of it out.
    """
    config = load_plant(plant)
    if config.nonlinear is None:
        raise ConfigError(f"{plant}: the plant is given by matrices; fit-model needs differential equations")
    physics = Physics.from_model(config.nonlinear, config.period, parameters)
    names, rows = read_bag_log(log) if is_bag(log) else read_csv(log)
    feeds = {v.name: v.nominal for v in config.nonlinear.disturbances}
    feeds |= dict(zip(config.linear.disturbances, config.linear.steady_disturbance.tolist(), strict=True))
    data, report = transitions_from_log(names, rows, physics, plausible_ranges(config), feeds, str(log), least=100)
    split = len(data) * 4 // 5
    train, test = data.rows(slice(0, split)), data.rows(slice(split, None))
    plain = train.after - physics.advance_many(train.x, train.u, train.d, np.ones(len(parameters)))
    noise = np.maximum(1.4826 * np.median(np.abs(plain), axis=0), 1e-12)
    belief = fit_parameters(physics, train, noise)
    model = fit_hybrid(physics, train, kind, seed, belief)
    predicted, variance = model.predict_many(test.x, test.u, test.d)
    physical = physics.advance_many(test.x, test.u, test.d, np.ones(len(parameters)))
    error = np.sqrt(np.mean((test.after - predicted) ** 2, axis=0))
    before = np.sqrt(np.mean((test.after - physical) ** 2, axis=0))
    inside = np.mean(np.abs(test.after - predicted) <= 1.96 * np.sqrt(variance), axis=0)
    checksum = save_model(model, out)
    result: dict[str, Any] = {
        "model": str(out),
        "checksum": checksum,
        "log": vars(report),
        "kind": model.structure.features.kind,
        "features": model.structure.features.count,
        "held_out": {
            name: {"physics_rmse": float(b), "hybrid_rmse": float(e), "inside_1.96_sigma": float(i)}
            for name, b, e, i in zip(physics.states, before, error, inside, strict=True)
        },
        "parameters": {
            name: {"value": float(v), "bounds_95": [float(low), float(high)]}
            for name, v, (low, high) in zip(parameters, belief.mean, belief.bounds(), strict=True)
        },
    }
    return result, lines(result)


def lines(result: dict[str, Any]) -> Iterable[str]:
    """For people."""
    log = result["log"]
    yield (
        f"{log['rows']} rows: {log['transitions']} transitions, {log['gaps']} gaps, "
        f"{log['missing']} with missing values, {log['outliers']} out of range"
    )
    yield f"{'state':10} {'physics rmse':>13} {'hybrid rmse':>12} {'inside 1.96 sigma':>18}"
    for name, q in result["held_out"].items():
        yield f"{name:10} {q['physics_rmse']:13.4g} {q['hybrid_rmse']:12.4g} {100 * q['inside_1.96_sigma']:16.1f} %"
    for name, q in result["parameters"].items():
        yield f"{name} = {q['value']:.4f} of nominal, 95 % bounds {q['bounds_95'][0]:.4f} to {q['bounds_95'][1]:.4f}"
    yield f"model file {result['model']} (sha256 {result['checksum'][:16]}...)"
