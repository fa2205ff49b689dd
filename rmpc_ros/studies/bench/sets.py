"""How long fits, supports, online updates and counterpart re-solves take.

The counterpart problem is the robust linear program of a 50-product plan, max p'x with 50 rows A x <= b whose
coefficients move as (A_j + s_j * u)'x <= b_j for all u in U (s_j a row of sizes), U new each time (an ellipsoid and a
budget set from fresh data, d = 50):

    resolve   RobustProgram.update with the new set, then solve
    bare      the solver alone: a solver object that already holds the same arrays, solve
    cvxpy     the model built from scratch and solved by the same solver
    rsome     the same, by rsome with a solver it supports (skipped with a word if rsome is not installed)
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import cvxpy as cp
import numpy as np
from numpy.typing import NDArray

from rmpc_ros.errors import DataError, SolverError
from rmpc_ros.sets import load_families
from rmpc_ros.sets.budget import Budget
from rmpc_ros.sets.counterpart import RobustProgram, RobustRow
from rmpc_ros.sets.ellipsoid import Ellipsoid
from rmpc_ros.sets.fit import DISCRETE, FITTERS, fit_set
from rmpc_ros.solvers.conic import ConicProgram
from rmpc_ros.studies.registry import Settings, Study

Matrix = NDArray[np.float64]


def timed(function: Callable[[], Any], repeats: int = 1) -> tuple[float, Any]:
    """Median CPU time in milliseconds of `repeats` calls, and the last result."""
    spent = []
    result = None
    for _ in range(repeats):
        start = time.process_time()
        result = function()
        spent.append(1e3 * (time.process_time() - start))
    return float(np.median(spent)), result


def family_times(settings: Settings) -> list[dict[str, Any]]:
    """Fit once, then supports of 32 directions, for every family, N and d."""
    rows = []
    rng = np.random.default_rng(settings["seed"])
    for d in settings["dimensions"]:
        mix = np.eye(d) + 0.2 * rng.standard_normal((d, d)) / np.sqrt(d)
        directions = rng.standard_normal((32, d))
        for n in settings["samples"]:
            plain = np.clip(rng.standard_normal((n, d)), -4, 4)
            for family in settings["families"] or sorted(FITTERS):
                data = plain if family in ("i", "fb") else plain @ mix
                parameters: dict[str, Any] = {}
                if family in DISCRETE:
                    data = np.zeros((n, d))  # 8 atoms, as a finite support needs
                    data[np.arange(n), rng.integers(min(d, 8), size=n)] = rng.integers(1, 8 // min(d, 8) + 1, size=n)
                if family == "i":
                    parameters["box"] = [-4.0, 4.0] * d
                row: dict[str, Any] = {"family": family, "N": n, "d": d, "fit_ms": None, "support_ms": None, "note": ""}
                try:
                    row["fit_ms"], fitted = timed(
                        lambda f=family, x=data, p=parameters: fit_set(x, f, settings["epsilon"], 0.9, parameters=p)
                    )
                except DataError as error:  # a refusal is a result: too few samples for this d
                    row["note"] = str(error)
                else:
                    # one direction first, so that building the solver's model is seen apart
                    row["first_support_ms"], _ = timed(lambda s=fitted.set, a=directions: s.support(a[0]))
                    count = len(directions)
                    if row["first_support_ms"] > 500:
                        count = 4
                    total, _ = timed(lambda s=fitted.set, a=directions[:count]: s.support(a))
                    row["support_ms"] = total / count
                rows.append(row)
    return rows


def counterpart_times(settings: Settings) -> dict[str, Any]:
    """Re-solve after the set's data change, four ways, in one run."""
    n = settings["products"]
    rng = np.random.default_rng(settings["seed"])
    profit, A, b = rng.uniform(1, 2, n), rng.uniform(0, 1, (n, n)), np.full(n, float(n))
    sizes = rng.uniform(0.5, 1.5, (n, n))
    out: dict[str, Any] = {}
    for kind in ("ellipsoid", "budget"):
        sets = [_random_set(kind, n, rng) for _ in range(settings["changes"])]
        rows = [RobustRow(sets[0], np.diag(sizes[j]), np.zeros(n), A[j], float(b[j])) for j in range(n)]
        program = RobustProgram(-profit, rows, None, np.zeros(n))
        program.solve()
        spent: dict[str, list[float]] = {k: [] for k in ("resolve", "bare", "cvxpy", "rsome")}
        values: dict[str, list[float]] = {k: [] for k in spent}
        for uncertain in sets[1:]:

            def resolve(u: Any = uncertain, p: RobustProgram = program) -> float:
                p.update([u] * n)
                return float(profit @ p.solve())

            _record(spent, values, "resolve", resolve)
            solver = ConicProgram(None, *program.arrays())
            _record(spent, values, "bare", lambda s=solver: float(profit @ s.solve().x[:n]))
            _record(spent, values, "cvxpy", lambda u=uncertain: _by_cvxpy(profit, A, sizes, b, u))
        solver_there = find_spec("rsome") and (kind == "budget" or find_spec("ecos"))
        if solver_there:
            for uncertain in sets[1 : 1 + settings["rsome_changes"]]:
                _record(spent, values, "rsome", lambda u=uncertain: _by_rsome(profit, A, sizes, b, u))
        medians = {f"{k}_ms": float(np.median(v)) if v else None for k, v in spent.items()}
        out[kind] = {
            **medians,
            "resolve_over_bare": float(np.median(np.array(spent["resolve"]) / np.array(spent["bare"]))),
            "cvxpy_over_resolve": float(np.median(np.array(spent["cvxpy"]) / np.array(spent["resolve"]))),
            "rsome_over_resolve": medians["rsome_ms"] / medians["resolve_ms"] if spent["rsome"] else None,
            "largest_difference": float(
                max(
                    np.max(np.abs(np.array(values[k]) - np.array(values["resolve"])[: len(values[k])]))
                    for k in ("bare", "cvxpy", "rsome")
                    if values[k]
                )
            ),
            "rsome": "measured" if spent["rsome"] else "rsome (for the ellipsoid: with ecos) is not installed",
        }
    return out


