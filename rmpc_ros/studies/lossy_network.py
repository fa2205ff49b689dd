"""Commitments on a bad network: loss, delay, re-ordering, duplicates, a silent neighbour; with and without them.

The reactor-separator's linear network, coupled by states (`discretisation: held`), its temperature limits where the
invariant boxes end, targets that jump from one side of the boxes to the other every `hold` steps, disturbances mostly
at the vertices of their set. Four loops on the same draws: agents with commitments on a perfect and on the bad network,
and agents that exchange measurements and forecasts without committing to them on the same two networks. The latter
are safe on a perfect network (`rmpc_ros.network.unprotected` says why), so that what they violate on the bad one is the
faults' doing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np

from rmpc_ros.config import PlantConfig, parse_plant
from rmpc_ros.config.shipped import shipped_plant
from rmpc_ros.network.agent import Agent
from rmpc_ros.network.channel import Channel, Faults
from rmpc_ros.network.closed_loop import LoopResult, run
from rmpc_ros.network.decision import Decision
from rmpc_ros.network.system import design_agents, design_network
from rmpc_ros.network.unprotected import UnprotectedAgent
from rmpc_ros.plants import make_plant
from rmpc_ros.studies.guarantee import vertex_disturbances
from rmpc_ros.studies.registry import Settings, Study

matplotlib.use("Agg")

KINDS = ("perfect", "lossy", "unprotected_perfect", "unprotected_lossy")
CLEAR = 1e-6
"""Limits lie so much outside the boxes, relatively: what is at a box's border is not yet a violation."""


def case(share: float, authority: float) -> PlantConfig:
    """The reactor-separator with `share` of its disturbances and limits just outside its largest invariant boxes."""
    text = shipped_plant("reactor_separator").read_text(encoding="utf-8")
    text = text.replace("period: 36 s", "period: 36 s\n  discretisation: held").replace(
        "model: nonlinear", "model: linear"
    )
    base = parse_plant(text)
    disturbances = {}
    for name, entry in base.plant.disturbances.items():
        low, high = (entry.nominal + share * (bound - entry.nominal) for bound in entry.bounds)
        disturbances[name] = entry.model_copy(update={"bounds": (low, high)})
    margins = base.controller.margins.model_copy(update={"authority": authority, "room": 10.0})
    config = base.model_copy(
        update={
            "plant": base.plant.model_copy(update={"disturbances": disturbances}),
            "controller": base.controller.model_copy(update={"margins": margins}),
        }
    )
    network = design_network(config)
    agents = {}
    for name, agent in config.agents.items():
        rows = network.linear.rows(name)
        back = np.abs(np.linalg.inv(network.linear.agents[name].transform))
        reach = (back @ (network.boxes.y[rows] * network.x_scale[rows]) + config.noise(name)) * (1 + CLEAR)
        states = {
            state: entry.model_copy(update={"deviation": (-most, most)})
            for (state, entry), most in zip(agent.states.items(), reach.tolist(), strict=True)
        }
        agents[name] = agent.model_copy(update={"states": states})
    return config.model_copy(update={"agents": agents})


def jumping_targets(
    agents: Mapping[str, Agent], hold: int, push: float, seed: int
) -> Callable[[int, dict[str, Decision]], None]:
    """Every `hold` steps each agent's last state (its temperature) is wanted on a side of its box drawn anew."""
    generator = np.random.default_rng(seed)

    def watch(step: int, _: dict[str, Decision]) -> None:
        if step % hold == 0:
            for agent in agents.values():
                design = agent.design
                target = np.zeros(design.nx)
                target[-1] = push * generator.choice([-1.0, 1.0]) * design.terminal[design.nx - 1]
                agent.set_target(target, design.model.K @ target)

    return watch


