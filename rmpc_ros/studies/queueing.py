"""Waiting times in a queue from data-driven sets (Bertsimas, Gupta, Kallus, section 9.2).

Customer n waits W_n = max_j sum_{i=j}^{n-1} (service_i - interarrival_i) (Lindley). Service is Pareto(1.1) truncated at
15, inter-arrival Exp with mean 3.05 truncated at 15.25. Forward and backward deviations of N samples of both give, for
n = 10 and epsilon = 1/2, upper bounds of the median waiting time. With m = mf1 - mb2 and v = sf1^2 + sb2^2:

    W1 = max_j { m (n - j) + sqrt(2 log(n/eps) v) sqrt(n - j) }                         (eps/n for each j)
    W2 :  sum_{j=1}^{n-1} exp( -(W - m (n - j))^2 / (2 (n - j) v) ) = eps               (optimised split)

Both need only m and v. `joint` bounds these two numbers at alpha/2 each (a t-test for the difference of the means, the
bootstrap for v); `component` takes the four thresholds of the fitted set U^FB, which are wider since they hold for
every direction. W1, W2 are the joint ones. By scaling, W1/W2 is 1.28 for every v when m is near 0: the published pair
(ratio 1.34) cannot be met exactly by these formulas.

Kingman's bound of the mean wait, (var service + var interarrival) / (2 E[interarrival] (1 - rho)), bounds the quantile
by Markov's inequality (divided by epsilon).
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import integrate, optimize, stats

from rmpc_ros.sets.bootstrap import resample_counts, upper_value
from rmpc_ros.sets.deviations import forward_deviation, resampled_deviations
from rmpc_ros.sets.fit import fit_set
from rmpc_ros.studies.registry import Settings, Study

Vector = NDArray[np.float64]
PUBLISHED = {"W1": 34.6, "W2": 25.8, "kingman": 55.1}
SHAPE, LONGEST, MEAN, LATEST = 1.1, 15.0, 3.05, 15.25


def service(count: int, rng: np.random.Generator) -> Vector:
    """Pareto(1.1) on [1, 15], (count,)."""
    return np.asarray((1 - rng.random(count) * (1 - LONGEST**-SHAPE)) ** (-1 / SHAPE))


def interarrival(count: int, rng: np.random.Generator) -> Vector:
    """Exponential with mean 3.05 on [0, 15.25], (count,)."""
    return np.asarray(-MEAN * np.log1p(-rng.random(count) * (1 - np.exp(-LATEST / MEAN))))


def kingman(epsilon: float) -> float:
    """Kingman's mean over epsilon, from the distributions' moments."""

    def moment(density: Any, k: int, low: float, high: float) -> float:
        return float(integrate.quad(lambda x: x**k * density(x), low, high)[0])

    def pareto(x: float) -> float:
        return float(SHAPE * x ** (-SHAPE - 1) / (1 - LONGEST**-SHAPE))

    def exponential(x: float) -> float:
        return float(np.exp(-x / MEAN) / MEAN / (1 - np.exp(-LATEST / MEAN)))

    s1, s2 = (moment(pareto, k, 1.0, LONGEST) for k in (1, 2))
    t1, t2 = (moment(exponential, k, 0.0, LATEST) for k in (1, 2))
    return (s2 - s1**2 + t2 - t1**2) / (2 * t1 * (1 - s1 / t1)) / epsilon


def bounds(m: float, v: float, customer: int, epsilon: float) -> tuple[float, float]:
    """(W1, W2) from m and v."""
    k = np.arange(1, customer)
    first = float(np.max(m * k + np.sqrt(2 * np.log(customer / epsilon) * v * k)))

    def excess(wait: float) -> float:
        return float(np.sum(np.exp(-(np.maximum(wait - m * k, 0.0) ** 2) / (2 * k * v)))) - epsilon

    return first, float(optimize.brentq(excess, 0.0, 10 * first))


def joint_thresholds(data: NDArray[np.float64], alpha: float, resamples: int, seed: int) -> tuple[float, float]:
    """Upper bounds of m = E[service] - E[interarrival] and v = sf1^2 + sb2^2 at alpha/2 each."""
    n = len(data)
    difference = float(data[:, 0].mean() - data[:, 1].mean())
    error = np.sqrt(np.sum(data.var(axis=0, ddof=1)) / n)
    m = difference + float(stats.t.ppf(1 - alpha / 2, n - 1) * error)
    rng = np.random.default_rng(seed)
    first = resampled_deviations(data[:, 0], resample_counts(n, resamples, rng))
    second = resampled_deviations(-data[:, 1], resample_counts(n, resamples, rng))
    return m, upper_value(first**2 + second**2, alpha / 2)


def simulated_median(customer: int, seed: int) -> float:
    """Median wait of the customer by Lindley's recursion, 200000 queues."""
    rng = np.random.default_rng(seed)
    wait = np.zeros(200_000)
    for _ in range(customer - 1):
        wait = np.maximum(wait + service(wait.size, rng) - interarrival(wait.size, rng), 0.0)
    return float(np.median(wait))


