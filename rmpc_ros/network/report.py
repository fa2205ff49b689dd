"""What a design says about itself: a summary, what each neighbour learns, and which announced set costs what."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from rmpc_ros.errors import InfeasibleError
from rmpc_ros.network.design import NetworkDesign, cost_value
from rmpc_ros.network.design_local import build_agent
from rmpc_ros.network.program_solve import solve
from rmpc_ros.network.rollout import SignalKey


def design_summary(design: NetworkDesign) -> dict[str, Any]:
    """Objective, status, agents' objectives, times and sizes, ready for JSON."""
    out: dict[str, Any] = {
        "status": "optimal",
        "objective": design.objective,
        "agent_objectives": dict(
            zip([a.name for a in design.network.agents], design.agent_objectives.tolist(), strict=True)
        ),
        "times": {"build_s": design.build_seconds, "solve_s": design.solve_seconds},
        "sizes": design.sizes,
        "solver": design.solver,
        "epigraph": design.epigraph,
    }
    if design.agent_sizes:
        out["largest_agent"] = max(design.agent_sizes, key=lambda s: s["variables"])
    return out


def privacy_report(design: NetworkDesign) -> list[dict[str, Any]]:
    """For each arc what the receiver learns about the sender.

    In a local design these are the announced numbers only (scales and centres per stage; the current value of a state
    signal at run time); in the other structures the receiver needs the sender's disturbances, or states and model.
    """
    network = design.network
    rows = []
    for i, agent in enumerate(network.agents):
        heard = [c.sender for c in agent.couplings]
        if design.structure != "local":
            everyone = range(len(network.agents))
            others = (
                [j for j in everyone if j != i] if design.structure == "centralised" else network.graph.precedents(i)
            )
            for j in others:
                numbers = network.horizon * network.agents[j].disturbance.generator.shape[1]
                what = "every disturbance, hence the model and policy that turn them into states"
                rows.append(_row(network.agents[j].name, agent.name, what, numbers, j in heard))
            continue
        for c in agent.couplings:
            stages = design.announced[c.sender, c.signal]
            form = design.forms[c.sender, c.signal]
            floor = 0 if form.signal.floor is None else form.n
            numbers = sum(a.scale.size + a.centre.size - floor for a in stages if a is not None)
            what = f"scales and centres of '{c.signal}'"
            rows.append(_row(network.agents[c.sender].name, agent.name, what, numbers, True))
    return rows


def _row(sender: str, receiver: str, learns: str, numbers: int, physical: bool) -> dict[str, Any]:
    return {"of": sender, "learned_by": receiver, "learns": learns, "numbers": numbers, "physical_neighbour": physical}


def conservatism_report(design: NetworkDesign) -> list[dict[str, Any]]:
    """Which announced set costs what: for each signal the receivers' gain if that set alone were a point.

    Each receiver's own problem is solved with all sets as designed, and again with the one set shrunk to its centre;
    the difference is what the width of the set costs the receiver. `width` is the mean extent over the stages.

    Raises
    ------
    InfeasibleError
        The design's own sets are not feasible for a receiver (never for a design from `design_network`).
    """
    network = design.network
    base = {i: _receiver_cost(design, i, None) for i, a in enumerate(network.agents) if a.couplings}
    rows = []
    for key, stages in design.announced.items():
        extents = [2 * np.abs(a.matrix).sum(axis=1).mean() for a in stages if a is not None]
        for i, agent in enumerate(network.agents):
            if not any((c.sender, c.signal) == key for c in agent.couplings):
                continue
            rows.append(
                {
                    "of": network.agents[key[0]].name,
                    "signal": key[1],
                    "receiver": agent.name,
                    "width": float(np.mean(extents)) if extents else 0.0,
                    "cost": base[i] - _receiver_cost(design, i, key),
                }
            )
    return rows


def _receiver_cost(design: NetworkDesign, i: int, point: SignalKey | None) -> float:
    """Agent i's best cost with all sets fixed; set `point`, where given, shrunk to its centre."""
    p = build_agent(design.network, i, design.forms, design.epigraph)
    lower, upper = p.data.lower.copy(), p.data.upper.copy()
    for key, stages in p.shared.items():
        form = design.forms[key]
        for t, index in enumerate(stages):
            announced = design.announced[key][t]
            if announced is None:
                continue
            scale = np.zeros_like(announced.scale) if key == point else announced.scale
            values = np.concatenate([scale, announced.centre[: index.size - form.scales]])
            slack = 1e-7 * (1 + np.abs(values))  # the designed sets are known to solver accuracy only
            lower[index], upper[index] = values - slack, values + slack
            lower[index[: form.scales]] = np.maximum(lower[index[: form.scales]], form.scale_bounds()[0])
    try:
        answer = solve(replace(p.data, lower=lower, upper=upper))
    except InfeasibleError as error:
        raise InfeasibleError(f"agent '{design.network.agents[i].name}': {error}", error.status) from error
    return cost_value(p.cost, answer.x)
