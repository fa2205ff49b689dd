"""Primitive sets of forecast sets:  X = { R diag(y) s + z : s in S },  y >= 0 and z free.

    box       abs(s_k) <= 1          one scale per group of coordinates (default: per coordinate)
    rhombus   norm1(s_g) <= 1        one scale per group (default: one for all)
    ball      norm2(s_g) <= 1        the same; R = rotation @ diag(ratio, 1) makes a rotated ellipsoid
    polytope  s_g in conv(points)    points lift the unit simplex: s = points @ lambda (seed 004, section 4)

R is fixed (rotation or coordinates), y and z are what an agent tells its neighbours. Seed 002 equation 7, seed 004
equations 7 and 10 and remark 1 (groups).
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import ConvexHull

from rmpc_ros.errors import ConfigError
from rmpc_ros.network.affine_table import Integers, Matrix, Table, total
from rmpc_ros.network.ball_containment import contain_in_ball
from rmpc_ros.network.robust_program import Kind, RobustProgram

FLAT = 1e-6  # half-widths below the solvers' accuracy count as 0
ShapeKind = Literal["box", "rhombus", "ball", "polytope"]


@dataclass(frozen=True)
class Shape:
    """A primitive set S with its fixed map R and the grouping of its scales.

    Attributes
    ----------
    kind : see the module's table
    transform : R (n, n), regular
    groups : coordinates that share a scale; a partition of 0..n-1
    points : (k, m) vertices for "polytope"; the origin lies inside their hull
    shared_in_time : one scale for the whole horizon instead of one per stage
    """

    kind: ShapeKind
    transform: Matrix
    groups: tuple[tuple[int, ...], ...]
    points: Matrix | None = None
    shared_in_time: bool = False

    def __post_init__(self) -> None:
        n = self.transform.shape[0]
        if sorted(k for g in self.groups for k in g) != list(range(n)):
            raise ConfigError(f"shape {self.kind}: groups {self.groups} do not partition {n} coordinates")
        if self.kind == "polytope" and (self.points is None or self.points.shape[0] != len(self.groups[0])):
            raise ConfigError("shape polytope: `points` (k, m) needs as many rows as a group has coordinates")
        if self.kind == "rhombus" and max(map(len, self.groups)) > 10:
            raise ConfigError("shape rhombus: more than 10 coordinates share a scale (2^n facets); use smaller groups")

    @property
    def size(self) -> int:
        """Dimension n of the signal."""
        return int(self.transform.shape[0])

    @property
    def scales(self) -> int:
        """Number of entries of y at one stage."""
        return len(self.groups)

    def scale_of(self) -> Integers:
        """(n,) index into y of each coordinate of s."""
        out = np.empty(self.size, np.int64)
        for g, members in enumerate(self.groups):
            out[list(members)] = g
        return out

    # -- the receiver's side ------------------------------------------------------------------------------------------
    def declare(self, program: RobustProgram, label: str, t: int) -> Integers:
        """Append s of one stage to the program's uncertain vector; returns the columns of its n coordinates."""
        columns = np.empty(self.size, np.int64)
        kind: Kind = "vertices" if self.kind == "polytope" else self.kind
        for members in self.groups:
            columns[list(members)] = program.w.add(kind, len(members), label, t, self.points)
        return columns

    def table(self, y: Integers, z: Table, columns: Integers) -> Table:
        """Zeta = R diag(y) s + z with variables y, as a table over the columns of s."""
        row, k = np.nonzero(np.abs(self.transform) > 0)
        scaled = Table(self.size, row, columns[k], y[self.scale_of()[k]], self.transform[row, k])
        return total([scaled, z])

    # -- the sender's side --------------------------------------------------------------------------------------------
    def contain(self, program: RobustProgram, deviation: Table, y: Integers) -> None:
        """p(w) - z in R diag(y) S for all w: the announced set holds the trajectory."""
        inner = deviation.left(np.linalg.inv(self.transform))
        for g, members in enumerate(self.groups):
            part = inner.take(list(members))
            scale = Table.variables(y[[g]][:, None], [0])
            match self.kind:
                case "box":
                    program.robust_abs_le(part, scale.left(np.ones((part.rows, 1))))
                case "rhombus":
                    signs = np.array(list(product([1.0, -1.0], repeat=part.rows)))[: 2 ** (part.rows - 1)]
                    program.robust_abs_le(part.left(signs), scale.left(np.ones((len(signs), 1))))
                case "polytope":
                    normals, offsets = self.facets()
                    program.robust_le(part.left(normals) - scale.left(offsets[:, None]))
                case "ball":
                    contain_in_ball(program, part, scale)

    # -- numbers ------------------------------------------------------------------------------------------------------
    def facets(self) -> tuple[Matrix, NDArray[np.float64]]:
        """(N, f) with conv(points) = { s : N s <= f }, f > 0."""
        assert self.points is not None
        if self.points.shape[0] == 1:
            return np.array([[1.0], [-1.0]]), np.array([self.points.max(), -self.points.min()])
        hull = ConvexHull(self.points.T)
        normals, offsets = hull.equations[:, :-1], -hull.equations[:, -1]
        if np.min(offsets) <= 0:
            raise ConfigError("shape polytope: the origin must lie inside the hull of its points")
        return normals, offsets

    def gauge(self, deviation: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
        """How far p - z reaches towards the border of R diag(y) S: at most 1 inside; (n,) or (m, n), one per group."""
        inner = np.atleast_2d(deviation) @ np.linalg.inv(self.transform).T
        out = np.empty((inner.shape[0], self.scales))
        for g, members in enumerate(self.groups):
            part = inner[:, list(members)]
            match self.kind:
                case "box":
                    reach = np.max(np.abs(part), axis=1)
                case "rhombus":
                    reach = np.sum(np.abs(part), axis=1)
                case "ball":
                    reach = np.linalg.norm(part, axis=1)
                case "polytope":
                    normals, offsets = self.facets()
                    reach = np.max(part @ normals.T / offsets, axis=1)
            out[:, g] = reach / y[g] if y[g] > FLAT else np.where(reach <= 2 * FLAT, 0.0, np.inf)
        return out

    def recover(
        self, value: NDArray[np.float64], y: NDArray[np.float64], z: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """S of a measured signal, (n,): diag(y)^+ R^-1 (p - z), and 0 where y = 0 (seed 002 equation 8)."""
        inner = np.linalg.inv(self.transform) @ (value - z)
        scale = y[self.scale_of()]
        return np.divide(inner, scale, out=np.zeros_like(inner), where=scale > FLAT)


def box(n: int, shared_in_time: bool = False) -> Shape:
    """One half-width per coordinate (and stage)."""
    return Shape("box", np.eye(n), tuple((k,) for k in range(n)), shared_in_time=shared_in_time)


def square(n: int) -> Shape:
    """A box with one half-width for all coordinates."""
    return Shape("box", np.eye(n), (tuple(range(n)),))


def rhombus(n: int) -> Shape:
    """norm1(p - z) <= y."""
    return Shape("rhombus", np.eye(n), (tuple(range(n)),))


def ball(n: int) -> Shape:
    """norm2(p - z) <= y."""
    return Shape("ball", np.eye(n), (tuple(range(n)),))


def rotated_box(transform: Matrix) -> Shape:
    """Box in other coordinates, one half-width per coordinate."""
    return Shape("box", np.asarray(transform, float), tuple((k,) for k in range(len(transform))))


def rectangle(rotation_deg: float = 0.0) -> Shape:
    """Plane box with two half-widths, turned counter-clockwise."""
    return rotated_box(rotation(rotation_deg))


def ellipse(ratio: float, rotation_deg: float = 0.0) -> Shape:
    """Plane ellipse whose first semi-axis is `ratio` times its second, one scale, turned counter-clockwise."""
    if not ratio > 0:
        raise ConfigError(f"ellipse: ratio = {ratio}; must be positive")
    return Shape("ball", rotation(rotation_deg) @ np.diag([ratio, 1.0]), ((0, 1),))


def ellipsoid(transform: Matrix) -> Shape:
    """{ R s y + z : norm2(s) <= 1 } with one scale."""
    return Shape("ball", np.asarray(transform, float), (tuple(range(len(transform))),))


def polytope(points: Matrix) -> Shape:
    """Scaled copy of conv(points), points (n, m) around the origin."""
    array = np.asarray(points, float)
    return Shape("polytope", np.eye(len(array)), (tuple(range(len(array))),), array)


def regular_polygon(corners: int) -> Shape:
    """Plane polygon with equal sides, inscribed in the unit circle, first corner at angle 0."""
    angle = 2 * np.pi * np.arange(corners) / corners
    return polytope(np.array([np.cos(angle), np.sin(angle)]))


def rotation(degrees: float) -> Matrix:
    """Counter-clockwise rotation of the plane."""
    a = np.deg2rad(degrees)
    return np.array([[np.cos(a), -np.sin(a)], [np.sin(a), np.cos(a)]])
