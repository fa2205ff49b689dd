"""Agents that negotiate what they aim at, against agents that mind their own cost, and against one desk for all.

The same plant, disturbances and limits; modes `robust` (every agent for itself), `cooperative` (rounds of consensus
ADMM between the agents before each step) and `joint` (the optimum the rounds are after, from one desk). Cases: the
shipped plant; the shipped plant away from its steady state, towards moved targets; the plant on which the product alone
counts (`reactor_separator_product`), where the reactors can do for the separator what it cannot do for itself.

With `bag`, a recorded run of a cooperative plant is replayed step by step: the in-process agents get the recorded
measurements, and their inputs are compared with those that the processes commanded.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from numpy.typing import ArrayLike

from rmpc_ros.config import PlantConfig, load_plant
from rmpc_ros.config.shipped import shipped_plant
from rmpc_ros.errors import ConfigError
from rmpc_ros.learning.intervals import half_width
from rmpc_ros.mpc.local import Matrix, Vector
from rmpc_ros.network.agent import Agent
from rmpc_ros.network.agent_design import AgentDesign
from rmpc_ros.network.closed_loop import LoopResult, run
from rmpc_ros.network.decision import Decision
from rmpc_ros.network.joint_plan import JointPlan
from rmpc_ros.network.rounds import Rounds
from rmpc_ros.network.system import design_agents
from rmpc_ros.plants import make_plant
from rmpc_ros.report.data import RunData, read_run
from rmpc_ros.studies.registry import Settings, Study

matplotlib.use("Agg")

MODES = ("robust", "cooperative", "joint")
CASES = ("shipped", "targets", "product")
FILES = {
    "shipped": "reactor_separator",
    "targets": "reactor_separator",
    "product": "reactor_separator_product",
    "tight": "reactor_separator_tight",
}


class Watched(Rounds):
    """Rounds that compare every negotiated plan with the joint optimum, and are timed.

    Attributes
    ----------
    optimum, value : per step, sum of costs of the joint plan and of the negotiated one
    apart : per step, largest difference of a first nominal input from the joint plan's (1: distance to a limit)
    seconds : wall time of each step's rounds, all agents one after another
    """

    def __init__(self, designs: Mapping[str, AgentDesign], config: PlantConfig) -> None:
        super().__init__(designs, config.network.cooperation)
        self._desk = JointPlan(self.agents)
        self.optimum: list[float] = []
        self.value: list[float] = []
        self.apart: list[float] = []
        self.seconds: list[float] = []

    def __call__(self, step: int, agents: Mapping[str, Agent]) -> None:
        """Negotiate, then ask the desk."""
        began = time.perf_counter()
        super().__call__(step, agents)
        self.seconds.append(time.perf_counter() - began)
        self._desk.load()
        best, optimum = self._desk.solve()
        self.optimum.append(optimum)
        self.value.append(self._desk.value({name: side.plan for name, side in self.agents.items()}))
        self.apart.append(max(float(np.max(np.abs(side.plan[0] - best[n][0]))) for n, side in self.agents.items()))

    def figures(self) -> dict[str, Any]:
        """How near the rounds came to the optimum, and what they took."""
        per_round = 1e3 * np.array(self.seconds) / np.maximum(self.used, 1) / len(self.agents)
        return {
            "rounds_mean": float(np.mean(self.used)),
            "rounds_max": max(self.used),
            "agent_round_ms": float(np.median(per_round)),
            "objective_gap": (sum(self.value) - sum(self.optimum)) / sum(self.optimum),
            "largest_input_difference": max(self.apart),
        }


def cases(names: list[str]) -> dict[str, tuple[PlantConfig, dict[str, AgentDesign]]]:
    """Plant files and designs of the cases.

    Raises
    ------
    ConfigError
        An unknown case.
    """
    found = {}
    for name in names:
        if name not in FILES:
            raise ConfigError(f"--set cases = {name}: known are {', '.join(FILES)}")
        config = load_plant(shipped_plant(FILES[name]))
        designs = design_agents(config)
        if name == "targets":  # halfway to the corner of the invariant box, the signs differ between agents
            signs = np.random.default_rng(1)
            designs = {
                n: replace(d, x_ref=0.5 * d.terminal[: d.nx] * signs.choice([-1.0, 1.0], d.nx))
                for n, d in designs.items()
            }
        found[name] = config, designs
    return found


def run_study(settings: Settings, folder: Path) -> dict[str, Any]:
    """All cases, modes and seeds; with `bag` the replay too."""
    seeds, steps = settings["seeds"], settings["steps"]
    out: dict[str, Any] = {"seeds": seeds, "steps": steps, "cases": {}}
    drawn: dict[str, dict[str, list[float]]] = {}
    for name, (config, designs) in cases(settings["cases"]).items():
        loops: dict[str, list[LoopResult]] = {mode: [] for mode in MODES}
        watched = []
        for seed in range(seeds):
            for mode in MODES:
                rounds: Rounds | None = None
                if mode == "cooperative":
                    watched.append(Watched(designs, config))
                    rounds = watched[-1]
                elif mode == "joint":
                    rounds = Rounds(designs, config.network.cooperation, joint=True)
                agents = {n: Agent(d) for n, d in designs.items()}
                loops[mode].append(run(agents, make_plant(config, seed=seed), steps, cooperation=rounds))
        drawn[name] = {mode: [loop.cost for loop in loops[mode]] for mode in MODES}
        out["cases"][name] = _summary(loops) | {"negotiation": _together(watched)}
    if settings["bag"]:
        out["replay"] = replay(read_run(Path(settings["bag"])), load_plant(Path(settings["bag"]).parent / "plant.yaml"))
    _draw(drawn, folder / "cooperation.png")
    return out | {"figure": "cooperation.png"}


def _together(watched: list[Watched]) -> dict[str, Any]:
    rows = [w.figures() for w in watched]
    worst = {key: max(row[key] for row in rows) for key in ("rounds_max", "objective_gap", "largest_input_difference")}
    means = {key: float(np.mean([row[key] for row in rows])) for key in ("rounds_mean", "agent_round_ms")}
    return means | worst


def _summary(loops: dict[str, list[LoopResult]]) -> dict[str, Any]:
    """Costs, and what is saved on the same disturbances with its 95 % interval (Student's t over the seeds)."""
    cost = {mode: np.array([loop.cost for loop in loops[mode]]) for mode in MODES}
    out: dict[str, Any] = {
        mode: {
            "cost": float(np.mean(cost[mode])),
            "violations": sum(loop.violations for loop in loops[mode]),
            "promises_broken": sum(loop.promises_broken for loop in loops[mode]),
            "optimal_share": sum(loop.modes["optimal"] for loop in loops[mode])
            / sum(sum(x.modes.values()) for x in loops[mode]),
        }
        for mode in MODES
    }
    for mode in ("cooperative", "joint"):
        saved = 1 - cost[mode] / cost["robust"]
        out[mode]["saved_percent"] = float(100 * np.mean(saved))
        out[mode]["saved_percent_ci95"] = 100 * half_width(saved) if len(saved) > 1 else None
        out[mode]["seeds_better"] = int(np.sum(saved > 0))
    return out


class _Recorded:
    """A recorded run as a plant: it shows what was measured, whatever is done."""

    def __init__(self, data: RunData, names: list[str]) -> None:
        self._data, self._names, self._k = data, names, 0

    def measure(self) -> dict[str, Vector]:
        return {name: self._data.agents[name].measured[self._k] for name in self._names}

    def true_state(self) -> dict[str, Vector]:
        return {name: self._data.agents[name].truth[self._k] for name in self._names}

    def step(self, inputs: Mapping[str, ArrayLike], disturbances: ArrayLike | None = None) -> None:
        self._k += 1


def replay(data: RunData, config: PlantConfig) -> dict[str, Any]:
    """The recorded run of a cooperative plant against agents in this process that see the same measurements."""
    designs = design_agents(config)
    names = list(designs)
    steps = min(max(data.agents[n].commanded) for n in names) + 1
    rounds = Watched(designs, config)
    apart: list[float] = []

    def compare(k: int, decisions: dict[str, Decision]) -> None:
        differences = [
            np.max(np.abs(decisions[n].input - data.agents[n].commanded[k]) / designs[n].scale[designs[n].nx :])
            for n in names
        ]
        apart.append(float(max(differences)))

    agents = {n: Agent(d) for n, d in designs.items()}
    run(agents, _Recorded(data, names), steps, watch=compare, cooperation=rounds)
    return {"steps": steps, "largest_difference_to_in_process": max(apart), **rounds.figures()}


def _draw(costs: dict[str, dict[str, list[float]]], path: Path) -> None:
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, len(costs), figsize=(3.2 * len(costs), 3.2), constrained_layout=True, squeeze=False)
    for axis, (name, modes) in zip(axes[0], costs.items(), strict=True):
        rows: Matrix = np.array([modes[mode] for mode in MODES])
        axis.plot(MODES, rows, color="0.7", linewidth=0.8)
        axis.plot(MODES, rows.mean(axis=1), "o-", color="C0")
        axis.set_title(name)
        axis.set_ylim(bottom=0)
    axes[0, 0].set_ylabel("mean stage cost per step, one line per seed")
    figure.savefig(path, dpi=120)
    plt.close(figure)


