"""Sets from a stream: recalibrated exactly, grown at once when a test rejects, shrunk when the evidence allows.

    U_t = { u : norm2(L^-1 (u - c)) <= r_t }

Samples of the window alternate between two purposes: even ones give the shape (c, L), by weighted moments, odd ones
give the radius by order statistics (`calibrate`). After a rejection only the recent block is kept and the radius is
multiplied at once; the certificate says that there is no promise until enough new samples have come. Guarantee
"conformal" takes the radius from `AdaptiveConformal` instead: right on average whatever the data do.

The set in force always holds the last recalibrated one of the same shape, so that at every fixed time the promise has
the stated confidence; over many versions the confidences add up (union bound).
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rmpc_ros.errors import DataError
from rmpc_ros.sets.base import UncertaintySet
from rmpc_ros.sets.box import Box
from rmpc_ros.sets.calibrate import calibrate, calibration_samples_needed
from rmpc_ros.sets.certificate import Certificate, FittedSet
from rmpc_ros.sets.conformal import AdaptiveConformal
from rmpc_ros.sets.data import check_level
from rmpc_ros.sets.drift import CoverageCusum, TestResult, change_tests
from rmpc_ros.sets.ellipsoid import Ellipsoid

Vector = NDArray[np.float64]
Matrix = NDArray[np.float64]
Guarantee = Literal["certified", "conformal"]


@dataclass(frozen=True)
class OnlineOptions:
    """How an online set behaves.

    Attributes
    ----------
    epsilon, confidence : the promise (conformal: epsilon is the long-run share of misses)
    guarantee : "certified" (order statistics) or "conformal"
    lower, upper : physical bounds (d,); wanted for "conformal", used alone where the radius would be infinite
    window : samples that are kept
    forgetting : weight of the shape samples decays by this factor per sample, in (0, 1]
    every : samples between recalibrations and between test batteries
    refresh : samples between new shapes
    block : recent samples that the tests compare with the older ones, and that survive a rejection
    level : of each battery of tests and of CUSUM
    inflation : factor on the radius when a test rejects
    shrink : a smaller radius is taken only if it is smaller by this share
    gamma : step size of the conformal recursion
    """

    epsilon: float = 0.05
    confidence: float = 0.95
    guarantee: Guarantee = "certified"
    lower: tuple[float, ...] | None = None
    upper: tuple[float, ...] | None = None
    window: int = 500
    forgetting: float = 1.0
    every: int = 10
    refresh: int = 100
    block: int = 30
    level: float = 1e-4
    inflation: float = 2.0
    shrink: float = 0.02
    gamma: float = 0.03

    def __post_init__(self) -> None:
        for name in ("epsilon", "confidence", "level", "gamma"):
            check_level(name, getattr(self, name))
        if self.guarantee not in ("certified", "conformal"):
            raise DataError(f"guarantee = {self.guarantee!r}: give certified or conformal")
        if self.guarantee == "conformal" and (self.lower is None or self.upper is None):
            raise DataError("guarantee = conformal wants physical bounds lower and upper: the radius can be infinite")
        needed = 2 * calibration_samples_needed(self.epsilon, self.confidence)
        if self.guarantee == "certified" and self.window < needed:
            raise DataError(
                f"window = {self.window} cannot give epsilon {self.epsilon:g} with confidence {self.confidence:g}: "
                f"{needed} samples are needed, half for the shape and half for the radius"
            )
        if not 0 < self.forgetting <= 1 or not self.inflation > 1 or not 0 <= self.shrink < 1:
            raise DataError(
                f"forgetting = {self.forgetting}, inflation = {self.inflation}, shrink = {self.shrink}: give "
                "0 < forgetting <= 1 < inflation and 0 <= shrink < 1"
            )
        if min(self.every, self.refresh) < 1 or not 2 <= self.block < self.window:
            raise DataError(
                f"every = {self.every}, refresh = {self.refresh}, block = {self.block}: give every, refresh >= 1 and "
                f"2 <= block < window = {self.window}"
            )


class OnlineSet:
    """An uncertainty set that follows a stream of samples; its state lives here and nowhere else.

    Parameters
    ----------
    history : (n, d) first samples, n >= 2 (d + 2); "certified" has no promise before enough have come
    options : behaviour
    columns : names of the components

    Attributes
    ----------
    current : the set in force with its certificate
    conformal : the recursion, which counts the misses of the set in force under both guarantees
    rejections : (sample number, test) of every change that was found
    """

    def __init__(
        self, history: ArrayLike, options: OnlineOptions | None = None, columns: tuple[str, ...] | None = None
    ) -> None:
        self.options = options or OnlineOptions()
        rows = np.array(history, float)
        rows = rows[:, None] if rows.ndim == 1 else rows
        if rows.ndim != 2 or not np.all(np.isfinite(rows)):
            raise DataError(f"history of shape {rows.shape}: give n rows of d finite numbers")
        d = rows.shape[1]
        if len(rows) < 2 * (d + 2):
            raise DataError(f"history has {len(rows)} rows; {2 * (d + 2)} are needed to start with {d} columns")
        self.columns = columns or tuple(f"u{i + 1}" for i in range(d))
        for name in ("lower", "upper"):
            bound = getattr(self.options, name)
            if bound is not None and len(bound) != d:
                raise DataError(f"{name} has {len(bound)} entries, the samples {d}")
        self._rows = rows[-self.options.window :]
        self._count = len(rows)
        self.conformal = AdaptiveConformal(self.options.epsilon, self.options.gamma)
        self._cusum = CoverageCusum(self.options.epsilon, level=self.options.level)
        self._version = 0
        self._since_refresh = 0
        self.rejections: list[tuple[int, str]] = []
        self._scores: Vector = np.empty(0)
        self._reshape()
        self.radius = 0.0
        self._recalibrate(adopt=True)

    # -- the stream ---------------------------------------------------------------------------------------------------
    def update(self, sample: ArrayLike) -> bool:
        """Take one sample (d,); True if the set in force has changed.

        Raises
        ------
        DataError
            Wrong length or a value that is not finite; the state stays as it was.
        """
        u = np.atleast_1d(np.asarray(sample, float))
        if u.shape != (self._rows.shape[1],) or not np.all(np.isfinite(u)):
            raise DataError(f"sample {self._count + 1} = {u.tolist()}: give {self._rows.shape[1]} finite numbers")
        before = self._version
        missed = not self.covers(u)
        self.conformal.update(missed)
        self._rows = np.vstack([self._rows[-self.options.window + 1 :], u])
        self._scores = np.append(self._scores[-self.options.window + 1 :], self._score(u[None, :]))
        self._count += 1
        self._since_refresh += 1
        alarm = self._cusum.update(missed)
        due = self._count % self.options.every == 0
        found = TestResult("coverage", self._cusum.threshold, self.options.level) if alarm else None
        if found is None and self._count % self.options.every == self.options.every // 2:
            found = self._changed()  # half-way between recalibrations: no step does both
        if found is not None:
            self._react(found)
        elif due or self.options.guarantee == "conformal":
            fresh = due and self._since_refresh >= self.options.refresh
            if fresh:
                self._reshape()
            self._recalibrate(adopt=fresh)
        return self._version > before

    def covers(self, sample: ArrayLike) -> bool:
        """Whether the set in force holds the sample."""
        u = np.atleast_1d(np.asarray(sample, float))
        return bool(self._score(u[None, :])[0] <= self.radius)

    # -- shape and size -----------------------------------------------------------------------------------------------
    def _parity(self) -> NDArray[np.bool_]:
        """True for the shape samples: by sample number, so that no sample changes its purpose."""
        numbers = np.arange(self._count - len(self._rows), self._count)
        return np.asarray(numbers % 2 == 0)

    def _score(self, rows: Matrix) -> Vector:
        return np.asarray(np.linalg.norm((rows - self._center) @ self._inverse.T, axis=1))

    def _reshape(self) -> None:
        rows = self._rows[self._parity()]
        weights = self.options.forgetting ** np.arange(2 * len(rows) - 2, -1, -2.0)
        weights /= weights.sum()
        center = weights @ rows
        spread = (rows - center).T @ ((rows - center) * weights[:, None])
        spread[np.diag_indices(len(spread))] += 1e-9 * np.trace(spread) / len(spread) + 1e-24
        self._center, self._factor = center, np.linalg.cholesky(spread)
        self._inverse = np.linalg.inv(self._factor)
        self._scores = self._score(self._rows)
        self._since_refresh = 0

    def _recalibrate(self, adopt: bool) -> None:
        """Radius from the samples in the window; `adopt`: the shape is new, take it whatever its size."""
        o = self.options
        if o.guarantee == "conformal":
            radius = self.conformal.radius(self._scores)
            if adopt or radius != self.radius:
                self._publish(radius, "adaptive conformal recursion", promised=True)
            return
        scores = self._scores[~self._parity()]
        if len(scores) < calibration_samples_needed(o.epsilon, o.confidence):
            if self._version == 0 or adopt:
                largest = float(np.max(self._scores))
                self._publish(o.inflation * largest, "too few samples for order statistics", promised=False)
            elif float(self._scores[-1]) > self.radius:
                self._publish(1.1 * float(self._scores[-1]), "a sample beyond a set without promise", promised=False)
            return
        level = calibrate(scores, o.epsilon, o.confidence)
        unproven = self.current.certificate.confidence is None if self._version else True
        if adopt or unproven or level.level > self.radius or level.level < (1 - o.shrink) * self.radius:
            self._publish(
                level.level, "order statistics (binomial tail)", promised=True, k=level.index, n=level.samples
            )

    # -- change -------------------------------------------------------------------------------------------------------
    def _changed(self) -> TestResult | None:
        block = self.options.block
        if len(self._rows) < 3 * block:
            return None
        results = change_tests(self._rows[:-block], self._rows[-block:])
        worst = min(results, key=lambda r: r.p_value)
        return worst if worst.p_value * len(results) <= self.options.level else None

    def _react(self, found: TestResult) -> None:
        """Keep the recent block only and grow at once."""
        self.rejections.append((self._count, found.name))
        keep = self.options.block
        self._rows, self._scores = self._rows[-keep:], self._scores[-keep:]
        self._since_refresh = 0
        radius = max(self.options.inflation * self.radius, float(np.max(self._scores)))
        if self.options.guarantee == "conformal":
            radius = max(radius, self.conformal.radius(self._scores))
        self._publish(
            radius, f"change found by the {found.name} test (statistic {found.statistic:.4g})", promised=False
        )

    def _publish(self, radius: float, test: str, promised: bool, **thresholds: float) -> None:
        o = self.options
        self.radius = float(radius)
        self._version += 1
        shown: UncertaintySet
        if np.isfinite(radius):
            shown = Ellipsoid(self._center, self._factor, radius)
        else:
            shown = Box(np.asarray(o.lower, float), np.asarray(o.upper, float))
        conformal = o.guarantee == "conformal"
        if conformal:
            statement = (
                f"In the long run a share {o.epsilon:g} of the samples lies outside, whatever the data do; nothing is "
                "promised for a single step."
            )
        elif promised:
            statement = (
                f"With confidence {o.confidence:g} over the calibration samples, a new sample lies outside the set "
                f"with probability at most {o.epsilon:g}; assumes independent samples from one distribution since the "
                "start of the window. The confidence is that of this version; over V versions the shortfalls add up."
            )
        else:
            needed = 2 * calibration_samples_needed(o.epsilon, o.confidence)
            statement = f"No promise: the set was enlarged and waits for {needed} samples from the present conditions."
        evidence: dict[str, Any] = {"radius": self.radius if np.isfinite(radius) else None, **thresholds}
        if conformal:
            evidence |= {"level": self.conformal.level, "gamma": o.gamma}
        certificate = Certificate(
            "ellipsoid" if np.isfinite(radius) else "box",
            o.epsilon if promised or conformal else None,
            o.confidence if promised and not conformal else None,
            len(self._rows),
            test,
            evidence,
            (self._count - len(self._rows) + 1, self._count),
            statement,
            self.columns,
            self._version,
            () if np.isfinite(radius) else ("The conformal radius is infinite: the physical bounds stand in.",),
        )
        self.current = FittedSet(shown, certificate)


def bench(updates: int, seed: int, window: int = 500, dim: int = 4) -> dict[str, float]:
    """CPU time of one `update` in milliseconds (median, 99th percentile, largest), both guarantees."""
    rng = np.random.default_rng(seed)
    out: dict[str, float] = {"window": window, "dim": dim, "updates": updates}
    bound = (50.0,) * dim
    for kind in ("certified", "conformal"):
        options = OnlineOptions(guarantee=kind, window=window, lower=tuple(-b for b in bound), upper=bound)
        online = OnlineSet(rng.standard_normal((window, dim)), options)
        spent = []
        for u in rng.standard_normal((updates, dim)):
            start = time.process_time()
            online.update(u)
            spent.append(1e3 * (time.process_time() - start))
        out[f"{kind}_median_ms"] = float(np.median(spent))
        out[f"{kind}_p99_ms"] = float(np.quantile(spent, 0.99))
        out[f"{kind}_max_ms"] = float(np.max(spent))
    return out
