"""`plant.png`: states between their limits with what was promised, and inputs, one column per agent."""

from __future__ import annotations

from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from rmpc_ros.report.data import AgentData, RunData, Vector
from rmpc_ros.report.events import silent_spans

WIDEST = 4  # agents side by side
LIMIT, TRUE, NEAR, BOX = "#c23b3b", "#16324f", "#4f8fc4", "#9aa5b1"


def draw(run: RunData, path: Path) -> None:
    """Draw the run."""
    names = list(run.agents)[:WIDEST]
    rows = max(len(run.agents[n].states) + len(run.agents[n].inputs) for n in names)
    figure = Figure(figsize=(4.2 * len(names), 1.75 * rows + 0.9), layout="constrained")
    axes = figure.subplots(rows, len(names), sharex=True, squeeze=False)
    for column, name in enumerate(names):
        agent = run.agents[name]
        _column(run, name, agent, list(axes[:, column]))
        axes[0, column].set_title(name, fontsize=11)
        axes[-1, column].set_xlabel("plant time [h]")
    left_out = len(run.agents) - len(names)
    more = f" (and {left_out} more agents)" if left_out else ""
    figure.suptitle(
        f"{run.plant}{more}: measured (dark), promised one step before (blue), invariant box (grey), limits (red)",
        fontsize=10,
    )
    figure.savefig(path, dpi=110)


def _column(run: RunData, name: str, agent: AgentData, axes: list[Axes]) -> None:
    hours = run.period / 3600.0
    steps = sorted(agent.measured or agent.truth)
    values = agent.measured or agent.truth
    low, high = agent.limits("states")
    box = agent.invariant_box() if agent.promises else None
    near = promised_series(agent, steps, 1)
    for n, state in enumerate(agent.states):
        axis = axes[n]
        t = np.array(steps) * hours
        axis.fill_between(t, near[0][:, n], near[1][:, n], color=NEAR, alpha=0.45, linewidth=0)
        axis.plot(t, [values[k][n] for k in steps], color=TRUE, linewidth=1.0)
        if box is not None:
            for side in (-1, 1):
                axis.axhline(box[0][n] + side * box[1][n], color=BOX, linewidth=0.9, linestyle="--")
        _limits(axis, low[n], high[n])
        axis.set_ylabel(f"{state['name']} [{_short(state['unit'])}]", fontsize=9)
    low, high = agent.limits("inputs")
    for n, given in enumerate(agent.inputs):
        axis = axes[len(agent.states) + n]
        done = sorted(agent.applied or agent.commanded)
        series = agent.applied or agent.commanded
        axis.step(np.array(done) * hours, [series[k][n] for k in done], where="post", color=TRUE, linewidth=1.0)
        _limits(axis, low[n], high[n])
        axis.set_ylabel(f"{given['name']} [{_short(given['unit'])}]", fontsize=9)
    for axis in axes[: len(agent.states) + len(agent.inputs)]:
        for first, last in silent_spans(run, name):
            axis.axvspan(first * hours, (last + 1) * hours, color="#d9b44a", alpha=0.25, linewidth=0)
        axis.tick_params(labelsize=8)
    for axis in axes[len(agent.states) + len(agent.inputs) :]:
        axis.set_visible(False)


def promised_series(agent: AgentData, steps: list[int], ahead: int) -> tuple[Vector, Vector]:
    """Lower and upper ends (len(steps), nx) of what was promised `ahead` steps before; NaN where nothing was."""
    lower = np.full((len(steps), len(agent.states)), np.nan)
    upper = lower.copy()
    for row, step in enumerate(steps):
        promise = agent.promise_before(step, ahead)
        if promise is not None:
            center, half = agent.promised_states(promise, step)
            lower[row], upper[row] = center - half, center + half
    return lower, upper


def _limits(axis: Axes, low: float, high: float) -> None:
    for value in (low, high):
        if np.isfinite(value):
            axis.axhline(value, color=LIMIT, linewidth=0.9)


def _short(unit: str) -> str:
    return {"mass fraction": "-", "mole fraction": "-", "1": "-"}.get(unit, unit)