def run(settings: Settings, folder: Path) -> dict[str, Any]:
    """Repeat over fresh samples and average the bounds."""
    rng = np.random.default_rng(settings["seed"])
    epsilon, alpha, customer, n = (settings[k] for k in ("epsilon", "alpha", "customer", "samples"))
    joint, component, plain = [], [], []
    for repetition in range(settings["repetitions"]):
        data = np.column_stack([service(n, rng), interarrival(n, rng)])
        joint.append(bounds(*joint_thresholds(data, alpha, settings["resamples"], repetition), customer, epsilon))
        t = fit_set(data, "fb", epsilon, 1 - alpha, seed=repetition).certificate.thresholds
        component.append(bounds(t["mf"][0] - t["mb"][1], t["sf"][0] ** 2 + t["sb"][1] ** 2, customer, epsilon))
        v = forward_deviation(data[:, 0]) ** 2 + forward_deviation(-data[:, 1]) ** 2
        plain.append(bounds(float(data[:, 0].mean() - data[:, 1].mean()), v, customer, epsilon))
    rows = {
        name: {
            "W1": float(np.mean([w[0] for w in values])),
            "W2": float(np.mean([w[1] for w in values])),
            "W1_spread": float(np.std([w[0] for w in values])),
            "W2_spread": float(np.std([w[1] for w in values])),
        }
        for name, values in (("joint", joint), ("component", component), ("no_confidence", plain))
    }
    return {
        "W1": rows["joint"]["W1"],
        "W2": rows["joint"]["W2"],
        "kingman": kingman(epsilon),
        "published": PUBLISHED,
        "relative_difference": {k: rows["joint"][k] / PUBLISHED[k] - 1 for k in ("W1", "W2")},
        "thresholds": rows,
        "simulated_median": simulated_median(customer, settings["seed"]),
        **{k: settings[k] for k in ("samples", "epsilon", "alpha", "customer", "repetitions")},
    }


def table(result: dict[str, Any]) -> Iterable[str]:
    """Bounds by kind of thresholds, beside the published ones."""
    yield f"{'thresholds':16}{'W1':>8}{'W2':>8}"
    for name, row in result["thresholds"].items():
        yield f"{name:16}{row['W1']:8.2f}{row['W2']:8.2f}"
    yield f"{'published':16}{PUBLISHED['W1']:8.2f}{PUBLISHED['W2']:8.2f}"
    yield f"Kingman's bound {result['kingman']:.1f} (published {PUBLISHED['kingman']})"
    yield f"true median     {result['simulated_median']:.2f} (simulated)"


STUDY = Study(
    {
        "samples": 10000,
        "epsilon": 0.5,
        "alpha": 0.1,
        "customer": 10,
        "repetitions": 10,
        "resamples": 1000,
        "seed": 1,
    },
    run,
    table,
)
