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
from rmpc_ros.learning.rollouts import PlantFile, Workers, spread

Array = NDArray[np.float64]

SHARES = 4  # of the windows, each begins at the steady state: fixed, so that figures do not depend on the workers


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

    def day(self, deviations: Array, activity: Array, supply: Array, terminal: Array | None = None) -> Day:
        """Mean states and inputs; limits are never broken here, since the controllers keep them."""
        del terminal  # it changes how a plant moves, not where it rests
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
    y = []
    for share in draw_shares(len(case.agents), seed, windows):
        y.append(probe(case, days, share))
        if progress is not None:
            progress(sum(len(rows) for rows in y), windows)
    return fit_surrogate(case, days.targets.authority, seed, np.concatenate(y))


def identify_with(
    plant: PlantFile,
    case: LearningCase,
    authority: Array,
    seed: int,
    windows: int,
    workers: Workers,
    progress: Callable[[int, int], None] | None = None,
) -> Surrogate:
    """`identify_surrogate` by several workers; the same surrogate. `progress` is told shares done and wanted."""
    shares = draw_shares(len(case.agents), seed, windows)
    return fit_surrogate(case, authority, seed, np.concatenate(spread(probe_file, (plant,), shares, workers, progress)))


def fluctuation_seeds(seed: int) -> range:
    """Seeds of the fluctuations that a training seed's windows have: campaigns to judge on need others (`evaluate`)."""
    return range(SHARES * seed, SHARES * (seed + 1))


def draw_shares(agents: int, seed: int, windows: int) -> list[tuple[int, Array]]:
    """Random points (W, agents + 2) in [-1, 1] in `SHARES` shares, each with the seed of its fluctuations.

    Raises
    ------
    DataError
        Too few windows for the number of coefficients.
    """
    held = windows // 5
    needed = features(np.zeros((1, agents + 2))).shape[1] + 2
    if windows - held < needed:
        raise DataError(f"windows = {windows}: at least {-(-needed * 5 // 4)} are needed for {needed - 2} coefficients")
    z = np.random.default_rng([13, seed]).uniform(-1.0, 1.0, (windows, agents + 2))
    return list(zip(fluctuation_seeds(seed), np.array_split(z, SHARES), strict=True))


def probe(case: LearningCase, days: RobustDays, share: tuple[int, Array]) -> Array:
    """What the real controllers make of the points of a share, (W, n + m + 2 a)."""
    seed, z = share
    low, high = case.supply_bounds
    days.restart(np.array([seed]))
    rows = []
    for point in z:
        activity = case.middle_activity + case.half_activity * point[-2]
        supply = (low + high) / 2 + (high - low) / 2 * point[-1]
        day = days.day(point[None, :-2] * days.targets.authority, np.array([activity]), np.array([supply]))
        rows.append(np.concatenate([day.states[0], day.inputs[0], day.centers[0], day.widths[0]]))
    return np.array(rows)


def probe_file(plant: PlantFile, share: tuple[int, Array]) -> Array:
    """`probe` with controllers of this process's own."""
    case = plant.case()
    return probe(case, RobustDays(case), share)


def fit_surrogate(case: LearningCase, authority: Array, seed: int, y: Array) -> Surrogate:
    """Least squares on all but the first fifth of the points, whose error is reported."""
    windows = len(y)
    held = windows // 5
    z = np.concatenate([part for _, part in draw_shares(len(authority), seed, windows)])
    low, high = case.supply_bounds
    theta = np.asarray(np.linalg.lstsq(features(z[held:]), y[held:], rcond=None)[0], np.float64)
    error = np.sqrt(np.mean((features(z[:held]) @ theta - y[:held]) ** 2, axis=0))
    m, a = len(authority), len(case.agents)
    return Surrogate(
        theta,
        (y.shape[1] - m - 2 * a, m, a),
        authority,
        (case.middle_activity, case.half_activity),
        ((low + high) / 2, (high - low) / 2),
        error,
    )
