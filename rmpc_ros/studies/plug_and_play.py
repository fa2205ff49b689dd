"""A mass is hooked onto a running spring chain and taken off again; a join that cannot be borne is refused.

The truth is the chain's differential equation. The hook-up is made in the first step at which the newcomer has joined
and undone before it says that it has left. Messages about joining go over the same bad network as promises.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from ruamel.yaml import YAML

from rmpc_ros.config import PlantConfig, load_plant
from rmpc_ros.errors import ConfigError, InfeasibleError, PromiseError
from rmpc_ros.network.agent import Agent
from rmpc_ros.network.channel import Channel, Faults
from rmpc_ros.network.joining import JoinPlan, plan_join
from rmpc_ros.network.newcomer import Newcomer
from rmpc_ros.plants import make_plant
from rmpc_ros.plants.generate import plant_file
from rmpc_ros.studies.guarantee import vertex_disturbances
from rmpc_ros.studies.registry import Settings, Study

APART = 1e-15  # N/m and N s/m of a spring and damper that are not there


def chain(settings: Settings, room: float, stiffness: float, folder: Path) -> PlantConfig:
    """A chain in which the springs (N/m) and dampers (N s/m) beside the newcomer have the given strength."""
    agents, at = settings["M"] + 1, settings["newcomer"]
    yaml = YAML(typ="safe")
    data = yaml.load(plant_file("spring_chain", {"agents": agents}))
    data["controller"]["margins"]["room"] = room
    for name in ("k", "d"):
        strengths = data["plant"]["parameters"][name]
        for spring in range(max(at - 2, 0), min(at, agents - 1)):
            strengths[spring] = stiffness
    path = folder / f"chain_{room}_{stiffness:g}.yaml"
    yaml.dump(data, path)
    return load_plant(path)


def run_study(settings: Settings, folder: Path) -> dict[str, Any]:
    """Plan, simulate, and try a join that is too much."""
    if not 1 <= settings["newcomer"] <= settings["M"] + 1:
        raise ConfigError(f"newcomer = {settings['newcomer']}: give a mass from 1 to {settings['M'] + 1}")
    newcomer = f"mass{settings['newcomer']}"

    def both(room: float) -> tuple[PlantConfig, PlantConfig]:
        return chain(settings, room, APART, folder), chain(settings, room, settings["stiffness"], folder)

    apart, joined = both(settings["room"])
    plan = plan_join(apart, joined, newcomer)
    out = {"newcomer": newcomer, "hosts": list(plan.hosts), **simulate(plan, apart, joined, settings)}
    try:
        plan_join(*both(settings["tight_room"]), newcomer)
        out["with_tight_room"] = "joins"
    except InfeasibleError as error:
        out["with_tight_room"] = str(error)
    return out


def simulate(plan: JoinPlan, apart: PlantConfig, joined: PlantConfig, settings: Settings) -> dict[str, Any]:
    """The chain with a mass that asks at step `ask`, is hooked on, and taken off at step `leave`.

    Parameters
    ----------
    plan : of the join
    apart, joined : plant files
    settings : of the study
    """
    designs, name_new = plan.designs, plan.newcomer
    followers = {n: [o for o, d in designs.items() if n in d.neighbours and n != name_new] for n in designs}
    agents = {name: Agent(design, followers[name]) for name, design in designs.items()}
    newcomer = Newcomer(plan, settings["patience"])
    for agent in agents.values():
        agent.start(0)
    seed = settings["seed"]
    channel = Channel(Faults(settings["loss"], settings["delay"], settings["duplicate"]), seed)
    plant, other, loose = (make_plant(config, seed=seed) for config in (apart, joined, apart))
    draw = vertex_disturbances(*apart.disturbance_bounds(), 100 + seed)
    violations = broken = refused = 0
    hooked_on = taken_off = -1
    modes: Counter[str] = Counter()
    width: dict[str, list[float]] = {host: [] for host in plan.hosts}
    for k in range(settings["steps"]):
        measured = plant.measure()
        received = {name: channel.receive(k, name) for name in agents}
        for message in received[name_new]:
            if message.kind == "acknowledgement":
                newcomer.hear(message)
        if k == settings["ask"]:
            newcomer.ask()
        if k == settings["leave"] and hooked_on >= 0:
            plant.obey(loose)
            newcomer.leave()
            taken_off = k
        for host, messages in newcomer.step(k).items():
            for message in messages:
                channel.send(k, host, message)
        if hooked_on < 0 and newcomer.may_connect(k):
            plant.obey(other)
            hooked_on = k
        inputs = {}
        for name, agent in agents.items():
            for message in received[name]:
                try:
                    agent.receive(message)
                except PromiseError:  # overtaken by a newer one
                    refused += 1
            heard = {n: measured[n] for n in agent.design.neighbours if n != name_new}
            decision = agent.step(
                k, measured[name], {n: x for n, x in heard.items() if channel.measurement_arrives(k, n)}
            )
            inputs[name] = decision.input
            broken += decision.report.promise_broken
            modes[decision.mode] += 1
            violations += sum(margin < -1e-9 for margin in decision.report.margins.values())
            if name in width:
                width[name].append(float(np.median(decision.report.promise_width)))
            for to in followers[name]:
                channel.send(k, to, decision.forecast)
            for message in agent.speak(decision):
                for to in followers[name] if message.kind == "proposal" else [message.acknowledged_agent]:
                    channel.send(k, to, message)
        plant.step(inputs, draw(k))
    spans = {"apart": (30, settings["ask"]), "joined": (hooked_on, taken_off), "left": (taken_off + 30, None)}
    return {
        "steps": settings["steps"],
        "asked": settings["ask"],
        "hooked_on": hooked_on,
        "taken_off": taken_off,
        "refused_by": list(newcomer.refused_by),
        "violations": violations,
        "promises_broken": broken,
        "modes": dict(modes),
        "messages_refused": refused,
        "borne_share": {n: float(np.max(e / plan.designs[n].terminal[: len(e)])) for n, e in plan.borne.items()},
        "host_promise_width": {
            span: {n: float(np.mean(values[first:last])) for n, values in width.items()}
            for span, (first, last) in spans.items()
            if hooked_on >= 0
        },
    }


def table(result: dict[str, Any]) -> list[str]:
    """Lines for people."""
    return [
        f"{result['newcomer']} asks {', '.join(result['hosts'])} at step {result['asked']}, is hooked on at step "
        f"{result['hooked_on']}, taken off at step {result['taken_off']}"
        + (f"; refused by {', '.join(result['refused_by'])}" if result["refused_by"] else ""),
        f"{result['steps']} steps: {result['violations']} violations, {result['promises_broken']} promises broken, "
        f"decisions: {result['modes']}",
        f"with little room: {result['with_tight_room']}",
    ]


STUDY = Study(
    defaults={
        "M": 4,
        "newcomer": 5,
        "stiffness": 1.0,
        "room": 1.5,
        "tight_room": 1.05,
        "steps": 400,
        "ask": 60,
        "leave": 260,
        "patience": 20,
        "loss": 0.0,
        "delay": 0,
        "duplicate": 0.0,
        "seed": 0,
    },
    run=run_study,
    table=table,
)
