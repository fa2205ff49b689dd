"""What was earned and learned in a run: profit, versions, who adopted what when, roll-backs, sizes of the sets.

Profit is that of the plant file's prices on the true states (measured ones where the truth is not known) and the
applied inputs; also of runs without a learner, so that two runs with the same seed can be compared.
"""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rmpc_ros.config.learning import Prices
from rmpc_ros.learning.local_reward import LocalReward
from rmpc_ros.report.data import SUBJECTS, AgentData, Published, RunData
from rmpc_ros.report.panels import Panels

Array = NDArray[np.float64]

COLOURS = ("#16324f", "#2f78b7", "#c98a1b", "#2e8b57", "#c23b3b", "#8a94a0")
SMOOTH = 20  # steps of the running mean of the profit
MOST_ROWS = 60  # of the table


def profit(run: RunData) -> tuple[NDArray[np.int64], Array]:
    """Steps and profit per hour in each; empty where the plant file has no prices or a step is not complete."""
    if run.prices is None:
        return np.zeros(0, np.int64), np.zeros(0)
    prices = Prices.model_validate(run.prices)
    series = {name: _rewards(agent, prices) for name, agent in run.agents.items()}
    steps = sorted(set.intersection(*(set(s) for s in series.values())))
    return np.array(steps, np.int64), np.array([sum(s[k] for s in series.values()) for k in steps])


def _rewards(agent: AgentData, prices: Prices) -> dict[int, float]:
    states, inputs = [s["name"] for s in agent.states], [u["name"] for u in agent.inputs]
    sides = zip(agent.limits("states"), agent.limits("inputs"), strict=True)
    lower, upper = (np.concatenate(pair) for pair in sides)
    reward = LocalReward(prices, states, inputs, lower, upper)
    values, applied = agent.truth or agent.measured, agent.applied or agent.commanded
    return {k: float(reward.total(values[k], applied[k])) for k in values if k in applied}


def learning_figures(run: RunData) -> dict[str, Any]:
    """`profit_per_hour` where there are prices, and `learning` where somebody learned."""
    steps, earned = profit(run)
    found: dict[str, Any] = {}
    if len(steps):
        found["profit_per_hour"] = float(earned.mean())
    if not any(agent.versions for agent in run.agents.values()):
        return found
    shares = set_shares(run)
    every = np.array(list(shares.values()))
    half = len(earned) // 2
    policies = [u for u in run.updates if u.subject == "policy"]
    found["learning"] = {
        **found,
        "profit_per_hour_first_half": float(earned[:half].mean()) if half else float("nan"),
        "profit_per_hour_second_half": float(earned[half:].mean()) if half else float("nan"),
        "versions": {s: max((u.version for u in run.updates if u.subject == s), default=0) for s in SUBJECTS},
        "adopted": {name: _changes(agent) for name, agent in run.agents.items()},
        "roll_backs": len({u.version for u in policies if u.certificate["stage"] == "roll-back"}),
        "refused_updates": {name: _refused(run, name) for name in run.agents},
        "set_share_first": float(every[:, 0].mean()) if every.size else 1.0,
        "set_share_smallest": float(every.mean(axis=0).min()) if every.size else 1.0,
        "set_share_last": float(every[:, -1].mean()) if every.size else 1.0,
    }
    return found


def set_shares(run: RunData) -> dict[str, Array]:
    """Half-widths of each agent's set in force over the design's, mean over coordinates, by step."""
    known = {
        (u.agent, u.version): float(u.certificate["share_of_design"]) for u in run.updates if u.subject == "uncertainty"
    }
    out = {}
    for name, agent in run.agents.items():
        share, series = 1.0, []
        for k in range(run.steps):
            if k in agent.versions:
                version = agent.versions[k][0]
                share = known.get((name, version), share) if version else 1.0
            series.append(share)
        out[name] = np.array(series)
    return out


def _changes(agent: AgentData) -> list[dict[str, int]]:
    """Steps at which the versions in force changed."""
    found: list[dict[str, int]] = []
    before = (0, 0, 0)
    for k in sorted(agent.versions):
        if agent.versions[k] != before:
            before = agent.versions[k]
            found.append({"step": k, **dict(zip(SUBJECTS, before, strict=True))})
    return found