def run_study(settings: Settings, folder: Path) -> dict[str, Any]:
    """Perfect and lossy network, for agents with commitments and without."""
    config = case(settings["disturbance"], settings["authority"])
    designs = design_agents(config)
    steps, seeds = settings["steps"], settings["seeds"]
    names = list(designs)
    results: dict[str, list[LoopResult]] = {kind: [] for kind in KINDS}
    lost = sent = 0
    for seed in range(seeds):
        start = max(1, steps // 4 + seed)
        silent = ((names[seed % len(names)], start, start + settings["silent"] - 1),)
        faults = Faults(settings["loss"], settings["delay"], settings["duplicate"], silent)
        for kind in results:
            agents: dict[str, Agent] = {
                n: (UnprotectedAgent if kind.startswith("unprotected") else Agent)(d) for n, d in designs.items()
            }
            channel = Channel(faults if kind.endswith("lossy") else Faults(), 500 + seed)
            draw = vertex_disturbances(*config.disturbance_bounds(), 1000 + seed)
            targets = jumping_targets(agents, settings["hold"], settings["push"], 2000 + seed)
            plant = make_plant(config, seed=seed)
            results[kind].append(run(agents, plant, steps, draw, channel=channel, watch=targets))
            if kind == "lossy":
                lost, sent = lost + channel.lost, sent + channel.sent
    out: dict[str, Any] = {
        "seeds": seeds,
        "steps": steps,
        "faults": {k: settings[k] for k in ("loss", "delay", "duplicate", "silent")},
        "messages_sent": sent,
        "messages_lost": lost,
        **{kind: _summary(loops) for kind, loops in results.items()},
    }
    out["cost_ratio_lossy_to_perfect"] = out["lossy"]["cost"] / out["perfect"]["cost"]
    _draw(results, folder / "lossy_network.png")
    return out | {"figure": "lossy_network.png"}


def _summary(loops: list[LoopResult]) -> dict[str, Any]:
    modes = {mode: sum(r.modes[mode] for r in loops) for mode in loops[0].modes}
    return {
        "violations": sum(r.violations for r in loops),
        "seeds_with_violations": sum(r.violations > 0 for r in loops),
        "promises_broken": sum(r.promises_broken for r in loops),
        "worst_margin": min(r.worst_margin for r in loops),
        "cost": float(np.mean([r.cost for r in loops])),
        "promise_width_median": float(np.median(np.concatenate([r.promise_width for r in loops]))),
        "refused": sum(r.refused for r in loops),
        "mode_counts": modes,
    }


def _draw(results: dict[str, list[LoopResult]], path: Path) -> None:
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(9, 3.2), constrained_layout=True)
    labels = [kind.replace("_", "\n") for kind in KINDS]
    axes[0].boxplot([[r.cost for r in results[kind]] for kind in KINDS], tick_labels=labels)
    axes[0].set_ylabel("mean stage cost per step")
    violations = [sum(r.violations for r in results[kind]) for kind in KINDS]
    axes[1].bar(labels, violations, color=["C0", "C0", "C3", "C3"])
    axes[1].set_ylabel("violations, all seeds")
    figure.savefig(path, dpi=120)
    plt.close(figure)


def table(result: dict[str, Any]) -> list[str]:
    """Lines for people."""
    lines = [
        f"{result['seeds']} seeds x {result['steps']} steps; "
        f"{result['messages_lost']} of {result['messages_sent']} promises lost"
    ]
    for kind in KINDS:
        row = result[kind]
        lines.append(
            f"{kind:20} {row['violations']} violations (worst margin {row['worst_margin']:.3f}), "
            f"{row['promises_broken']} promises broken, cost {row['cost']:.4f}"
        )
    return lines


STUDY = Study(
    defaults={
        "seeds": 20,
        "steps": 10000,
        "loss": 0.3,
        "delay": 3,
        "duplicate": 0.1,
        "silent": 50,
        "disturbance": 0.3,
        "authority": 0.2,
        "push": 0.9,
        "hold": 20,
    },
    run=run_study,
    table=table,
)
