"""Three vessels on one steam header: shares by prices, a lying agent, and the capacity that holds all the same.

Runs of the plant `shared_steam`: everybody honest; one agent that asks too much, stops answering, ignores its share, or
gives what it has not. Statements may be lost and late (`loss`, `delay`). The joint optimum of all wishes gives the
price that the exchange should find.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np

from rmpc_ros.config import PlantConfig, load_plant
from rmpc_ros.config.shipped import shipped_plant
from rmpc_ros.errors import PromiseError
from rmpc_ros.mpc.local import Vector
from rmpc_ros.network.agent import Agent
from rmpc_ros.network.agent_design import AgentDesign
from rmpc_ros.network.dual_decomposition import share_resource
from rmpc_ros.network.forecast import ForecastSet
from rmpc_ros.network.resource_guard import Guard
from rmpc_ros.network.resource_user import ResourceUser
from rmpc_ros.network.shared_resource import DELAY, Statement, design_resource
from rmpc_ros.network.system import design_agents
from rmpc_ros.plants import make_plant
from rmpc_ros.studies.guarantee import vertex_disturbances
from rmpc_ros.studies.registry import Settings, Study

matplotlib.use("Agg")

LIES = ("greedy", "silent", "overdraw", "counterfeit")


def simulate(
    config: PlantConfig,
    steps: int,
    seed: int,
    liars: dict[str, str],
    loss: float = 0.0,
    delay: int = 0,
    disturbed: bool = True,
    make: Callable[[AgentDesign], Agent] = Agent,
) -> dict[str, Any]:
    """One run in lockstep; statements travel as between nodes: used DELAY steps after they were made, or later."""
    ((name, section),) = config.resources.items()
    designs = design_agents(config)
    resource = design_resource(name, section, designs)
    horizon = config.controller.horizon
    agents = {n: make(d) for n, d in designs.items()}
    users = {n: ResourceUser(designs[n], agents[n].fixed, resource, liars.get(n, "")) for n in resource.users}
    guard = Guard(resource, horizon)
    observers = {n: user for n, user in users.items() if n not in liars} | {"header": guard}
    named: dict[str, dict[str, str]] = {receiver: {} for receiver in observers}
    plant = make_plant(config, seed=seed)
    draw = vertex_disturbances(*config.disturbance_bounds(), 1000 + seed) if disturbed else None
    nominal = config.linear.steady_disturbance
    generator = np.random.default_rng(seed)
    for agent in agents.values():
        agent.start(0)
    post: dict[int, list[tuple[str, Statement]]] = {}
    forecasts: dict[str, ForecastSet] = {}
    rows: dict[str, list[Any]] = {"use": [], "price": [], "shares": [], "states": [], "worst": []}
    violations: dict[str, int] = dict.fromkeys(designs, 0)
    broken: dict[str, int] = dict.fromkeys(designs, 0)
    for k in range(steps):
        measured = plant.measure()
        for receiver, said in post.pop(k, []):
            try:
                (guard if receiver == "" else users[receiver]).hear(said)
            except PromiseError:
                continue  # remembered by the receiver under the sender's name
        inputs: dict[str, Vector] = {}
        said_now: list[Statement] = []
        for n, agent in agents.items():
            for other in designs[n].neighbours if k else ():
                agent.receive(forecasts[other])
            users[n].apply(k, agent.fixed)
        for n, agent in agents.items():
            decision = agent.step(k, measured[n], {o: measured[o] for o in designs[n].neighbours})
            forecasts[n] = decision.forecast
            broken[n] += decision.report.promise_broken
            inputs[n] = decision.input
            word = users[n].state(k, agent.fixed, decision)
            if word is not None:
                said_now.append(word)
        for said in said_now:
            for receiver in ("", *(n for n in users if n != said.agent)):
                late = DELAY + (int(generator.integers(delay + 1)) if receiver else 0) - (not receiver)
                if not (receiver and generator.random() < loss):
                    post.setdefault(k + late, []).append((receiver, said))
        applied = guard.cut(k, inputs)
        for receiver, observer in observers.items():
            named[receiver].update(observer.accused.reasons)  # a name is cleared after a while
        truth = plant.true_state()
        for n, design in designs.items():
            violations[n] += sum(margin < -1e-9 for margin in design.margins(truth[n], applied[n]).values())
        honest = [n for n in users if n not in liars]
        own = [float(users[n].book.shares()[users[n].index, 0]) for n in users if n not in liars]
        rows["worst"].append(sum(own) if len(honest) == len(users) else float("nan"))
        rows["use"].append(guard.use)
        rows["price"].append(users[honest[0]].prices[DELAY:].tolist())
        rows["shares"].append(guard.book.shares()[:, 0])
        rows["states"].append([float(truth[n][0]) for n in designs])
        plant.step(applied, nominal if draw is None else draw(k))
    for receiver, observer in observers.items():
        named[receiver].update(observer.suspects)  # with who is silent now
    return {
        "resource": resource,
        "rows": rows,
        "violations": violations,
        "promises_broken": broken,
        "largest_total_use": guard.largest,
        "cuts": guard.cuts,
        "named": named,
        "failed": sum(u.failed for u in users.values()),
        "users": users,
        "agents": agents,
    }


def joint_price(run: dict[str, Any]) -> tuple[Vector, bool]:
    """Prices (N,) of the last step's problem, negotiated to the end by `share_resource`, and whether that settled."""
    resource, users, agents = run["resource"], run["users"], run["agents"]
    for n, user in users.items():
        user.problem.begin(agents[n].fixed)
    capacity = np.full(next(iter(users.values())).horizon, resource.capacity)
    rho = resource.rho / resource.scale**2
    found = share_resource([u.problem for u in users.values()], capacity, rho, iterations=2000, tolerance=1e-6)
    return found.prices, found.converged


