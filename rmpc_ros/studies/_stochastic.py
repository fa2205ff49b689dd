"""What the studies of stochastic MPC share: the three methods on equal terms, and their comparison over fresh seeds.

Every method gets the same feedback (fixed, scaled or full) and as many samples as its guarantee asks for; DRMPC gets
its training samples besides. Every run draws its own samples (and disturbances, where they are not a record), the same
for all methods: means have 95 % intervals (Student's t over runs), differences are paired.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rmpc_ros.errors import DataError
from rmpc_ros.learning.intervals import half_width
from rmpc_ros.mpc.stochastic import METHODS, StochasticMpc, StochasticProblem, samples_needed
from rmpc_ros.sets.lifting import Saturation
from rmpc_ros.studies.registry import Settings

Matrix = NDArray[np.float64]
NAMES = {"support_vectors": "drmpc", "scenarios": "ssmpc", "box": "rmpc"}
CHOICES: Settings = {  # chosen on seeds 1000 to 1007 and 2026 (docs/robust.md); reported on others
    "feedback": "fixed",
    "shape": "rows",
    "nu": 0.05,
    "saturation": 1.5,
}

STATED = ("epsilon", "beta", "n_train", "n_calibration", "seed", "feedback", "shape")  # settings that results repeat


def samples_wanted(settings: Settings, horizon: int) -> int:
    """Fresh samples that the most demanding method needs."""
    given = settings["epsilon"], settings["beta"], settings["feedback"]
    return max(int(settings["n_calibration"]), *(samples_needed(method, horizon, 1, *given) for method in METHODS))


def controllers(
    problem: StochasticProblem, training: Matrix, fresh: Matrix, scale: float, settings: Settings
) -> dict[str, StochasticMpc]:
    """The three controllers by name.

    Parameters
    ----------
    training : (n_train, N) stacked disturbances
    fresh : (>= samples_wanted, N) others
    scale : of the noise; the saturation's limit is `settings["saturation"]` times it

    Raises
    ------
    DataError
        Too few samples.
    """
    if len(fresh) < samples_wanted(settings, problem.horizon):
        raise DataError(f"{len(fresh)} samples, {samples_wanted(settings, problem.horizon)} needed")
    out = {}
    for method in METHODS:
        own = fresh[: settings["n_calibration"]] if method == "support_vectors" else fresh
        out[NAMES[method]] = StochasticMpc(
            problem,
            method,
            training,
            own,
            Saturation("tanh", settings["saturation"] * scale),
            settings["epsilon"],
            settings["beta"],
            settings["nu"],
            settings["feedback"],
            settings["shape"],
        )
    return out


def interval(values: Sequence[float]) -> dict[str, float | None]:
    """Mean and half-width of its 95 % interval (none for a single run)."""
    v = np.asarray(values, float)
    if v.size < 2:
        return {"mean": float(v.mean()), "ci95": None}
    return {"mean": float(v.mean()), "ci95": half_width(v)}


def compared(loops: Mapping[str, Sequence[Mapping[str, Any]]], cost: str) -> dict[str, Any]:
    """Method by method: mean and interval of cost and violations; then DRMPC against the others, run by run.

    Parameters
    ----------
    loops : for each method its runs with `cost`, "violations", "backup", "samples", "cpu_s"
    cost : name of the cost
    """
    out: dict[str, Any] = {}
    for name, runs in loops.items():
        spent, broken = interval([r[cost] for r in runs]), interval([r["violations"] for r in runs])
        out[name] = {
            cost: spent["mean"],
            f"{cost}_ci95": spent["ci95"],
            "violations": broken["mean"],
            "violations_ci95": broken["ci95"],
            "cpu_s": float(np.mean([r["cpu_s"] for r in runs])),
            "samples": runs[0]["samples"],
            "backup_steps": int(sum(r["backup"] for r in runs)),
        }
    ours = np.array([r[cost] for r in loops["drmpc"]])
    for name in ("ssmpc", "rmpc"):
        difference = ours - np.array([r[cost] for r in loops[name]])
        below = {"median": float(np.median(difference)), "share_cheaper": float(np.mean(difference < 0))}
        out[f"drmpc_minus_{name}"] = interval(list(difference)) | below
    out["drmpc_cheapest"] = min(loops, key=lambda k: out[k][cost]) == "drmpc"
    return out


def lines(methods: Mapping[str, Any], cost: str, beside: Mapping[str, str], digits: int) -> Iterable[str]:
    """One line per method, and the paired differences; `beside` is printed after each method's cost."""
    for name in ("ssmpc", "rmpc", "drmpc"):
        m = methods[name]
        yield (
            f"  {name:5s} {m[cost]:.{digits}f}{_half(m[f'{cost}_ci95'], digits)} {beside.get(name, '')}  violations "
            f"{100 * m['violations']:.2f}{_half(m['violations_ci95'], 2, 100)} %  samples {m['samples']}  backup steps "
            f"{m['backup_steps']}  CPU {1e3 * m['cpu_s']:.1f} ms"
        )
    parts = []
    for other in ("ssmpc", "rmpc"):
        d = methods[f"drmpc_minus_{other}"]
        parts.append(
            f"drmpc - {other} {d['mean']:.{digits}f}{_half(d['ci95'], digits)} (median {d['median']:.{digits}f}, "
            f"cheaper in {100 * d['share_cheaper']:.0f} % of runs)"
        )
    yield "  " + ", ".join(parts)


def _half(width: float | None, digits: int, factor: float = 1.0) -> str:
    return "" if width is None else f" +- {factor * width:.{digits}f}"
