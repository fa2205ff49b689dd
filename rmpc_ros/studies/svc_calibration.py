"""Calibrated support-vector sets: violation and confidence over many runs (seed 003, Table 4).

Each run draws training and calibration samples, learns the set, and measures its violation on a large sample of the
true distribution. With n calibration samples and the k-th order statistic the violation is Beta(n + 1 - k, k): for the
maximum of 59 its mean is 1/60, P(violation > .05) = .95^59 = .0485 and its variance 2.7e-4 (the paper prints ten times
that). The second method uses more calibration samples and the order statistic that keeps the same promise.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from numpy.typing import NDArray
from scipy import stats

from rmpc_ros.errors import ConfigError
from rmpc_ros.sets.calibrate import calibrate, calibration_samples_needed, order_index
from rmpc_ros.sets.svc import SupportVectorSet, learn_shape
from rmpc_ros.studies.registry import Settings, Study

Matrix = NDArray[np.float64]
_MIX = np.array([[1.0, 0.0], [0.6, 0.8]])


def _normal(count: int, rng: np.random.Generator) -> Matrix:
    return np.asarray(rng.standard_normal((count, 2)) @ _MIX.T)


def _skewed(count: int, rng: np.random.Generator) -> Matrix:
    return np.asarray(rng.standard_exponential((count, 2)) @ _MIX.T)


def _autoregressive(count: int, rng: np.random.Generator, horizon: int = 5, memory: float = 0.7) -> Matrix:
    """Independent stacked horizons of a stationary first-order autoregressive noise: dependent inside, unbounded."""
    out = np.empty((count, horizon))
    out[:, 0] = rng.standard_normal(count) / np.sqrt(1 - memory**2)
    for t in range(1, horizon):
        out[:, t] = memory * out[:, t - 1] + rng.standard_normal(count)
    return out


DRAW: dict[str, Callable[[int, np.random.Generator], Matrix]] = {
    "normal": _normal,
    "skewed": _skewed,
    "autoregressive": _autoregressive,
}


def summary(violations: list[float], sizes: list[float], n: int, k: int, epsilon: float) -> dict[str, Any]:
    """Simulated and exact figures of one method."""
    v = np.array(violations)
    theory = stats.beta(n + 1 - k, k)
    return {
        "n_calibration": n,
        "order_statistic": k,
        "mean_violation": float(v.mean()),
        "mean_violation_theory": float(theory.mean()),
        "variance": float(v.var(ddof=1)),
        "variance_theory": float(theory.var()),
        "confidence": float(np.mean(v > epsilon)),
        "confidence_theory": float(theory.sf(epsilon)),
        "mean_size": float(np.mean(sizes)),
    }


def run(settings: Settings, folder: Path) -> dict[str, Any]:
    """Both methods on the same training samples in every run."""
    epsilon, beta, runs = settings["epsilon"], settings["beta"], settings["runs"]
    if settings["distribution"] not in DRAW:
        raise ConfigError(f"--set distribution={settings['distribution']}: give one of {', '.join(DRAW)}")
    draw = DRAW[settings["distribution"]]
    rng = np.random.default_rng(settings["seed"])
    few = calibration_samples_needed(epsilon, 1 - beta)
    many = settings["n_calibration_large"]
    k_many = order_index(many, epsilon, 1 - beta)
    violations: dict[str, list[float]] = {"few": [], "many": []}
    sizes: dict[str, list[float]] = {"few": [], "many": []}
    last: tuple[Matrix, SupportVectorSet, SupportVectorSet] | None = None
    for _ in range(runs):
        train, fresh, test = draw(settings["n_train"], rng), draw(few, rng), draw(settings["n_test"], rng)
        extra = draw(many - few, rng)
        shape, _found = learn_shape(train, settings["nu"])
        small = shape.with_level(calibrate(shape.level(fresh), epsilon, 1 - beta).level)
        scores = shape.level(np.vstack([fresh, extra]))
        large = shape.with_level(calibrate(scores, epsilon, 1 - beta).level)
        truth = shape.level(test)
        for name, fitted in (("few", small), ("many", large)):
            violations[name].append(float(np.mean(truth > fitted.theta)))
            sizes[name].append(fitted.size(16))
        last = (train, small, large)
    few_rows = summary(violations["few"], sizes["few"], few, few, epsilon)
    many_rows = summary(violations["many"], sizes["many"], many, k_many, epsilon)
    if last is not None:
        _draw(folder, last, violations, few, many, k_many, epsilon)
    return {
        "runs": runs,
        "epsilon": epsilon,
        "beta": beta,
        "distribution": settings["distribution"],
        **few_rows,
        "more_samples": many_rows,
        "size_ratio": many_rows["mean_size"] / few_rows["mean_size"],
        "published": {"mean_violation": 0.0168, "confidence": 0.0486},
        "figure": folder / "svc_calibration.png",
    }


def _draw(
    folder: Path,
    last: tuple[Matrix, SupportVectorSet, SupportVectorSet],
    violations: dict[str, list[float]],
    few: int,
    many: int,
    k_many: int,
    epsilon: float,
) -> None:
    train, small, large = last
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.5))
    left.plot(train[:, 0], train[:, 1], ".", color="0.6", ms=3, label="training samples")
    for fitted, text in ((small, f"maximum of {few}"), (large, f"statistic {k_many} of {many}")):
        outline = fitted.projection()
        left.plot(*np.vstack([outline, outline[:1]]).T, label=text)
    left.set(title="support-vector sets of the last run", xlabel="u1", ylabel="u2")
    left.legend(fontsize=8)
    bins = np.linspace(0, max(0.1, 2 * epsilon), 41)
    for name, n, k in (("few", few, few), ("many", many, k_many)):
        bars = right.hist(violations[name], bins, density=True, alpha=0.45, label=f"{k} of {n}, simulated")
        right.plot(bins, stats.beta(n + 1 - k, k).pdf(bins), color=bars[2][0].get_facecolor()[:3])
    right.axvline(epsilon, color="k", ls=":")
    right.set(title="violation of the calibrated set", xlabel="P(u outside)", ylabel="density")
    right.legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(folder / "svc_calibration.png", dpi=120)
    plt.close(figure)


def table(result: dict[str, Any]) -> Iterable[str]:
    """Both methods."""
    yield f"{result['runs']} runs, epsilon {result['epsilon']:g}, beta {result['beta']:g}, {result['distribution']}"
    yield f"{'calibration':>20}{'mean violation':>16}{'theory':>9}{'P(V > eps)':>12}{'theory':>9}{'size':>8}"
    for row in (result, result["more_samples"]):
        yield (
            f"{row['order_statistic']:>12} of {row['n_calibration']:<5}{row['mean_violation']:15.4f}"
            f"{row['mean_violation_theory']:10.4f}{row['confidence']:11.4f}{row['confidence_theory']:10.4f}"
            f"{row['mean_size']:9.3f}"
        )
    yield f"size with more samples: {100 * (1 - result['size_ratio']):.1f} % smaller"


STUDY = Study(
    defaults={
        "runs": 1000,
        "n_train": 300,
        "n_test": 20000,
        "n_calibration_large": 1000,
        "nu": 0.05,
        "epsilon": 0.05,
        "beta": 0.05,
        "distribution": "normal",
        "seed": 3,
    },
    run=run,
    table=table,
)
