"""Box, then robust: the smallest box around enough samples, then the robust problem on it.

The box is itself a scenario program with 2 q variables, so N = sample_size(2 q, eps, beta) samples leave at most eps
outside with confidence 1 - beta, and any decision that is robust on the box inherits that, integers and recourse
included. Source: Margellos, Goulart, Lygeros (2014).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from rmpc_ros.errors import DataError
from rmpc_ros.robust.polytope_union import PolytopeUnion
from rmpc_ros.robust.scenario import sample_size


def box_samples(dimension: int, epsilon: float, beta: float) -> int:
    """Samples for a box in `dimension` coordinates.

    Examples
    --------
    >>> box_samples(5, 0.05, 0.05)
    311
    """
    return sample_size(2 * dimension, epsilon, beta)


def smallest_box(samples: NDArray[np.float64]) -> PolytopeUnion:
    """The smallest box that contains all samples, (N, q).

    Raises
    ------
    DataError
    """
    rows = np.atleast_2d(np.asarray(samples, float))
    if rows.shape[0] < 2 or not np.all(np.isfinite(rows)):
        raise DataError(f"box: needs at least two finite samples, got {rows.shape[0]}")
    return PolytopeUnion.boxes([(rows.min(axis=0), rows.max(axis=0))])
