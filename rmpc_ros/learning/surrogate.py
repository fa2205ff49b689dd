"""Quasi-steady surrogate of the controlled plant: y = Theta phi(c / gamma, activity, supply), phi quadratic.

Identified from windows of the REAL robust controllers with random targets, activities and supplies (least squares), so
it contains what the controllers do, not what they should do. It knows no transients and no fluctuations within a day:
policies are trained on it and judged with the real controllers (`evaluate`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rmpc_ros.errors import DataError
from rmpc_ros.learning.case import LearningCase
from rmpc_ros.learning.day import Day, RobustDays

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Surrogate:
    """A `DayModel` for any number of campaigns at once.

    Attributes
    ----------
    theta : (features, n + m + 2 a) coefficients of states, inputs, promised centres and widths
    sizes : (n, m, a)
    authority : (m,)
    activity, supply : centre and half range of what the features are scaled with
    error : (n + m + 2 a,) root-mean-square error on windows that were not fitted, same units
    """

    theta: Array
    sizes: tuple[int, int, int]
    authority: Array
    activity: tuple[float, float]
    supply: tuple[float, float]
    error: Array

    def restart(self, seeds: NDArray[np.int64]) -> None:
        """Nothing to do: a quasi-steady model remembers nothing."""

    def day(self, deviations: Array, activity: Array, supply: Array) -> Day:
        """Mean states and inputs; limits are never broken here, since the controllers keep them."""
        scaled = [(activity - self.activity[0]) / self.activity[1], (supply - self.supply[0]) / self.supply[1]]
        lead = np.broadcast_shapes(deviations.shape[:-1], scaled[0].shape, scaled[1].shape)
        z = np.concatenate(
            [
                np.broadcast_to(deviations / self.authority, (*lead, len(self.authority))),
                *(np.broadcast_to(v, lead)[..., None] for v in scaled),
            ],
            axis=-1,
        )
        n, m, a = self.sizes
        y = features(z) @ self.theta
        return Day(y[..., :n], y[..., n : n + m], y[..., n + m : -a], y[..., -a:], np.zeros(y.shape[:-1]))

    def to_dict(self) -> dict[str, Any]:
        """As JSON types."""
        return {
            "theta": self.theta.tolist(),
            "sizes": list(self.sizes),
            "authority": self.authority.tolist(),
            "activity": list(self.activity),
            "supply": list(self.supply),
            "error": self.error.tolist(),
        }

    @staticmethod
    def from_dict(values: dict[str, Any]) -> Surrogate:
        """Inverse of `to_dict`.

        Raises
        ------
        DataError
            A key is missing, or a size is wrong.
        """
        try:
            theta, error = np.array(values["theta"], float), np.array(values["error"], float)
            n, m, a = (int(v) for v in values["sizes"])
            authority = np.array(values["authority"], float)
            activity, supply = (tuple(float(v) for v in values[key]) for key in ("activity", "supply"))
        except (KeyError, TypeError, ValueError) as wrong:
            raise DataError(f"a surrogate is not complete: {wrong!r}") from wrong
        count = features(np.zeros((1, m + 2))).shape[1]
        if theta.shape != (count, n + m + 2 * a) or len(activity) != 2 or len(supply) != 2:
            raise DataError(f"a surrogate's theta has shape {theta.shape}; ({count}, {n + m + 2 * a}) is needed")
        return Surrogate(theta, (n, m, a), authority, (activity[0], activity[1]), (supply[0], supply[1]), error)


def features(z: Array) -> Array:
    """1, z_i, z_i z_j (i <= j): (..., d) -> (..., (d+1)(d+2)/2)."""
    i, j = np.triu_indices(z.shape[-1])
    return np.concatenate([np.ones((*z.shape[:-1], 1)), z, z[..., i] * z[..., j]], axis=-1)


def identify_surrogate(
    case: LearningCase,
    days: RobustDays,
    seed: int,
    windows: int = 120,
    progress: Callable[[int, int], None] | None = None,
) -> Surrogate:
    """Fit the surrogate to windows of the real controllers.

    Parameters
    ----------
    case, days : the problem and its controllers
    seed : of targets, activities and supplies
    windows : days to simulate; a fifth of them judges the fit and is not fitted
    progress : told windows done and wanted

    Raises
    ------
    DataError
        Too few windows for the number of coefficients.
    """
    generator = np.random.default_rng([13, seed])
    authority = days.targets.authority
    low, high = case.supply_bounds
    held = windows // 5
    needed = features(np.zeros((1, len(authority) + 2))).shape[1] + 2
    if windows - held < needed:
        raise DataError(f"windows = {windows}: at least {-(-needed * 5 // 4)} are needed for {needed - 2} coefficients")
    z = generator.uniform(-1.0, 1.0, (windows, len(authority) + 2))
    days.restart(np.array([seed]))
    rows = []
    for k in range(windows):
        activity = case.middle_activity + case.half_activity * z[k, -2]
        supply = (low + high) / 2 + (high - low) / 2 * z[k, -1]
        day = days.day(z[None, k, :-2] * authority, np.array([activity]), np.array([supply]))
        rows.append(np.concatenate([day.states[0], day.inputs[0], day.centers[0], day.widths[0]]))
        if progress is not None:
            progress(k + 1, windows)
    y = np.array(rows)
    theta = np.linalg.lstsq(features(z[held:]), y[held:], rcond=None)[0]
    error = np.sqrt(np.mean((features(z[:held]) @ theta - y[:held]) ** 2, axis=0))
    sizes = (day.states.shape[1], day.inputs.shape[1], len(case.agents))
    return Surrogate(
        theta,
        sizes,
        authority,
        (case.middle_activity, case.half_activity),
        ((low + high) / 2, (high - low) / 2),
        error,
    )
