"""Whether a policy that is on trial does harm: reward and margins against what they were before.

fell  iff  mean gain after < mean gain before - sigma sqrt(se_before^2 + se_after^2)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

BATCH = 10  # steps whose mean counts as one sample: neighbouring steps are alike


@dataclass(frozen=True)
class Standing:
    """How a stretch of steps went.

    Attributes
    ----------
    mean, error : of the reward per hour beyond the reference and its standard error from means of `BATCH` steps
    best : largest of those means; infinite for less than three
    margin : least distance to a limit
    steps : how many
    """

    mean: float
    error: float
    best: float
    margin: float
    steps: int

    def to_dict(self) -> dict[str, Any]:
        """JSON form; what is not known is null."""
        return {key: value if np.isfinite(value) else None for key, value in asdict(self).items()}

    @staticmethod
    def from_dict(values: Mapping[str, Any]) -> Standing:
        """Inverse of `to_dict`."""
        known = {key: np.inf if value is None else float(value) for key, value in values.items()}
        return Standing(known["mean"], known["error"], known["best"], known["margin"], int(values["steps"]))


def standing(beyond: Array, margin: Array) -> Standing:
    """Standing of a stretch of at least one step; of less than two batches the error is not known and infinite."""
    count = len(beyond) // BATCH
    means = beyond[len(beyond) - count * BATCH :].reshape(count, BATCH).mean(axis=1)
    error = float(means.std(ddof=1) / np.sqrt(count)) if count > 1 else np.inf
    best = float(means.max()) if count > 2 else np.inf
    return Standing(float(beyond.mean()), error, best, float(margin.min()), len(beyond))


def fault(before: Standing, after: Standing, sigma: float, least_margin: float) -> str:
    """Why a policy must be taken back; empty where there is no reason."""
    if after.margin < 0:
        return f"a limit was violated (margin {after.margin:.3f})"
    if after.margin < least_margin and after.margin < before.margin:
        return f"a limit came nearer than {least_margin:g} (margin {after.margin:.3f}, before {before.margin:.3f})"
    if np.isfinite(before.error) and np.isfinite(after.error):
        noise = float(np.hypot(before.error, after.error))
        if after.mean < before.mean - sigma * noise:
            return (
                f"the reward beyond the policy before fell from {before.mean:.2f} to {after.mean:.2f} per hour "
                f"(standard error of the difference {noise:.2f})"
            )
        if after.best < before.mean - sigma * before.error:
            return (
                f"the reward beyond the policy before was {before.mean:.2f} per hour, now never above {after.best:.2f}"
            )
    return ""
