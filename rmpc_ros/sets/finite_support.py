"""U^chi2 and U^G: known finite support, tested by Pearson's chi-square or the G-test (eqs. 15 to 18).

    U = { sum_j q_j a_j : q in simplex, q <= p/eps, p in simplex, D(p, phat) <= r },  r = chi2_{n-1,1-alpha}/(2N)

with D = sum (p_j - phat_j)^2/(2 p_j) for chi2 and D = sum phat_j log(phat_j/p_j) for G.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike
from scipy import sparse, stats

from rmpc_ros.errors import DataError, SetError
from rmpc_ros.sets.base import ConicForm, Matrix, UncertaintySet, Vector, _factor, finite, stored
from rmpc_ros.sets.certificate import FittedSet
from rmpc_ros.sets.fit import FitOptions, fitter
from rmpc_ros.solvers.conic import Cone


class FiniteSupportSet(UncertaintySet):
    """What the two families share: atoms, their observed shares, and the worst reweighting.

    Parameters
    ----------
    atoms : (n, d) a_j
    shares : (n,) phat, positive, sum 1
    radius : r >= 0 of the divergence ball
    epsilon : in (0, 1)
    """

    def __init__(self, atoms: ArrayLike, shares: ArrayLike, radius: float, epsilon: float) -> None:
        self.atoms, self.shares = finite("atoms", atoms, 2), finite("shares", shares, 1)
        self.radius, self.epsilon = _factor(radius), float(epsilon)
        if len(self.atoms) != self.shares.size:
            raise SetError(f"{len(self.atoms)} atoms, {self.shares.size} shares")
        if np.any(self.shares <= 0) or abs(self.shares.sum() - 1) > 1e-9:
            raise SetError(f"shares {self.shares.tolist()} must be positive and sum to 1")
        if not 0 < self.epsilon < 1:
            raise SetError(f"epsilon = {epsilon}: give a number between 0 and 1")

    @property
    def dim(self) -> int:
        """Dimension d."""
        return int(self.atoms.shape[1])

    def center(self) -> Vector:
        """Observed mean."""
        return np.asarray(self.shares @ self.atoms)

    @abstractmethod
    def divergence(self) -> tuple[sparse.csc_array, Vector, tuple[Cone, ...]]:
        """Rows of D(p, phat) <= r over (p, t): matrix, right-hand side, cones."""

    def conic(self) -> ConicForm:
        """Auxiliary q, p, t (n each): u = atoms'q, both simplices, q <= p/eps, and the divergence's rows."""
        n, d = self.atoms.shape
        eye, ones = sparse.eye_array(n), sparse.csc_array(np.ones((1, n)))
        rows, rhs, cones = self.divergence()
        G = sparse.block_array(
            [
                [-stored(self.atoms.T), None],
                [ones, None],
                [None, sparse.hstack([ones, sparse.csc_array((1, n))])],
                [-eye, None],
                [eye, sparse.hstack([-eye / self.epsilon, sparse.csc_array((n, n))])],
                [None, rows],
            ],
            format="csc",
        )
        F = sparse.vstack([sparse.eye_array(d), sparse.csc_array((G.shape[0] - d, d))], format="csc")
        h = np.concatenate([np.zeros(d), [1.0, 1.0], np.zeros(2 * n), rhs])
        return ConicForm(F, G, h, (Cone("zero", d + 2), Cone("nonnegative", 2 * n), *cones))

    def parameters(self) -> dict[str, Any]:
        """Atoms, shares, radius, epsilon."""
        return {
            "atoms": self.atoms.tolist(),
            "shares": self.shares.tolist(),
            "radius": self.radius,
            "epsilon": self.epsilon,
        }

    @classmethod
    def from_parameters(cls, **parameters: Any) -> FiniteSupportSet:
        """Inverse of `parameters`."""
        return cls(**parameters)


class ChiSquareSet(FiniteSupportSet):
    """U^chi2 (15): sum (p_j - phat_j)^2/(2 p_j) <= r, i.e. sum phat_j^2/p_j <= 1 + 2r."""

    family: ClassVar[str] = "chi2"

    def divergence(self) -> tuple[sparse.csc_array, Vector, tuple[Cone, ...]]:
        """t_j p_j >= phat_j^2 as norm2(2 phat_j, t_j - p_j) <= t_j + p_j; sum t <= 1 + 2r."""
        n = self.shares.size
        rows, columns, values = [0] * n, list(range(n, 2 * n)), [1.0] * n
        rhs = np.zeros(1 + 3 * n)
        rhs[0] = 1 + 2 * self.radius
        for j in range(n):
            top = 1 + 3 * j
            rhs[top + 1] = 2 * self.shares[j]
            rows += [top, top, top + 2, top + 2]
            columns += [j, n + j, j, n + j]
            values += [-1.0, -1.0, 1.0, -1.0]
        matrix = sparse.csc_array((values, (rows, columns)), shape=(rhs.size, 2 * n))
        return matrix, rhs, (Cone("nonnegative", 1), *([Cone("second_order", 3)] * n))


class RelativeEntropySet(FiniteSupportSet):
    """U^G (16): sum phat_j log(phat_j/p_j) <= r."""

    family: ClassVar[str] = "g"

    def divergence(self) -> tuple[sparse.csc_array, Vector, tuple[Cone, ...]]:
        """t_j >= -log p_j as (-t_j, 1, p_j) in the exponential cone; phat't <= r - phat'log phat."""
        n = self.shares.size
        rows, columns, values = [0] * n, list(range(n, 2 * n)), self.shares.tolist()
        rhs = np.zeros(1 + 3 * n)
        rhs[0] = self.radius - float(self.shares @ np.log(self.shares))
        for j in range(n):
            top = 1 + 3 * j
            rhs[top + 1] = 1.0
            rows += [top, top + 2]
            columns += [n + j, j]
            values += [1.0, -1.0]
        matrix = sparse.csc_array((values, (rows, columns)), shape=(rhs.size, 2 * n))
        return matrix, rhs, (Cone("nonnegative", 1), *([Cone("exponential", 3)] * n))


def _fit(data: Matrix, options: FitOptions, kind: type[FiniteSupportSet], test: str) -> FittedSet:
    atoms, counts = np.unique(data, axis=0, return_counts=True)
    samples, n = len(data), len(atoms)
    rare = float(np.quantile(counts, 0.2, method="higher"))
    if rare < 5:
        raise DataError(
            f"family {kind.family}: {n} distinct rows in {samples} samples, more than a fifth of them seen fewer "
            f"than 5 times: the {test} needs about {int(np.ceil(5 * samples / rare))} samples of this support; if the "
            "data are continuous, round them to a grid or use another family"
        )
    chi = options.number("chi") if options.has("chi") else float(stats.chi2.ppf(options.confidence, n - 1))
    certificate = options.certificate(
        kind.family,
        data,
        test,
        {"chi": chi, "radius": chi / (2 * samples), "atoms": n},
        options.promise(f"u takes only the {n} values seen"),
        "The chi-square threshold is the test's large-sample one.",
        given=("chi",),
    )
    return FittedSet(kind(atoms, counts / samples, chi / (2 * samples), options.epsilon), certificate)


@fitter("chi2", "chi", discrete=True)
def fit_chi2(data: Matrix, options: FitOptions) -> FittedSet:
    """Fit U^chi2; the atoms are the distinct rows."""
    return _fit(data, options, ChiSquareSet, "chi-square test")


@fitter("g", "chi", discrete=True)
def fit_g(data: Matrix, options: FitOptions) -> FittedSet:
    """Fit U^G; the atoms are the distinct rows."""
    return _fit(data, options, RelativeEntropySet, "G-test")
