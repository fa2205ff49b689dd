"""What a plant file means, in figures: the steady state, limits, coupling; for `rmpc check`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from rmpc_ros.config.plant_config import PlantConfig


def summarise(config: PlantConfig) -> dict[str, Any]:
    """Figures of a plant file as plain values.

    Returns
    -------
    plant, model, period_s, mode, agents {name: {neighbours, coordinates, states, inputs}}, disturbances,
    spectral_radius (of the open loop over one period); each state and input with unit, steady value and limits.
    """
    network = config.linear
    agents = {}
    for name, agent in config.agents.items():
        steady_state = network.steady_state[network.rows(name)]
        steady_input = network.steady_input[network.columns(name)]
        initial = config.initial_state(name)
        states = _variables(agent.states, steady_state, *config.state_limits(name))
        for n, state in enumerate(states.values()):
            state["initial"] = float(initial[n])
        agents[name] = {
            "neighbours": list(agent.neighbours),
            "coordinates": list(network.agents[name].coordinates),
            "states": states,
            "inputs": _variables(agent.inputs, steady_input, *config.input_limits(name)),
        }
    return {
        "plant": config.plant.name,
        "model": config.plant.model,
        "period_s": config.period,
        "mode": config.controller.mode,
        "horizon": config.controller.horizon,
        "agents": agents,
        "disturbances": {
            name: {"unit": d.unit, "nominal": d.nominal, "bounds": list(d.bounds)}
            for name, d in config.plant.disturbances.items()
        },
        "spectral_radius": float(np.max(np.abs(np.linalg.eigvals(network.A)))),
    }


def lines(summary: dict[str, Any]) -> Iterator[str]:
    """The summary for people."""
    yield (
        f"plant {summary['plant']}: model {summary['model']}, {len(summary['agents'])} agents, period "
        f"{summary['period_s']:g} s, mode {summary['mode']}, horizon {summary['horizon']}"
    )
    for name, agent in summary["agents"].items():
        yield f"  {name} <- {', '.join(agent['neighbours']) or 'nobody'}"
        for kind in ("states", "inputs"):
            for key, v in agent[kind].items():
                limits = f"[{v['lower']:.6g}, {v['upper']:.6g}]"
                start = f", starts at {v['initial']:.6g}" if v.get("initial", v["steady"]) != v["steady"] else ""
                yield f"    {kind[:-1]:6} {key:8} {v['steady']:>12.6g} in {limits:28} {v['unit']}{start}"
    for name, d in summary["disturbances"].items():
        yield f"  disturbance {name:8} {d['nominal']:>9.6g} in [{d['bounds'][0]:g}, {d['bounds'][1]:g}] {d['unit']}"
    radius = summary["spectral_radius"]
    word = "stable" if radius < 1 - 1e-9 else "unstable" if radius > 1 + 1e-9 else "on the border of stability"
    yield f"  open loop: spectral radius {radius:.4f} per period ({word})"


def _variables(variables: dict[str, Any], steady: Any, lower: Any, upper: Any) -> dict[str, dict[str, Any]]:
    return {
        name: {"unit": v.unit, "steady": float(s), "lower": float(lo), "upper": float(hi)}
        for (name, v), s, lo, hi in zip(variables.items(), steady, lower, upper, strict=True)
    }
