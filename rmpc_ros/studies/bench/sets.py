"""How long fits, supports, online updates and counterpart re-solves take.

The counterpart problem is the robust linear program of a 50-product plan, max p'x with 50 rows A x <= b whose
coefficients move as (A_j + s_j * u)'x <= b_j for all u in U (s_j a row of sizes), U new each time (an ellipsoid and a
budget set from fresh data, d = 50):

    resolve   CounterpartProgram.update with the new set, then solve
    bare      the solver alone: a solver object that already holds the same arrays, solve
    cvxpy     the model built from scratch and solved by the same solver
    rsome     the same, by rsome with a solver it supports (skipped with a word if rsome is not installed)
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import cvxpy as cp
import numpy as np
from numpy.typing import NDArray

from rmpc_ros.errors import DataError, SolverError
from rmpc_ros.sets import load_families
from rmpc_ros.sets.base import UncertaintySet
from rmpc_ros.sets.budget import Budget
from rmpc_ros.sets.counterpart import CounterpartProgram, RobustRow
from rmpc_ros.sets.ellipsoid import Ellipsoid
from rmpc_ros.sets.fit import DISCRETE, FITTERS, fit_set
from rmpc_ros.solvers.conic import ConicProgram
from rmpc_ros.studies.registry import Settings, Study

Matrix = NDArray[np.float64]
Vector = NDArray[np.float64]


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
                        partial(fit_set, data, family, settings["epsilon"], 0.9, parameters=parameters)
                    )
                except DataError as error:  # a refusal is a result: too few samples for this d
                    row["note"] = str(error)
                else:
                    # one direction first, so that building the solver's model is seen apart
                    row["first_support_ms"], _ = timed(partial(fitted.set.support, directions[0]))
                    count = len(directions)
                    if row["first_support_ms"] > 500:
                        count = 4
                    total, _ = timed(partial(fitted.set.support, directions[:count]))
                    row["support_ms"] = total / count
                rows.append(row)
    return rows


def counterpart_times(settings: Settings) -> dict[str, Any]:
    """Re-solve after the set's data change, four ways, in one run."""
    return {kind: _counterpart_times(kind, settings) for kind in ("ellipsoid", "budget")}


@dataclass(frozen=True)
class _Plan:
    """max profit'x  s.t.  (A_j + sizes_j * u)'x <= b_j for all u, x >= 0."""

    profit: Vector
    A: Matrix
    sizes: Matrix
    b: Vector

    def compile(self, uncertain: UncertaintySet) -> CounterpartProgram:
        n = self.profit.size
        rows = [
            RobustRow(uncertain, np.diag(size), np.zeros(n), a, float(limit))
            for a, size, limit in zip(self.A, self.sizes, self.b, strict=True)
        ]
        return CounterpartProgram(-self.profit, rows, None, np.zeros(n))

    def resolve(self, program: CounterpartProgram, uncertain: UncertaintySet) -> float:
        program.update([uncertain] * len(self.A))
        return float(self.profit @ program.solve())

    def bare(self, solver: ConicProgram) -> float:
        return float(self.profit @ solver.solve().x[: self.profit.size])

    def by_cvxpy(self, uncertain: UncertaintySet) -> float:
        x = cp.Variable(self.profit.size, nonneg=True)
        constraints = [
            c
            for a, size, limit in zip(self.A, self.sizes, self.b, strict=True)
            for c in uncertain.counterpart(cp.multiply(size, x), limit - a @ x)
        ]
        problem = cp.Problem(cp.Maximize(self.profit @ x), constraints)
        problem.solve(solver=cp.CLARABEL)
        if problem.status != cp.OPTIMAL:
            raise SolverError(f"cvxpy ended with '{problem.status}'", problem.status)
        return float(problem.value)

    def by_rsome(self, uncertain: Ellipsoid | Budget) -> float:
        import rsome
        from rsome import ro

        n = self.profit.size
        model = ro.Model()
        x, z = model.dvar(n), model.rvar(n)
        if isinstance(uncertain, Budget):
            region: Any = (rsome.norm(z, "inf") <= 1, rsome.norm(z, 1) <= uncertain.budget)
            u = uncertain.center() + uncertain.radius * z
        else:
            region = (rsome.norm(z, 2) <= uncertain.radius,)
            u = uncertain.center() + uncertain.factor @ z
        model.max(self.profit @ x)
        for a, size, limit in zip(self.A, self.sizes, self.b, strict=True):
            model.st(((a + size * u) @ x <= limit).forall(*region))
        model.st(x >= 0)
        if isinstance(uncertain, Budget):
            model.solve(display=False)  # a linear program: its default solver
        else:
            from rsome import eco_solver

            with _quiet_output():  # ecos prints its iterations from C, past Python
                model.solve(eco_solver, display=False)
        return float(model.get())


