"""`report.html`: one page without anything to download, to zoom, hover and scroll through a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import numpy as np
import plotly.graph_objects as go
from plotly.offline import get_plotlyjs
from plotly.subplots import make_subplots

from rmpc_ros.report.data import MODES, AgentData, RunData, Vector
from rmpc_ros.report.events import Happening, silent_spans
from rmpc_ros.report.picture import promised_series

MOST_POINTS = 4000  # per line; longer runs are thinned, and the page says so
MOMENTS = 21  # whose whole promise can be looked at with the slider
MOST_EVENTS = 200

DARK, BLUE, LIGHT, GREY, RED, AMBER = "#16324f", "#2f78b7", "#8dbbe0", "#8a94a0", "#c23b3b", "#c98a1b"
MODE_COLOURS = {"optimal": "#2e8b57", "certified": BLUE, "backup": AMBER, "safe": RED}
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
    plots = [_agent_figure(run, name) for name in run.agents]
    sections = [_head(run, figures), _table(figures), _events(events)]
    for name, plot in zip(run.agents, plots, strict=True):
        div = plot.to_html(full_html=False, include_plotlyjs=False, div_id=f"plot-{name}", config={"responsive": True})
        sections.append(f"<section><h2>{escape(name)}</h2>{_explain()}{div}</section>")
    title = escape(f"{run.plant}: report of run {run.run}")
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        f'<meta name="viewport" content="width=device-width"><style>{STYLE}</style>'
        f"<script>{get_plotlyjs()}</script></head><body><main>{''.join(sections)}</main></body></html>\n"
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
        *("agent", "steps", *MODES, "on its plan", "violations", "promises broken", "solve p50 / p99 [ms]"),
        *("promise width, median / max", "cost", "restarts"),
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
    return [
        name,
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
def _agent_figure(run: RunData, name: str) -> go.Figure:
    agent = run.agents[name]
    titles = [f"{s['name']} [{s['unit']}]" for s in (*agent.states, *agent.inputs)]
    titles += ["margins (1 centre, 0 at a limit)", "mode", "time of a step [ms]"]
    rows = len(titles)
    heights = [1.0] * (rows - 3) + [1.0, 0.4, 0.8]
    figure = make_subplots(
        rows=rows, cols=1, shared_xaxes=True, vertical_spacing=0.028, subplot_titles=titles, row_heights=heights
    )
    hours = run.period / 3600.0
    _states(figure, agent, hours)
    _inputs(figure, agent, hours, len(agent.states) + 1)
    _verdicts(figure, agent, hours, rows - 2)
    for first, last in silent_spans(run, name):
        figure.add_vrect(x0=first * hours, x1=(last + 1) * hours, fillcolor="#d9b44a", opacity=0.22, line_width=0)
    _moments(figure, agent, hours)
    figure.update_xaxes(title_text="plant time [h]", row=rows, col=1)
    figure.update_layout(
        height=170 * (rows - 1) + 140,
        margin={"l": 70, "r": 20, "t": 40, "b": 90},
        template="plotly_white",
        hovermode="x unified",
        showlegend=False,
    )
    figure.update_annotations(font_size=12)
    return figure


def _thin(steps: Sequence[int]) -> list[int]:
    every = max(1, -(-len(steps) // MOST_POINTS))
    return list(steps[::every])


def _states(figure: go.Figure, agent: AgentData, hours: float) -> None:
    values = agent.measured or agent.truth
    steps = _thin(sorted(values))
    t = np.array(steps) * hours
    low, high = agent.limits("states")
    bands = [(5, LIGHT, 0.35), (1, BLUE, 0.45)]
    series = {ahead: promised_series(agent, steps, ahead) for ahead, _, _ in bands}
    box = agent.invariant_box() if agent.promises else None
    for n, state in enumerate(agent.states):
        row = n + 1
        for ahead, colour, opacity in bands:
            _band(
                figure,
                row,
                t,
                series[ahead][0][:, n],
                series[ahead][1][:, n],
                colour,
                opacity,
                f"promised {ahead} before",
            )
        if box is not None:
            for side in (-1, 1):
                figure.add_hline(
                    y=box[0][n] + side * box[1][n], line={"color": GREY, "dash": "dash", "width": 1}, row=row, col=1
                )
        _limit_lines(figure, row, low[n], high[n])
        y = [values[k][n] for k in steps]
        figure.add_trace(go.Scatter(x=t, y=y, line={"color": DARK, "width": 1.6}, name=state["name"]), row=row, col=1)


def _band(
    figure: go.Figure, row: int, t: Vector, low: Vector, high: Vector, colour: str, opacity: float, name: str
) -> None:
    r, g, b = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    fill = f"rgba({r},{g},{b},{opacity})"
    shape = {"width": 0, "color": colour}
    figure.add_trace(go.Scatter(x=t, y=low, line=shape, hoverinfo="skip", mode="lines"), row=row, col=1)
    figure.add_trace(
        go.Scatter(x=t, y=high, line=shape, fill="tonexty", fillcolor=fill, hoverinfo="skip", mode="lines", name=name),
        row=row,
        col=1,
    )


def _limit_lines(figure: go.Figure, row: int, low: float, high: float) -> None:
    for value in (low, high):
        if np.isfinite(value):
            figure.add_hline(y=value, line={"color": RED, "width": 1.2}, row=row, col=1)


def _inputs(figure: go.Figure, agent: AgentData, hours: float, first_row: int) -> None:
    values = agent.applied or agent.commanded
    steps = _thin(sorted(values))
    low, high = agent.limits("inputs")
    for n, given in enumerate(agent.inputs):
        y = [values[k][n] for k in steps]
        line = {"color": DARK, "width": 1.4, "shape": "hv"}
        figure.add_trace(
            go.Scatter(x=np.array(steps) * hours, y=y, line=line, name=given["name"]), row=first_row + n, col=1
        )
        _limit_lines(figure, first_row + n, low[n], high[n])


def _verdicts(figure: go.Figure, agent: AgentData, hours: float, row: int) -> None:
    steps = _thin(sorted(agent.reports))
    if not steps:
        return
    t = np.array(steps) * hours
    for margin in agent.reports[steps[0]].margins:
        y = [agent.reports[k].margins.get(margin, np.nan) for k in steps]
        figure.add_trace(go.Scatter(x=t, y=y, line={"width": 1.2}, name=f"margin {margin}"), row=row, col=1)
    figure.add_hline(y=0, line={"color": RED, "width": 1}, row=row, col=1)
    for mode in MODES:
        at = [k for k in steps if agent.reports[k].mode == mode]
        why = [agent.reports[k].reason or "-" for k in at]
        figure.add_trace(
            go.Scatter(
                x=np.array(at) * hours,
                y=[mode] * len(at),
                mode="markers",
                marker={"color": MODE_COLOURS[mode], "size": 6, "symbol": "square"},
                text=why,
                hovertemplate="%{y}: %{text}<extra></extra>",
            ),
            row=row + 1,
            col=1,
        )
    figure.update_yaxes(categoryorder="array", categoryarray=list(MODES[::-1]), row=row + 1, col=1)
    for what, colour in (("step_ms", LIGHT), ("solve_ms", DARK)):
        y = [getattr(agent.reports[k], what) for k in steps]
        figure.add_trace(
            go.Scatter(x=t, y=y, mode="markers", marker={"color": colour, "size": 4}, name=what), row=row + 2, col=1
        )


def _moments(figure: go.Figure, agent: AgentData, hours: float) -> None:
    """A slider over moments; each shows the promise made then, over its whole horizon."""
    made = sorted(agent.promises)
    if not made:
        return
    chosen = [made[i] for i in np.unique(np.linspace(0, len(made) - 1, MOMENTS).round().astype(int))]
    fixed = len(figure.data)
    per_moment = 0
    for k in chosen:
        promise = agent.promises[k]
        ahead = range(k, k + promise.horizon + 1)
        ends = [agent.promised_states(promise, step) for step in ahead]
        t = np.array(ahead) * hours
        before = len(figure.data)
        for n in range(len(agent.states)):
            center, half = np.array([c[n] for c, _ in ends]), np.array([h[n] for _, h in ends])
            _band(figure, n + 1, t, center - half, center + half, AMBER, 0.55, f"promised at step {k}")
        per_moment = len(figure.data) - before
        for trace in figure.data[before:]:
            trace.visible = False
    total = len(figure.data)
    steps = [{"label": "none", "method": "restyle", "args": ["visible", [i < fixed for i in range(total)]]}]
    for m, k in enumerate(chosen):
        shown = range(fixed + m * per_moment, fixed + (m + 1) * per_moment)
        steps.append(
            {
                "label": f"{k * hours:.2f} h",
                "method": "restyle",
                "args": ["visible", [i < fixed or i in shown for i in range(total)]],
            }
        )
    figure.update_layout(sliders=[{"currentvalue": {"prefix": "promise made at: "}, "steps": steps, "pad": {"t": 40}}])
