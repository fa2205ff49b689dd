"""`rmpc run --learn` against the same run without it: real processes, paired by seed, profit and sizes of the sets.

Both runs of a pair live the same disturbances and sensor noise (`--seed`) through the same nodes; the first has the
learner beside it. They run one after the other, as fast as the agents answer (lockstep), so nothing is missed for want
of a core; what was missed all the same is in the result. Until something learned is adopted both must earn the same to
the last bit: `before_adoption_difference` says whether they did.

`gain_per_hour` is over the whole run, collecting and trials included; `gain_after_first_adoption_per_hour` begins where
the first agent adopts a policy, `gain_everywhere_per_hour` where one is in force in all agents for the first time.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rmpc_ros.config.shipped import shipped_plant
from rmpc_ros.errors import RmpcError
from rmpc_ros.learning.intervals import confidence_interval
from rmpc_ros.report.data import RunData, read_run
from rmpc_ros.report.learning import profit
from rmpc_ros.studies.registry import Settings, Study

Array = NDArray[np.float64]
GAINS = ("gain_per_hour", "gain_after_first_adoption_per_hour", "gain_everywhere_per_hour")


def run(settings: Settings, folder: Path) -> dict[str, Any]:
    """All pairs, one run after the other."""
    place = folder / time.strftime("learn-on-ros-%Y%m%d-%H%M%S")
    pairs = []
    for seed in settings["seeds"]:
        learned = _live(settings, seed, True, place / f"{seed}-learned")
        alone = _live(settings, seed, False, place / f"{seed}-alone")
        pairs.append(_pair(seed, learned, alone, settings["block"]))
        (place / "pairs.json").write_text(json.dumps(pairs, indent=2) + "\n", encoding="utf-8")  # a stop costs one pair
    result: dict[str, Any] = dict(settings) | {"folder": str(place), "pairs": pairs}
    for key in GAINS:
        values = [pair[key] for pair in pairs if pair[key] is not None]
        result[key] = float(np.mean(values)) if values else None
        result[f"{key}_ci95"] = confidence_interval(values) if len(values) > 1 else None
    for key in ("set_share_last", "set_share_smallest"):
        result[key] = float(np.mean([pair[key] for pair in pairs]))
    shares = [pair["set_share_last"] for pair in pairs]
    result["set_share_last_ci95"] = confidence_interval(shares) if len(pairs) > 1 else None
    for key in ("policies_adopted", "roll_backs", "sets_published", "refused_updates", "promises_broken_learned"):
        result[key] = sum(pair[key] for pair in pairs)
    for key in ("violations", "promises_broken_alone", "steps_missed", "restarts"):
        result[key] = sum(pair[key] for pair in pairs)
    result["before_adoption_difference"] = max(pair["before_adoption_difference"] for pair in pairs)
    result["gain_over_time"] = np.mean([pair["gain_over_time"] for pair in pairs], axis=0).tolist()
    result["picture"] = str(_draw(result, folder / "learn_on_ros.png"))
    return result


def _live(settings: Settings, seed: int, learn: bool, folder: Path) -> dict[str, Any]:
    """One real run; the content of its run.json."""
    words = ["run", str(shipped_plant(settings["plant"])), "--seed", str(seed), "--speed", "max", "--json"]
    words += ["--duration", str(settings["duration"]), "--out", str(folder)]
    words += ["--learn"] if learn else []
    words += ["--processes", str(settings["processes"])] if settings["processes"] else []
    load = os.getloadavg()[0]
    done = subprocess.run([sys.executable, "-m", "rmpc_ros.cli", *words], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RmpcError(f"rmpc {' '.join(words)}: exit status {done.returncode}: {done.stderr.strip()[-500:]}")
    outcome: dict[str, Any] = json.loads(done.stdout)
    return outcome | {"load_average_before": load}


def _pair(seed: int, learned: Mapping[str, Any], alone: Mapping[str, Any], block: int) -> dict[str, Any]:
    """What the learner brought on one seed."""
    recorded = read_run(Path(learned["bag"]))
    steps, earned = profit(recorded)
    others, held = profit(read_run(Path(alone["bag"])))
    if not np.array_equal(steps, others):
        raise RmpcError(f"seed {seed}: {len(steps)} and {len(others)} steps were recorded whole; they cannot be paired")
    gain = earned - held
    everybody = {k: tuple(a.versions[k] for a in recorded.agents.values()) for k in _joint(recorded)}
    first = _first(everybody, lambda versions: any(policy for _, _, policy in versions))
    whole = _first(everybody, lambda versions: all(policy for _, _, policy in versions))
    anything = _first(everybody, lambda versions: any(any(v) for v in versions))
    stages = {u.version: u.certificate["stage"] for u in recorded.updates if u.subject == "policy"}
    said = learned["learning"]
    return {
        "seed": seed,
        "steps": len(steps),
        "profit_per_hour_learned": float(earned.mean()),
        "profit_per_hour_alone": float(held.mean()),
        "gain_per_hour": float(gain.mean()),
        "gain_after_first_adoption_per_hour": _from(gain, steps, first),
        "gain_everywhere_per_hour": _from(gain, steps, whole),
        "first_adoption_step": first,
        "in_force_everywhere_step": whole,
        "before_adoption_difference": float(
            np.max(np.abs(gain[steps < (anything if anything is not None else 0)]), initial=0)
        ),
        "policies_adopted": sum(stage == "everybody" for stage in stages.values()),
        "roll_backs": said["roll_backs"],
        "sets_published": said["versions"]["uncertainty"],
        "refused_updates": sum(said["refused_updates"].values()),
        "set_share_last": said["set_share_last"],
        "set_share_smallest": said["set_share_smallest"],
        "violations": learned["violations"] + alone["violations"],
        "promises_broken_learned": learned["promises_broken"],
        "promises_broken_alone": alone["promises_broken"],
        "steps_missed": sum(a["steps_on_the_actuators_plan"] for o in (learned, alone) for a in o["agents"].values()),
        "restarts": learned["restarts"] + alone["restarts"],
        "wall_s": learned["wall_s"] + alone["wall_s"],
        "load_average_before": [learned["load_average_before"], alone["load_average_before"]],
        "gain_over_time": [float(part.mean()) for part in np.array_split(gain, max(1, round(len(gain) / block)))],
    }


def _joint(run: RunData) -> list[int]:
    """Steps of which all agents told what they used."""
    return sorted(set.intersection(*(set(agent.versions) for agent in run.agents.values())))


def _first(versions: Mapping[int, tuple[tuple[int, int, int], ...]], what: Any) -> int | None:
    return next((step for step, now in versions.items() if what(now)), None)


def _from(gain: Array, steps: NDArray[np.int64], first: int | None) -> float | None:
    """Mean gain from a step on; None where it never came."""
    return None if first is None else float(gain[steps >= first].mean())


def _draw(result: dict[str, Any], path: Path) -> Path:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.0, 3.6), layout="constrained")
    FigureCanvasAgg(figure)
    axis = figure.subplots()
    hours = result["duration"] / 3600.0
    for pair in result["pairs"]:
        axis.plot(*_points(pair["gain_over_time"], hours), color="#8a94a0", linewidth=0.8)
    axis.plot(*_points(result["gain_over_time"], hours), color="#16324f", linewidth=2.0, label="mean over seeds")
    axis.axhline(0.0, color="black", linewidth=0.6)
    axis.set_xlabel("plant time [h]")
    axis.set_ylabel("with the learner less without [per hour]")
    axis.legend(fontsize=8)
    axis.grid(alpha=0.3)
    figure.savefig(path, dpi=120)
    return path


def _points(values: list[float], hours: float) -> tuple[Array, Array]:
    return (np.arange(len(values)) + 0.5) * hours / len(values), np.array(values)


def table(result: dict[str, Any]) -> Iterable[str]:
    """Lines for people."""
    yield "seed    profit/h learned      alone    gain  after 1st  everywhere adopted  back  sets  last  broken  missed"
    for p in result["pairs"]:
        yield (
            f"{p['seed']:<7} {p['profit_per_hour_learned']:16.1f} {p['profit_per_hour_alone']:10.1f} "
            f"{p['gain_per_hour']:7.2f} {_shown(p[GAINS[1]]):>10} {_shown(p[GAINS[2]]):>11} "
            f"{p['policies_adopted']:7} {p['roll_backs']:5} {p['sets_published']:5} {p['set_share_last']:5.2f} "
            f"{p['promises_broken_learned']:3}/{p['promises_broken_alone']:<3} {p['steps_missed']:6}"
        )
    for key in GAINS:
        low, high = result[f"{key}_ci95"] or (float("nan"), float("nan"))
        yield f"{key}: {_shown(result[key])} [95 %: {low:.2f}, {high:.2f}], {len(result['pairs'])} seeds"
    yield (
        f"sets in force at the end {result['set_share_last']:.2f} of the design's (smallest "
        f"{result['set_share_smallest']:.2f}); {result['violations']} violations, {result['steps_missed']} steps "
        f"missed, {result['restarts']} restarts"
    )
    yield (
        f"largest difference of a step's profit before anything was adopted: {result['before_adoption_difference']:g}"
    )
    yield f"figure: {result['picture']}; runs: {result['folder']}"


def _shown(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


STUDY = Study(
    {
        "plant": "reactor_separator",
        "seeds": [9101, 9102, 9103, 9104, 9105, 9106],
        "duration": 36000.0,
        "processes": 0,
        "block": 100,
    },
    run,
    table,
)
