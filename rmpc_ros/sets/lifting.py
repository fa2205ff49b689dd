"""Sets for saturated disturbance feedback and for whole horizons of a series.

Saturated feedback u = h + M phi(w) with a bounded phi keeps the input bounded for unbounded noise (seed 003, eq. 12).
State and input are affine in the lifted vector (w, phi(w)), so that a set learned on lifted samples serves any linear
constraint on them (eq. 39-41). A disturbance that depends on its past is stacked over the horizon before it is learned.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rmpc_ros.errors import DataError
from rmpc_ros.sets.certificate import FittedSet
from rmpc_ros.sets.fit import fit_set

Matrix = NDArray[np.float64]


@dataclass(frozen=True)
class Saturation:
    """A bounded, odd, increasing function with slope one at the origin, componentwise.

    Attributes
    ----------
    kind : "tanh" (limit tanh(w/limit)) or "clip" (w cut at -limit and limit)
    limit : largest absolute value, > 0, in the unit of w
    """

    kind: str = "tanh"
    limit: float = 1.0

    def __post_init__(self) -> None:
        if self.kind not in ("tanh", "clip"):
            raise DataError(f"saturation kind {self.kind!r} is unknown; give tanh or clip")
        if not (np.isfinite(self.limit) and self.limit > 0):
            raise DataError(f"saturation limit = {self.limit!r}: give a finite number > 0")

    def __call__(self, w: ArrayLike) -> Matrix:
        """Phi(w), same shape as w."""
        values = np.asarray(w, float)
        if self.kind == "tanh":
            return np.asarray(self.limit * np.tanh(values / self.limit))
        return np.asarray(np.clip(values, -self.limit, self.limit))

    def lift(self, w: ArrayLike) -> Matrix:
        """Rows (w, phi(w)): (N, d) -> (N, 2 d)."""
        rows = np.atleast_2d(np.asarray(w, float))
        return np.hstack([rows, self(rows)])


def fit_lifted(
    data: ArrayLike,
    saturation: Saturation,
    family: str = "svc",
    epsilon: float = 0.05,
    confidence: float = 0.95,
    **options: Any,
) -> FittedSet:
    """Fit a set to (w, phi(w)); arguments as in `fit_set`.

    Raises
    ------
    DataError
        No sample is saturated: then phi(w) says nothing that w does not.
    """
    rows = np.asarray(data, float)
    rows = rows[:, None] if rows.ndim == 1 else rows
    if saturation.kind == "clip" and not np.any(np.abs(rows) > saturation.limit):
        raise DataError(
            f"no sample exceeds the saturation limit {saturation.limit:g} (largest {np.max(np.abs(rows)):g}): lower "
            "the limit, or fit the set to the samples themselves"
        )
    d = rows.shape[1]
    note = f"Components {d + 1} to {2 * d} are {saturation.kind} of the first {d} (limit {saturation.limit:g})."
    return fit_set(saturation.lift(rows), family, epsilon, confidence, **options).with_notes(note)


def stack_series(series: ArrayLike, horizon: int, stride: int | None = None) -> Matrix:
    """Rows of `horizon` consecutive samples: (N, d) -> (M, horizon d), time first.

    Parameters
    ----------
    series : (N,) or (N, d) samples in order of time
    horizon : samples in a row
    stride : samples between the starts of rows; default `horizon`: no sample occurs twice. Overlapping rows are not
        independent, and the certificates assume that they are; a stride above `horizon` lets a memory fade.

    Raises
    ------
    DataError
        Horizon or stride below one, or a series shorter than one row.

    Examples
    --------
    >>> stack_series([1, 2, 3, 4, 5], 2).tolist()
    [[1.0, 2.0], [3.0, 4.0]]
    """
    rows = np.asarray(series, float)
    rows = rows[:, None] if rows.ndim == 1 else rows
    step = horizon if stride is None else stride
    if horizon < 1 or step < 1:
        raise DataError(f"horizon = {horizon}, stride = {step}: give whole numbers >= 1")
    if len(rows) < horizon:
        raise DataError(f"the series has {len(rows)} samples, fewer than the horizon {horizon}")
    starts = np.arange(0, len(rows) - horizon + 1, step)
    return np.asarray(rows[starts[:, None] + np.arange(horizon)].reshape(len(starts), -1))
