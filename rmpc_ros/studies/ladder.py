"""The ladder from PID to learning: one plant, the same disturbances, five controllers; and every change between them.

Every seed is run on every rung, so rungs are compared in pairs: the mean difference of cost and violations from each
rung to the next, with its 95 % interval (Student's t over seeds). A second part changes the controllers of a running
plant in random order and measures what each change did to the input.
"""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np

from rmpc_ros.learning.intervals import confidence_interval
from rmpc_ros.learning.policy import Policy, load_policy
from rmpc_ros.mpc.local import Vector
from rmpc_ros.network.decision import CONTROLLERS
from rmpc_ros.network.ladder import Transfer
from rmpc_ros.studies._ladder_case import POLICY, Case, Outcome, shipped_case, simulate, tight_case, train
from rmpc_ros.studies.registry import Settings, Study

matplotlib.use("Agg")

BUMPLESS = 1.0  # percent of an input's range


def run_study(settings: Settings, folder: Path) -> dict[str, Any]:
    """All rungs on all seeds, then the transfers on the scenario's plant and on the shipped one."""
    case = tight_case()
    if settings["train"]:
        policy = train(case, settings["iterations"], settings["population"], seed=0)
        policy.save(folder / "policy.json")
    else:
        policy = load_policy(POLICY)
    seeds = [settings["first_seed"] + n for n in range(settings["seeds"])]
    runs: dict[str, list[Outcome]] = {
        mode: [simulate(case, mode, seed, settings["steps"], policy) for seed in seeds]
        for mode in CONTROLLERS
        if mode in settings["modes"]
    }
    cost = {mode: np.array([o.cost for o in outcomes]) for mode, outcomes in runs.items()}
    violations = {mode: np.array([float(o.loop.violations) for o in outcomes]) for mode, outcomes in runs.items()}
    rungs = list(runs)
    steps = {
        f"{lower} to {upper}": {
            "cost": paired(cost[lower], cost[upper]),
            "violations": paired(violations[lower], violations[upper]),
        }
        for lower, upper in itertools.pairwise(rungs)
    }
    result: dict[str, Any] = {
        "seeds": settings["seeds"],
        "first_seed": settings["first_seed"],
        "steps": settings["steps"],
        "modes": {mode: _summary(runs[mode], cost[mode], violations[mode]) for mode in rungs},
        "differences": steps,
        "cost_falls": bool(steps) and all(step["cost"]["interval"][1] < 0 for step in steps.values()),
        "violations_fall": bool(steps) and all(_falls(step["violations"]) for step in steps.values()),
        "transfers": {
            "shipped": transfers(shipped_case(), policy, settings["transfer_steps"], settings["dwell"]),
            "scenario": transfers(case, policy, settings["transfer_steps"], settings["dwell"]),
        },
        "policy": {"kind": policy.actor.kind, "parameters": policy.parameters.tolist(), "training": policy.training},
    }
    _draw(rungs, cost, violations, result["transfers"]["shipped"]["bump"], folder / "ladder.png")
    return result | {"figure": "ladder.png"}


# -- rungs ------------------------------------------------------------------------------------------------------------
def paired(lower: Vector, upper: Vector) -> dict[str, Any]:
    """Difference upper minus lower rung, seed by seed; `percent` of the lower rung's mean."""
    mean = float(np.mean(upper - lower))
    base = float(np.mean(lower))
    return {
        "from": base,
        "to": float(np.mean(upper)),
        "difference": mean,
        "percent": 100.0 * mean / base if base else 0.0,
        "interval": confidence_interval(upper - lower),
        "better_on": int(np.sum(upper < lower)),
    }


def _falls(step: dict[str, Any]) -> bool:
    """Fewer, or none after none; whether that is significant the interval says."""
    return bool(step["difference"] < 0 or (step["from"] == 0 and step["to"] == 0))


def _summary(outcomes: list[Outcome], cost: Vector, violations: Vector) -> dict[str, Any]:
    return {
        "cost": {"mean": float(np.mean(cost)), "interval": confidence_interval(cost)},
        "violations": {
            "total": int(np.sum(violations)),
            "mean": float(np.mean(violations)),
            "interval": confidence_interval(violations),
        },
        "worst_margin": min(o.loop.worst_margin for o in outcomes),
        "promises_broken": sum(o.loop.promises_broken for o in outcomes),
        "mode_counts": {word: sum(o.loop.modes[word] for o in outcomes) for word in outcomes[0].loop.modes},
    }


# -- transfers --------------------------------------------------------------------------------------------------------
def schedule(agents: list[str], steps: int, dwell: int, seed: int) -> dict[int, dict[str, str]]:
    """A change of every agent each `dwell` steps, in random order but every pair of rungs about equally often."""
    generator = np.random.default_rng([seed, 7])
    count = np.zeros((len(CONTROLLERS), len(CONTROLLERS)))
    at = dict.fromkeys(agents, 0)
    changes: dict[int, dict[str, str]] = {}
    for k in range(dwell, steps, dwell):
        changes[k] = {}
        for agent in agents:
            row = count[at[agent]] + generator.uniform(0.0, 0.5, len(CONTROLLERS))
            row[at[agent]] = np.inf
            after = int(np.argmin(row))
            count[at[agent], after] += 1
            at[agent], changes[k][agent] = after, CONTROLLERS[after]
    return changes