def _refused(run: RunData, name: str) -> int:
    told = [s.values for s in run.statuses if s.name.endswith(f"/{name}/agent: updates")]
    return max((int(values.get("refused", 0)) for values in told), default=0)


# -- the page ---------------------------------------------------------------------------------------------------------
def learning_section(run: RunData, figures: Mapping[str, Any]) -> str:
    """Section of the report: plots over time, and a table of what was published."""
    first, second = figures["profit_per_hour_first_half"], figures["profit_per_hour_second_half"]
    intro = (
        f"Profit per hour {first:.1f} in the first half and {second:.1f} in the second (the same disturbances do not "
        f"come in both). Sets shrank to {100 * figures['set_share_smallest']:.0f} % of the design's at the least; at "
        f"the end {100 * figures['set_share_last']:.0f} %. {figures['roll_backs']} roll-backs."
    )
    rows = "".join(_row(u) for u in _by_version(run)[:MOST_ROWS])
    return (
        f'<section class="events"><h2>Learning</h2><p>{escape(intro)}</p>{_panels(run).html("plot-learning")}'
        '<div class="scroll"><table><tr><th>step</th><th>what</th><th>version</th><th>for</th><th>why</th></tr>'
        f"{rows}</table></div></section>"
    )


def _by_version(run: RunData) -> list[tuple[Published, list[str]]]:
    """Updates with everybody they are for, policies first."""
    together: dict[tuple[str, int], tuple[Published, list[str]]] = {}
    for u in sorted(run.updates, key=lambda u: (u.subject != "policy", u.version)):
        if u.subject != "model":  # one comes with every set
            together.setdefault((u.subject, u.version), (u, []))[1].append(u.agent)
    return list(together.values())


def _row(published: tuple[Published, list[str]]) -> str:
    update, agents = published
    certificate = update.certificate
    if update.subject == "policy":
        words = {"canary": "on trial", "everybody": "passed its trial", "planned": "plan of the day"}
        why = words.get(certificate["stage"], "rolled back")
        if "reason" in certificate:
            why = f"version {certificate['of']} rolled back: {certificate['reason']}"
    else:
        promise = "no promise" if certificate["epsilon"] is None else f"epsilon {certificate['epsilon']:g}"
        share = 100 * certificate["share_of_design"]
        why = f"{share:.0f} % of the design's, {certificate['samples']} samples, {promise}"
    cells = (certificate["made_at"], update.subject, update.version, ", ".join(agents), why)
    return "<tr>" + "".join(f"<td>{escape(str(cell))}</td>" for cell in cells) + "</tr>"


def _panels(run: RunData) -> Panels:
    titles = ["profit per hour, running mean", "sets in force over the design's", "version of the policy in force"]
    panels = Panels(titles, [1.2, 1.0, 0.8], "plant time [h]")
    hours = run.period / 3600.0
    steps, earned = profit(run)
    if len(steps) >= SMOOTH:
        mean = np.convolve(earned, np.ones(SMOOTH) / SMOOTH, mode="valid")
        panels.line(1, steps[SMOOTH - 1 :] * hours, mean, line={"color": COLOURS[0], "width": 1.6}, name="profit")
    for colour, (name, series) in zip(COLOURS * len(run.agents), set_shares(run).items(), strict=False):
        panels.line(2, np.arange(len(series)) * hours, series, line={"color": colour, "width": 1.4}, name=name)
    for colour, (name, agent) in zip(COLOURS * len(run.agents), run.agents.items(), strict=False):
        at = sorted(agent.versions)
        style = {"color": colour, "width": 1.4, "shape": "hv"}
        panels.line(3, np.array(at) * hours, [agent.versions[k][2] for k in at], line=style, name=name)
    for update, _ in _by_version(run):
        if update.subject == "policy" and update.certificate["stage"] == "roll-back":
            at_step = float(update.certificate["made_at"]) * hours
            panels.span(at_step, at_step + hours, "#c23b3b", 0.35)
    return panels
