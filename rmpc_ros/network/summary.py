"""The joint design of a plant file in figures, for `rmpc check`: invariant boxes, model error, the start."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from rmpc_ros.config import PlantConfig
from rmpc_ros.errors import InfeasibleError
from rmpc_ros.network.system import design_network


def summarise_design(config: PlantConfig) -> dict[str, Any]:
    """Invariant boxes and model error in the plant file's units, per agent and coordinate.

    Returns
    -------
    {room, agents: {name: {coordinate: {half_width, limit, share, model_error, initial_share}}}}; share is the
    half-width over the limit, initial_share how far from the centre of the box (1: on its face) the plant starts.

    Raises
    ------
    ConfigError
        No invariant boxes exist, or the plant starts outside them: then no first promise can be made.
    """
    try:
        network = design_network(config)
    except InfeasibleError as error:
        raise config.error(("controller",), f"no guarantee exists for this plant: {error}") from error
    linear = network.linear
    agents: dict[str, dict[str, dict[str, float]]] = {}
    for name, variables in linear.agents.items():
        rows = linear.rows(name)
        half = network.boxes.y[rows] * network.x_scale[rows]
        initial = config.initial_state(name)
        start = np.abs(linear.to_coordinates(name, initial)) / half
        if np.max(start) > 1:
            n = int(np.argmax(start))
            moved = [s for s, v in config.agents[name].states.items() if v.initial is not None]
            raise config.error(
                ("agents", name, "states", moved[0], "initial"),
                f"the initial state is infeasible: {variables.coordinates[n]} starts at {start[n]:.3g} times the "
                f"half-width {half[n]:.4g} of the set that can be kept for ever; start nearer to the steady state",
            )
        limited = np.isfinite(np.minimum(*np.abs(config.coordinate_limits(name))))
        agents[name] = {
            coordinate: {
                "half_width": float(half[n]),
                "limit": float(network.x_scale[rows][n]) if limited[n] else float("inf"),
                "share": float(network.boxes.y[rows][n]) if limited[n] else 0.0,
                "model_error": float(network.model_error[rows][n] * network.x_scale[rows][n]),
                "initial_share": float(start[n]),
            }
            for n, coordinate in enumerate(variables.coordinates)
        }
    stated = None if config.estimator is None else {k: float(v) for k, v in config.estimator.error.items()}
    return {"room": float(network.boxes.room), "estimation_error": stated, "agents": agents}


def design_lines(design: dict[str, Any]) -> Iterator[str]:
    """The design for people."""
    yield "  invariant boxes (half-width, share of the limit, model error per step):"
    for name, coordinates in design["agents"].items():
        for key, v in coordinates.items():
            share = f"{100 * v['share']:5.1f} %" if np.isfinite(v["limit"]) else "no limit"
            yield f"    {name:12} {key:12} {v['half_width']:>10.4g}  {share:>8}  {v['model_error']:.2g}"
    if design["estimation_error"] is not None:
        shown = ", ".join(f"{name} {value:g}" for name, value in design["estimation_error"].items())
        yield f"  limits are guaranteed while the states controlled with are this near to the true ones: {shown or '0'}"
    yield "  the guarantee exists and the plant starts inside it"
