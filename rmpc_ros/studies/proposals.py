"""How soon a moved target is reached when agents agree on larger promises, and what a bad network does to that.

The reactor plant, linear, with 0.2 of the inputs' range left to the optimiser. Reactor 1's target moves to where 0.6 of
that holds it. On a good network without disturbances, steps until 80 % of the way are gone are counted, with proposals
and without. On a bad network targets of all agents move while disturbances are mostly at the vertices.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from numpy.typing import NDArray

from rmpc_ros.config import PlantConfig, load_plant
from rmpc_ros.config.shipped import shipped_plant
from rmpc_ros.network.agent import Agent
from rmpc_ros.network.agent_design import AgentDesign
from rmpc_ros.network.channel import Channel, Faults
from rmpc_ros.network.closed_loop import LoopResult, run
from rmpc_ros.network.system import design_agents
from rmpc_ros.plants import make_plant
from rmpc_ros.studies.guarantee import vertex_disturbances
from rmpc_ros.studies.registry import Settings, Study

matplotlib.use("Agg")

Vector = NDArray[np.float64]
Move = tuple[int, str, float]  # after the decision of which step, whose target, to which share of the authority
WATCHED = "reactor1"
NEAR = 0.8  # of the way
BAD_MOVES: tuple[Move, ...] = (
    (20, "reactor1", 0.6),
    (45, "reactor2", -0.6),
    (70, "separator", 0.5),
    (95, "reactor1", -0.6),
    (120, "reactor2", 0.3),
)


def plant(authority: float) -> PlantConfig:
    """The reactor plant, linear, with more authority for the optimiser."""
    base = load_plant(shipped_plant("reactor_separator"))
    margins = base.controller.margins.model_copy(update={"authority": authority})
    return base.model_copy(
        update={
            "simulation": base.simulation.model_copy(update={"model": "linear"}),
            "controller": base.controller.model_copy(update={"margins": margins}),
        }
    )


def resting_point(design: AgentDesign, share: float) -> tuple[Vector, Vector]:
    """Where a share of its authority holds an agent while its neighbours rest: x_ref (nx,), u_ref (nu,), normalised."""
    model, deviation = design.model, share * design.terminal[design.nx :]
    x = np.asarray(np.linalg.solve(np.eye(design.nx) - model.A, model.B @ deviation), np.float64)
    return x, model.K @ x + deviation


def simulate(
    config: PlantConfig,
    designs: dict[str, AgentDesign],
    asking: bool,
    steps: int,
    moves: Sequence[Move],
    faults: Faults | None = None,
    seed: int = 0,
    draw: Callable[[int], Vector] | None = None,
) -> tuple[LoopResult, dict[str, Agent], Vector]:
    """Closed loop with moving targets.

    Returns
    -------
    The loop's figures, the agents, and reactor 1's temperature (steps,) as a share of the way to its first target.
    """
    followers = {n: [o for o in designs if n in designs[o].neighbours] for n in designs}
    agents = {n: Agent(d, followers[n] if asking else None) for n, d in designs.items()}
    design = designs[WATCHED]
    goal = resting_point(design, moves[0][2])[0][2]
    way = []

    def watch(k: int, decisions: dict[str, Any]) -> None:
        for at, name, share in moves:
            if k == at:
                agents[name].set_target(*resting_point(designs[name], share))
        way.append(float((decisions[WATCHED].forecast.center[0] - design.center)[2] / design.scale[2] / goal))

    channel = Channel(faults or Faults(), seed)
    result = run(agents, make_plant(config, seed=seed), steps, draw, channel=channel, watch=watch)
    return result, agents, np.array(way)


def counts(agents: dict[str, Agent]) -> dict[str, int]:
    """Proposals of all agents together: proposed, adopted, withdrawn, acknowledged, refused."""
    total: dict[str, int] = {}
    for agent in agents.values():
        for name, count in {**agent.negotiation.proposer.counts, **agent.negotiation.counts}.items():
            total[name] = total.get(name, 0) + count
    return total


def run_study(settings: Settings, folder: Path) -> dict[str, Any]:
    """Good network with and without proposals, then the bad one."""
    config = plant(settings["authority"])
    designs = design_agents(config)
    nominal = config.linear.steady_disturbance
    moved = settings["moved"]
    out: dict[str, Any] = {"horizon": designs[WATCHED].horizon}
    ways = {}
    for kind, asking in (("without", False), ("with", True)):
        result, agents, way = simulate(
            config, designs, asking, moved + 40, ((moved, WATCHED, settings["share"]),), draw=lambda k: nominal
        )
        ways[kind] = way
        near = np.flatnonzero(way[moved + 1 :] >= NEAR)
        out[kind] = _summary([result]) | counts(agents) | {"steps_to_target": int(near[0]) + 1 if near.size else None}
    faults = Faults(settings["loss"], settings["delay"], settings["duplicate"], (("separator", 60, 80),))
    results: list[LoopResult] = []
    total: dict[str, int] = {}
    for seed in range(settings["seeds"]):
        draw = vertex_disturbances(*config.disturbance_bounds(), 40 + seed)
        result, agents, _ = simulate(config, designs, True, settings["steps"], BAD_MOVES, faults, seed, draw)
        results.append(result)
        total = {name: total.get(name, 0) + count for name, count in counts(agents).items()}
    out["bad_network"] = _summary(results) | total
    _draw(ways, moved, folder / "proposals.png")
    return out | {"figure": "proposals.png"}


def _summary(results: list[LoopResult]) -> dict[str, Any]:
    return {
        "violations": sum(r.violations for r in results),
        "promises_broken": sum(r.promises_broken for r in results),
        "modes": {mode: sum(r.modes[mode] for r in results) for mode in results[0].modes},
    }


def _draw(ways: dict[str, Vector], moved: int, path: Path) -> None:
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(6, 3), constrained_layout=True)
    for kind, way in ways.items():
        axes.plot(np.arange(len(way)) - moved, way, label=f"{kind} proposals")
    axes.axhline(1.0, color="0.6", lw=0.8)
    axes.set(xlabel="steps after the target has moved", ylabel="share of the way (temperature)", xlim=(-5, 35))
    axes.legend()
    figure.savefig(path, dpi=120)
    plt.close(figure)


def table(result: dict[str, Any]) -> list[str]:
    """Lines for people."""
    bad = result["bad_network"]
    return [
        f"{kind:8} proposals: target reached in {result[kind]['steps_to_target']} steps, horizon {result['horizon']}, "
        f"{result[kind]['proposed']} proposed, {result[kind]['adopted']} adopted"
        for kind in ("without", "with")
    ] + [
        f"bad network: {bad['violations']} violations, {bad['promises_broken']} promises broken; {bad['proposed']} "
        f"proposed, {bad['adopted']} adopted, {bad['withdrawn']} withdrawn"
    ]


STUDY = Study(
    defaults={
        "authority": 0.2,
        "share": 0.6,
        "moved": 30,
        "seeds": 10,
        "steps": 160,
        "loss": 0.3,
        "delay": 3,
        "duplicate": 0.2,
    },
    run=run_study,
    table=table,
)