def transfers(case: Case, policy: Policy | None, steps: int, dwell: int, seed: int = 3000) -> dict[str, Any]:
    """Input changes at the switch, percent of the range: by pair (rows from, columns to) and over all.

    `bump` is against the input that continues the old controller, `move` against the input of the step before.
    """
    changes = schedule(list(case.designs), steps, dwell, seed)
    outcome = simulate(case, CONTROLLERS[0], seed, steps, policy, changes)
    seen = [t for _, t in outcome.transfers]
    table = {
        name: [[_largest(seen, name, before, after) for after in CONTROLLERS] for before in CONTROLLERS]
        for name in ("bump", "move")
    }
    bumps = np.array([t.bump for t in seen])
    return {
        "rungs": list(CONTROLLERS),
        "count": len(seen),
        **table,
        "largest_bump": float(np.max(bumps, initial=0.0)),
        "bumpless_share": float(np.mean(bumps < BUMPLESS)) if len(bumps) else float("nan"),
        "bumps": [str(t) for t in seen if t.bump >= BUMPLESS],
        "violations": outcome.loop.violations,
        "promises_broken": outcome.loop.promises_broken,
    }


def _largest(seen: list[Transfer], what: str, before: str, after: str) -> float:
    found = [
        t.bump if what == "bump" else 100.0 * float(np.max(np.abs(t.move)))
        for t in seen
        if (t.before, t.after) == (before, after)
    ]
    return max(found, default=float("nan"))


# -- output -----------------------------------------------------------------------------------------------------------
def _draw(
    rungs: list[str], cost: dict[str, Vector], violations: dict[str, Vector], bump: list[list[float]], path: Path
) -> None:
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 3, figsize=(12.5, 3.6), constrained_layout=True)
    labels = [rung.replace("_", "\n") for rung in rungs]
    for n in range(len(cost[rungs[0]])):
        axes[0].plot(labels, [cost[rung][n] for rung in rungs], color="0.8", lw=0.8)
    axes[0].plot(labels, [float(np.mean(cost[rung])) for rung in rungs], "o-", color="C0")
    axes[0].set_ylabel("mean stage cost (grey: each seed)")
    totals = [int(np.sum(violations[rung])) for rung in rungs]
    axes[1].bar(labels, totals, color="C3")
    for n, total in enumerate(totals):
        axes[1].annotate(str(total), (n, total), ha="center", va="bottom")
    axes[1].set_ylabel("violations, all seeds")
    image = axes[2].imshow(np.array(bump), vmin=0.0, vmax=BUMPLESS, cmap="Blues")
    axes[2].set_xticks(range(len(CONTROLLERS)), [c.replace("_", "\n") for c in CONTROLLERS], fontsize=7)
    axes[2].set_yticks(range(len(CONTROLLERS)), CONTROLLERS, fontsize=7)
    axes[2].set_title("largest bump at a change [% of range], shipped plant", fontsize=8)
    for i, row in enumerate(bump):
        for j, value in enumerate(row):
            if i != j:
                axes[2].annotate(f"{value:.2f}", (j, i), ha="center", va="center", fontsize=7)
    figure.colorbar(image, ax=axes[2])
    figure.savefig(path, dpi=120)
    plt.close(figure)


def table(result: dict[str, Any]) -> list[str]:
    """Lines for people."""
    lines = [f"{result['seeds']} seeds x {result['steps']} steps, the same disturbances on every rung"]
    for mode, row in result["modes"].items():
        low, high = row["cost"]["interval"]
        lines.append(
            f"{mode:12} cost {row['cost']['mean']:.4f} [{low:.4f}, {high:.4f}]  violations "
            f"{row['violations']['total']:4}  worst margin {row['worst_margin']:.3f}"
        )
    for name, step in result["differences"].items():
        low, high = step["cost"]["interval"]
        fewer = step["violations"]
        lines.append(
            f"{name:24} cost {step['cost']['difference']:+.5f} [{low:+.5f}, {high:+.5f}] "
            f"({step['cost']['percent']:+.2f} %), better on {step['cost']['better_on']}; "
            f"violations {fewer['difference']:+.2f} [{fewer['interval'][0]:+.2f}, {fewer['interval'][1]:+.2f}]"
        )
    lines.append(
        f"cost falls significantly on every rung: {result['cost_falls']}; violations fall, or stay at none: "
        f"{result['violations_fall']}"
    )
    for plant, found in result["transfers"].items():
        lines.append(
            f"transfers, {plant} plant: {found['count']} changes, largest bump {found['largest_bump']:.2f} % of the "
            f"range, {100 * found['bumpless_share']:.1f} % below {BUMPLESS:g} %"
        )
        for before, row in zip(found["rungs"], found["bump"], strict=True):
            lines.append(f"  {before:12}" + "".join(f"{v:8.2f}" if np.isfinite(v) else "       -" for v in row))
    return lines


STUDY = Study(
    defaults={
        "seeds": 20,
        "first_seed": 2000,
        "steps": 200,
        "modes": list(CONTROLLERS),
        "transfer_steps": 600,
        "dwell": 12,
        "train": False,
        "iterations": 0,
        "population": 10,
    },
    run=run_study,
    table=table,
)
