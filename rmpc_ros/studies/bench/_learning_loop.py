"""What the learning loop costs an agent's control step: nothing but numbers that change; learning is after the command.

The reactor-separator agents twice on the same feeds, in turn: plain, and with the loop (set and learned mean). The
control step itself is timed, the loop after it, the adoption of a set, and, for comparison, compiling the agent's
problem anew, which is what a set compiled in would cost.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from rmpc_ros.config import load_plant
from rmpc_ros.config.adapting import Adaptation as LoopSettings
from rmpc_ros.config.shipped import shipped_plant
from rmpc_ros.learning.adaptation import AdaptiveNetwork
from rmpc_ros.network.agent import Agent
from rmpc_ros.network.closed_loop import run as run_loop
from rmpc_ros.network.decision import Decision
from rmpc_ros.network.residual_set import design_bounds
from rmpc_ros.network.system import design_agents
from rmpc_ros.plants import make_plant
from rmpc_ros.sets.box import Box

BLOCK = 40  # steps run in turn


def _quantiles(times: list[float]) -> dict[str, float]:
    return {"median_ms": float(np.median(times)), "p99_ms": float(np.quantile(times, 0.99))}


def bench(steps: int) -> dict[str, Any]:
    """Control step with and without the loop, the loop, adoption, compilation; milliseconds and ratios."""
    config = load_plant(shipped_plant("reactor_separator"))
    designs = design_agents(config)
    spent: dict[str, list[float]] = {"plain": [], "learning": [], "loop": []}
    settings = LoopSettings(model="linear", least=20, certify=20)
    worlds = {}
    for name in ("plain", "learning"):
        agents, plant = {n: Agent(d) for n, d in designs.items()}, make_plant(config, seed=1)
        worlds[name] = agents, plant, AdaptiveNetwork(agents, plant, settings)
    for _ in range(max(steps // BLOCK, 1)):
        for name, (agents, plant, loops) in worlds.items():

            def watch(
                step: int, decisions: dict[str, Decision], name: str = name, loops: AdaptiveNetwork = loops
            ) -> None:
                spent[name] += [d.report.step_ms for d in decisions.values()]
                if name == "learning":
                    began = time.perf_counter()
                    loops.watch(step, decisions)
                    spent["loop"].append(1e3 * (time.perf_counter() - began) / len(decisions))

            run_loop(agents, plant, BLOCK, first_step=plant.steps, watch=watch)
    design, agents = designs["reactor1"], worlds["plain"][0]
    low, high = design_bounds(design)
    adopt, build = [], []
    for k in range(50):
        share = 0.9 + 0.001 * (k % 2)
        began = time.perf_counter()
        agents["reactor1"].set_disturbance(Box(share * low, share * high))
        adopt.append(1e3 * (time.perf_counter() - began))
        if k % 5 == 0:
            began = time.perf_counter()
            design.build_fixed()
            build.append(1e3 * (time.perf_counter() - began))
    parts = {"control_step_plain": _quantiles(spent["plain"]), "control_step_learning": _quantiles(spent["learning"])}
    parts |= {"loop_after_command": _quantiles(spent["loop"]), "adopt_set": _quantiles(adopt)}
    parts["compile_problem"] = _quantiles(build)
    plain, learning = parts["control_step_plain"], parts["control_step_learning"]
    return {
        "control_step_learning_over_plain": learning["median_ms"] / plain["median_ms"],
        "control_step_learning_over_plain_p99": learning["p99_ms"] / plain["p99_ms"],
        "compile_over_adopt": parts["compile_problem"]["median_ms"] / parts["adopt_set"]["median_ms"],
        "parts": parts,
    }
