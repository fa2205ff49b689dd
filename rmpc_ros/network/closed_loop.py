"""Agents and plant in one process, in lockstep: what studies, tests and training run instead of the ROS graph.

The order within a step is that of the nodes (math.md 3.2): measure, solve with the neighbours' commitments of the step
before, announce, act.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rmpc_ros.errors import PromiseError
from rmpc_ros.mpc.local import Matrix, Vector
from rmpc_ros.network.agent import Agent
from rmpc_ros.network.channel import Channel, Faults
from rmpc_ros.network.decision import MODES, Decision
from rmpc_ros.network.nominal import NominalAgent
from rmpc_ros.network.rounds import Rounds


class Plant(Protocol):
    """What a closed loop needs of a plant."""

    def measure(self) -> dict[str, Vector]:
        """Measured states by agent."""

    def true_state(self) -> dict[str, Vector]:
        """True states by agent."""

    def step(self, inputs: Mapping[str, ArrayLike], disturbances: ArrayLike | None = None) -> None:
        """Advance one period."""


@dataclass(frozen=True)
class LoopResult:
    """Figures of a run.

    Attributes
    ----------
    steps : periods simulated
    violations : states and inputs outside their limits, counted per step and quantity, true values
    promises_broken : agents' steps whose measured state was outside the promise
    cost : mean stage cost per step, summed over agents
    worst_margin : smallest distance of a true state or input to a limit over half its range
    promise_width : (rows, ) all promised half-widths over limits; empty for nominal agents
    modes : counts per mode
    refused : promises that were not believed, mostly because a newer one had overtaken them
    states : (steps, n) true states, agents in order
    inside_terminal : share of promised half-widths of the next five steps that are below the invariant box's
    """

    steps: int
    violations: int
    promises_broken: int
    cost: float
    worst_margin: float
    promise_width: Vector
    modes: dict[str, int]
    refused: int
    states: Matrix
    inside_terminal: float


def run(
    agents: Mapping[str, Agent] | Mapping[str, NominalAgent],
    plant: Plant,
    steps: int,
    disturbances: Callable[[int], Vector] | None = None,
    first_step: int = 0,
    channel: Channel | None = None,
    watch: Callable[[int, dict[str, Decision]], None] | None = None,
    cooperation: Rounds | None = None,
) -> LoopResult:
    """Simulate a closed loop.

    Parameters
    ----------
    agents : robust agents (they are started here) or nominal ones
    plant : simulated plant at its initial state
    steps : number of periods
    disturbances : value for each step; default the plant's own processes
    first_step : number of the first step
    channel : the network between the agents; default a perfect one
    watch : called with every step's decisions
    cooperation : the rounds in which the agents agree on what they aim at; default none, every agent for itself
    """
    designs = {name: agent.design for name, agent in agents.items()}
    robust = {name: agent for name, agent in agents.items() if isinstance(agent, Agent)}
    for starting in robust.values():
        starting.start(first_step)
    followers = {name: [n for n, d in designs.items() if name in d.neighbours] for name in designs}
    channel = channel or Channel(Faults(), 0)
    modes: dict[str, int] = dict.fromkeys(MODES, 0)
    violations = broken = refused = 0
    cost, worst = 0.0, np.inf
    states: list[Vector] = []
    widths: list[Matrix] = []
    narrow: list[NDArray[np.bool_]] = []
    for k in range(first_step, first_step + steps):
        measured = plant.measure()
        inputs: dict[str, Vector] = {}
        decisions: dict[str, Decision] = {}
        seen: dict[str, dict[str, Vector]] = {}
        for name, agent in agents.items():
            neighbours = agent.design.neighbours
            if isinstance(agent, NominalAgent):
                inputs[name] = agent.input(measured[name], {other: measured[other] for other in neighbours})
                continue
            for promise in channel.receive(k, name):
                try:
                    agent.receive(promise)
                except PromiseError:  # an older message overtaken by a newer one, or worse: not believed, counted
                    refused += 1
            seen[name] = {other: measured[other] for other in neighbours if channel.measurement_arrives(k, other)}
        looked = [agent.look(k, measured[name], seen[name]) for name, agent in robust.items()]
        if cooperation is not None and all(look is not None for look in looked):
            cooperation(k, robust)
        for name, agent in robust.items():
            decisions[name] = agent.step(k, measured[name], seen[name])
            inputs[name] = decisions[name].input
        for name, decision in decisions.items():
            for other in followers[name]:
                channel.send(k, other, decision.forecast)
            for message in robust[name].speak(decision):
                to = followers[name] if message.kind == "proposal" else [message.acknowledged_agent]
                for other in to:
                    channel.send(k, other, message)
            modes[decision.mode] += 1
            broken += decision.report.promise_broken
            widths.append(decision.report.promise_width)
            terminal = designs[name].terminal[: designs[name].nx]
            narrow.append(decision.report.promise_width[:5] < terminal)
        if watch is not None:
            watch(k, decisions)
        truth = plant.true_state()
        states.append(np.concatenate([truth[name] for name in designs]))
        for name, design in designs.items():
            margins = design.margins(truth[name], inputs[name])
            violations += sum(margin < -1e-9 for margin in margins.values())
            worst = min(worst, *margins.values())
            cost += agents[name].design.stage_cost(design.normalise(truth[name]), inputs[name])  # its target may move
        plant.step(inputs, None if disturbances is None else disturbances(k))
    return LoopResult(
        steps,
        violations,
        broken,
        cost / steps,
        float(worst),
        np.concatenate([w.ravel() for w in widths]) if widths else np.empty(0),
        modes,
        refused,
        np.array(states),
        float(np.mean(np.concatenate([n.ravel() for n in narrow]))) if narrow else float("nan"),
    )
