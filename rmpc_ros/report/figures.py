"""The figures of a run: what `run.json` and `rmpc run --json` hold."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

import numpy as np

from rmpc_ros.network.decision import CONTROLLERS, MODES
from rmpc_ros.report.data import AgentData, RunData, Vector
from rmpc_ros.report.learning import learning_figures

ROUNDING = 1e-9  # of a limit's range: what arithmetic may add to a value at its limit
TOLERANCE = 1e-6  # of a promise, relative to its terminal half-width
NEXT = 5  # steps for which a promise must be narrower than the invariant box


def figures(run: RunData) -> dict[str, Any]:
    """Everything countable, per agent and together.

    A violation is a step in which a true state (a measured one where the truth is not known) or an applied input lies
    outside its limits. A promise is broken when the measured state lies outside the newest promise made before.
    """
    agents = {name: _agent(name, data, run) for name, data in run.agents.items()}
    checked = sum(a["promises_checked"] for a in agents.values())
    broken = sum(a["promises_broken"] for a in agents.values())
    reports = sum(sum(a["mode_counts"].values()) for a in agents.values())
    optimal = sum(a["mode_counts"]["optimal"] for a in agents.values())
    return {
        "plant": run.plant,
        "run": run.run,
        "seed": run.seed,
        "period_s": run.period,
        "steps": run.steps,
        "violations": sum(a["violations"] for a in agents.values()),
        "promises_broken": broken,
        "promises_checked": checked,
        "promises_kept_percent": 100.0 * (checked - broken) / checked if checked else float("nan"),
        "optimal_share": optimal / reports if reports else 0.0,
        "agents": agents,
        "restarts": sum(a["restarts"] for a in agents.values()),
        "rejected_messages": sum(_rejected(run).values()),
        "deadlines_missed": sum(a["deadlines_missed"] for a in agents.values()),
        "not_recorded": sum(a["not_recorded"] for a in agents.values()),
        **learning_figures(run),
    }


def _agent(name: str, agent: AgentData, run: RunData) -> dict[str, Any]:
    checked, broken = _promises(agent)
    reports = list(agent.reports.values())
    solve = np.array([r.solve_ms for r in reports]) if reports else np.array([np.nan])
    step = np.array([r.step_ms for r in reports]) if reports else np.array([np.nan])
    costs = [r.cost for r in reports if np.isfinite(r.cost)]
    own = [s for s in run.statuses if re.search(rf"/{name}/agent$", s.name)]
    plant = [s.values for s in run.statuses if s.name.endswith("/plant")]
    missed = [int(v[f"deadlines_missed_{name}"]) for v in plant if f"deadlines_missed_{name}" in v]
    without = [int(v[f"steps_without_{name}"]) for v in plant if f"steps_without_{name}" in v]
    dropped = total_count(int(s.values.get("deadlines_missed", 0)) for s in own)
    rejected = {k: v for k, v in _rejected(run).items() if re.search(rf"/{name}/agent$", k)}
    return {
        "steps": len(reports),
        "violations": len(violations(agent)),
        "promises_checked": checked,
        "promises_broken": len(broken),
        "solve_ms_p50": float(np.percentile(solve, 50)),
        "solve_ms_p99": float(np.percentile(solve, 99)),
        "step_ms_p50": float(np.percentile(step, 50)),
        "step_ms_p99": float(np.percentile(step, 99)),
        "mode_counts": {mode: sum(r.mode == mode for r in reports) for mode in MODES},
        "controller_counts": {c: sum(r.controller == c for r in reports) for c in CONTROLLERS},
        "promise_width": _width(agent),
        "cost": float(np.sum(costs)) if costs else float("nan"),
        "cost_per_step": float(np.mean(costs)) if costs else float("nan"),
        "smallest_margin": min((min(r.margins.values(), default=np.nan) for r in reports), default=np.nan),
        "restarts": max((int(s.values.get("restarts", 0)) for s in own), default=0),
        "rejected_messages": sum(rejected.values()),
        "deadlines_missed": max(*missed, dropped, 0),  # what an agent drops the plant misses too
        "steps_on_the_actuators_plan": max(without, default=0),
        "not_recorded": _gaps(agent, run.steps),
    }


def violations(agent: AgentData) -> list[int]:
    """Steps with a state or an applied input outside its limits."""
    found = set()
    for what, series in (("states", agent.truth or agent.measured), ("inputs", agent.applied)):
        low, high = agent.limits(what)
        room = ROUNDING * np.where(np.isfinite(high - low), high - low, 1.0)
        found |= {k for k, v in series.items() if np.any(v < low - room) or np.any(v > high + room)}
    return sorted(found)


def _promises(agent: AgentData) -> tuple[int, list[int]]:
    """How many states were compared with a promise, and the steps at which it was broken."""
    checked, broken = 0, []
    # Free-running, nobody measures for a silent agent; agents that estimate promise the states they control with.
    states = agent.estimated or {**agent.truth, **agent.measured}
    for step, measured in sorted(states.items()):
        promise = agent.promise_before(step)
        if promise is None or not np.all(np.isfinite(measured)):
            continue
        checked += 1
        if not promise.contains(step, agent.transform @ measured, TOLERANCE):
            broken.append(step)
    return checked, broken


def _width(agent: AgentData) -> dict[str, float]:
    """Half-widths of the promised states over half the range of their limits."""
    widths = [r.promise_width for r in agent.reports.values()]
    if not widths or not agent.promises:
        return {"median": float("nan"), "max": float("nan")}
    everything = np.concatenate(widths)
    near = np.concatenate([w[:NEXT] for w in widths])
    low, high = agent.limits("states")
    box: Vector = agent.invariant_box()[1] / ((high - low) / 2)
    limited = np.isfinite(high - low)  # a share of no limit is no figure
    near, box = near[:, limited], box[limited]
    return {
        "median": float(np.median(everything)),
        "max": float(np.max(everything)),
        "next5_median": float(np.median(near)),
        "invariant_median": float(np.median(box)),
        "next5_over_invariant": float(np.median(near / box)),
        "next5_narrower_percent": float(100 * np.mean(np.all(near < box, axis=1))),
    }


def _rejected(run: RunData) -> dict[str, int]:
    """Refused messages per node; a restarted node counts from zero again."""
    series: dict[str, list[int]] = {}
    for status in run.statuses:
        if status.name.endswith(": messages") and "rejected" in status.values:
            series.setdefault(status.name.removesuffix(": messages"), []).append(int(status.values["rejected"]))
    return {name: total_count(values) for name, values in series.items()}


def total_count(values: Iterable[int]) -> int:
    """Total of a counter that starts at zero again when its owner restarts."""
    total, before = 0, 0
    for value in values:
        total += value if value < before else value - before
        before = value
    return total


def _gaps(agent: AgentData, steps: int) -> int:
    """Steps whose measurement, true state or applied input ought to be in the bag and is not."""
    begin = min([*agent.measured, *agent.truth], default=0)
    missing = {k for k in agent.reports if k not in agent.measured}
    for series in (agent.truth, agent.applied):  # a real plant publishes neither
        if series:
            missing |= {k for k in range(begin, steps) if k not in series}
    return len(missing)
