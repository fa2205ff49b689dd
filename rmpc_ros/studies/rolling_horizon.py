"""Solving again at every step: realised cost against the worst case, for full and for local information."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np

from rmpc_ros.errors import ConfigError
from rmpc_ros.network.cases.spring_chain import spring_network
from rmpc_ros.network.cases.supply_chain import supply_network
from rmpc_ros.network.design import design_network
from rmpc_ros.network.graph import topology
from rmpc_ros.network.model import Network
from rmpc_ros.network.rolling import RollingRun, roll
from rmpc_ros.network.rollout import Epigraph
from rmpc_ros.studies.registry import Settings, Study

matplotlib.use("Agg")
import matplotlib.pyplot as plt


def _network(settings: Settings) -> tuple[Network, Epigraph]:
    match settings["plant"]:
        case "spring-chain":
            graph = topology("chain", settings["M"])
            return spring_network(graph, settings["T"], settings["Ts"], settings["e"], settings["seed"]), "constant"
        case "supply-chain":
            return supply_network(
                settings["M"], settings["T"], seed=settings["seed"], delay=settings["delay"]
            ), "affine"
    raise ConfigError(f"plant = {settings['plant']!r}; known: spring-chain, supply-chain")


def run(settings: Settings, folder: Path) -> dict[str, Any]:
    """The same random disturbances for both structures; gap of the closed loops against that of the designs."""
    network, epigraph = _network(settings)
    rng = np.random.default_rng(settings["seed"])
    draws = [[a.disturbance.sample(rng, network.horizon) for a in network.agents] for _ in range(settings["runs"])]
    rows: list[dict[str, Any]] = []
    runs: dict[str, list[RollingRun]] = {}
    for structure in ("centralised", "local"):
        first = design_network(network, structure, epigraph=epigraph)
        runs[structure] = [roll(network, structure, w, epigraph, first=first) for w in draws]
        costs = [r.costs.sum() for r in runs[structure]]
        rows.append(
            {
                "design": structure,
                "worst_case": first.objective,
                "mean_realised": float(np.mean(costs)),
                "largest_realised": float(np.max(costs)),
                "no_violation": bool(max(r.violation for r in runs[structure]) <= 1e-5),
                "mean_solve_s": float(np.mean([r.seconds.mean() for r in runs[structure]])),
            }
        )
    best, mine = rows
    _draw(runs, folder / "closed_loop.png")
    return dict(settings) | {
        "status": "optimal",
        "rows": rows,
        "open_loop_gap_percent": 100 * (mine["worst_case"] / best["worst_case"] - 1),
        "closed_loop_gap_percent": 100 * (mine["mean_realised"] / best["mean_realised"] - 1),
        "rolling_improves_both": bool(all(r["mean_realised"] < r["worst_case"] for r in rows)),
        "largest_state_difference": float(
            max(
                np.abs(a - b).max()
                for p, q in zip(runs["centralised"], runs["local"], strict=True)
                for a, b in zip(p.x, q.x, strict=True)
            )
        ),
    }


def _draw(runs: dict[str, list[RollingRun]], path: Path) -> None:
    figure, axes = plt.subplots(figsize=(7, 4))
    for structure, style in (("centralised", "--"), ("local", "-")):
        for n, x in enumerate(runs[structure][0].x):
            axes.plot(x[:, 0], style, c=f"C{n}", label=f"agent {n + 1}, {structure}")
    axes.set(xlabel="step", ylabel="first state")
    axes.legend(fontsize=7)
    figure.savefig(path, dpi=120)
    plt.close(figure)


def table(result: dict[str, Any]) -> Iterable[str]:
    """Lines for people."""
    for r in result["rows"]:
        yield (
            f"{r['design']:12} worst case {r['worst_case']:9.4f}  mean realised {r['mean_realised']:9.4f}  "
            f"largest {r['largest_realised']:9.4f}  no violation: {r['no_violation']}"
        )
    yield (
        f"gap of the designs {result['open_loop_gap_percent']:.2f} %, of the closed loops "
        f"{result['closed_loop_gap_percent']:.2f} %"
    )


STUDY = Study(
    {"plant": "spring-chain", "M": 3, "T": 8, "Ts": 1.0, "e": 0.2, "seed": 0, "delay": 1, "runs": 5},
    run,
    table,
)
