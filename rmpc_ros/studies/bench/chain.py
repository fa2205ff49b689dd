"""Many agents at a short period, free-running: missed deadlines, step times and CPU time per agent, through real nodes.

Generates a spring chain, starts `rmpc run` on it as anybody would, and reads what the run wrote. A step is missed where
the plant had no command for it when its period ended, the first ones included; `silences` counts runs of such steps
once. CPU time counts the agents' processes between the plant's first steps and its end, per step that was decided;
beside it stands the CPU time of the same control step in a loop without ROS, measured in the same run of this command.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from rmpc_ros.config import PlantConfig, parse_plant
from rmpc_ros.errors import RmpcError
from rmpc_ros.network.agent import Agent
from rmpc_ros.network.closed_loop import run as run_loop
from rmpc_ros.network.system import design_agents
from rmpc_ros.plants import make_plant
from rmpc_ros.plants.generate import plant_file
from rmpc_ros.report.data import read_run
from rmpc_ros.studies.registry import Settings, Study


def run(settings: Settings, folder: Path) -> dict[str, Any]:
    """One real run and one loop without ROS."""
    file = folder / "chain.yaml"
    text = plant_file("spring_chain", {"agents": settings["agents"], "timing": settings["timing"]})
    file.write_text(text, encoding="utf-8")
    load = os.getloadavg()[0]
    outcome = _run_nodes(file, settings, folder / time.strftime("run-%Y%m%d-%H%M%S"))
    steps = [r.step_ms for agent in read_run(Path(outcome["bag"])).agents.values() for r in agent.reports.values()]
    agents, count = settings["agents"], outcome["cpu_steps"]
    used = {name: cpu for name, cpu in outcome["cpu_s_by_process"].items()}
    busy = sum(cpu for name, cpu in used.items() if name not in ("plant", "monitor", "recorder"))
    asked = outcome["steps"] * agents
    missed = sum(a["steps_on_the_actuators_plan"] for a in outcome["agents"].values())
    core = _core_ms(parse_plant(text), settings["core_steps"])
    per_step = 1e3 * busy / (len(steps) * count / outcome["steps"])
    period_ms = 1e3 * outcome["period_s"]
    return dict(settings) | {
        "cores": os.cpu_count(),
        "load_average_before": load,
        "steps": outcome["steps"],
        "agent_steps": asked,
        "steps_missed": missed,
        "missed_share": missed / asked,
        "silences": outcome["deadlines_missed"],
        "violations": outcome["violations"],
        "promises_broken": outcome["promises_broken"],
        "step_ms_p50": float(np.percentile(steps, 50)),
        "step_ms_p99": float(np.percentile(steps, 99)),
        "cpu_ms_per_agent_step": per_step,
        "cpu_percent_of_a_core_per_agent": 100 * per_step / period_ms,
        "cpu_percent_of_a_core_by_process": {
            name: 100 * cpu / (count * outcome["period_s"]) for name, cpu in used.items()
        },
        "core_cpu_ms_per_agent_step": core,
        "times_the_core": per_step / core,
        "folder": str(folder),
    }


def _run_nodes(file: Path, settings: Settings, folder: Path) -> dict[str, Any]:
    words = ["run", str(file), "--duration", str(settings["duration"]), "--json", "--out", str(folder)]
    if settings["processes"]:
        words += ["--processes", str(settings["processes"])]
    done = subprocess.run([sys.executable, "-m", "rmpc_ros.cli", *words], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RmpcError(f"rmpc {' '.join(words)}: exit status {done.returncode}: {done.stderr.strip()[-500:]}")
    outcome = json.loads(done.stdout)
    if not outcome["cpu_s_by_process"] or not outcome["cpu_steps"]:
        raise RmpcError("the run's CPU time is not known here: this benchmark needs /proc (Linux) and a longer run")
    assert isinstance(outcome, dict)
    return outcome


def _core_ms(config: PlantConfig, steps: int) -> float:
    """CPU milliseconds of one agent's step in a loop without ROS, the plant's share left out."""
    agents = {name: Agent(design) for name, design in design_agents(config).items()}
    spent: list[float] = []
    for agent in agents.values():
        agent.step = _timed(agent.step, spent)  # type: ignore[method-assign]
    run_loop(agents, make_plant(config), steps)
    return 1e3 * float(np.mean(spent))


def _timed(call: Any, spent: list[float]) -> Any:
    def timed(*values: Any) -> Any:
        began = time.thread_time()
        answer = call(*values)
        spent.append(time.thread_time() - began)
        return answer

    return timed


def table(result: dict[str, Any]) -> Iterable[str]:
    """Lines for people."""
    yield (
        f"{result['agents']} agents, {result['steps']} steps: {result['steps_missed']} of {result['agent_steps']} "
        f"agents' steps missed ({100 * result['missed_share']:.3f} %), {result['violations']} violations, "
        f"{result['promises_broken']} promises broken"
    )
    yield f"step p50 {result['step_ms_p50']:.2f} ms, p99 {result['step_ms_p99']:.2f} ms"
    yield (
        f"CPU {result['cpu_ms_per_agent_step']:.2f} ms per agent and step "
        f"({result['cpu_percent_of_a_core_per_agent']:.2f} % of a core per agent), "
        f"{result['times_the_core']:.1f} times the step itself ({result['core_cpu_ms_per_agent_step']:.2f} ms); "
        f"load average before: {result['load_average_before']:.1f} on {result['cores']} cores"
    )


STUDY = Study(
    {"agents": 20, "duration": 60.0, "processes": 1, "timing": "free", "core_steps": 100},
    run,
    table,
)