def _random_set(kind: str, d: int, rng: np.random.Generator) -> Ellipsoid | Budget:
    data = 0.05 * rng.standard_normal((4 * d, d))
    center = data.mean(axis=0)
    if kind == "budget":
        return Budget(center, 2 * data.std(axis=0), np.sqrt(d))
    return Ellipsoid.from_shape(center, np.cov(data.T), 2.0)


def _record(
    spent: dict[str, list[float]], values: dict[str, list[float]], name: str, call: Callable[[], float]
) -> None:
    elapsed, value = timed(call)
    spent[name].append(elapsed)
    values[name].append(value)


def _by_cvxpy(profit: Matrix, A: Matrix, sizes: Matrix, b: Matrix, uncertain: Ellipsoid | Budget) -> float:
    x = cp.Variable(profit.size, nonneg=True)
    constraints = [
        c
        for a, size, limit in zip(A, sizes, b, strict=True)
        for c in uncertain.counterpart(cp.multiply(size, x), limit - a @ x)
    ]
    problem = cp.Problem(cp.Maximize(profit @ x), constraints)
    problem.solve(solver=cp.CLARABEL)
    if problem.status != cp.OPTIMAL:
        raise SolverError(f"cvxpy ended with '{problem.status}'", problem.status)
    return float(problem.value)


def _by_rsome(profit: Matrix, A: Matrix, sizes: Matrix, b: Matrix, uncertain: Ellipsoid | Budget) -> float:
    import rsome
    from rsome import ro

    n = profit.size
    model = ro.Model()
    x, z = model.dvar(n), model.rvar(n)
    if isinstance(uncertain, Budget):
        region: Any = (rsome.norm(z, "inf") <= 1, rsome.norm(z, 1) <= uncertain.budget)
        u = uncertain.center() + uncertain.radius * z
    else:
        region = (rsome.norm(z, 2) <= uncertain.radius,)
        u = uncertain.center() + uncertain.factor @ z
    model.max(profit @ x)
    for a, size, limit in zip(A, sizes, b, strict=True):
        model.st(((a + size * u) @ x <= limit).forall(*region))
    model.st(x >= 0)
    if isinstance(uncertain, Budget):
        model.solve(display=False)  # a linear program: its default solver
    else:
        from rsome import eco_solver

        model.solve(eco_solver, display=False)
    return float(model.get())


def online_times(settings: Settings) -> dict[str, Any]:
    """One update of an online set with a window of 500, d = 4."""
    from rmpc_ros.sets import online

    return online.bench(settings["online_updates"], settings["seed"])


def run(settings: Settings, folder: Path) -> dict[str, Any]:
    """All four measurements."""
    load_families()
    return {
        "families": family_times(settings),
        "counterpart": counterpart_times(settings),
        "online": online_times(settings),
    }


def table(result: dict[str, Any]) -> Iterable[str]:
    """Times in milliseconds of CPU."""
    yield f"{'family':12}{'N':>6}{'d':>4}{'fit':>10}{'1st support':>13}{'support':>10}"
    for row in result["families"]:
        if row["fit_ms"] is None:
            yield f"{row['family']:12}{row['N']:6}{row['d']:4}  {row['note']}"
        else:
            yield (
                f"{row['family']:12}{row['N']:6}{row['d']:4}{row['fit_ms']:10.1f}{row['first_support_ms']:13.2f}"
                f"{row['support_ms']:10.3f}"
            )
    for kind, row in result["counterpart"].items():
        rsome = row["rsome"] if row["rsome_ms"] is None else f"{row['rsome_ms']:.0f}"
        yield (
            f"{kind}: re-solve {row['resolve_ms']:.1f}, bare {row['bare_ms']:.1f} "
            f"(ratio {row['resolve_over_bare']:.3f}), cvxpy {row['cvxpy_ms']:.0f}, rsome {rsome}"
        )
    yield f"online update: {result['online']}"


STUDY = Study(
    {
        "families": [],
        "samples": [200, 1000, 5000],
        "dimensions": [2, 8],
        "epsilon": 0.1,
        "products": 50,
        "changes": 8,
        "rsome_changes": 2,
        "online_updates": 300,
        "seed": 0,
    },
    run,
    table,
)
