"""U^I: independent components on known intervals, tested by their empirical distribution functions (eqs. 21, 22).

    U = { u : sum_i c_i(u_i) <= log(1/eps) },
    c_i(u) = max( sup_{s>=0} s u - log sup_P E[e^{s u_i}],  sup_{s<=0} s u - log sup_P E[e^{s u_i}] )

where P runs over the distributions the test accepts; for Kolmogorov-Smirnov the two suprema are attained by the
paper's qR and qL, and c_i is min over theta and q^i of D(q^i, theta qL + (1 - theta) qR) with mean u.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import optimize, sparse

from rmpc_ros.errors import DataError, SetError
from rmpc_ros.sets import edf
from rmpc_ros.sets.base import ConicForm, Matrix, UncertaintySet, Vector, finite
from rmpc_ros.sets.certificate import FittedSet
from rmpc_ros.sets.fit import FitOptions, component_level, fitter
from rmpc_ros.solvers.conic import Cone

_CLOSED = ("ks", "kuiper", "cvm")  # tests whose worst distribution is found without a conic solver


class IndependentSet(UncertaintySet):
    """U^I with support(v) = inf_{l>=0} l log(1/eps) + l sum_i log sup_P E[e^{v_i u_i/l}]  (22).

    Parameters
    ----------
    data : (N, d) samples
    lower, upper : (d,) the known support
    G : threshold of the test
    epsilon : in (0, 1)
    test : ks, kuiper, cvm, watson or ad; the last two are evaluated by conic programs
    """

    family: ClassVar[str] = "i"

    def __init__(
        self, data: ArrayLike, lower: ArrayLike, upper: ArrayLike, G: float, epsilon: float, test: str = "ks"
    ) -> None:
        self.data = np.sort(finite("data", data, 2), axis=0)
        self.lower, self.upper = finite("lower", lower, 1), finite("upper", upper, 1)
        self.G, self.epsilon, self.test = float(G), float(epsilon), test
        if test not in edf.TESTS:
            raise SetError(f"test {test!r} is unknown; give one of {', '.join(edf.TESTS)}")
        if np.any(self.data[0] < self.lower) or np.any(self.data[-1] > self.upper):
            raise SetError("a sample lies outside the known support")
        if not (np.isfinite(self.G) and self.G > 0):
            raise SetError(f"G = {G}: give a positive number")
        if not 0 < self.epsilon < 1:
            raise SetError(f"epsilon = {epsilon}: give a number between 0 and 1")
        self._limit = float(np.log(1 / self.epsilon))

    @property
    def dim(self) -> int:
        """Dimension d."""
        return int(self.data.shape[1])

    @cached_property
    def _points(self) -> Matrix:
        """Order statistics with the support's ends, (N+2, d)."""
        return np.vstack([self.lower, self.data, self.upper])

    @cached_property
    def _ks_masses(self) -> Vector:
        return edf.lowest_ks(len(self.data), min(self.G, 1.0))

    def center(self) -> Vector:
        """The sample mean (inside for every sensible threshold: its cost is zero)."""
        return np.asarray(self.data.mean(axis=0))

    # -- one component ------------------------------------------------------------------------------------------------
    def _tilt(self, points: Vector, s: float) -> tuple[float, float, float]:
        """For points in increasing order and s >= 0: log sup E[e^{s u}], the tilted mean, and the tilt's entropy."""
        exponent = s * (points - points[-1])
        weights = np.exp(exponent)
        if self.test == "cvm":
            zeta = np.concatenate([[0.0], edf.lowest_cvm(np.diff(weights)[1:], self.G), [1.0]])
            masses = np.concatenate([[0.0], np.diff(zeta)])
        else:
            masses = self._ks_masses
        total = float(masses @ weights)
        q = masses * weights / total
        log_mgf = float(np.log(total)) + s * float(points[-1])
        mean = float(q @ points)
        return log_mgf, mean, s * mean - log_mgf

    def _side(self, i: int, up: bool) -> Vector:
        return self._points[:, i] if up else -self._points[::-1, i]

    def _optimum(self, direction: Vector) -> tuple[float, Vector]:
        """Convex search over l: its derivative is log(1/eps) minus the entropy of the tilts."""
        if self.test not in _CLOSED:
            return super()._optimum(direction)
        active = np.flatnonzero(direction)
        sides = [self._side(int(i), bool(direction[i] > 0)) for i in active]
        sizes = np.abs(direction[active])
        u = self.center().copy()
        if active.size == 0:
            return 0.0, u
        scale = float(max(a * np.ptp(y) for a, y in zip(sizes, sides, strict=True)))

        def entropy(log_l: float) -> float:
            level = scale * float(np.exp(log_l))
            return sum(self._tilt(y, float(a) / level)[2] for a, y in zip(sizes, sides, strict=True))

        low, high = -14.0, 14.0
        if entropy(low) <= self._limit:  # even point masses at the ends are likely enough
            u[active] = [y[-1] for y in sides]
        else:
            best = optimize.brentq(lambda x: entropy(x) - self._limit, low, high, xtol=1e-13, rtol=1e-14)
            level = scale * float(np.exp(best))
            u[active] = [self._tilt(y, float(a) / level)[1] for a, y in zip(sizes, sides, strict=True)]
        u[active] = np.where(direction[active] > 0, u[active], -u[active])
        return float(direction @ u), u

    def _cost(self, i: int, value: float) -> float:
        """c_i(value)."""
        worst = 0.0
        for up, v in ((True, value), (False, -value)):
            points = self._side(i, up)
            if v > points[-1]:
                return np.inf
            width = float(np.ptp(points))
            low, high = 1e-7 / width, 1e6 / width
            if v <= self._tilt(points, low)[1]:
                continue
            if self._tilt(points, high)[1] <= v:
                s = high
            else:
                s = float(
                    np.exp(
                        optimize.brentq(
                            lambda x, y=points, w=v: self._tilt(y, float(np.exp(x)))[1] - w, np.log(low), np.log(high)
                        )
                    )
                )
            worst = max(worst, s * v - self._tilt(points, s)[0])
        return worst

    def contains(self, points: ArrayLike, tolerance: float = 1e-7) -> NDArray[np.bool_]:
        """Sum c_i(u_i) <= log(1/eps), for u moved towards the centre by the tolerance."""
        if self.test not in _CLOSED:
            return super().contains(points, tolerance)
        rows = self._directions(points)
        slack = tolerance * (1 + np.max(np.abs(rows), axis=1, keepdims=True))
        away = rows - self.center()
        near = self.center() + np.sign(away) * np.maximum(np.abs(away) - slack, 0.0)
        inside = np.array([sum(self._cost(i, float(v)) for i, v in enumerate(u)) <= self._limit + 1e-9 for u in near])
        return self._shape(inside, points)

    # -- cones --------------------------------------------------------------------------------------------------------
    def conic(self) -> ConicForm:
        """Per component: q and t with (-t_j, q_j, p_j) in exponential cones, p the mixture of the two worst cases."""
        d = self.dim
        blocks = [self._component(self._points[:, i]) for i in range(d)]
        widths = [b[0].shape[1] for b in blocks]
        G = sparse.vstack(
            [
                sparse.block_diag([b[0] for b in blocks]),
                sparse.hstack([b[1] for b in blocks]),
                sparse.block_diag([b[2] for b in blocks]),
            ],
            format="csc",
        )
        means = [b[0].shape[0] for b in blocks]  # the first row of each block is u_i = sum_j u_i^(j) q_j
        first = np.concatenate([[0], np.cumsum(means)[:-1]])
        F = sparse.csc_array((np.ones(d), (first, np.arange(d))), shape=(G.shape[0], d))
        h = np.concatenate([*[b[3] for b in blocks], [self._limit], *[b[4] for b in blocks]])
        cones = [Cone("zero", sum(means)), Cone("nonnegative", 1)]
        for b in blocks:
            cones.extend(b[5])
        assert G.shape[1] == sum(widths)
        return ConicForm(F, G, h, tuple(cones))

    def _component(
        self, points: Vector
    ) -> tuple[sparse.csc_array, sparse.csc_array, sparse.csc_array, Vector, Vector, list[Cone]]:
        """Equalities, the entropy row and cone rows of one component over (q, t, p, theta1, theta2, z1, z2)."""
        n = points.size - 2
        keep = np.arange(n + 2)
        cone_rows: list[sparse.sparray] = []
        cones: list[Cone] = []
        if self.test in ("ks", "kuiper"):
            right = self._ks_masses
            keep = np.flatnonzero(right + right[::-1] > 0)
            shape = [sparse.csc_array(-right[keep][:, None]), sparse.csc_array(-right[::-1][keep][:, None])]
            extra = 0
        else:
            rows, _, kinds = edf.region(self.test, n, self.G)
            extra = rows.shape[1] - 1
            step = sparse.diags_array([np.ones(n), -np.ones(n)], offsets=[-1, -2], shape=(n + 2, n), format="csc")
            end = sparse.csc_array(([1.0], ([n + 1], [0])), shape=(n + 2, 1))
            left = sparse.diags_array([np.ones(n), -np.ones(n)], offsets=[0, -1], shape=(n + 2, n), format="csc")
            left_end = sparse.csc_array(([1.0], ([n], [0])), shape=(n + 2, 1))
            pad = sparse.csc_array((n + 2, extra - n))
            shape = [-end, -left_end, -sparse.hstack([step, pad]), -sparse.hstack([left, pad])]
        k = keep.size
        eye, none = sparse.eye_array(k), sparse.csc_array((k, k))
        total = 3 * k + 2 + 2 * extra
        at = np.zeros((3, total))
        at[0, :k] = -points[keep]
        at[1, :k] = 1.0
        at[2, 3 * k : 3 * k + 2] = 1.0
        mix = sparse.hstack([none, none, eye, *shape])
        equalities = sparse.vstack([sparse.csc_array(at), mix], format="csc")
        entropy = sparse.csc_array(np.concatenate([np.zeros(k), np.ones(k), np.zeros(total - 2 * k)])[None, :])
        # theta >= 0, then the regions, then (-t, q, p)
        signs = np.zeros((2, total))
        signs[0, 3 * k], signs[1, 3 * k + 1] = -1.0, -1.0
        cone_rows.append(sparse.csc_array(signs))
        cones.append(Cone("nonnegative", 2))
        if extra:
            for side in (0, 1):
                start = 3 * k + 2 + side * extra
                place = sparse.csc_array(
                    (np.ones(extra + 1), (np.arange(extra + 1), [*range(start, start + extra), 3 * k + side])),
                    shape=(extra + 1, total),
                )
                cone_rows.append(rows @ place)
                cones.extend(kinds)
        triples = sparse.csc_array(
            (
                np.concatenate([np.ones(k), -np.ones(k), -np.ones(k)]),
                (
                    np.concatenate([3 * np.arange(k), 3 * np.arange(k) + 1, 3 * np.arange(k) + 2]),
                    np.concatenate([k + np.arange(k), np.arange(k), 2 * k + np.arange(k)]),
                ),
            ),
            shape=(3 * k, total),
        )
        cone_rows.append(triples)
        cones.extend([Cone("exponential", 3)] * k)
        stacked = sparse.vstack(cone_rows, format="csc")
        return equalities, entropy, stacked, np.concatenate([[0, 1, 1], np.zeros(k)]), np.zeros(stacked.shape[0]), cones

    def parameters(self) -> dict[str, Any]:
        """Samples, support, threshold, epsilon, test."""
        return {
            "data": self.data.tolist(),
            "lower": self.lower.tolist(),
            "upper": self.upper.tolist(),
            "G": self.G,
            "epsilon": self.epsilon,
            "test": self.test,
        }

    @classmethod
    def from_parameters(cls, **parameters: Any) -> IndependentSet:
        """Inverse of `parameters`."""
        return cls(**parameters)


