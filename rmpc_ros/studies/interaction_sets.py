"""Interaction 1: the same learned policy with the design's sets and with sets learned online, over time.

One policy is trained on the disturbances of another seed (cross-entropy on a replay, as the learner does it). Then the
real robust controllers live the same disturbances three times: nothing learned; the policy with the design's sets; the
policy with sets that the learner publishes as the data come in. Paired by seed: what differs is what was learned.
`share` is the half-width of the sets in force over the design's, `width` the promised half-width over the
limits, `broken` promises broken (a learned set that was too small; declared, and answered with the design's set).
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from rmpc_ros.config import load_plant
from rmpc_ros.config.shipped import shipped_plant
from rmpc_ros.learning.intervals import confidence_interval
from rmpc_ros.learning.learner import Learner
from rmpc_ros.learning.ledger import Ledger
from rmpc_ros.learning.together import Together
from rmpc_ros.learning.update import Subject, Update
from rmpc_ros.network.system import design_agents
from rmpc_ros.studies.registry import Settings, Study

RUNS: dict[str, tuple[Subject, ...]] = {
    "tuned": (),
    "policy_static_sets": ("policy",),
    "policy_online_sets": ("policy", "uncertainty"),
}


def run(settings: Settings, folder: Path) -> dict[str, Any]:
    """Live the runs and compare."""
    config = load_plant(shipped_plant(settings["plant"]))
    assert config.learning is not None
    designs = design_agents(config)
    block, steps = settings["block"], settings["steps"]
    with TemporaryDirectory() as temporary:
        place = Path(temporary)
        before = Together(config, designs, None, seed=settings["training_seed"])
        before.run(settings["training_steps"])
        trainer = Learner(config, designs, Ledger(place / "trainer.db", "r"))
        trainer.add(before.transitions)
        stretch = trainer.series.stretch()
        assert stretch is not None
        parameters = trainer.replay.improve(
            None, stretch.x[0], stretch.w, settings["training_seed"], int(stretch.steps[0])
        )
        actor = trainer.replay.actor
        content = {"agents": actor.agents, "observations": actor.observations, "actions": actor.actions}
        policy = Update("policy", config.plant.name, (), 1, "affine", content | {"parameters": parameters.tolist()}, {})
        series: dict[str, list[dict[str, Any]]] = {name: [] for name in RUNS}
        for seed in settings["seeds"]:
            for name, subjects in RUNS.items():
                wanted = tuple(s for s in subjects if s != "policy")
                ledger = Ledger(place / f"{name}{seed}.db", "r")
                learner = Learner(config, designs, ledger, subjects=wanted) if wanted else None
                together = Together(config, designs, learner, wanted, seed)
                if "policy" in subjects:
                    together.give(policy)
                lived = together.run(steps)
                account = together.account
                series[name].append(
                    {
                        "reward": np.array(account.rewards),
                        "share": np.array(account.shares),
                        "width": np.array(account.widths),
                        "violations": lived.violations,
                        "broken": lived.promises_broken,
                        "worst_margin": lived.worst_margin,
                        "sets": sum(u.subject == "uncertainty" for _, u in account.published),
                        "refused": len(account.refused),
                    }
                )
    result: dict[str, Any] = dict(settings) | {"runs": {}}
    tuned = np.array([row["reward"].mean() for row in series["tuned"]])
    for name, rows in series.items():
        gain = np.array([row["reward"].mean() for row in rows]) - tuned
        result["runs"][name] = {
            "reward_per_hour": float(np.mean([row["reward"].mean() for row in rows])),
            "gain_per_hour": float(gain.mean()),
            "gain_ci95": confidence_interval(gain),
            "share_last": float(np.mean([row["share"][-1] for row in rows])),
            "share_mean": float(np.mean([row["share"].mean() for row in rows])),
            "width_mean": float(np.mean([row["width"][block:].mean() for row in rows])),
            "violations": int(sum(row["violations"] for row in rows)),
            "broken": int(sum(row["broken"] for row in rows)),
            "worst_margin": float(min(row["worst_margin"] for row in rows)),
            "sets_published": int(sum(row["sets"] for row in rows)),
            "refused": int(sum(row["refused"] for row in rows)),
            "gain_over_time": _blocks(
                [r["reward"] - t["reward"] for r, t in zip(rows, series["tuned"], strict=True)], block
            ),
            "share_over_time": _blocks([row["share"] for row in rows], block),
            "width_over_time": _blocks([row["width"] for row in rows], block),
        }
    online, static = (
        np.array([row["reward"].mean() for row in series[name]])
        for name in ("policy_online_sets", "policy_static_sets")
    )
    result["online_over_static_per_hour"] = float((online - static).mean())
    result["online_over_static_ci95"] = confidence_interval(online - static)
    result["picture"] = str(_draw(result, config.period, folder / "interaction_sets.png"))
    return result


def _blocks(rows: list[np.ndarray], block: int) -> list[float]:
    """Means over blocks of steps, over all rows."""
    together = np.mean(rows, axis=0)
    count = len(together) // block
    return [float(v) for v in together[: count * block].reshape(count, block).mean(axis=1)]


def _draw(result: dict[str, Any], period: float, path: Path) -> Path:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.0, 7.0), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(3, 1, sharex=True)
    rows = (
        ("gain_over_time", "gain over tuned [per hour]"),
        ("share_over_time", "sets / design's"),
        ("width_over_time", "promised width / limits"),
    )
    for axis, (key, label) in zip(axes, rows, strict=True):
        for name, figures in result["runs"].items():
            hours = (np.arange(len(figures[key])) + 0.5) * result["block"] * period / 3600.0
            axis.plot(hours, figures[key], label=name.replace("_", " "))
        axis.set_ylabel(label)
        axis.grid(alpha=0.3)
    axes[0].legend(fontsize=8)
    axes[-1].set_xlabel("plant time [h]")
    figure.savefig(path, dpi=120)
    return path


def table(result: dict[str, Any]) -> Iterable[str]:
    """Lines for people."""
    yield f"{len(result['seeds'])} seeds, {result['steps']} steps each; paired with the tuned controllers"
    yield (
        f"{'run':20} {'reward/h':>10} {'gain/h [95 %]':>24} {'share':>6} {'width':>7} {'violations':>11} {'broken':>7}"
    )
    for name, row in result["runs"].items():
        low, high = row["gain_ci95"]
        gain = f"{row['gain_per_hour']:7.2f} [{low:6.2f}, {high:6.2f}]"
        yield (
            f"{name:20} {row['reward_per_hour']:10.1f} {gain:>24} {row['share_mean']:6.2f} {row['width_mean']:7.4f} "
            f"{row['violations']:11} {row['broken']:7}"
        )
    low, high = result["online_over_static_ci95"]
    yield f"online over static sets: {result['online_over_static_per_hour']:.2f} per hour [{low:.2f}, {high:.2f}]"
    yield f"figure: {result['picture']}"


STUDY = Study(
    {
        "plant": "reactor_separator",
        "seeds": [0, 1, 2, 3, 4, 5],
        "steps": 500,
        "training_seed": 100,
        "training_steps": 400,
        "block": 50,
    },
    run,
    table,
)
