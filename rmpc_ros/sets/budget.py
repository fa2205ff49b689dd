"""U = { c + r * z : abs(z) <= 1, sum abs(z) <= Gamma }."""

from __future__ import annotations

import itertools
from math import comb
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import sparse

from rmpc_ros.errors import SetError
from rmpc_ros.sets.base import ConicForm, Epigraph, Matrix, UncertaintySet, Vector, _factor, finite, stored
from rmpc_ros.solvers.conic import Cone


class Budget(UncertaintySet):
    """U = { c + r * z : abs(z) <= 1, sum abs(z) <= Gamma }  (math.md section 1).

    support(a) = c'a + the Gamma largest of r_i abs(a_i) (the next one in part where Gamma is not whole); it equals
    min { Gamma t + sum q : t + q_i >= r_i abs(a_i), t, q >= 0 }.

    Parameters
    ----------
    center, radius : (d,) with radius >= 0
    budget : Gamma >= 0; at d and above the set is the box

    Examples
    --------
    >>> float(Budget([0, 0, 0], [1, 1, 1], 1.5).support([3, -2, 1]))
    4.0
    """

    family: ClassVar[str] = "budget"

    def __init__(self, center: ArrayLike, radius: ArrayLike, budget: float) -> None:
        self._center, self.radius = finite("center", center, 1), finite("radius", radius, 1)
        self.budget = _factor(budget)
        if self._center.shape != self.radius.shape or np.any(self.radius < 0):
            raise SetError(f"radius {self.radius.tolist()}: give {self._center.size} numbers >= 0")

    @property
    def dim(self) -> int:
        """Dimension d."""
        return int(self._center.size)

    def center(self) -> Vector:
        """Centre (d,)."""
        return self._center

    def _weights(self) -> Vector:
        return np.clip(self.budget - np.arange(self.dim), 0.0, 1.0)

    def conic(self) -> ConicForm:
        """Variables p, q >= 0 with u = c + r * (p - q), p + q <= 1, sum (p + q) <= Gamma."""
        d, eye = self.dim, sparse.eye_array(self.dim)
        spread = sparse.diags_array(self.radius, format="csc")
        none = sparse.csc_array((d, d))
        G = sparse.block_array(
            [
                [-spread, spread],
                [eye, eye],
                [stored(np.ones((1, d))), stored(np.ones((1, d)))],
                [-eye, none],
                [none, -eye],
            ]
        )
        F = sparse.vstack([eye, sparse.csc_array((3 * d + 1, d))], format="csc")
        h = np.concatenate([self._center, np.ones(d), [self.budget], np.zeros(2 * d)])
        return ConicForm(F, G.tocsc(), h, (Cone("zero", d), Cone("nonnegative", 3 * d + 1)))

    def support(self, directions: ArrayLike) -> Vector:
        """C'a + the sum of the largest r_i abs(a_i)."""
        rows = self._directions(directions)
        largest = -np.sort(-np.abs(rows) * self.radius, axis=1)
        return self._shape(rows @ self._center + largest @ self._weights(), directions)

    def maximisers(self, directions: ArrayLike) -> Matrix:
        """The budget is spent on the largest r_i abs(a_i)."""
        rows = self._directions(directions)
        order = np.argsort(-np.abs(rows) * self.radius, axis=1, kind="stable")
        z = np.empty_like(rows)
        np.put_along_axis(z, order, np.broadcast_to(self._weights(), rows.shape), axis=1)
        return self._shape(self._center + self.radius * z * np.sign(rows), directions)

    def contains(self, points: ArrayLike, tolerance: float = 1e-7) -> NDArray[np.bool_]:
        """abs(z) <= 1 and sum abs(z) <= Gamma for z = (u - c) / r."""
        rows = self._directions(points)
        away = np.abs(rows - self._center)
        flat = self.radius == 0
        z = np.divide(away, self.radius, out=np.zeros_like(away), where=~flat)
        slack = tolerance * (1 + np.max(np.abs(rows), axis=1))
        inside = np.all(np.where(flat, away <= slack[:, None], z <= 1 + tolerance), axis=1)
        return self._shape(inside & (z.sum(axis=1) <= self.budget + tolerance * (1 + self.budget)), points)

    def epigraph(self) -> Epigraph:
        """Cones: y = (tau, q) >= 0 with tau + q_i >= r_i abs(a_i), c'a + Gamma tau + sum q <= t."""
        d = self.dim
        spread, eye = sparse.diags_array(self.radius, format="csc"), sparse.eye_array(d)
        rest = sparse.csc_array((d + 1, d))
        minus = sparse.hstack([sparse.csc_array(-np.ones((d, 1))), -eye])
        last = stored(np.append(self.budget, np.ones(d))[None, :])
        return Epigraph(
            sparse.vstack([spread, -spread, rest, stored(self._center[None, :])], format="csc"),
            np.append(np.zeros(3 * d + 1), -1.0),
            sparse.vstack([minus, minus, -sparse.eye_array(d + 1), last], format="csc"),
            (Cone("nonnegative", 3 * d + 2),),
        )

    def scaled(self, factor: float) -> Budget:
        """Radius times factor; the budget stays."""
        return Budget(self._center, _factor(factor) * self.radius, self.budget)

    def vertices(self) -> Matrix:
        """Corners: floor(Gamma) components at +-1 and one at +- the rest."""
        d, whole = self.dim, int(min(np.floor(self.budget), self.dim))
        rest = self.budget - whole if whole < d else 0.0
        count = comb(d, whole) * 2**whole * ((d - whole) * 2 if rest > 0 else 1)
        if count > 2**16:
            raise SetError(f"the budget set has {count} vertices: too many to list (limit {2**16})")
        out = []
        for full in itertools.combinations(range(d), whole):
            for signs in itertools.product((-1.0, 1.0), repeat=whole):
                z = np.zeros(d)
                z[list(full)] = signs
                if rest == 0:
                    out.append(z)
                    continue
                for i in set(range(d)) - set(full):
                    for sign in (-rest, rest):
                        out.append(np.where(np.arange(d) == i, sign, z))
        return np.unique(self._center + self.radius * np.array(out), axis=0)

    def parameters(self) -> dict[str, Any]:
        """Center, radius, budget."""
        return {"center": self._center.tolist(), "radius": self.radius.tolist(), "budget": self.budget}

    @classmethod
    def from_parameters(cls, **parameters: Any) -> Budget:
        """Inverse of `parameters`."""
        return cls(**parameters)