def run_study(settings: Settings, folder: Path) -> dict[str, Any]:
    """Honest runs, undisturbed and worst case; then every lie."""
    config = load_plant(shipped_plant("shared_steam"))
    steps, seeds = settings["steps"], settings["seeds"]
    quiet = simulate(config, steps, 0, {}, disturbed=False)
    prices, settled = joint_price(quiet)
    final = float(np.mean(quiet["rows"]["price"][-1]))
    tail = np.mean(np.array(quiet["rows"]["price"][-20:]), axis=1)
    honest = [simulate(config, steps, seed, {}) for seed in range(seeds)]
    lossy = [simulate(config, steps, seed, {}, settings["loss"], settings["delay"]) for seed in range(seeds)]
    resource = quiet["resource"]
    liar = resource.users[settings["liar"]]
    lying = {lie: [simulate(config, steps, seed, {liar: lie}) for seed in range(seeds)] for lie in LIES}
    everything = [quiet, *honest, *lossy, *(run for runs in lying.values() for run in runs)]
    out: dict[str, Any] = {
        "steps": steps,
        "seeds": seeds,
        "resource": resource.name,
        "capacity": resource.capacity,
        "unit": resource.unit,
        "guaranteed": dict(zip(resource.users, resource.guaranteed.tolist(), strict=True)),
        "largest_total_use": max(run["largest_total_use"] for run in everything),
        "price_history": [float(np.mean(row)) for row in quiet["rows"]["price"]],
        "price_final": final,
        "price_joint": float(np.mean(prices[DELAY:])),
        "converged": bool(settled and np.ptp(tail) <= 0.02 * final),
        "honest": _summary(honest, ""),
        "lossy": _summary(lossy, "") | {"loss": settings["loss"], "delay": settings["delay"]},
        "liar": liar,
        "lies": {lie: _summary(runs, liar) for lie, runs in lying.items()},
    }
    out["contained"] = all(row["contained"] for row in out["lies"].values())
    out["named"] = all(row["named"] for row in out["lies"].values())
    _draw(quiet, honest[0], lying, folder / "shared_steam.png")
    return out | {"figure": "shared_steam.png"}


