"""Forecast sets of free shape: zeta = Y s + z with a full matrix Y (n, m), by block-coordinate descent.

The containment p(w) = Y sigma(w) + z is bilinear in Y and the sender's map sigma(w) into the unit box. Alternate

    MatrixForm: sigma fixed, optimise Y, z and all policies;
    ColumnForm: Y's columns fixed up to scale, optimise sigma and all policies;

each a convex program that contains the other's last point, so the objective never rises (seed 004, section 5.1). The
start is the box design: its map (p - z)/y, to which the sender's newest own disturbance is appended as further
generators, so that Y = [diag(y), 0] is feasible and a set in the disturbance's own directions is within reach.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from rmpc_ros.errors import InfeasibleError
from rmpc_ros.network.affine_table import Integers, Matrix
from rmpc_ros.network.design import NetworkDesign, design_network
from rmpc_ros.network.design_local import AgentProgram, build_agent, join, scaled_forms
from rmpc_ros.network.model import Network
from rmpc_ros.network.program_solve import solve
from rmpc_ros.network.rollout import Epigraph, SignalKey
from rmpc_ros.network.set_form import ColumnForm, MatrixForm, SetForm

Maps = dict[SignalKey, dict[int, Matrix]]


@dataclass(frozen=True)
class FlexibleDesign:
    """The last design and the objective after each half-step (never rising); `start` is the box design's, or None."""

    design: NetworkDesign
    objectives: tuple[float, ...]
    start: float | None


def design_flexible(
    network: Network, epigraph: Epigraph = "constant", rounds: int = 10, tolerance: float = 1e-7, solver: str = "auto"
) -> FlexibleDesign:
    """Block-coordinate descent from the box design (or, where that is infeasible, from the disturbance's directions).

    Raises
    ------
    InfeasibleError
        Neither start is feasible; the message says so (a feasible set of other shape may still exist).
    """
    start: float | None = None
    try:
        box_maps, start = _maps_of_box_design(network, epigraph, solver)
    except InfeasibleError:
        box_maps = None
    maps = _starting_maps(network, epigraph, box_maps)
    objectives: list[float] = []
    while True:
        forms: dict[SignalKey, SetForm] = {
            key: MatrixForm(form.signal, form.label, form.stages, maps[key])
            for key, form in scaled_forms(network).items()
        }
        design = design_network(network, "local", epigraph=epigraph, solver=solver, forms=forms)
        objectives.append(design.objective)
        best = objectives[-2] - objectives[-1] if len(objectives) > 1 else np.inf
        if len(objectives) >= 2 * rounds or best <= tolerance * (1 + abs(objectives[-1])):
            return FlexibleDesign(design, tuple(objectives), start)
        maps, value = _improve_maps(network, epigraph, design, maps, solver)
        objectives.append(value)


def _maps_of_box_design(network: Network, epigraph: Epigraph, solver: str) -> tuple[Maps, float]:
    """Sigma = R^-1 (p - z) / y of the box design, over the columns of the sender's box program."""
    forms = scaled_forms(network)
    programs = [build_agent(network, i, forms, epigraph) for i in range(len(network.agents))]
    joint = join(programs, forms)
    answer = solve(joint.data, solver)
    maps: Maps = {}
    for key, form in forms.items():
        sender = programs[key[0]]
        x = answer.x[joint.maps[key[0]]]
        maps[key] = {}
        for t in range(network.horizon):
            if form.is_point(t):
                continue
            announced = form.numbers(x[sender.shared[key][t]], t)
            p = sender.run.signals[key[1]][t].evaluate(x, sender.program.w.size)
            p[:, 0] -= announced.centre
            y = announced.scale
            sigma = np.divide(p, y[:, None], out=np.zeros_like(p), where=y[:, None] > 1e-9)
            reach = np.abs(sigma).sum(axis=1, keepdims=True)
            maps[key][t] = sigma / np.maximum(reach, 1.0)
    return maps, answer.objective


def _starting_maps(network: Network, epigraph: Epigraph, box_maps: Maps | None) -> Maps:
    """Maps over the columns of the flexible programs: the box design's rows, then the newest own disturbance."""
    forms = scaled_forms(network)
    boxes = {i: build_agent(network, i, forms, epigraph) for i in range(len(network.agents))}
    extra = {key: network.agents[key[0]].disturbance.generator.shape[1] for key in forms}
    probe: dict[SignalKey, SetForm] = {
        key: ColumnForm(f.signal, f.label, f.stages, [np.zeros((f.n, f.n + extra[key]))] * f.stages)
        for key, f in forms.items()
    }
    out: Maps = {}
    for key, form in forms.items():
        i = key[0]
        program = build_agent(network, i, probe, epigraph)
        place = _column_map(boxes[i], program)
        out[key] = {}
        for t in range(network.horizon):
            if form.is_point(t):
                continue
            sigma = np.zeros((form.n + extra[key], program.program.w.size))
            if box_maps is not None:
                sigma[: form.n, place] = box_maps[key][t]
            newest = t if network.agents[i].sees_current or form.signal.G is not None else t - 1
            sigma[form.n + np.arange(extra[key]), program.run.own[newest]] = 1.0
            out[key][t] = sigma
    return out


def _column_map(old: AgentProgram, new: AgentProgram) -> Integers:
    """New column of each old column; a block's new coordinates come after its old ones."""
    place = {(b.label, b.time): b.columns for b in new.program.w.blocks}
    out = np.zeros(old.program.w.size, np.int64)
    taken: dict[tuple[str, int], int] = {}
    for block in old.program.w.blocks:  # a box shape may have one block per coordinate
        start = taken.get((block.label, block.time), 0)
        out[block.columns] = place[block.label, block.time][start : start + block.columns.size]
        taken[block.label, block.time] = start + block.columns.size
    return out


def _improve_maps(
    network: Network, epigraph: Epigraph, design: NetworkDesign, maps: Maps, solver: str
) -> tuple[Maps, float]:
    forms: dict[SignalKey, SetForm] = {}
    for key, form in design.forms.items():
        stages = [a.matrix if a is not None else np.zeros((form.n, 1)) for a in design.announced[key]]
        forms[key] = ColumnForm(form.signal, form.label, form.stages, stages)
    programs = [build_agent(network, i, forms, epigraph) for i in range(len(network.agents))]
    joint = join(programs, forms)
    answer = solve(joint.data, solver)
    out: Maps = {}
    for key, form in forms.items():
        assert isinstance(form, ColumnForm)
        sender = programs[key[0]]
        x = answer.x[joint.maps[key[0]]]
        out[key] = {}
        for t, table in form.maps.items():
            y = x[sender.shared[key][t]][: form.scales, None]
            sigma = table.evaluate(x, sender.program.w.size)
            scaled = np.divide(sigma, y, out=np.zeros_like(sigma), where=y > 1e-9)
            scaled = np.where(y > 1e-9, scaled, maps[key][t])  # an unused column keeps its direction
            out[key][t] = scaled / np.maximum(np.abs(scaled).sum(axis=1, keepdims=True), 1.0)
    return out, answer.objective
