"""`report.html`: one page without anything to download, to zoom, hover and scroll through a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import numpy as np

from rmpc_ros.network.decision import CONTROLLERS, MODES
from rmpc_ros.report.data import AgentData, RunData
from rmpc_ros.report.events import Happening, silent_spans
from rmpc_ros.report.learning import learning_section
from rmpc_ros.report.panels import Panels, axis, library
from rmpc_ros.report.picture import promised_series

MOST_POINTS = 4000  # per line; longer runs are thinned, and the page says so
MOMENTS = 21  # whose whole promise can be looked at with the slider
MOST_EVENTS = 200

DARK, BLUE, LIGHT, GREY, RED, AMBER = "#16324f", "#2f78b7", "#8dbbe0", "#8a94a0", "#c23b3b", "#c98a1b"
MODE_COLOURS = {"optimal": "#2e8b57", "certified": BLUE, "backup": AMBER, "safe": RED, "uncertified": GREY}
LEVEL_COLOURS = {"OK": "#2e8b57", "WARN": AMBER, "ERROR": RED, "STALE": GREY}

STYLE = """
body{font:15px/1.5 system-ui,sans-serif;color:#1d2733;background:#f6f7f9;margin:0}
main{max-width:1180px;margin:0 auto;padding:24px}
section{background:#fff;border:1px solid #dfe4ea;border-radius:8px;padding:16px 20px;margin:0 0 20px}
h1{font-size:24px;margin:0 0 4px}h2{font-size:18px;margin:0 0 10px}p{margin:4px 0 10px;max-width:80ch}
table{border-collapse:collapse;font-variant-numeric:tabular-nums;width:100%}
th,td{text-align:right;padding:4px 10px;border-bottom:1px solid #e8ecf0}th:first-child,td:first-child{text-align:left}
.events td{text-align:left;vertical-align:top}.level{font-weight:600}.scroll{max-height:340px;overflow:auto}
.good{color:#2e8b57}.bad{color:#c23b3b}.big{font-size:20px;font-weight:600}
.tiles{display:flex;flex-wrap:wrap;gap:26px;margin-top:10px}.tiles small{display:block;color:#5b6875;font-weight:400}
"""


def page(run: RunData, figures: Mapping[str, Any], events: Sequence[Happening]) -> str:
    """The whole page."""
    sections = [_head(run, figures), _table(figures), _events(events)]
    for name in run.agents:
        plots = agent_panels(run, name).html(f"plot-{name}")
        sections.append(f"<section><h2>{escape(name)}</h2>{_explain()}{plots}</section>")
    if "learning" in figures:
        sections.insert(2, learning_section(run, figures["learning"]))
    title = escape(f"{run.plant}: report of run {run.run}")
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        f'<meta name="viewport" content="width=device-width"><style>{STYLE}</style>'
        f"<script>{library()}</script></head><body><main>{''.join(sections)}</main></body></html>\n"
    )


# -- words and tables -------------------------------------------------------------------------------------------------
def _head(run: RunData, figures: Mapping[str, Any]) -> str:
    def tile(label: str, value: str, good: bool | None = None) -> str:
        kind = "" if good is None else " good" if good else " bad"
        return f'<div class="big{kind}">{escape(value)}<small>{escape(label)}</small></div>'

    hours = figures["steps"] * run.period / 3600
    tiles = [
        tile("control steps", f"{figures['steps']}"),
        tile("plant time", f"{hours:.2f} h"),
        tile("violations of limits", f"{figures['violations']}", figures["violations"] == 0),
        tile("promises broken", f"{figures['promises_broken']}", figures["promises_broken"] == 0),
        tile("promises kept", f"{figures['promises_kept_percent']:.4g} %", figures["promises_broken"] == 0),
        tile("steps solved to the optimum", f"{100 * figures['optimal_share']:.1f} %"),
        tile("restarts", f"{figures['restarts']}"),
        tile("messages refused", f"{figures['rejected_messages']}"),
        tile("deadlines missed", f"{figures['deadlines_missed']}"),
    ]
    return (
        f"<section><h1>{escape(run.plant)}</h1><p>Run {escape(run.run)}, seed {run.seed}, "
        f'period {run.period:g} s.</p><div class="tiles">{"".join(tiles)}</div></section>'
    )


def _table(figures: Mapping[str, Any]) -> str:
    columns = [
        *("agent", "controllers", "steps", *MODES, "on its plan", "violations", "promises broken"),
        *("solve p50 / p99 [ms]", "promise width, median / max", "cost", "restarts"),
    ]
    head = "".join(f"<th>{escape(c)}</th>" for c in columns)
    body = "".join(
        "<tr>" + "".join(f"<td>{escape(str(cell))}</td>" for cell in _row(name, agent)) + "</tr>"
        for name, agent in figures["agents"].items()
    )
    return (
        f"<section><h2>Agents</h2><table><tr>{head}</tr>{body}</table><p>Promise width: half-width of the promised "
        "states over half the range of their limits. Cost: sum of the normalised stage costs. On its plan: steps in "
        "which the agent was silent and its actuators ran the plan that came with its last command.</p></section>"
    )


def _row(name: str, agent: Mapping[str, Any]) -> list[Any]:
    width = agent["promise_width"]
    rungs = {rung: count for rung, count in agent["controller_counts"].items() if count}
    return [
        name,
        ", ".join(rungs) if len(rungs) < 2 else ", ".join(f"{rung} {count}" for rung, count in rungs.items()),
        agent["steps"],
        *(agent["mode_counts"][mode] for mode in MODES),
        agent["steps_on_the_actuators_plan"],
        agent["violations"],
        f"{agent['promises_broken']} of {agent['promises_checked']}",
        f"{agent['solve_ms_p50']:.2f} / {agent['solve_ms_p99']:.2f}",
        f"{width['median']:.4f} / {width['max']:.4f}",
        f"{agent['cost']:.4g}",
        agent["restarts"],
    ]


def _events(events: Sequence[Happening]) -> str:
    rows = "".join(
        f'<tr><td>{e.time / 3600:.3f} h</td><td class="level" style="color:{LEVEL_COLOURS[e.level]}">{e.level}</td>'
        f"<td>{escape(e.who)}</td><td>{escape(e.what)}</td></tr>"
        for e in events[:MOST_EVENTS]
    )
    more = f"<p>{len(events) - MOST_EVENTS} more are in the bag.</p>" if len(events) > MOST_EVENTS else ""
    return (
        '<section class="events"><h2>What happened</h2><div class="scroll"><table><tr><th>plant time</th><th>level</th>'
        f"<th>who</th><th>what</th></tr>{rows}</table></div>{more}</section>"
    )


def _explain() -> str:
    return (
        "<p>Dark: measured. Blue bands: what was promised one and five steps before. Dashed: the invariant box. Red: "
        "limits. Amber background: the agent was silent. The slider shows the whole promise made at a moment.</p>"
    )


# -- plots ------------------------------------------------------------------------------------------------------------
def agent_panels(run: RunData, name: str) -> Panels:
    """All plots of one agent."""
    agent = run.agents[name]
    titles = [f"{s['name']} [{s['unit']}]" for s in (*agent.states, *agent.inputs)]
    titles += ["margins (1 centre, 0 at a limit)", "mode", "controller", "time of a step, of its solve [ms]"]
    rows = len(titles)
    panels = Panels(titles, [1.0] * (rows - 4) + [1.0, 0.5, 0.4, 0.8], "plant time [h]")
    hours = run.period / 3600.0
    _states(panels, agent, hours)
    _inputs(panels, agent, hours, len(agent.states) + 1)
    _verdicts(panels, agent, hours, rows - 3)
    for first, last in silent_spans(run, name):
        panels.span(first * hours, (last + 1) * hours, "#d9b44a", 0.25)
    _moments(panels, agent, hours)
    return panels


def _thin(steps: Sequence[int]) -> list[int]:
    every = max(1, -(-len(steps) // MOST_POINTS))
    return list(steps[::every])


def _states(panels: Panels, agent: AgentData, hours: float) -> None:
    values = agent.measured or agent.truth
    steps = _thin(sorted(values))
    t = np.array(steps) * hours
    low, high = agent.limits("states")
    near, far = promised_series(agent, steps, 1), promised_series(agent, steps, 5)
    box = agent.invariant_box() if agent.promises else None
    for n, state in enumerate(agent.states):
        row = n + 1
        panels.band(row, t, far[0][:, n], far[1][:, n], LIGHT, 0.35)
        panels.band(row, t, near[0][:, n], near[1][:, n], BLUE, 0.45)
        if box is not None:
            for side in (-1, 1):
                panels.level(row, float(box[0][n] + side * box[1][n]), GREY, "dash")
        for limit in (low[n], high[n]):
            panels.level(row, float(limit), RED)
        panels.line(row, t, [values[k][n] for k in steps], line={"color": DARK, "width": 1.6}, name=state["name"])


def _inputs(panels: Panels, agent: AgentData, hours: float, first_row: int) -> None:
    values = agent.applied or agent.commanded
    steps = _thin(sorted(values))
    low, high = agent.limits("inputs")
    for n, given in enumerate(agent.inputs):
        row = first_row + n
        style = {"color": DARK, "width": 1.4, "shape": "hv"}
        panels.line(row, np.array(steps) * hours, [values[k][n] for k in steps], line=style, name=given["name"])
        for limit in (low[n], high[n]):
            panels.level(row, float(limit), RED)


def _verdicts(panels: Panels, agent: AgentData, hours: float, row: int) -> None:
    """Margins, modes and times, from the agent's own reports; a gap where it was silent."""
    steps = _thin(sorted(agent.reports))
    if not steps:
        return
    t = np.array(steps) * hours
    panels.level(row, 0.0, RED)
    for margin in agent.reports[steps[0]].margins:
        y = [agent.reports[k].margins.get(margin, np.nan) for k in steps]
        panels.line(row, t, y, line={"width": 1.2}, name=f"margin {margin}", mode="markers+lines", marker={"size": 2})
    for mode in MODES:
        at = [k for k in steps if agent.reports[k].mode == mode]
        panels.line(
            row + 1,
            np.array(at) * hours,
            [mode] * len(at),
            mode="markers",
            marker={"color": MODE_COLOURS[mode], "size": 6, "symbol": "square"},
            text=[escape(agent.reports[k].reason or "-") for k in at],
            hovertemplate="%{y}: %{text}<extra></extra>",
        )
    panels.layout[axis("yaxis", row + 1)] |= {
        "type": "category",
        "categoryorder": "array",
        "categoryarray": [*MODES[::-1]],
    }
    rungs = [agent.reports[k].controller for k in steps]
    panels.line(row + 2, t, rungs, mode="markers", marker={"color": DARK, "size": 4}, name="controller")
    used = [rung for rung in CONTROLLERS if rung in rungs]
    panels.layout[axis("yaxis", row + 2)] |= {"type": "category", "categoryorder": "array", "categoryarray": used}
    for what, colour in (("step_ms", LIGHT), ("solve_ms", DARK)):
        y = [getattr(agent.reports[k], what) for k in steps]
        panels.line(row + 3, t, y, mode="markers", marker={"color": colour, "size": 4}, name=what)
    panels.layout[axis("yaxis", row + 3)] |= {"type": "log"}


def _moments(panels: Panels, agent: AgentData, hours: float) -> None:
    """A slider over moments; each shows the promise made then, over its whole horizon."""
    made = sorted(agent.promises)
    if not made:
        return
    chosen = [made[i] for i in np.unique(np.linspace(0, len(made) - 1, MOMENTS).round().astype(int))]
    fixed = len(panels.traces)
    for k in chosen:
        promise = agent.promises[k]
        ahead = range(k, k + promise.horizon + 1)
        ends = [agent.promised_states(promise, step) for step in ahead]
        t = np.array(ahead) * hours
        for n in range(len(agent.states)):
            center, half = np.array([c[n] for c, _ in ends]), np.array([h[n] for _, h in ends])
            panels.band(n + 1, t, center - half, center + half, AMBER, 0.55, visible=False)
    total, per_moment = len(panels.traces), 2 * len(agent.states)
    stops: list[tuple[str, range]] = [("none", range(0))]
    for m, k in enumerate(chosen):
        stops.append((f"{k * hours:.2f} h", range(fixed + m * per_moment, fixed + (m + 1) * per_moment)))
    steps = [
        {
            "label": label,
            "method": "restyle",
            "args": [{"visible": [i < fixed or i in shown for i in range(total)]}],
        }
        for label, shown in stops
    ]
    panels.layout["sliders"] = [{"currentvalue": {"prefix": "promise made at: "}, "steps": steps, "pad": {"t": 45}}]
