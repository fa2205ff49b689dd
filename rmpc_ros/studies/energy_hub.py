"""Prosumers share energy: announced draws against full information and against going alone (seed 004, 5.2)."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np

from rmpc_ros.errors import ConfigError
from rmpc_ros.network.cases.energy_hub import energy_network, hourly_prices, read_prosumer
from rmpc_ros.network.design import NetworkDesign, design_network
from rmpc_ros.network.graph import topology
from rmpc_ros.network.report import conservatism_report, design_summary, privacy_report
from rmpc_ros.network.rolling import roll
from rmpc_ros.network.simulate import check_by_simulation
from rmpc_ros.plants.energy_hub import Prosumer, synthetic_prosumer, two_hour_sums
from rmpc_ros.studies.registry import Settings, Study

matplotlib.use("Agg")
import matplotlib.pyplot as plt


def run(settings: Settings, folder: Path) -> dict[str, Any]:
    """Centralised, local and decoupled designs of one day; rolling horizon on request."""
    prosumers = _prosumers(settings)
    graph = topology({"serial": "chain", "complete": "complete"}.get(settings["graph"], "?"), len(prosumers))
    prices = hourly_prices()
    if settings["price_spread"]:
        rng = np.random.default_rng(settings["seed"])
        prices = prices * (1 + settings["price_spread"] * rng.uniform(-1, 1, prices.size))
    networks = {
        name: energy_network(prosumers, graph, two_hour_sums(prices), exchange=name != "decoupled")
        for name in ("centralised", "local", "decoupled")
    }
    result: dict[str, Any] = dict(settings) | {"source": settings["data"] or "synthetic"}
    designs: dict[str, NetworkDesign] = {}
    for name, network in networks.items():
        structure = "centralised" if name == "centralised" else "local"
        solver = "ipm" if name == "centralised" else "auto"
        designs[name] = design_network(network, structure, epigraph=settings["epigraph"], solver=solver)  # type: ignore[arg-type]
        check = check_by_simulation(designs[name], settings["runs"], settings["seed"], measured_disturbance=True)
        result[name] = design_summary(designs[name]) | {
            "simulation": {
                "runs": check.runs,
                "no_violation": bool(check.violation <= 1e-6),
                "all_inside_announced_sets": bool(check.gauge <= 1 + 1e-6),
                "cost_bound_held": bool(check.cost_excess <= 1e-5),
            }
        }
    best, mine, alone = (designs[n].objective for n in ("centralised", "local", "decoupled"))
    result |= {
        "status": "optimal",
        "objective": mine,
        "suboptimality_percent": 100 * (mine / best - 1),
        "centralised_saves_percent": 100 * (1 - best / alone),
        "local_saves_percent": 100 * (1 - mine / alone),
        "privacy": privacy_report(designs["local"]),
        "conservatism": conservatism_report(designs["local"]),
    }
    _draw(designs["local"], folder / "draws.png")
    if settings["rolling_runs"]:
        result["rolling"] = _rolling(networks, designs, settings)
    return result


def _prosumers(settings: Settings) -> list[Prosumer]:
    if settings["data"]:
        return [read_prosumer(Path(settings["data"]), n) for n in settings["prosumers"]]
    if len(settings["prosumers"]) < 2:
        raise ConfigError(f"energy hub: prosumers = {settings['prosumers']}; at least 2 are wanted")
    return [synthetic_prosumer(n, settings["seed"]) for n in settings["prosumers"]]


def _rolling(networks: dict[str, Any], designs: dict[str, NetworkDesign], settings: Settings) -> dict[str, Any]:
    rng = np.random.default_rng(settings["seed"])
    agents = networks["local"].agents
    draws = [[a.disturbance.sample(rng, 12) for a in agents] for _ in range(settings["rolling_runs"])]
    out = {}
    for name, design in designs.items():
        runs = [roll(networks[name], design.structure, w, settings["epigraph"], first=design) for w in draws]
        out[name] = {
            "worst_case": design.objective,
            "mean_realised": float(np.mean([r.costs.sum() for r in runs])),
            "no_violation": bool(max(r.violation for r in runs) <= 1e-5),
        }
    return out


def _draw(design: NetworkDesign, path: Path) -> None:
    figure, axes = plt.subplots(figsize=(7, 4))
    for (taker, signal), stages in design.announced.items():
        most = [0.0 if a is None else 2 * a.scale[0] for a in stages]
        giver = design.network.agents[int(signal.removeprefix("draw"))].name
        axes.step(range(1, 13), most, where="mid", label=f"{giver} to {design.network.agents[taker].name}")
    axes.set(xlabel="two-hour step", ylabel="most that may be drawn")
    axes.legend(fontsize=7)
    figure.savefig(path, dpi=120)
    plt.close(figure)


def table(result: dict[str, Any]) -> Iterable[str]:
    """Lines for people."""
    for name in ("centralised", "local", "decoupled"):
        yield f"{name:12} {result[name]['objective']:.3f}"
    yield (
        f"local {result['suboptimality_percent']:.2f} % above centralised; against decoupled, centralised saves "
        f"{result['centralised_saves_percent']:.1f} %, local {result['local_saves_percent']:.1f} %"
    )
    for name, row in result.get("rolling", {}).items():
        yield f"rolling {name:12} worst case {row['worst_case']:.2f}  mean {row['mean_realised']:.2f}"


STUDY = Study(
    {
        "data": "",
        "prosumers": [1, 2, 3, 9],
        "graph": "serial",
        "price_spread": 0.0,
        "epigraph": "affine",
        "seed": 0,
        "runs": 50,
        "rolling_runs": 0,
    },
    run,
    table,
)
