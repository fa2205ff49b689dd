"""Agents negotiate their announced sets by ADMM: iterations to the joint optimum and to something implementable."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np

from rmpc_ros.network.admm import AdmmOptions, AdmmStep, Negotiation
from rmpc_ros.network.cases.spring_chain import spring_network
from rmpc_ros.network.design import design_network
from rmpc_ros.network.graph import topology
from rmpc_ros.network.model import Network
from rmpc_ros.network.repair import implement
from rmpc_ros.network.simulate import check_by_simulation
from rmpc_ros.studies.registry import Settings, Study

matplotlib.use("Agg")
import matplotlib.pyplot as plt

FEW = 4  # iterations that a control step has time for


def run(settings: Settings, folder: Path) -> dict[str, Any]:
    """Negotiate on a spring network and compare with the joint solution of the same problem."""
    network = spring_network(
        topology(settings["graph"], settings["M"]), settings["T"], settings["Ts"], settings["e"], settings["seed"]
    )
    joint = design_network(network, "local", epigraph=settings["epigraph"])
    options = AdmmOptions(
        settings["mode"],
        settings["rho"],
        settings["dual_step"],
        settings["over_relaxation"],
        settings["horizon_growth"],
        settings["balance"],
        settings["iterations"],
    )
    negotiation = Negotiation(network, options, epigraph=settings["epigraph"])
    steps: list[AdmmStep] = []
    first: int | None = None
    first_objective: float | None = None
    while len(steps) < options.max_iterations:
        steps.append(negotiation.iterate())
        if first is None and (design := implement(negotiation)) is not None:
            first, first_objective = len(steps), design.objective
    final = implement(negotiation)
    errors = [abs(s.objective - joint.objective) / abs(joint.objective) for s in steps]
    result: dict[str, Any] = dict(settings) | {
        "status": "optimal" if errors[-1] <= 1e-3 else "not yet",
        "joint_objective": joint.objective,
        "objective": steps[-1].objective,
        "relative_error": errors[-1],
        "iterations_to_1e-3": next((n + 1 for n, e in enumerate(errors) if e <= 1e-3), None),
        "iterations_to_stay_within_1e-3": _stays(errors, 1e-3),
        "iterations_to_implementable": first,
        "first_implementable_objective": first_objective,
        "final_implementable_objective": None if final is None else final.objective,
        "agent_seconds_per_iteration": float(np.median([s.agent_seconds.mean() for s in steps])),
        "times": {
            "parallel_s": float(sum(s.parallel_seconds for s in steps)),
            "total_cpu_s": float(sum(s.agent_seconds.sum() for s in steps)),
        },
        "history": [
            {"objective": s.objective, "primal": s.primal, "dual": s.dual, "agent_s": s.agent_seconds.tolist()}
            for s in steps
        ],
    }
    result["next_step"] = _next_step(network, negotiation, settings)
    if final is not None:
        check = check_by_simulation(final, settings["runs"], settings["seed"])
        result["simulation"] = {
            "runs": check.runs,
            "no_violation": bool(check.violation <= 1e-6),
            "all_inside_announced_sets": bool(check.gauge <= 1 + 1e-6),
        }
    _draw(steps, errors, folder / "residuals.png")
    return result


def _next_step(network: Network, negotiation: Negotiation, settings: Settings) -> dict[str, float]:
    """A step later in a receding horizon: relative error of the objective after a few iterations, from two starts."""
    moved = network.tail(0, [agent.A @ agent.x0 for agent in network.agents])
    joint = design_network(moved, "local", epigraph=settings["epigraph"]).objective
    starts = {"warm": negotiation.shifted_state(), "cold": None}
    out: dict[str, float] = {"iterations": FEW}
    for name, state in starts.items():
        run = Negotiation(moved, negotiation.options, epigraph=settings["epigraph"], state=state)
        errors = [abs(run.iterate().objective - joint) / abs(joint) for _ in range(FEW)]
        out[f"mean_error_{name}"] = float(np.mean(errors))
    return out


def _stays(errors: list[float], bound: float) -> int | None:
    """First iteration from which on every error is within the bound."""
    above = [n for n, e in enumerate(errors) if e > bound]
    first = above[-1] + 2 if above else 1
    return first if first <= len(errors) else None


def _draw(steps: list[AdmmStep], errors: list[float], path: Path) -> None:
    figure, axes = plt.subplots(figsize=(7, 4))
    at = range(1, len(steps) + 1)
    axes.semilogy(at, [s.primal for s in steps], label="primal residual")
    axes.semilogy(at, [s.dual for s in steps], label="dual residual")
    axes.semilogy(at, errors, label="relative error of the objective")
    axes.axhline(1e-3, color="k", lw=0.5)
    axes.set(xlabel="iteration")
    axes.legend()
    figure.savefig(path, dpi=120)
    plt.close(figure)


def table(result: dict[str, Any]) -> Iterable[str]:
    """Lines for people."""
    yield f"joint {result['joint_objective']:.4f}  admm {result['objective']:.4f}  error {result['relative_error']:.1e}"
    yield f"within 1e-3 first at {result['iterations_to_1e-3']}, for good at {result['iterations_to_stay_within_1e-3']}"
    yield f"implementable at {result['iterations_to_implementable']}: {result['first_implementable_objective']}"
    yield f"implementable at the end: {result['final_implementable_objective']}"
    after = result["next_step"]
    yield (
        f"the next step's first {after['iterations']} iterations, mean error: {after['mean_error_warm']:.1e} from the "
        f"state one stage on, {after['mean_error_cold']:.1e} from nothing"
    )
    yield f"agent time per iteration {1e3 * result['agent_seconds_per_iteration']:.2f} ms"


STUDY = Study(
    {
        "graph": "chain",
        "M": 4,
        "T": 8,
        "Ts": 1.0,
        "e": 0.2,
        "seed": 0,
        "epigraph": "constant",
        "mode": "sequential",
        "rho": 1.0,
        "dual_step": 1.6,
        "over_relaxation": 1.6,
        "horizon_growth": 1.0,
        "balance": False,
        "iterations": 60,
        "runs": 50,
    },
    run,
    table,
)
