"""The one interface of all uncertainty sets.

A robust constraint  a(x)'u <= b(x) for all u in U  holds iff  support(a(x)) <= b(x), where
support(a) = max { a'u : u in U }  (math.md section 1). Every family therefore gives its support function as a number
and as convex constraints; most get both from one conic description of the set.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import cvxpy as cp
import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import sparse

from rmpc_ros.errors import SetError
from rmpc_ros.solvers.conic import Cone, ConicProgram

Vector = NDArray[np.float64]
Matrix = NDArray[np.float64]


@dataclass(frozen=True)
class ConicForm:
    """U = { u : F u + G y + s = h for some y and s in K }.

    Attributes
    ----------
    F : (m, d) columns of the uncertain vector
    G : (m, k) columns of the auxiliary variables (k may be 0)
    h : (m,)
    cones : blocks of K in row order
    """

    F: sparse.csc_array
    G: sparse.csc_array
    h: Vector
    cones: tuple[Cone, ...]


FAMILIES: dict[str, type[UncertaintySet]] = {}


class UncertaintySet(ABC):
    """A closed convex bounded set of uncertain vectors u in R^d.

    A family implements `dim`, `conic`, `to_dict` and `from_dict`, names itself in `family`, and overrides what it knows
    in closed form. Sets are immutable: operations return new sets.
    """

    family: ClassVar[str] = ""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if cls.family:
            FAMILIES[cls.family] = cls

    # -- what a family must say ---------------------------------------------------------------------------------------
    @property
    @abstractmethod
    def dim(self) -> int:
        """Dimension d of the uncertain vector."""

    @abstractmethod
    def conic(self) -> ConicForm:
        """Description by cones, from which supports and counterparts follow."""

    @abstractmethod
    def parameters(self) -> dict[str, Any]:
        """Numbers that define the set, as JSON types; `from_parameters(**parameters())` is the same set, exactly."""

    @classmethod
    @abstractmethod
    def from_parameters(cls, **parameters: Any) -> UncertaintySet:
        """Inverse of `parameters`."""

    # -- what follows from it -----------------------------------------------------------------------------------------
    def support(self, directions: ArrayLike) -> Vector:
        """Support function, vectorised.

        Parameters
        ----------
        directions : (d,) or (m, d)

        Returns
        -------
        (m,) values of max { a'u : u in U }; (1,)-shaped input rows give a 0-d array for a single (d,) direction.
        """
        rows = self._directions(directions)
        values = np.array([self.maximiser(a) @ a for a in rows])
        return values if np.ndim(directions) == 2 else values[0]

    def maximiser(self, direction: ArrayLike) -> Vector:
        """A member of the set where a'u is largest, (d,)."""
        a = self._directions(direction)[0]
        form = self.conic()
        k = form.G.shape[1]
        program = ConicProgram(
            None,
            np.concatenate([-a, np.zeros(k)]),
            sparse.hstack([form.F, form.G], format="csc"),
            form.h,
            form.cones,
            1e-9,
        )
        return program.solve().x[: self.dim]

    def contains(self, points: ArrayLike, tolerance: float = 1e-7) -> NDArray[np.bool_]:
        """Membership of each row of `points`, (d,) or (m, d) -> () or (m,)."""
        rows = self._directions(points)
        form = self.conic()
        k = form.G.shape[1]
        if k == 0:
            return self._shape(np.array([_in_cones(form.h - form.F @ u, form.cones, tolerance) for u in rows]), points)
        inside = np.empty(len(rows), bool)
        for n, u in enumerate(rows):
            inside[n] = self._distance(form, u) <= tolerance * (1 + np.max(np.abs(u)))
        return self._shape(inside, points)

    def counterpart(self, direction: cp.Expression, bound: cp.Expression | float) -> list[cp.Constraint]:
        """Convex constraints that hold iff support(direction) <= bound, for an affine (d,) expression.

        By conic duality:  min { h'z : F'z = a, G'z = 0, z in K* } <= bound.
        """
        form = self.conic()
        z = cp.Variable(form.h.size)
        constraints: list[cp.Constraint] = [form.F.T @ z == direction, form.h @ z <= bound]
        if form.G.shape[1]:
            constraints.append(form.G.T @ z == 0)
        return constraints + _in_dual_cones(z, form.cones)

    def scaled(self, factor: float) -> UncertaintySet:
        """The set scaled by `factor` about its centre; families override where they can."""
        raise SetError(f"a set of family '{self.family}' cannot be scaled")

    def to_dict(self) -> dict[str, Any]:
        """JSON form: {"family": ..., **parameters}."""
        return {"family": self.family, **self.parameters()}

    @staticmethod
    def from_dict(data: Mapping[str, Any]) -> UncertaintySet:
        """Inverse of `to_dict`.

        Raises
        ------
        SetError
            The family is unknown or its parameters do not fit.
        """
        values = dict(data)
        name = values.pop("family", None)
        if name not in FAMILIES:
            raise SetError(f"set family {name!r} is unknown; known: {', '.join(sorted(FAMILIES))}")
        try:
            return FAMILIES[name].from_parameters(**values)
        except (TypeError, KeyError) as error:
            raise SetError(f"set family {name!r} refuses its parameters {sorted(values)}: {error}") from error

    # -- tools for families -------------------------------------------------------------------------------------------
    def _directions(self, directions: ArrayLike) -> Matrix:
        rows = np.atleast_2d(np.asarray(directions, float))
        if rows.shape[1] != self.dim:
            raise SetError(f"a vector of {rows.shape[1]} entries meets a set of dimension {self.dim}")
        if not np.all(np.isfinite(rows)):
            raise SetError("a direction or point holds a value that is not finite")
        return rows

    @staticmethod
    def _shape(values: NDArray[Any], like: ArrayLike) -> NDArray[Any]:
        return values if np.ndim(like) == 2 else values[0]

    def _distance(self, form: ConicForm, u: Vector) -> float:
        """Euclidean distance of u to the set, by one conic program."""
        d, k = self.dim, form.G.shape[1]
        top = sparse.hstack([sparse.csc_array((form.F.shape[0], 1)), form.F, form.G])
        ball = sparse.block_array(
            [[-sparse.eye_array(1), None, None], [None, -sparse.eye_array(d), sparse.csc_array((d, k))]]
        )
        program = ConicProgram(
            None,
            np.concatenate([[1.0], np.zeros(d + k)]),
            sparse.vstack([top, ball], format="csc"),
            np.concatenate([form.h, [0.0], -u]),
            (*form.cones, Cone("second_order", d + 1)),
            1e-10,
        )
        return program.solve().objective


def _blocks(values: Vector, cones: Sequence[Cone]) -> list[tuple[Cone, Vector]]:
    ends = np.cumsum([c.rows for c in cones])[:-1]
    return list(zip(cones, np.split(values, ends), strict=True))


def _in_cones(s: Vector, cones: Sequence[Cone], tolerance: float) -> bool:
    for cone, part in _blocks(s, cones):
        slack = tolerance * (1 + np.max(np.abs(part), initial=0.0))
        match cone.kind:
            case "zero":
                good = bool(np.all(np.abs(part) <= slack))
            case "nonnegative":
                good = bool(np.all(part >= -slack))
            case "second_order":
                good = bool(np.linalg.norm(part[1:]) <= part[0] + slack)
            case "exponential":
                x, y, z = part
                good = bool(y > 0 and y * np.exp(min(x / y, 700.0)) <= z + slack) or bool(
                    abs(y) <= slack and x <= slack and z >= -slack
                )
            case "psd":
                good = bool(np.linalg.eigvalsh(triangle_to_matrix(part))[0] >= -slack)
            case other:
                raise ValueError(other)
        if not good:
            return False
    return True


def triangle_to_matrix(part: Vector) -> Matrix:
    """Symmetric matrix from its scaled upper triangle, column-wise (Clarabel's order)."""
    n = int((np.sqrt(8 * part.size + 1) - 1) / 2)
    out = np.zeros((n, n))
    columns, rows = np.tril_indices(n)
    out[rows, columns] = part / np.where(rows == columns, 1.0, np.sqrt(2))
    return out + np.triu(out, 1).T


def _in_dual_cones(z: cp.Variable, cones: Sequence[Cone]) -> list[cp.Constraint]:
    out: list[cp.Constraint] = []
    start = 0
    for cone in cones:
        part = z[start : start + cone.rows]
        start += cone.rows
        match cone.kind:
            case "zero":
                continue
            case "nonnegative":
                out.append(part >= 0)
            case "second_order":
                out.append(cp.SOC(part[0], part[1:]))
            case "exponential":  # dual: { u < 0, -u exp(v/u) <= e w }, i.e. (-v... ) written with cvxpy's primal cone
                out.append(cp.ExpCone(part[1] * -1 + part[0], -part[0], part[2]))
            case "psd":
                n = cone.size
                columns, rows = np.tril_indices(n)
                full = cp.Variable((n, n), PSD=True)
                weights = np.where(rows == columns, 1.0, np.sqrt(2))
                out.append(
                    part == cp.multiply(weights, cp.hstack([full[i, j] for i, j in zip(rows, columns, strict=True)]))
                )
    return out


Kind = Literal["interior", "boundary", "vertices"]