@contextmanager
def _quiet_output() -> Iterator[None]:
    """Send what a library writes to the process's standard output to nowhere."""
    sys.stdout.flush()
    kept = os.dup(1)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 1)
        yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)
        os.close(nowhere)


def _counterpart_times(kind: str, settings: Settings) -> dict[str, Any]:
    n: int = settings["products"]
    rng = np.random.default_rng(settings["seed"])
    plan = _Plan(rng.uniform(1, 2, n), rng.uniform(0, 1, (n, n)), rng.uniform(0.5, 1.5, (n, n)), float(n) * np.ones(n))
    sets = [_random_set(kind, n, rng) for _ in range(settings["changes"] + 1)]
    program = plan.compile(sets[0])
    program.solve()
    there = bool(find_spec("rsome")) and (kind == "budget" or bool(find_spec("ecos")))
    spent: dict[str, list[float]] = {k: [] for k in ("resolve", "bare", "cvxpy", "rsome")}
    values: dict[str, list[float]] = {k: [] for k in spent}
    for count, uncertain in enumerate(sets[1:]):
        # the bare solver gets the arrays of this change beforehand: neither writing nor building them is timed
        plan.resolve(program, uncertain)
        solver = ConicProgram(None, *program.arrays())
        plan.resolve(program, sets[0])
        calls: dict[str, Callable[[], float]] = {
            "resolve": partial(plan.resolve, program, uncertain),
            "bare": partial(plan.bare, solver),
            "cvxpy": partial(plan.by_cvxpy, uncertain),
        }
        if there and count < settings["rsome_changes"]:
            calls["rsome"] = partial(plan.by_rsome, uncertain)
        for name, call in calls.items():
            elapsed, value = timed(call)
            spent[name].append(elapsed)
            values[name].append(value)
    resolve = np.array(spent["resolve"])
    rsome_ms = float(np.median(spent["rsome"])) if spent["rsome"] else None
    resolve_ms = float(np.median(resolve))
    return {
        "resolve_ms": resolve_ms,
        "bare_ms": float(np.median(spent["bare"])),
        "cvxpy_ms": float(np.median(spent["cvxpy"])),
        "rsome_ms": rsome_ms,
        "resolve_over_bare": float(np.median(resolve / np.array(spent["bare"]))),
        "cvxpy_over_resolve": float(np.median(np.array(spent["cvxpy"]) / resolve)),
        "rsome_over_resolve": None if rsome_ms is None else rsome_ms / resolve_ms,
        "largest_difference": max(
            float(np.max(np.abs(np.array(v) - np.array(values["resolve"][: len(v)])))) for v in values.values() if v
        ),
        "rsome": "measured" if there else "rsome (for the ellipsoid: with ecos) is not installed",
    }


def _random_set(kind: str, d: int, rng: np.random.Generator) -> Ellipsoid | Budget:
    data = 0.05 * rng.standard_normal((4 * d, d))
    center = data.mean(axis=0)
    if kind == "budget":
        return Budget(center, 2 * data.std(axis=0), np.sqrt(d))
    return Ellipsoid.from_shape(center, np.cov(data.T), 2.0)


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
