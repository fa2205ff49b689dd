"""Limits and promises under disturbances at the vertices: robust agents against nominal ones, on the same draws.

The linear network is simulated exactly, the nonlinear plant with the model error bounded and inside the set. The limits
lie just outside the invariant boxes and the set-points near the limits, as economics would have them, so that a
controller that reckons with no disturbance must fail.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import matplotlib
import numpy as np

from rmpc_ros.config import PlantConfig, load_plant
from rmpc_ros.config.shipped import shipped_plant
from rmpc_ros.network.agent import Agent
from rmpc_ros.network.agent_design import AgentDesign
from rmpc_ros.network.closed_loop import LoopResult, run
from rmpc_ros.network.nominal import NominalAgent
from rmpc_ros.network.system import NetworkDesign, design_agents, design_network
from rmpc_ros.plants import make_plant
from rmpc_ros.studies.registry import Settings, Study

matplotlib.use("Agg")

Vector = np.ndarray


def vertex_disturbances(lower: Vector, upper: Vector, seed: int, share: float = 0.7) -> Callable[[int], Vector]:
    """Disturbances in a box, mostly at its vertices: held for a while, switched at random, sometimes inside."""
    generator = np.random.default_rng(seed)
    vertex = np.where(generator.random(lower.size) < 0.5, lower, upper)

    def draw(_: int) -> Vector:
        switch = generator.random(lower.size) < 0.1
        vertex[switch] = np.where(generator.random(int(switch.sum())) < 0.5, lower[switch], upper[switch])
        if generator.random() < share:
            return vertex.copy()
        return generator.uniform(lower, upper)

    return draw


def summary(results: list[LoopResult]) -> dict[str, Any]:
    """Totals over seeds."""
    widths = np.concatenate([r.promise_width for r in results])
    out: dict[str, Any] = {
        "steps": sum(r.steps for r in results),
        "violations": sum(r.violations for r in results),
        "worst_margin": min(r.worst_margin for r in results),
        "cost": float(np.mean([r.cost for r in results])),
    }
    if widths.size:
        counts = {mode: sum(r.modes[mode] for r in results) for mode in results[0].modes}
        out |= {
            "promises_broken": sum(r.promises_broken for r in results),
            "promise_width": {"median": float(np.median(widths)), "max": float(widths.max())},
            "inside_invariant_next_five": float(np.mean([r.inside_terminal for r in results])),
            "mode_counts": counts,
            "optimal_share": counts["optimal"] / sum(counts.values()),
        }
    return out


def tightened(config: PlantConfig, temperature: float, fraction: float, push: float) -> PlantConfig:
    """The same plant with limits close about the steady state and set-points at `push` of the way to the upper ones."""
    agents, setpoint = {}, {}
    steady = config.linear.steady_state
    for name, agent in config.agents.items():
        states = {}
        for n, (state, variable) in enumerate(agent.states.items()):
            reach = temperature if variable.unit == "K" else fraction
            states[state] = variable.model_copy(update={"limits": None, "deviation": (-reach, reach)})
            if variable.unit == "K":
                setpoint[state] = float(steady[config.linear.rows(name)][n]) + push * reach
        agents[name] = agent.model_copy(update={"states": states})
    controller = config.controller.model_copy(update={"setpoint": setpoint})
    return config.model_copy(update={"agents": agents, "controller": controller})


def run_study(settings: Settings, folder: Path) -> dict[str, Any]:
    """Both plants, both controllers, all seeds."""
    base = load_plant(shipped_plant("reactor_separator"))
    result: dict[str, Any] = {"seeds": settings["seeds"], "steps": settings["steps"]}
    figure_rows = []
    for model in ("linear", "nonlinear"):
        simulation = base.simulation.model_copy(update={"model": model})
        config = tightened(
            base.model_copy(update={"simulation": simulation}),
            settings["temperature"],
            settings["fraction"],
            settings["push"],
        )
        network = design_network(config)
        designs = design_agents(config, network.model_error)
        robust, nominal = _campaign(config, designs, model, settings)
        figure_rows.append((model, designs, {"nominal": nominal[0].states, "robust": robust[0].states}))
        result[model] = {
            "robust": summary(robust),
            "nominal": summary(nominal),
            "cost_ratio": float(np.mean([r.cost for r in robust]) / np.mean([r.cost for r in nominal])),
            "model_error": _model_error(network),
        }
    _draw(figure_rows, folder / "guarantee.png")
    result["figure"] = "guarantee.png"
    return result


def _campaign(
    config: PlantConfig, designs: dict[str, AgentDesign], model: Literal["linear", "nonlinear"], settings: Settings
) -> tuple[list[LoopResult], list[LoopResult]]:
    lower, upper = config.disturbance_bounds()
    outcomes: dict[str, list[LoopResult]] = {"robust": [], "nominal": []}
    robust = {n: Agent(d) for n, d in designs.items()}
    nominal = {n: NominalAgent(d) for n, d in designs.items()}
    for seed in range(settings["seeds"]):
        for kind in outcomes:
            plant = make_plant(config, model=model, seed=seed)
            draw = vertex_disturbances(lower, upper, 1000 + seed)
            outcomes[kind].append(run(robust if kind == "robust" else nominal, plant, settings["steps"], draw))
    return outcomes["robust"], outcomes["nominal"]


def _model_error(network: NetworkDesign) -> dict[str, float]:
    names = [c for v in network.linear.agents.values() for c in v.coordinates]
    return dict(zip(names, (network.model_error * network.x_scale).tolist(), strict=True))


def _draw(rows: list[tuple[str, dict[str, AgentDesign], dict[str, Vector]]], path: Path) -> None:
    import matplotlib.pyplot as plt

    agents = list(rows[0][1].values())
    figure, axes = plt.subplots(len(rows), len(agents), figsize=(11, 5), squeeze=False, constrained_layout=True)
    for (model, _, trace), line in zip(rows, axes, strict=True):
        start = 0
        for design, axis in zip(agents, line, strict=True):
            n = start + design.state_names.index(next(s for s in design.state_names if s.startswith("T")))
            for kind, colour in (("nominal", "tab:red"), ("robust", "tab:blue")):
                axis.plot(trace[kind][:, n], color=colour, lw=0.8, label=kind)
            for limit in (design.state_lower[n - start], design.state_upper[n - start]):
                axis.axhline(limit, color="black", lw=0.8, ls="--")
            axis.set_title(f"{design.name}, {model} plant", fontsize=9)
            axis.set_ylabel(f"{design.state_names[n - start]} / K")
            start += design.nx
    axes[0, 0].legend(fontsize=8)
    for axis in axes[-1]:
        axis.set_xlabel("step")
    figure.savefig(path, dpi=120)
    plt.close(figure)


def table(result: dict[str, Any]) -> list[str]:
    """Lines for people."""
    lines = [f"{result['seeds']} seeds x {result['steps']} steps, disturbances mostly at the vertices of their set"]
    for model in ("linear", "nonlinear"):
        robust, nominal = result[model]["robust"], result[model]["nominal"]
        width = robust["promise_width"]["median"]
        lines.append(
            f"{model:10} robust: {robust['violations']} violations, {robust['promises_broken']} promises broken, "
            f"median promise {width:.3f} of the limit, optimal {robust['optimal_share']:.1%}"
        )
        lines.append(
            f"{'':10} nominal: {nominal['violations']} violations; cost ratio {result[model]['cost_ratio']:.2f}"
        )
    return lines


STUDY = Study(
    defaults={"seeds": 20, "steps": 500, "temperature": 1.0, "fraction": 0.045, "push": 0.7},
    run=run_study,
    table=table,
)