@fitter("i", "G", "box", "test")
def fit_independent(data: Matrix, options: FitOptions) -> FittedSet:
    """Fit U^I at the component level alpha' = 1 - (1 - alpha)^(1/d); needs the known support (`box=`)."""
    n, d = data.shape
    test = options.word("test", "ks", edf.TESTS)
    box = options.box(data)
    if box is None:
        raise DataError("family i needs the known support: give box=lo1,hi1,lo2,hi2,... (or use family fb, m or lcx)")
    level = component_level(options.alpha, d)
    G = options.number("G") if options.has("G") else edf.threshold(test, n, level)
    if test in ("ks", "kuiper") and d * np.log(1 / min(G, 1.0)) <= np.log(1 / options.epsilon):
        need = _samples_for(test, d, options.epsilon, level)
        raise DataError(
            f"family i: with {n} samples the {test} test at confidence {options.confidence:g} cuts nothing off the "
            f"known support at epsilon {options.epsilon:g}; {need} samples are needed"
        )
    certificate = options.certificate(
        "i",
        data,
        f"{test} test of each component at level {level:.6g}",
        {"G": G, "lower": box[0], "upper": box[1]},
        options.promise("the components are independent of each other and stay in the known support"),
        given=("G",),
    )
    return FittedSet(IndependentSet(data, box[0], box[1], G, options.epsilon, test), certificate)


def _samples_for(test: str, dim: int, epsilon: float, level: float) -> int:
    """Smallest N at which the set is smaller than the support box."""
    low, high = 1, 2
    wanted = epsilon ** (1 / dim)
    while edf.threshold(test, high, level) >= wanted:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if edf.threshold(test, middle, level) >= wanted else (low, middle)
    return high