def _summary(runs: list[dict[str, Any]], liar: str) -> dict[str, Any]:
    capacity = runs[0]["resource"].capacity
    others = sum(count for run in runs for n, count in run["violations"].items() if n != liar)
    use = max(run["largest_total_use"] for run in runs)
    shares = np.nanmax([np.nanmax(np.array([*run["rows"]["worst"], 0.0])) for run in runs])
    row = {
        "largest_total_use": use,
        "largest_sum_of_shares": float(shares) if not liar else None,
        "violations_of_others": others,
        "violations": sum(count for run in runs for count in run["violations"].values()),
        "promises_broken": sum(sum(run["promises_broken"].values()) for run in runs),
        "promises_broken_by_others": sum(n for run in runs for a, n in run["promises_broken"].items() if a != liar),
        "cuts": {n: sum(run["cuts"][n] for run in runs) for n in runs[0]["cuts"]},
        "wishes_failed": sum(run["failed"] for run in runs),
    }
    if liar:
        row["contained"] = bool(others == 0 and use <= capacity * (1 + 1e-9))
        row["named"] = all(any(liar in names for names in run["named"].values()) for run in runs)
        row["named_by"] = sorted({by for run in runs for by, names in run["named"].items() if liar in names})
        row["falsely_named"] = sorted(
            {n for run in runs for names in run["named"].values() for n in names if n != liar}
        )
        row["word"] = next((names[liar] for names in runs[0]["named"].values() if liar in names), "")
    return row


def _draw(quiet: dict[str, Any], honest: dict[str, Any], lying: dict[str, list[dict[str, Any]]], path: Path) -> None:
    import matplotlib.pyplot as plt

    resource = quiet["resource"]
    figure, axes = plt.subplots(1, 3, figsize=(11, 3.2), constrained_layout=True)
    axes[0].plot(np.mean(quiet["rows"]["price"], axis=1), label="no disturbance")
    axes[0].plot(np.mean(honest["rows"]["price"], axis=1), label="disturbances at the vertices", linewidth=0.8)
    axes[0].set_ylabel(f"price per {resource.unit}")
    axes[0].legend(fontsize=8)
    axes[1].plot(np.array(honest["rows"]["shares"]), label=[f"share of {user}" for user in resource.users])
    axes[1].set_ylabel(f"{resource.name} [{resource.unit}]")
    axes[1].legend(fontsize=8)
    for lie, runs in lying.items():
        axes[2].plot(runs[0]["rows"]["use"], label=lie, linewidth=0.8)
    axes[2].axhline(resource.capacity, color="k", linestyle=":")
    axes[2].set_ylabel(f"total use [{resource.unit}], one liar")
    axes[2].legend(fontsize=8)
    for axis in axes:
        axis.set_xlabel("step")
    figure.savefig(path, dpi=120)
    plt.close(figure)


def table(result: dict[str, Any]) -> list[str]:
    """Lines for people."""
    lines = [
        f"capacity {result['capacity']:g} {result['unit']}, most used {result['largest_total_use']:.6g} in any run",
        f"price (mean over the horizon) {result['price_final']:.5g}, of the joint optimum {result['price_joint']:.5g}, "
        f"{'converged' if result['converged'] else 'not converged'}",
    ]
    for name, row in (("honest", result["honest"]), ("lossy", result["lossy"]), *result["lies"].items()):
        word = f", named by {', '.join(row['named_by']) or 'nobody'}" if "named_by" in row else ""
        lines.append(
            f"{name:12} largest use {row['largest_total_use']:.6g}, {row['violations']} violations, "
            f"{row['promises_broken']} promises broken{word}"
        )
    return lines


STUDY = Study(defaults={"steps": 120, "seeds": 5, "loss": 0.3, "delay": 3, "liar": 1}, run=run_study, table=table)
