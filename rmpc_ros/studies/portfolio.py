"""Robust portfolios from data-driven sets (Bertsimas, Gupta, Kallus, section 9.1).

Ten assets with two-point returns: asset i gains sqrt((1-b)/b) per cent with probability b, else loses sqrt(b/(1-b)),
b = (1 + i/11)/2, independent, mean 0, standard deviation 1 %. Each repetition draws N returns, fits a set, and solves

    max_x min_{u in U} u'x   over weights on the simplex;

the figure is the true epsilon-quantile of the portfolio's return: out of sample, exact over the 2^10 outcomes.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import cvxpy as cp
import numpy as np
from numpy.typing import NDArray

from rmpc_ros.errors import SolverError
from rmpc_ros.sets.base import UncertaintySet
from rmpc_ros.sets.fit import fit_set
from rmpc_ros.studies.registry import Settings, Study

Vector = NDArray[np.float64]
ASSETS = 10
UP = 0.5 * (1 + np.arange(1, ASSETS + 1) / 11)
GAIN, LOSS = np.sqrt((1 - UP) / UP), -np.sqrt(UP / (1 - UP))
PUBLISHED = {"m": -1.095, "lcx": -0.411, "cs": -0.397}


def returns(count: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """`count` independent returns in per cent, (count, 10)."""
    return np.where(rng.random((count, ASSETS)) < UP, GAIN, LOSS)


def outcomes() -> tuple[NDArray[np.float64], Vector]:
    """All 2^10 returns and their probabilities."""
    bits = np.array(list(itertools.product((0, 1), repeat=ASSETS)), bool)
    return np.where(bits, GAIN, LOSS), np.prod(np.where(bits, UP, 1 - UP), axis=1)


def true_quantile(weights: Vector, epsilon: float) -> float:
    """The epsilon-quantile of the portfolio's return: the largest v with P(return < v) <= epsilon."""
    values, probability = outcomes()
    worth = values @ weights
    order = np.argsort(worth)
    return float(worth[order][np.searchsorted(np.cumsum(probability[order]), epsilon + 1e-12)])


def robust_weights(uncertain: UncertaintySet) -> Vector:
    """Weights (10,) of the best worst case: the set's counterpart in one convex program."""
    x, t = cp.Variable(uncertain.dim, nonneg=True), cp.Variable()
    problem = cp.Problem(cp.Maximize(t), [cp.sum(x) == 1, *uncertain.counterpart(-x, -t)])
    problem.solve(solver=cp.CLARABEL)
    if problem.status != cp.OPTIMAL:
        raise SolverError(f"the portfolio's program ended with '{problem.status}'", problem.status)
    return np.asarray(np.maximum(x.value, 0) / np.maximum(x.value, 0).sum())


def run(settings: Settings, folder: Path) -> dict[str, Any]:
    """Repeat, and average the out-of-sample quantiles."""
    rng = np.random.default_rng(settings["seed"])
    epsilon, alpha, n = settings["epsilon"], settings["alpha"], settings["samples"]
    figures: dict[str, list[float]] = {f: [] for f in settings["families"]}
    promised: dict[str, list[float]] = {f: [] for f in settings["families"]}
    weights: dict[str, Vector] = {f: np.zeros(ASSETS) for f in settings["families"]}
    for repetition in range(settings["repetitions"]):
        data = returns(n, rng)
        for family in settings["families"]:
            parameters: dict[str, Any] = {"duplicates": "allow"}
            if family == "m":  # 500 samples do not reach the quantiles of ten components: the support's ends stand in
                parameters["box"] = np.column_stack([LOSS, GAIN]).ravel().tolist()
            fitted = fit_set(data, family, epsilon, 1 - alpha, parameters=parameters, seed=repetition)
            x = robust_weights(fitted.set)
            figures[family].append(true_quantile(x, epsilon))
            promised[family].append(-float(fitted.set.support(-x)))
            weights[family] += x / settings["repetitions"]
    rows = []
    for family, values in figures.items():
        average = float(np.mean(values))
        rows.append(
            {
                "family": family,
                "average": average,
                "standard_error": float(np.std(values, ddof=1) / np.sqrt(len(values))) if len(values) > 1 else None,
                "published": PUBLISHED.get(family),
                "difference": None if family not in PUBLISHED else average - PUBLISHED[family],
                "promised": float(np.mean(promised[family])),
                "promise_kept": float(np.mean(np.array(values) >= np.array(promised[family]) - 1e-9)),
                "weights": weights[family].tolist(),
            }
        )
    return {"unit": "per cent", "samples": n, "epsilon": epsilon, "alpha": alpha, "families": rows}


def table(result: dict[str, Any]) -> Iterable[str]:
    """One line per family."""
    yield f"{'family':8}{'average':>10}{'+-':>8}{'published':>11}{'promised':>10}{'promise kept':>14}"
    for row in result["families"]:
        published = "" if row["published"] is None else f"{row['published']:.3f}"
        error = 0.0 if row["standard_error"] is None else row["standard_error"]
        yield (
            f"{row['family']:8}{row['average']:10.3f}{error:8.3f}{published:>11}{row['promised']:10.3f}"
            f"{row['promise_kept']:14.2f}"
        )


STUDY = Study(
    {"families": ["m", "lcx", "cs"], "repetitions": 100, "samples": 500, "epsilon": 0.1, "alpha": 0.1, "seed": 1},
    run,
    table,
)
