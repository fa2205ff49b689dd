"""Quantity-flexibility contracts as forecast sets: supply chains with and without delay (seed 004, appendix B)."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np

from rmpc_ros.errors import InfeasibleError
from rmpc_ros.network.cases.supply_chain import closed_form, supply_network
from rmpc_ros.network.design import NetworkDesign, design_network
from rmpc_ros.network.model import Network
from rmpc_ros.network.report import design_summary
from rmpc_ros.network.rolling import roll
from rmpc_ros.network.simulate import check_by_simulation
from rmpc_ros.plants.supply_chain import draw_supply
from rmpc_ros.studies.registry import Settings, Study

matplotlib.use("Agg")
import matplotlib.pyplot as plt


def network_of(
    settings: Settings, agents: int | None = None, T: int | None = None, delay: int | None = None
) -> Network:
    """The network of the settings, some of them overridden."""
    return supply_network(
        agents or settings["agents"],
        T or settings["T"],
        settings["theta_p"],
        settings["theta_d"],
        settings["products"],
        settings["factors"],
        settings["seed"],
        settings["delay"] if delay is None else delay,
        settings["graph"],
    )


def run(settings: Settings, folder: Path) -> dict[str, Any]:
    """Both designs, the closed form where there is one, simulation; sweeps and rolling horizon on request."""
    network = network_of(settings)
    result: dict[str, Any] = dict(settings)
    designs: dict[str, NetworkDesign] = {}
    for name in ("centralised", "local"):
        try:
            designs[name] = design_network(network, name, epigraph="affine")
        except InfeasibleError as error:
            result[name] = {"status": "infeasible", "objective": None, "reason": str(error)}
            continue
        check = check_by_simulation(designs[name], settings["runs"], settings["seed"], measured_disturbance=True)
        result[name] = design_summary(designs[name]) | {
            "simulation": {
                "runs": check.runs,
                "cost_bound_held": bool(check.cost_excess <= 1e-6),
                "all_inside_announced_sets": bool(check.gauge <= 1 + 1e-6),
            }
        }
    if settings["graph"] == "serial" and settings["products"] == 1 and settings["delay"] == 0:
        q = draw_supply(settings["agents"], 1, settings["factors"], settings["seed"])
        result["closed_form"] = closed_form(
            settings["agents"], settings["T"], settings["theta_p"], settings["theta_d"], q
        )
    if len(designs) == 2:
        best, mine = designs["centralised"].objective, designs["local"].objective
        result |= {"status": "optimal", "objective": mine, "suboptimality_percent": 100 * (mine - best) / best}
        _draw_contracts(designs["local"], folder / "contracts.png")
        if settings["rolling_runs"]:
            result["rolling"] = _rolling(network, designs, settings)
    if settings["sweep"]:
        result["over_agents"] = [_gap(settings, n, settings["T"]) for n in settings["sweep_agents"]]
        result["over_T"] = [_gap(settings, settings["agents"], T) for T in settings["sweep_T"]]
        _draw_sweep(result, folder / "delay.png")
    return result


def _gap(settings: Settings, agents: int, T: int) -> dict[str, Any]:
    row: dict[str, Any] = {"agents": agents, "T": T}
    for delay in (0, 1):
        network = network_of(settings, agents, T, delay)
        best = design_network(network, "centralised", epigraph="affine").objective
        mine = design_network(network, "local", epigraph="affine").objective
        row[f"suboptimality_percent_delay_{delay}"] = 100 * (mine - best) / best
        row[f"extra_cost_delay_{delay}"] = mine - best
    return row


def _rolling(network: Network, designs: dict[str, NetworkDesign], settings: Settings) -> dict[str, Any]:
    rng = np.random.default_rng(settings["seed"])
    draws = [
        [a.disturbance.sample(rng, network.horizon) for a in network.agents] for _ in range(settings["rolling_runs"])
    ]
    out = {}
    for name, design in designs.items():
        costs = [roll(network, name, w, "affine", first=design).costs.sum() for w in draws]  # type: ignore[arg-type]
        out[name] = {
            "worst_case": design.objective,
            "mean_realised": float(np.mean(costs)),
            "largest_realised": float(np.max(costs)),
        }
    return out


def _draw_contracts(design: NetworkDesign, path: Path) -> None:
    keys = list(design.announced)
    figure, axes = plt.subplots(len(keys), 1, figsize=(6, 2 * len(keys)), squeeze=False, sharex=True)
    for ax, key in zip(axes[:, 0], keys, strict=True):
        stages = [a for a in design.announced[key] if a is not None]
        low = [a.centre[0] - np.abs(a.matrix[0]).sum() for a in stages]
        high = [a.centre[0] + np.abs(a.matrix[0]).sum() for a in stages]
        ax.fill_between(range(1, len(low) + 1), low, high, step="mid", alpha=0.4)
        ax.set_ylabel(f"orders of {design.network.agents[key[0]].name}")
    axes[-1, 0].set_xlabel("t")
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    plt.close(figure)


def _draw_sweep(result: dict[str, Any], path: Path) -> None:
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.5))
    for ax, name, key in ((axes[0], "over_T", "T"), (axes[1], "over_agents", "agents")):
        for delay in (0, 1):
            rows = result[name]
            label = "no delay" if delay == 0 else "one period of delay"
            ax.plot(
                [r[key] for r in rows], [r[f"suboptimality_percent_delay_{delay}"] for r in rows], "o-", label=label
            )
        ax.set(xlabel=key, ylabel="suboptimality [%]")
        ax.legend()
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    plt.close(figure)


def table(result: dict[str, Any]) -> Iterable[str]:
    """Lines for people."""
    for name in ("centralised", "local"):
        yield f"{name:12} {result[name]['status']} {result[name]['objective']}"
    if "closed_form" in result:
        yield f"closed form  {result['closed_form']}"
    for name, row in result.get("rolling", {}).items():
        yield f"rolling {name:12} worst case {row['worst_case']:.4f}  mean {row['mean_realised']:.4f}"
    for row in result.get("over_T", []) + result.get("over_agents", []):
        yield (
            f"n {row['agents']:3d} T {row['T']:3d}  no delay {row['suboptimality_percent_delay_0']:8.4f} %  "
            f"delay {row['suboptimality_percent_delay_1']:8.3f} %"
        )


STUDY = Study(
    {
        "agents": 3,
        "T": 8,
        "theta_p": 0.2,
        "theta_d": 0.5,
        "products": 1,
        "factors": 4,
        "seed": 0,
        "delay": 0,
        "graph": "serial",
        "runs": 100,
        "rolling_runs": 0,
        "sweep": False,
        "sweep_agents": [2, 3, 4, 6, 8, 10],
        "sweep_T": [3, 5, 8, 12, 16],
    },
    run,
    table,
)