def table(result: dict[str, Any]) -> list[str]:
    """Lines for people."""
    lines = [f"{result['seeds']} seeds x {result['steps']} steps; costs are means per step"]
    for name, case in result["cases"].items():
        together, best, talk = case["cooperative"], case["joint"], case["negotiation"]
        interval = "" if together["saved_percent_ci95"] is None else f" +- {together['saved_percent_ci95']:.2f}"
        lines.append(
            f"{name:8} robust {case['robust']['cost']:.5f}, cooperative {together['cost']:.5f} "
            f"(saves {together['saved_percent']:.2f}{interval} %), joint {best['cost']:.5f}"
        )
        lines.append(
            f"{'':8} rounds {talk['rounds_mean']:.1f} (most {talk['rounds_max']}), {talk['agent_round_ms']:.2f} ms per "
            f"agent and round, objective within {talk['objective_gap']:.1e} of the joint optimum"
        )
    if "replay" in result:
        again = result["replay"]
        lines.append(
            f"replay: {again['steps']} steps, inputs within {again['largest_difference_to_in_process']:.1e} of the "
            f"in-process agents', objective within {again['objective_gap']:.1e} of the joint optimum"
        )
    return lines


STUDY = Study(defaults={"seeds": 10, "steps": 200, "cases": list(CASES), "bag": ""}, run=run_study, table=table)
