"""The linear network's one-step error on a plant: over boxes, and along closed-loop runs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from rmpc_ros.config import PlantConfig, load_plant
from rmpc_ros.config.derive import operating_vectors
from rmpc_ros.config.shipped import shipped_plant
from rmpc_ros.errors import ConfigError
from rmpc_ros.models.error_bound import model_error_bound, one_step_error
from rmpc_ros.network.system import NetworkDesign, design_network
from rmpc_ros.plants import make_plant
from rmpc_ros.studies.registry import Settings, Study

DEFAULTS: dict[str, Any] = {"plant": "reactor_separator_tight", "steps": 1000, "seed": 0, "samples": 2000}


def run(settings: Settings, folder: Path) -> dict[str, Any]:
    """Sampled error over the invariant boxes and over the limits, and realised errors under the backup laws alone.

    Returns
    -------
    coordinates : names
    invariant, limits : {worst, bound, points, seconds}; over the box of that name with the backup laws in force
    trajectory : worst error along a run of the nonlinear plant under the backup laws, with the file's disturbances
    reckoned : what the design adds to the disturbance
    inside : share of the steps of that run in which the state was in its invariant box (1 expected)
    worst_share : largest |z| over the invariant box's half-width along the run

    Raises
    ------
    ConfigError
        The plant is given by matrices.
    """
    config = load_plant(shipped_plant(settings["plant"]))
    if config.nonlinear is None:
        raise ConfigError(f"plant '{settings['plant']}' gives matrices: there is no nonlinear model to compare with")
    design = design_network(config)
    coordinates = [c for v in config.linear.agents.values() for c in v.coordinates]
    half = design.boxes.y * design.x_scale
    limits = np.concatenate([np.minimum(*np.abs(config.coordinate_limits(a))) for a in config.agents])
    result: dict[str, Any] = {"coordinates": coordinates}
    for name, box in (("invariant", half), ("limits", np.where(np.isfinite(limits), limits, half))):
        result[name] = _over(config, design, box, settings)
    result["trajectory"], shares = _along(config, design, half, settings)
    result["reckoned"] = dict(zip(coordinates, design.model_error * design.x_scale, strict=True))
    result["inside"] = float(np.mean(shares <= 1.0))
    result["worst_share"] = float(shares.max())
    return result


def table(result: dict[str, Any]) -> Iterator[str]:
    """Lines for people."""
    yield f"{'coordinate':12} {'invariant':>11} {'limits':>11} {'trajectory':>11} {'reckoned':>11}"
    for name in result["coordinates"]:
        row = [result["invariant"]["worst"][name], result["limits"]["worst"][name]]
        row += [result["trajectory"][name], result["reckoned"][name]]
        yield f"{name:12} " + " ".join(f"{value:>11.3g}" for value in row)
    inside, share = 100 * result["inside"], result["worst_share"]
    yield f"inside the invariant boxes: {inside:.1f} % of the steps, at most {share:.2f} of a half-width"


def _over(config: PlantConfig, design: NetworkDesign, half: Any, settings: Settings) -> dict[str, Any]:
    assert config.nonlinear is not None
    lower, upper = config.disturbance_bounds()
    steady = config.linear.steady_disturbance
    nominal = operating_vectors(config, config.nonlinear)[1]
    authority = design.authority * design.u_scale
    boxes = ((-half, half), (-authority, authority), (lower - steady, upper - steady))
    margins = config.controller.margins
    begin = perf_counter()
    bound = model_error_bound(
        config.nonlinear,
        config.linear,
        *boxes,
        nominal,
        settings["samples"],
        margins.factor,
        settings["seed"],
        gain=_law(design),
    )
    names = [c for v in config.linear.agents.values() for c in v.coordinates]
    return {
        "worst": dict(zip(names, bound.worst, strict=True)),
        "bound": dict(zip(names, bound.bound, strict=True)),
        "points": bound.points,
        "seconds": perf_counter() - begin,
    }


def _along(config: PlantConfig, design: NetworkDesign, half: Any, settings: Settings) -> tuple[dict[str, float], Any]:
    """Worst realised error per coordinate, and max |z|/half of every step."""
    assert config.nonlinear is not None
    plant, linear = make_plant(config, "nonlinear", settings["seed"]), config.linear
    law = _law(design)
    nominal = operating_vectors(config, config.nonlinear)[1]
    points = []
    for _ in range(settings["steps"]):
        z = linear.transform @ (plant.state - linear.steady_state)
        v = law @ z
        plant.step(
            {agent: linear.steady_input[linear.columns(agent)] + v[linear.columns(agent)] for agent in config.agents}
        )
        points.append(np.concatenate([z, v, plant.disturbances - linear.steady_disturbance]))
    z, v, w = np.split(np.array(points), np.cumsum([len(half), len(law)]), axis=1)
    worst = np.abs(one_step_error(config.nonlinear, linear, z, v, w, nominal)).max(axis=0)
    names = [c for variables in linear.agents.values() for c in variables.coordinates]
    return dict(zip(names, worst, strict=True)), np.max(np.abs(z) / half, axis=1)


def _law(design: NetworkDesign) -> Any:
    """Backup laws of all agents, (m, n), physical inputs of physical coordinates."""
    return design.u_scale[:, None] * design.boxes.K / design.x_scale


STUDY = Study(DEFAULTS, run, table)
