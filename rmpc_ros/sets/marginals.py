"""U^M: a box from order statistics (Bertsimas, Gupta, Kallus, eq. 31). No assumption on the distribution."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from scipy import stats

from rmpc_ros.errors import DataError
from rmpc_ros.sets.box import Box
from rmpc_ros.sets.certificate import FittedSet
from rmpc_ros.sets.fit import FitOptions, Matrix, fitter


class MarginalSet(Box):
    """U = { u : u_i^(N-s+1) <= u_i <= u_i^(s) }, bounds on every component's epsilon/d quantiles."""

    family: ClassVar[str] = "m"


def quantile_index(samples: int, dim: int, epsilon: float, alpha: float) -> int:
    """S = min { k : P(Bin(N, 1 - epsilon/d) >= k) <= alpha/(2d) }; N + 1 when no k is enough (eq. 31).

    The index of a widely used code is one too small: its tail is then above the allowed level.
    """
    k = np.arange(1, samples + 2)
    tail = stats.binom.sf(k - 1, samples, 1 - epsilon / dim)
    return int(k[np.argmax(tail <= alpha / (2 * dim))])


def samples_needed(dim: int, epsilon: float, alpha: float) -> int:
    """Smallest N with s <= N: (1 - epsilon/d)^N <= alpha/(2d)."""
    return int(np.ceil(np.log(alpha / (2 * dim)) / np.log1p(-epsilon / dim)))


@fitter("m", "box")
def fit_marginals(data: Matrix, options: FitOptions) -> FittedSet:
    """Fit U^M; the known support's ends stand in where order statistics do not reach (s > N).

    Raises
    ------
    DataError
        Too few samples and no known support.
    """
    n, d = data.shape
    s = quantile_index(n, d, options.epsilon, options.alpha)
    box = options.box(data)
    if s > n:
        if box is None:
            need = samples_needed(d, options.epsilon, options.alpha)
            raise DataError(
                f"family m: {n} samples cannot bound quantiles of {d} components at epsilon {options.epsilon:g} with "
                f"confidence {options.confidence:g}; {need} samples are needed, or give the known support with box="
            )
        lower, upper = box
    else:
        ordered = np.sort(data, axis=0)
        lower, upper = ordered[max(n - s, 0)], ordered[s - 1]
        if np.any(lower > upper):
            lower, upper = np.minimum(lower, upper), np.maximum(lower, upper)
    statement = (
        f"With confidence {options.confidence:g}, any linear constraint that holds on the whole set is violated with "
        f"probability at most {options.epsilon:g}; assumes only independent samples from one distribution."
    )
    certificate = options.certificate(
        "m", data, "order statistics (binomial tail)", {"s": s, "lower": lower, "upper": upper}, statement
    )
    return FittedSet(MarginalSet(lower, upper), certificate)
