"""family="auto": the family of least cross-validated loss.

Each candidate is fitted on k - 1 of k folds and judged on the rest:

    loss = mean over directions a and folds of (support(a) - mean a'u) / standard deviation of a'u      (held out)

the standardised distance a constraint has to keep: small is good. A candidate whose held-out violation (largest over
directions of the share of a'u > support(a)) exceeds epsilon by more than three standard errors is out. Candidates are
the hypothesis-test families whose assumption the data do not contradict; they share one kind of promise.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from rmpc_ros.errors import DataError
from rmpc_ros.sets import fit as registry

Matrix = NDArray[np.float64]
LOSS = "mean standardised support, held out"


def independence_p_value(data: Matrix) -> float:
    """Smallest p-value of pairwise independence tests, times their number (Bonferroni), capped at 1.

    Spearman's rank correlation of the components, and of their distances from the median: dependence in level or in
    spread is seen, other kinds are not.
    """
    d = data.shape[1]
    if d == 1:
        return 1.0
    away = np.abs(data - np.median(data, axis=0))
    values = []
    for i, j in combinations(range(d), 2):
        for table in (data, away):
            if np.ptp(table[:, i]) > 0 and np.ptp(table[:, j]) > 0:
                values.append(float(stats.spearmanr(table[:, i], table[:, j]).pvalue))
    return min(1.0, min(values) * len(values))


def candidates(data: Matrix, options: registry.FitOptions) -> tuple[list[str], list[str]]:
    """(families to try, reasons why others are left out)."""
    names, reasons = [], []
    distinct = len(np.unique(data, axis=0))
    repeated = distinct < len(data)
    few = distinct * 10 <= len(data)
    independent = independence_p_value(data) >= 0.01
    for name in registry.HYPOTHESIS_TESTS:
        if name in registry.DISCRETE and not few:
            reasons.append(f"{name}: {distinct} distinct rows, no small finite support")
        elif name not in registry.DISCRETE and repeated and not few and "duplicates" not in options.parameters:
            reasons.append(f"{name}: repeated rows")
        elif name in ("i", "fb") and not independent:
            reasons.append(f"{name}: independence of the components is rejected at 1 %")
        elif name == "i" and "box" not in options.parameters:
            reasons.append("i: no known support (box)")
        else:
            names.append(name)
    return names, reasons


def held_out(name: str, data: Matrix, options: registry.FitOptions, folds: int = 5) -> tuple[float, float]:
    """(loss, largest held-out violation) of one family."""
    n, d = data.shape
    rng = np.random.default_rng(options.seed)
    order = rng.permutation(n)
    rays = rng.standard_normal((16, d))
    directions = np.vstack([np.eye(d), -np.eye(d), rays / np.linalg.norm(rays, axis=1, keepdims=True)])
    losses, beyond = [], np.zeros(len(directions))
    parameters = {k: v for k, v in options.parameters.items() if k in registry.FITTER_PARAMETERS[name]}
    for test in np.array_split(order, folds):
        train = np.setdiff1d(order, test)
        fitted = registry.FITTERS[name](data[train], replace(options, parameters=parameters))
        values = np.asarray(fitted.set.support(directions))
        worth = data[test] @ directions.T
        losses.append(np.mean((values - worth.mean(axis=0)) / data.std(axis=0).mean()))
        beyond += np.sum(worth > values + 1e-9 * (1 + np.abs(values)), axis=0)
    return float(np.mean(losses)), float(np.max(beyond) / n)


def choose_family(data: Matrix, options: registry.FitOptions) -> tuple[str, str]:
    """The name of the chosen family and a sentence for its certificate.

    Raises
    ------
    DataError
        No family can be fitted and passes; the message gives each one's reason.
    """
    names, reasons = candidates(data, options)
    slack = 3 * np.sqrt(options.epsilon * (1 - options.epsilon) / len(data))
    losses: dict[str, float] = {}
    for name in names:
        try:
            loss, violation = held_out(name, data, options)
        except DataError as error:
            reasons.append(str(error))
            continue
        if violation > options.epsilon + slack:
            reasons.append(f"{name}: held-out violation {violation:.3f} above epsilon {options.epsilon:g}")
            continue
        losses[name] = loss
    if not losses:
        raise DataError("family auto: no family fits these data; " + "; ".join(reasons))
    best = min(losses, key=lambda name: losses[name])
    listed = ", ".join(f"{name} {loss:.4g}" for name, loss in sorted(losses.items(), key=lambda item: item[1]))
    note = f"Chosen among {len(losses)} families by 5-fold cross-validation; loss = {LOSS}: {listed}."
    if reasons:
        note += " Left out: " + "; ".join(reasons) + "."
    return best, note + " The choice used the same data: the confidence is that of the chosen family alone."
