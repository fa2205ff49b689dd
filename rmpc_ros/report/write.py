"""From a bag to the three files of a run."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rmpc_ros.report.data import read_run
from rmpc_ros.report.events import happenings
from rmpc_ros.report.figures import figures
from rmpc_ros.report.html import page
from rmpc_ros.report.picture import draw


def write_report(bag: Path, folder: Path, facts: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Write `run.json`, `report.html` and `plant.png` into a folder.

    Parameters
    ----------
    bag : rosbag2 folder of the run
    folder : where the files go, made if needed
    facts : what only the supervisor knows (processes, its events); stands beside the figures in `run.json`

    Returns
    -------
    dict
        The content of `run.json`.

    Raises
    ------
    DataError
        The bag cannot be read.
    """
    facts = dict(facts or {})
    run = read_run(bag)
    folder.mkdir(parents=True, exist_ok=True)
    result = {**figures(run), **facts}
    result |= {"bag": str(bag), "report": str(folder / "report.html"), "picture": str(folder / "plant.png")}
    draw(run, folder / "plant.png")
    (folder / "report.html").write_text(page(run, result, happenings(run, facts.get("events", ()))), encoding="utf-8")
    (folder / "run.json").write_text(json.dumps(_plain(result), indent=2) + "\n", encoding="utf-8")
    return result


def _plain(value: Any) -> Any:
    """Numbers that are not finite become null."""
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def lines(result: Mapping[str, Any]) -> list[str]:
    """The same for people, in a few lines."""
    out = [
        f"{'agent':14} {'steps':>6} {'violations':>11} {'promises kept':>14} "
        f"{'solve p50':>10} {'p99 [ms]':>9} {'cost':>10}"
    ]
    for name, a in result["agents"].items():
        kept = 100 * (1 - a["promises_broken"] / a["promises_checked"]) if a["promises_checked"] else math.nan
        out.append(
            f"{name:14} {a['steps']:6d} {a['violations']:11d} {kept:12.4g} % {a['solve_ms_p50']:10.2f} "
            f"{a['solve_ms_p99']:9.2f} {a['cost']:10.4g}"
        )
    out.append(
        f"{result['steps']} steps, {result['violations']} violations, {result['promises_broken']} promises broken, "
        f"{100 * result['optimal_share']:.1f} % of the steps optimal, {result['restarts']} restarts, "
        f"{result['rejected_messages']} messages refused, {result['deadlines_missed']} deadlines missed"
    )
    out.append(f"report: {result['report']}")
    return out
