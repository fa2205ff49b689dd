"""Calibrated support-vector sets of what one stage of a stochastic controller can see (seed 003, sections 3.1 to 3.3).

A row h'x(t) <= bound sees the lifted vector (w, phi(w)) through a few directions only: the span of its coefficients
over all decisions. A `StageSet` learns one support-vector set for each group of rows and calibrates all of them with
the same fresh samples and one number, the growth

    s(w) = max over groups of f_g(w) - min f_g     (f_g in whitened coordinates: standard deviations),

whose order statistic becomes the level of every group. So the stage's rows hold together with the promised
probability, whatever the number of groups (seed 003, remark 2: any level function may be calibrated).

Where a row's coefficient is fixed up to a positive factor (fixed feedback), only one side of its interval can hurt, and
only growth on that side counts: an outlier on the harmless side widens nothing.

"joint" is the paper's form: one group. A level function that sums over d directions lets a single row use up the whole
sum, so that its support in one direction grows with d. "rows" gives every direction its own set and takes the maximum.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rmpc_ros.sets.calibrate import calibrate
from rmpc_ros.sets.svc import SupportVectorSet, learn_shape

FLAT = (
    1e-6  # standard deviations: f_g is flat around its minimum up to rounding, and all of the flat belongs to the set
)

Vector = NDArray[np.float64]
Matrix = NDArray[np.float64]


@dataclass(frozen=True)
class Group:
    """Rows of one stage and an orthonormal basis (d, r) of the directions that their coefficients can take.

    `signed`: the basis is the rows' own coefficient, of which only positive multiples occur.
    """

    rows: NDArray[np.int64]
    basis: Matrix
    signed: bool = False


def groups_of(coefficients: Sequence[Matrix], joint: bool) -> list[Group]:
    """Group the rows of one stage.

    Parameters
    ----------
    coefficients : for each row (k, d): its coefficients span these directions; k = 1: they are positive multiples
    joint : all rows in one group; else rows that span the same space share one, or k = 1 and the direction
    """
    if joint:
        return [Group(np.arange(len(coefficients)), _basis(np.vstack(coefficients)))]
    out: list[Group] = []
    for i, span in enumerate(coefficients):
        signed = len(span) == 1
        basis = span.T / np.linalg.norm(span) if signed else _basis(span)
        for k, group in enumerate(out):
            other = group.basis
            same = other.shape == basis.shape and group.signed == signed
            if same and np.linalg.norm(basis - (other if signed else other @ (other.T @ basis))) < 1e-9:
                out[k] = Group(np.append(group.rows, i), other, signed)
                break
        else:
            out.append(Group(np.array([i]), basis, signed))
    return out


def _basis(span: Matrix) -> Matrix:
    _, size, right = np.linalg.svd(span, full_matrices=False)
    return np.asarray(right[: int(np.sum(size > 1e-9 * size[0]))].T)


class StageSet:
    """The set { w : s(w) <= level } of one stage.

    Parameters
    ----------
    groups : all rows of the stage
    training : (n, d) lifted samples for the shapes
    fresh : (m, d) other lifted samples for the level
    nu : share of the training samples left outside by the support-vector program
    epsilon, confidence : of the promise P(s(w) > level) <= epsilon
    """

    def __init__(
        self, groups: Sequence[Group], training: Matrix, fresh: Matrix, nu: float, epsilon: float, confidence: float
    ) -> None:
        self.groups = groups
        shapes = [learn_shape(training @ group.basis, nu)[0] for group in groups]
        self._least = [float(shape.level(shape.center())) for shape in shapes]
        self._shapes = shapes
        self.level = max(calibrate(self.score(fresh), epsilon, confidence).level, FLAT)
        self.sets: list[SupportVectorSet] = [
            shape.with_level(least + self.level) for shape, least in zip(shapes, self._least, strict=True)
        ]
        one = np.array([[1.0], [-1.0]])  # in one dimension the set is an interval
        self._ends = [members.maximisers(one).ravel() if members.dim == 1 else None for members in self.sets]

    def score(self, lifted: Matrix) -> Vector:
        """The growth s at which the sets take in each sample, (m,)."""
        growth = []
        for group, shape, least in zip(self.groups, self._shapes, self._least, strict=True):
            seen = lifted @ group.basis
            beyond = np.atleast_1d(shape.level(seen)) - least
            growth.append(np.where(seen[:, 0] > shape.center()[0], beyond, 0.0) if group.signed else beyond)
        return np.asarray(np.max(growth, axis=0))

    def contains(self, lifted: Matrix) -> NDArray[np.bool_]:
        """Whether the samples lie in every group's set, (m,)."""
        return np.asarray(self.score(lifted) <= self.level + 1e-9)

    def worst(self, directions: Matrix) -> Matrix:
        """For each row of the stage (m, d) its worst member in the span of its group's basis, (m, d)."""
        out = np.empty_like(directions)
        for group, members, ends in zip(self.groups, self.sets, self._ends, strict=True):
            along = directions[group.rows] @ group.basis
            inside = members.maximisers(along) if ends is None else np.where(along > 0, ends[0], ends[1])
            out[group.rows] = inside @ group.basis.T
        return out
