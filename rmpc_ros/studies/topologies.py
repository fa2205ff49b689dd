"""Local against centralised design on chains, rings, stars and meshes of masses: suboptimality and time."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np

from rmpc_ros.errors import InfeasibleError
from rmpc_ros.network.admm import AdmmOptions, Negotiation
from rmpc_ros.network.cases.spring_chain import spring_network
from rmpc_ros.network.design import design_network
from rmpc_ros.network.graph import topology
from rmpc_ros.network.model import Network
from rmpc_ros.network.repair import repair
from rmpc_ros.studies.registry import Settings, Study

matplotlib.use("Agg")
import matplotlib.pyplot as plt


def run(settings: Settings, folder: Path) -> dict[str, Any]:
    """For each graph and size: the centralised program, and the agents' negotiation with repair."""
    rows = [_one(settings, graph, size) for graph in settings["graphs"] for size in settings["sizes"]]
    _draw(rows, folder / "topologies.png")
    return dict(settings) | {
        "time_convention": "parallel_s counts the slowest agent of each round (colour by colour), as a network of M "
        "computers would take; total_cpu_s adds all agents up; both without building, both include the repair; all "
        "are CPU times",
        "rows": rows,
    }


def _one(settings: Settings, graph: str, size: int) -> dict[str, Any]:
    network = spring_network(
        topology(graph, size), settings["T"], settings["Ts"], settings["e"], settings["seed"], soften=True
    )
    row: dict[str, Any] = {"graph": graph, "agents": size}
    row["local"] = negotiate(network, settings["iterations"], settings["most_iterations"])
    try:
        best = design_network(network, "centralised", solver=settings["solver"])
    except InfeasibleError as error:
        return row | {"centralised": {"status": "infeasible", "reason": str(error)}}
    row["centralised"] = {
        "status": "optimal",
        "objective": best.objective,
        "solve_s": best.solve_seconds,
        "build_s": best.build_seconds,
        "sizes": best.sizes,
    }
    if row["local"]["status"] == "optimal":
        row["suboptimality_percent"] = 100 * (row["local"]["objective"] / best.objective - 1)
        row["times_faster_parallel"] = best.solve_seconds / row["local"]["parallel_s"]
        row["times_faster_total_cpu"] = best.solve_seconds / row["local"]["total_cpu_s"]
    return row


def negotiate(network: Network, iterations: int, most: int) -> dict[str, Any]:
    """ADMM for `iterations` rounds, then a repair; five more rounds wherever the repair says "not yet"."""
    negotiation = Negotiation(network, AdmmOptions())
    parallel, total, rounds = 0.0, 0.0, 0
    per_agent: list[float] = []
    while rounds < most:
        for _ in range(iterations if rounds == 0 else 5):
            try:
                step = negotiation.iterate()
            except InfeasibleError as error:
                return {"status": "infeasible", "reason": str(error), "iterations": rounds}
            parallel += step.parallel_seconds
            total += float(step.agent_seconds.sum())
            per_agent.append(float(np.median(step.agent_seconds)))
            rounds += 1
        outcome = repair(negotiation)
        parallel += outcome.parallel_seconds
        total += outcome.total_seconds
        if outcome.design is not None:
            return {
                "status": "optimal",
                "objective": outcome.design.objective,
                "iterations": rounds,
                "parallel_s": parallel,
                "total_cpu_s": total,
                "agent_s_per_iteration": float(np.median(per_agent)),
                "largest_agent": max(outcome.design.agent_sizes, key=lambda s: s["variables"]),
            }
    return {"status": "not yet", "iterations": rounds, "parallel_s": parallel, "total_cpu_s": total}


def _draw(rows: list[dict[str, Any]], path: Path) -> None:
    figure, axes = plt.subplots(1, 3, figsize=(13, 4))
    for graph in dict.fromkeys(r["graph"] for r in rows):
        good = [r for r in rows if r["graph"] == graph and "suboptimality_percent" in r]
        at = [r["agents"] for r in good]
        axes[0].plot(at, [r["suboptimality_percent"] for r in good], "o-", label=graph)
        line = axes[1].semilogy(at, [r["local"]["parallel_s"] for r in good], "o-", label=f"{graph}, local")[0]
        colour = line.get_color()
        axes[1].semilogy(
            at, [r["centralised"]["solve_s"] for r in good], "s--", c=colour, label=f"{graph}, centralised"
        )
        axes[2].plot(at, [1e3 * r["local"]["agent_s_per_iteration"] for r in good], "o-", label=graph)
    for ax, label in zip(axes, ("suboptimality [%]", "time [s]", "median agent time per iteration [ms]"), strict=True):
        ax.set(xlabel="agents", ylabel=label)
        ax.legend(fontsize=7)
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    plt.close(figure)


def table(result: dict[str, Any]) -> Iterable[str]:
    """Lines for people."""
    for r in result["rows"]:
        mine, best = r["local"], r["centralised"]
        if "suboptimality_percent" not in r:
            yield f"{r['graph']:6} {r['agents']:3d}  local {mine['status']}, centralised {best['status']}"
            continue
        yield (
            f"{r['graph']:6} {r['agents']:3d}  gap {r['suboptimality_percent']:6.2f} %  centralised "
            f"{best['solve_s']:8.2f} s  local {mine['parallel_s']:6.2f} s in parallel "
            f"({r['times_faster_parallel']:.1f} x), {mine['total_cpu_s']:7.2f} s CPU in all "
            f"({r['times_faster_total_cpu']:.1f} x), "
            f"{1e3 * mine['agent_s_per_iteration']:.1f} ms per agent and iteration"
        )


STUDY = Study(
    {
        "graphs": ["chain", "ring", "star", "mesh"],
        "sizes": [6, 12, 20],
        "T": 7,
        "Ts": 1.0,
        "e": 0.2,
        "seed": 0,
        "iterations": 10,
        "most_iterations": 60,
        "solver": "ipm",
    },
    run,
    table,
)
