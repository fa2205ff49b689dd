"""The learning loop in the running controllers: promise width, cost and kept promises with and without it, over seeds.

The reactor-separator network under feeds that move within a small share of what the design reckons with, then abruptly
within almost all of it, then little again. Every agent calibrates its residual set online (`learning.adaptation`) and
its robust controller uses it. The figure shows the set following.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from numpy.typing import NDArray

from rmpc_ros.config import PlantConfig, load_plant
from rmpc_ros.config.adapting import Adaptation
from rmpc_ros.config.shipped import shipped_plant
from rmpc_ros.learning.adaptation import AdaptiveNetwork
from rmpc_ros.network.agent import Agent
from rmpc_ros.network.agent_design import AgentDesign
from rmpc_ros.network.closed_loop import LoopResult
from rmpc_ros.network.closed_loop import run as run_loop
from rmpc_ros.network.decision import Decision
from rmpc_ros.network.system import design_agents
from rmpc_ros.plants import make_plant
from rmpc_ros.studies.registry import Settings, Study

matplotlib.use("Agg")
Vector = NDArray[np.float64]

PERSISTENCE = 0.95  # of the feeds' autoregressive motion per period
PHASES = ("before", "during", "after")


def feeds(config: PlantConfig, seed: int, steps: int, calm: float, wild: float) -> Callable[[int], Vector]:
    """Disturbances per step: autoregressive inside `calm` times the bounds, in the middle third `wild` times."""
    low, high = config.disturbance_bounds()
    middle, half = (low + high) / 2, (high - low) / 2
    rng, now, rows = np.random.default_rng(seed), np.zeros(low.size), np.empty((steps, low.size))
    for k in range(steps):
        now = PERSISTENCE * now + np.sqrt(1 - PERSISTENCE**2) * rng.normal(size=low.size)
        share = wild if steps // 3 <= k < 2 * steps // 3 else calm
        rows[k] = middle + share * half * np.clip(now / 1.5, -1, 1)
    return lambda step: rows[step]


def one_run(
    config: PlantConfig, designs: dict[str, AgentDesign], settings: Settings, seed: int, adaptive: bool
) -> tuple[LoopResult, dict[str, Any], Vector]:
    """A closed loop; figures of the loops and the half-widths in force over the design's, (steps, agents)."""
    steps = int(settings["steps"])
    agents = {name: Agent(design) for name, design in designs.items()}
    plant = make_plant(config, seed=seed)
    loops = AdaptiveNetwork(agents, plant, Adaptation(model=settings["model"], coverage=float(settings["coverage"])))
    share, widths = np.ones((steps, len(agents))), np.empty(steps)

    def watch(step: int, decisions: dict[str, Decision]) -> None:
        widths[step] = np.mean([np.mean(d.report.promise_width) for d in decisions.values()])
        if adaptive:
            loops.watch(step, decisions)
            share[step] = [float(np.mean(r.share)) for r in loops.reports.values()]

    disturbances = feeds(config, seed, steps, float(settings["calm"]), float(settings["wild"]))
    result = run_loop(agents, plant, steps, disturbances, watch=watch)
    parts = np.array_split(np.arange(steps), 3)
    figures: dict[str, Any] = {
        "violations": result.violations,
        "promises_broken": result.promises_broken,
        "agent_steps": steps * len(agents),
        "cost": result.cost,
        "promise_width": {name: float(np.mean(widths[part])) for name, part in zip(PHASES, parts, strict=True)},
    }
    if adaptive:
        first = parts[1][0]
        grown = [int(np.argmax(share[first:, i] >= 0.9 * share[parts[1][-1], i])) for i in range(len(agents))]
        figures |= {
            "set_over_design": {
                name: float(np.mean(share[part[len(part) // 2 :]])) for name, part in zip(PHASES, parts, strict=True)
            },
            "steps_until_grown": grown,
            "covered": {name: r.covered for name, r in loops.reports.items()},
            "counts": {name: r.counts for name, r in loops.reports.items()},
        }
    return result, figures, share


def run(settings: Settings, folder: Path) -> dict[str, Any]:
    """All seeds, with and without the loop on the same feeds."""
    config = load_plant(shipped_plant("reactor_separator"))
    designs = design_agents(config)
    first = int(settings["seed"])
    seeds = range(first, first + int(settings["seeds"]))
    runs: dict[str, list[dict[str, Any]]] = {"off": [], "on": []}
    shown: Vector | None = None
    for seed in seeds:
        for name, adaptive in (("off", False), ("on", True)):
            _, figures, share = one_run(config, designs, settings, seed, adaptive)
            runs[name].append({"seed": seed, **figures})
            shown = share if adaptive and shown is None else shown
    assert shown is not None
    _figure(shown, tuple(designs), folder)
    on, off = runs["on"], runs["off"]
    narrower = {
        phase: [1 - b["promise_width"][phase] / a["promise_width"][phase] for a, b in zip(off, on, strict=True)]
        for phase in PHASES
    }
    steps = sum(r["agent_steps"] for r in on)
    return {
        "violations": {name: sum(r["violations"] for r in found) for name, found in runs.items()},
        "promises_broken": {name: sum(r["promises_broken"] for r in found) for name, found in runs.items()},
        "broken_share": sum(r["promises_broken"] for r in on) / steps,
        "allowed_share": 1 - float(settings["coverage"]),
        "promise_narrower": {phase: float(np.mean(values)) for phase, values in narrower.items()},
        "set_over_design": {p: float(np.mean([r["set_over_design"][p] for r in on])) for p in PHASES},
        "cost": {name: float(np.mean([r["cost"] for r in found])) for name, found in runs.items()},
        "runs": runs,
        "figure": "adaptation.png",
    }


def _figure(share: Vector, agents: tuple[str, ...], folder: Path) -> None:
    from matplotlib import pyplot as plt

    figure, axis = plt.subplots(figsize=(8, 3.2))
    for values, name in zip(share.T, agents, strict=True):
        axis.plot(values, lw=0.9, label=name)
    for edge in (len(share) // 3, 2 * len(share) // 3):
        axis.axvline(edge, color="0.6", lw=0.8)
    axis.set(xlabel="step", ylabel="half-widths over the design's", ylim=(0, 1.05), title="the set used by the MPC")
    axis.legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(folder / "adaptation.png", dpi=120)
    plt.close(figure)


def table(result: dict[str, Any]) -> Iterable[str]:
    """Lines for people."""
    yield f"{'phase':8} {'set over design':>16} {'promises narrower by':>21}"
    for phase in PHASES:
        narrower = 100 * result["promise_narrower"][phase]
        yield f"{phase:8} {result['set_over_design'][phase]:16.2f} {narrower:19.1f} %"
    for name in ("off", "on"):
        yield (
            f"loop {name:4} cost {result['cost'][name]:.5f}  violations {result['violations'][name]}  "
            f"promises broken {result['promises_broken'][name]}"
        )
    yield f"share broken {100 * result['broken_share']:.3f} % (allowed {100 * result['allowed_share']:.1f} %)"


STUDY = Study(
    defaults={
        "steps": 1800,
        "seeds": 4,
        "seed": 100,
        "calm": 0.3,
        "wild": 0.95,
        "coverage": 0.995,
        "model": "none",
    },
    run=run,
    table=table,
)
