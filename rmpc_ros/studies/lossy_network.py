"""Commitments on a bad network: loss, delay, re-ordering, duplicates, a silent neighbour; with and without them.

The same plant, limits, set-points and disturbance draws as in the study `guarantee`, on the linear network exactly.
With commitments no limit may be violated and no promise broken, whatever the network does; agents that exchange their
predicted tubes without committing to them serve as the counter-test.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib
import numpy as np

from rmpc_ros.config import load_plant
from rmpc_ros.config.shipped import shipped_plant
from rmpc_ros.network.agent import Agent
from rmpc_ros.network.channel import Channel, Faults
from rmpc_ros.network.closed_loop import LoopResult, run
from rmpc_ros.network.system import design_agents
from rmpc_ros.network.unprotected import UnprotectedAgent
from rmpc_ros.plants import make_plant
from rmpc_ros.studies.guarantee import tightened, vertex_disturbances
from rmpc_ros.studies.registry import Settings, Study

matplotlib.use("Agg")

KINDS = ("perfect", "lossy", "unprotected_perfect", "unprotected_lossy")


def run_study(settings: Settings, folder: Path) -> dict[str, Any]:
    """Perfect and lossy network, for agents with commitments and without."""
    base = load_plant(shipped_plant("reactor_separator"))
    base = base.model_copy(update={"simulation": base.simulation.model_copy(update={"model": "linear"})})
    config = tightened(base, settings["temperature"], settings["fraction"], settings["push"])
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
            results[kind].append(run(agents, make_plant(config, seed=seed), steps, draw, channel=channel))
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
            f"{kind:20} {row['violations']} violations, {row['promises_broken']} promises broken, "
            f"cost {row['cost']:.4f}, worst margin {row['worst_margin']:.3f}"
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
        "temperature": 1.0,
        "fraction": 0.045,
        "push": 0.7,
    },
    run=run_study,
    table=table,
)
