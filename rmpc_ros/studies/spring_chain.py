"""Masses, springs and dampers: what local information costs as the chain and the horizon grow (seed 002, 5.2)."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import matplotlib

from rmpc_ros.errors import InfeasibleError
from rmpc_ros.network.cases.spring_chain import spring_network
from rmpc_ros.network.design import NetworkDesign, design_network
from rmpc_ros.network.graph import topology
from rmpc_ros.network.report import conservatism_report, design_summary, privacy_report
from rmpc_ros.network.simulate import check_by_simulation
from rmpc_ros.studies.registry import Settings, Study

matplotlib.use("Agg")
import matplotlib.pyplot as plt


def solve(settings: Settings, structure: str, M: int | None = None, T: int | None = None) -> NetworkDesign:
    """One design of the chain (M and T override the settings)."""
    network = spring_network(
        topology("chain", M or settings["M"]), T or settings["T"], settings["Ts"], settings["e"], settings["seed"]
    )
    return design_network(network, structure, epigraph=settings["epigraph"])  # type: ignore[arg-type]


def run(settings: Settings, folder: Path) -> dict[str, Any]:
    """Solve, simulate and report; with sweep=true also the gap over M and over T."""
    result: dict[str, Any] = dict(settings)
    structures = ["centralised", "local"] if settings["design"] == "both" else [settings["design"]]
    designs: dict[str, NetworkDesign] = {}
    for name in structures:
        try:
            designs[name] = solve(settings, name)
        except InfeasibleError as error:
            result[name] = {"status": "infeasible", "objective": None, "reason": str(error)}
            continue
        check = check_by_simulation(designs[name], settings["runs"], settings["seed"])
        result[name] = design_summary(designs[name]) | {
            "simulation": {
                "runs": check.runs,
                "largest_violation": max(check.violation, 0.0) if check.violation > 1e-6 else 0.0,
                "smallest_margin": -check.violation,
                "largest_reach_in_announced_set": check.gauge,
                "all_inside_announced_sets": bool(check.gauge <= 1 + 1e-6),
                "cost_bound_held": bool(check.cost_excess <= 1e-6),
            }
        }
    last = result[structures[-1]]
    result |= {k: last[k] for k in ("status", "objective", "agent_objectives", "times", "sizes") if k in last}
    if len(designs) == 2:
        result["suboptimality_percent"] = _gap(designs["centralised"].objective, designs["local"].objective)
    if "local" in designs:
        result["privacy"] = privacy_report(designs["local"])
        result["conservatism"] = conservatism_report(designs["local"])
        _draw_sets(designs["local"], folder / "announced_sets.png")
    if settings["sweep"]:
        result["over_M"] = [_compare(settings, M, settings["T"]) for M in settings["sweep_M"]]
        result["over_T"] = [_compare(settings, settings["M"], T) for T in settings["sweep_T"]]
        _draw_sweep(result, folder / "suboptimality.png")
    return result


def _gap(best: float, value: float) -> float:
    return 100.0 * (value - best) / best


def _compare(settings: Settings, M: int, T: int) -> dict[str, Any]:
    row: dict[str, Any] = {"M": M, "T": T}
    try:
        best, mine = solve(settings, "centralised", M, T), solve(settings, "local", M, T)
    except InfeasibleError:
        return row | {"status": "infeasible"}
    row |= {"status": "optimal", "centralised": best.objective, "local": mine.objective}
    row |= {"suboptimality_percent": _gap(best.objective, mine.objective)}
    return row | {"centralised_s": best.solve_seconds, "local_s": mine.solve_seconds}


def _draw_sets(design: NetworkDesign, path: Path) -> None:
    agents = design.network.agents
    figure, axes = plt.subplots(len(agents), 1, figsize=(6, 1.8 * len(agents)), squeeze=False, sharex=True)
    for i, agent in enumerate(agents):
        stages = design.announced[i, "x"]
        centre = [agent.x0[0] if a is None else a.centre[0] for a in stages]
        width = [0.0 if a is None else a.scale[0] for a in stages]
        axes[i, 0].errorbar(range(1, len(centre) + 1), centre, yerr=width, fmt="o", capsize=4)
        axes[i, 0].set_ylabel(f"{agent.name} position")
    axes[-1, 0].set_xlabel("t")
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    plt.close(figure)


def _draw_sweep(result: dict[str, Any], path: Path) -> None:
    figure, axes = plt.subplots(2, 2, figsize=(9, 6))
    for k, name in enumerate(("M", "T")):
        rows = [r for r in result[f"over_{name}"] if r["status"] == "optimal"]
        at = [r[name] for r in rows]
        axes[0, k].plot(at, [r["suboptimality_percent"] for r in rows], "o-")
        axes[0, k].set(ylabel="suboptimality [%]", ylim=(0, None))
        axes[1, k].semilogy(at, [r["centralised_s"] for r in rows], "s-", label="centralised")
        axes[1, k].semilogy(at, [r["local_s"] for r in rows], "o-", label="local, solved jointly")
        axes[1, k].set(xlabel=name, ylabel="solver time [s]")
        axes[1, k].legend()
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    plt.close(figure)


def table(result: dict[str, Any]) -> Iterable[str]:
    """Lines for people."""
    for name in ("centralised", "nested", "local"):
        if name in result:
            yield f"{name:12} {result[name]['status']:11} {result[name]['objective']}"
    if "suboptimality_percent" in result:
        yield f"suboptimality {result['suboptimality_percent']:.3f} %"
    for row in result.get("over_M", []) + result.get("over_T", []):
        yield f"M {row['M']:3d} T {row['T']:3d} {row['status']} {row.get('suboptimality_percent', float('nan')):.3f} %"


STUDY = Study(
    {
        "M": 2,
        "T": 8,
        "Ts": 1.0,
        "e": 0.2,
        "seed": 0,
        "design": "both",
        "epigraph": "constant",
        "runs": 200,
        "sweep": True,
        "sweep_M": [2, 3, 4, 5],
        "sweep_T": [3, 4, 5, 6, 7, 8],
    },
    run,
    table,
)
