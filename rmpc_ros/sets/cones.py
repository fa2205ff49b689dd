"""Cones and their duals: membership, cvxpy constraints, and the linear map that makes a dual cone a primal one.

The zero cone's dual is the whole space, nonnegative, second-order and psd cones are their own. The exponential cone
K = { (x, y, z) : y exp(x/y) <= z, y > 0 } has the dual { (u, v, w) : u < 0, -u exp(v/u) <= e w }; with y = -u it reads
y exp((u - v)/y) <= w, so (u, v, w) is in K* iff (u - v, -u, w) is in K.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from rmpc_ros.solvers.conic import Cone

if TYPE_CHECKING:  # takes seconds to import and no control step needs it
    import cvxpy as cp

Vector = NDArray[np.float64]
Matrix = NDArray[np.float64]

_EXP_DUAL = np.array([[1.0, -1.0, 0.0], [-1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])


def in_cones(s: Vector, cones: Sequence[Cone], tolerance: float) -> bool:
    """Whether s lies in the product of cones, each block up to a relative tolerance."""
    start = 0
    for cone in cones:
        part = s[start : start + cone.rows]
        start += cone.rows
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


def dual_map(cones: Sequence[Cone]) -> tuple[sparse.csc_array, tuple[Cone, ...]]:
    """(T, cones') with  z in K*  iff  T z in K' : rows for the blocks whose dual is a proper cone."""
    blocks: list[sparse.sparray] = []
    kinds: list[Cone] = []
    for cone in cones:
        if cone.kind == "zero":
            blocks.append(sparse.csc_array((0, cone.rows)))
            continue
        blocks.append(sparse.csc_array(_EXP_DUAL) if cone.kind == "exponential" else sparse.eye_array(cone.rows))
        kinds.append(cone)
    return sparse.block_diag(blocks, format="csc"), tuple(kinds)


def cvxpy_constraints(s: cp.Expression, cones: Sequence[Cone]) -> list[cp.Constraint]:
    """The cvxpy constraints of s in K for an affine s; exponential blocks are gathered in one constraint."""
    import cvxpy as cp

    out: list[cp.Constraint] = []
    exponential: list[int] = []
    start = 0
    for cone in cones:
        part = s[start : start + cone.rows]
        match cone.kind:
            case "zero":
                out.append(part == 0)
            case "nonnegative":
                out.append(part >= 0)
            case "second_order":
                out.append(cp.SOC(part[0], part[1:]))
            case "exponential":
                exponential.append(start)
            case "psd":
                n = cone.size
                columns, rows = np.tril_indices(n)
                full = cp.Variable((n, n), PSD=True)
                weights = np.where(rows == columns, 1.0, np.sqrt(2))
                places = cp.hstack([full[i, j] for i, j in zip(rows, columns, strict=True)])
                out.append(part == cp.multiply(weights, places))
            case other:
                raise ValueError(other)
        start += cone.rows
    if exponential:
        at = np.array(exponential)
        out.append(cp.ExpCone(s[at], s[at + 1], s[at + 2]))
    return out
