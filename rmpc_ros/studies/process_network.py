"""Planning a chemical process network: robust, KL and Wasserstein compared, and the radius swept (seed 001, case 3).

8 processes, 7 chemicals, 5 yearly periods. Capacity expansions x_it (with binaries y_it) are decided now; operation W,
purchases P and sales S after supplies and demands are seen. The net present value is maximised:

    sum_t d^t ( sale'S_t - purchase'P_t - operation'W_t ) - sum_t d^(t-1) ( invest'x_t + fixed'y_t )
    y xL <= x <= y xU,  sum_t y_it <= 2,  sum_i (invest_i x_it + fixed_i y_it) <= budget
    W_it <= sum_{s<=t} x_is,   P_t + kappa' W_t = S_t,   P_t <= supply_t,  S_t <= demand_t

Structure (kappa) and the four (supply, demand) regimes are the published ones; a regime holds for the whole horizon, so
that four subsets in 20 dimensions remain. Costs, prices, bounds, budget and labels were NEVER published: those below
are this study's own. Raw materials are chemicals 4 and 7 (nothing makes them); sold
are chemical 1 (nothing uses it) and 2.
No published figure can therefore be matched in value; what is compared are order, convergence and time.

Settings: task = compare | sweep; p0; rho ("compare"); radii, trials ("sweep"); N, radius ("wasserstein"); seed.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np

from rmpc_ros.errors import ConfigError
from rmpc_ros.robust.kl import sample_ball
from rmpc_ros.robust.polytope_union import PolytopeUnion
from rmpc_ros.robust.schemes import solve_two_stage
from rmpc_ros.robust.two_stage import TwoStageProblem, TwoStageResult
from rmpc_ros.robust.worst_case import WorstCaseSearch
from rmpc_ros.studies.registry import Settings, Study

matplotlib.use("Agg")
from matplotlib import pyplot as plt  # after the choice of the backend

KAPPA = np.array(
    [
        [0.63, -1, 0, 0, 0, 0, 0],
        [0.58, -1, 0, 0, 0, 0, 0],
        [0, 1.25, -4, 0, -1, -1.5, 0],
        [0, 0.1, -1, 0, 0, 0, 0],
        [0, 0.8, 0, 0, -1, 0, 0],
        [0, 0, 0.24, -1, 0, 0, 0],
        [0, 0, 2.3, -1, 0, 0, 0],
        [0, 0, 0, 0, 0.93, 0.77, -1],
    ]
)
# supply of chemicals (4, 7), demand of (1, 2): (lower, upper) per regime
REGIMES = (
    ([110, 88, 25, 41], [130, 112, 35, 49]),
    ([64, 56, 30, 27], [76, 68, 40, 37]),
    ([55, 25, 17, 6], [65, 35, 23, 14]),
    ([48, 48, 23, 23], [52, 52, 27, 27]),
)
RAW = (3, 6)
SOLD = (0, 1)
# this study's own data, money per unit (stated because none were published)
SALE = (60.0, 30.0)
PURCHASE = (1.5, 2.5)
OPERATION = (1.0, 0.8, 1.2, 0.6, 0.7, 0.5, 0.9, 0.8)
INVEST = (7.0, 5.5, 8.0, 4.0, 4.5, 3.0, 3.5, 4.0)
FIXED = (60.0, 50.0, 80.0, 40.0, 45.0, 30.0, 35.0, 40.0)
EXPANSION = (5.0, 150.0)
EXPANSIONS = 2
BUDGET = 1500.0
DISCOUNT = 1 / 1.1
PERIODS = 5


def process_problem(periods: int = PERIODS) -> TwoStageProblem:
    """Minimise the negative net present value; v = (supply 4, supply 7, demand 1, demand 2) period after period."""
    n, j = KAPPA.shape
    r, s = len(RAW), len(SOLD)
    width = n + r + s  # recourse of one period: W, P, S
    first, count = n * periods, periods
    rows: list[np.ndarray] = []
    T, M, h, names, equality = [], [], [], [], []

    def add(x: np.ndarray, y: np.ndarray, v: np.ndarray, name: str, equal: bool = False) -> None:
        if equal:
            equality.append(len(rows))
        T.append(x)
        rows.append(y)
        M.append(v)
        h.append(0.0)
        names.append(name)

    for t in range(count):
        for i in range(n):
            x, y, v = np.zeros(2 * first), np.zeros(width * count), np.zeros((r + s) * count)
            x[i : n * (t + 1) : n] = -1.0
            y[t * width + i] = 1.0
            add(x, y, v, f"capacity of process {i + 1}, period {t + 1}")
        for k in range(j):
            x, y, v = np.zeros(2 * first), np.zeros(width * count), np.zeros((r + s) * count)
            y[t * width : t * width + n] = KAPPA[:, k]
            if k in RAW:
                y[t * width + n + RAW.index(k)] = 1.0
            if k in SOLD:
                y[t * width + n + r + SOLD.index(k)] = -1.0
            add(x, y, v, f"balance of chemical {k + 1}, period {t + 1}", True)
        for k in range(r + s):
            x, y, v = np.zeros(2 * first), np.zeros(width * count), np.zeros((r + s) * count)
            y[t * width + n + k] = 1.0
            v[t * (r + s) + k] = -1.0
            add(x, y, v, f"{'supply' if k < r else 'demand'} {k % 2 + 1}, period {t + 1}")
    later = DISCOUNT ** np.arange(1, count + 1)
    now = DISCOUNT ** np.arange(count)
    yearly = np.concatenate([OPERATION, PURCHASE, -np.array(SALE)])
    eye = np.eye(first)
    per_process = np.kron(np.ones(count), np.eye(n))
    spending = np.hstack([np.kron(np.eye(count), INVEST), np.kron(np.eye(count), FIXED)])
    return TwoStageProblem(
        c=np.concatenate([np.kron(now, INVEST), np.kron(now, FIXED)]),
        b=np.kron(later, yearly),
        T=np.array(T),
        W=np.array(rows),
        M=np.array(M),
        h=np.array(h),
        A=np.vstack(
            [
                np.hstack([eye, -EXPANSION[1] * eye]),
                np.hstack([-eye, EXPANSION[0] * eye]),
                np.hstack([np.zeros((n, first)), per_process]),
                spending,
            ]
        ),
        a=np.concatenate([np.zeros(2 * first), np.full(n, float(EXPANSIONS)), np.full(count, BUDGET)]),
        lower=0.0,
        upper=np.concatenate([np.full(first, EXPANSION[1]), np.ones(first)]),
        integer=range(first, 2 * first),
        recourse_lower=0.0,
        equality=equality,
        row_names=names,
    )


def regime_union(periods: int = PERIODS) -> PolytopeUnion:
    """Four boxes in 4 x periods dimensions: the regime holds for the whole horizon."""
    return PolytopeUnion.boxes([(np.tile(low, periods), np.tile(high, periods)) for low, high in REGIMES])


def subset_values(problem: TwoStageProblem, union: PolytopeUnion, x: np.ndarray) -> np.ndarray:
    """Worst net present value of decision x in each regime."""
    search = WorstCaseSearch(problem, union)
    costs = [search.worst(x, [k]).cost for k in range(len(union.polytopes))]
    return -(float(problem.c @ x) + np.array(costs))


def _entry(found: TwoStageResult, seconds: float, values: np.ndarray, p0: np.ndarray) -> dict[str, Any]:
    n = found.x.size // 2
    return {
        "npv": -found.objective,
        "nominal_npv": float(p0 @ values),
        "subset_worst": values,
        "gap": found.gap,
        "iterations": found.iterations,
        "subproblems": found.subproblems,
        "seconds": seconds,
        "expansions": round(float(np.sum(found.x[n:]))),
        "capacity_added": float(np.sum(found.x[:n])),
    }


def compare(settings: Settings, problem: TwoStageProblem, union: PolytopeUnion, p0: np.ndarray) -> dict[str, Any]:
    """Robust, nominal, KL in both forms, Wasserstein: value and time."""
    rng = np.random.default_rng(settings["seed"])
    samples = union.sample(settings["N"], rng, p0)
    runs: dict[str, dict[str, Any]] = {
        "robust": {"scheme": "robust"},
        "nominal": {"scheme": "kl", "p0": p0, "rho": 0.0},
        "kl_plain": {"scheme": "kl", "p0": p0, "rho": settings["rho"], "form": "plain", "inner": settings["inner"]},
        "kl": {"scheme": "kl", "p0": p0, "rho": settings["rho"], "form": "fixed", "inner": settings["inner"]},
        "wasserstein": {"scheme": "wasserstein", "samples": samples, "radius": settings["radius"]},
    }
    out: dict[str, Any] = {}
    for name, options in runs.items():
        begin = time.perf_counter()
        found = solve_two_stage(problem, union, gap=settings["gap"], **options)
        seconds = time.perf_counter() - begin
        out[name] = _entry(found, seconds, subset_values(problem, union, found.x), p0)
    out["time_ratio_wasserstein_kl"] = out["wasserstein"]["seconds"] / out["kl"]["seconds"]
    out["time_ratio_plain_fixed"] = out["kl_plain"]["seconds"] / out["kl"]["seconds"]
    return out


def sweep(
    problem: TwoStageProblem,
    union: PolytopeUnion,
    p0: np.ndarray,
    radii: Sequence[float],
    trials: int,
    seed: int,
    gap: float,
) -> dict[str, Any]:
    """Per radius: minimum, mean, maximum of the expected value over random probability vectors of the ball."""
    robust = solve_two_stage(problem, union, gap=gap)
    of_robust = subset_values(problem, union, robust.x)
    out: dict[str, Any] = {"robust_npv": -robust.objective, "trials": trials, "radii": []}
    for n, rho in enumerate(radii):
        found = solve_two_stage(problem, union, "kl", p0=p0, rho=rho, gap=gap)
        values = subset_values(problem, union, found.x)
        members = sample_ball(p0, rho, trials, np.random.default_rng([seed, n]))
        entry: dict[str, Any] = {"rho": rho, "worst_expected_npv": -found.objective, "subset_worst": values}
        for name, v in (("kl", values), ("robust", of_robust)):
            expected = members @ v
            entry[name] = {
                "minimum": float(expected.min()),
                "mean": float(expected.mean()),
                "maximum": float(expected.max()),
            }
        out["radii"].append(entry)
    return out


def draw(result: dict[str, Any], path: Path) -> None:
    """The envelope of the expected value over the ball against its radius (the paper's figure 3)."""
    figure, axes = plt.subplots(figsize=(6, 4))
    rho = [max(entry["rho"], 1e-3) for entry in result["radii"]]
    for name, colour in (("kl", "tab:blue"), ("robust", "tab:orange")):
        mean, low, high = (np.array([e[name][k] for e in result["radii"]]) for k in ("mean", "minimum", "maximum"))
        axes.errorbar(
            rho, mean, np.maximum([mean - low, high - mean], 0.0), capsize=3, color=colour, label=f"decision: {name}"
        )
    axes.axhline(result["robust_npv"], linestyle=":", color="black", label="robust optimum")
    axes.set(xscale="log", xlabel="radius rho of the KL ball", ylabel="expected worst net present value")
    axes.legend()
    figure.tight_layout()
    figure.savefig(path)
    plt.close(figure)


def run(settings: Settings, folder: Path) -> dict[str, Any]:
    """Run the comparison, the sweep, or both ("all")."""
    if settings["task"] not in ("compare", "sweep", "all"):
        raise ConfigError(f"process-network: task = {settings['task']!r}, allowed are compare, sweep, all")
    problem, union = process_problem(settings["periods"]), regime_union(settings["periods"])
    p0 = np.asarray(settings["p0"], float)
    result: dict[str, Any] = {"p0": p0, "rho": settings["rho"]}
    if settings["task"] != "sweep":
        result |= compare(settings, problem, union, p0)
    if settings["task"] != "compare":
        result["sweep"] = sweep(
            problem, union, p0, settings["radii"], settings["trials"], settings["seed"], settings["gap"]
        )
        draw(result["sweep"], folder / "rho_sweep.png")
        result["figure"] = str(folder / "rho_sweep.png")
    return result


def table(result: dict[str, Any]) -> Iterable[str]:
    """Lines for people."""
    for name in ("robust", "nominal", "kl_plain", "kl", "wasserstein"):
        if name in result:
            e = result[name]
            yield (
                f"{name:12} NPV {e['npv']:9.2f}  under p0 {e['nominal_npv']:9.2f}  iterations {e['iterations']:3}  "
                f"subproblems {e['subproblems']:5}  {e['seconds']:7.2f} s"
            )
    if "time_ratio_wasserstein_kl" in result:
        yield f"Wasserstein / KL time {result['time_ratio_wasserstein_kl']:.1f}"
    if "sweep" in result:
        yield f"robust optimum {result['sweep']['robust_npv']:.2f}; {result['sweep']['trials']} vectors per ball"
        for e in result["sweep"]["radii"]:
            k = e["kl"]
            yield f"rho {e['rho']:6.3f}: min {k['minimum']:9.2f}  mean {k['mean']:9.2f}  max {k['maximum']:9.2f}"


STUDY = Study(
    {
        "task": "all",
        "p0": [0.4, 0.3, 0.2, 0.1],
        "rho": 0.1,
        "radii": [0.0, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0],
        "trials": 5000,
        "inner": "cuts",
        "N": 20,
        "radius": 10.0,
        "gap": 1e-4,
        "periods": PERIODS,
        "seed": 0,
    },
    run,
    table,
)
