"""Certified before use: when a newer model may replace the one in force.

A candidate is adopted only if, on transitions neither model was fitted to,
    (1) its errors are smaller:  median over rows of |e_new|/sigma  <  gain * that of the model in force,
    (2) its errors fit its own predicted deviations (no overconfidence),
    (3) it moves predictions by no more than a stated step (bounded rate of change),
    (4) the robust problem built on it is feasible (asked of the caller, who knows the controller).
Otherwise the model in force stays, and the verdict says why.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rmpc_ros.errors import RmpcError
from rmpc_ros.models.hybrid import HybridModel, Transitions

Vector = NDArray[np.float64]


@dataclass(frozen=True)
class Verdict:
    """Whether to adopt, why (not), and the errors on the held-out rows (new over old; 1 is equal)."""

    adopted: bool
    reason: str
    error_ratio: float
    largest_change: float


@dataclass(frozen=True)
class AdoptionRule:
    """Limits of the rule.

    Attributes
    ----------
    gain : candidate's error must be below this share of the present one's
    overconfidence : largest median of |e| / predicted deviation; 0.67 is a perfect normal prediction
    change : (n,) largest change of any one-step prediction on the held-out rows, in state units
    least : held-out transitions needed
    """

    gain: float
    overconfidence: float
    change: Vector
    least: int = 30


def consider(
    present: HybridModel,
    candidate: HybridModel,
    held_out: Transitions,
    rule: AdoptionRule,
    feasible: Callable[[HybridModel], bool] | None = None,
) -> Verdict:
    """Judge a candidate; robust to outliers in the held-out rows, since it looks at medians."""
    good = np.isfinite(np.hstack([held_out.x, held_out.u, held_out.d, held_out.after])).all(axis=1)
    rows = held_out.rows(good)
    if len(rows) < rule.least:
        return Verdict(False, f"{len(rows)} held-out transitions; {rule.least} are needed", np.nan, np.nan)
    if candidate.structure.physics.states != present.structure.physics.states:
        return Verdict(False, "the candidate predicts other states than the model in force", np.nan, np.nan)
    try:
        new, variance = candidate.predict_many(rows.x, rows.u, rows.d)
        old, _ = present.predict_many(rows.x, rows.u, rows.d)
    except RmpcError as error:
        return Verdict(False, f"the candidate cannot predict the held-out rows: {error}", np.nan, np.nan)
    if not np.all(np.isfinite(new)):
        return Verdict(False, "the candidate predicts values that are not finite", np.nan, np.nan)
    e_new, e_old = np.abs(rows.after - new), np.abs(rows.after - old)
    ratio = float(np.max(np.median(e_new, axis=0) / np.maximum(np.median(e_old, axis=0), 1e-300)))
    change = float(np.max(np.abs(new - old) / rule.change))
    surprise = float(np.max(np.median(e_new / np.sqrt(variance), axis=0)))
    if not ratio < rule.gain:
        return Verdict(
            False, f"its errors are {ratio:.2f} times the present ones; {rule.gain:g} is needed", ratio, change
        )
    if surprise > rule.overconfidence:
        return Verdict(False, f"overconfident: median error is {surprise:.1f} predicted deviations", ratio, change)
    if change > 1.0:
        return Verdict(False, f"it moves a prediction by {change:.1f} times the step allowed at once", ratio, change)
    if feasible is not None and not feasible(candidate):
        return Verdict(False, "the robust problem is infeasible with it", ratio, change)
    return Verdict(True, "explains held-out data better", ratio, change)
