"""Robust invariant boxes for all agents together, and the backup laws that make them so: one linear program.

    find y > 0, M = K diag(y) with block-diagonal K (each agent feeds back its own states only):
        |A diag(y) + B M| 1 + |B| gamma + w <= y,     |M| 1 + gamma <= u_max,     |H| y <= h

Then from any state of the box |x| <= y, with u = K x + c and |c| <= gamma, the next state is in the box again for
every disturbance |.| <= w (math.md 3.1). gamma is the authority that is left to the optimiser inside the invariant set.
All quantities are normalised, so the sum of y is the sum of half-widths over limits, which is minimised. Scaling y by
s >= 1 keeps the property as long as the limits hold, which gives promises room.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from rmpc_ros.errors import InfeasibleError, NumericalError
from rmpc_ros.solvers.lp import solve_lp

Vector = NDArray[np.float64]
Matrix = NDArray[np.float64]
TOLERANCE = 1e-6  # normalised: of the limits


@dataclass(frozen=True)
class InvariantBoxes:
    """Result: half-widths y (n,), backup gain K (m, n) block-diagonal, scale factor applied to the smallest boxes."""

    y: Vector
    K: Matrix
    room: float


def invariant_boxes(
    A: Matrix,
    B: Matrix,
    w: Vector,
    input_limit: Vector,
    authority: Vector,
    state_blocks: Sequence[slice],
    input_blocks: Sequence[slice],
    limit_rows: Matrix,
    limits: Vector,
    room: float = 1.0,
) -> InvariantBoxes:
    """Smallest invariant boxes, then enlarged by up to `room` as far as the limits allow.

    Parameters
    ----------
    A : (n, n), B : (n, m) whole network
    w : (n,) half-widths of all that disturbs one step
    input_limit, authority : (m,) distance of the steady input to its nearer limit; half-width of c
    state_blocks, input_blocks : one slice per agent
    limit_rows, limits : (r, n), (r,) state limits H z <= h
    room : wanted factor >= 1

    Raises
    ------
    InfeasibleError
        No box in these coordinates is invariant; the message says what to change.
    """
    n, m = B.shape
    owner = np.empty(n, int)
    for i, block in enumerate(state_blocks):
        owner[block] = i
    # Variables: y (n), the entries of M (one per input and own state), slacks for |A diag(y) + B M|, slacks for |M|.
    entries = [
        (u, x) for i, block in enumerate(state_blocks) for u in range(m)[input_blocks[i]] for x in range(n)[block]
    ]
    column_of = {pair: n + k for k, pair in enumerate(entries)}
    by_state: dict[int, list[int]] = {}
    for u, x in entries:
        by_state.setdefault(x, []).append(u)
    s0 = n + len(entries)
    pairs = [
        (i, j) for i in range(n) for j in range(n) if A[i, j] != 0 or any(B[i, u] != 0 for u in by_state.get(j, []))
    ]
    a0 = s0 + len(pairs)
    N = a0 + len(entries)
    rows: list[dict[int, float]] = []
    upper: list[float] = []
    for k, (i, j) in enumerate(pairs):
        terms = {j: A[i, j]} | {column_of[u, j]: B[i, u] for u in by_state.get(j, [])}
        for sign in (1.0, -1.0):
            rows.append({c: sign * v for c, v in terms.items()} | {s0 + k: -1.0})
            upper.append(0.0)
    sums: list[dict[int, float]] = [{i: -1.0} for i in range(n)]
    for k, (i, _) in enumerate(pairs):
        sums[i][s0 + k] = 1.0
    rows += sums
    upper += list(-(w + np.abs(B) @ authority))
    for k, pair in enumerate(entries):
        for sign in (1.0, -1.0):
            rows.append({column_of[pair]: sign, a0 + k: -1.0})
            upper.append(0.0)
    for u in range(m):
        rows.append({a0 + k: 1.0 for k, (v, _) in enumerate(entries) if v == u})
        upper.append(float(input_limit[u] - authority[u]))
    for row, limit in zip(limit_rows, limits, strict=True):
        rows.append({j: abs(row[j]) for j in np.flatnonzero(row).tolist()})
        upper.append(float(limit))
    index = [(r, c, v) for r, row in enumerate(rows) for c, v in row.items()]
    row_index, column_index, value = zip(*index, strict=True)
    matrix = sparse.csr_array((value, (row_index, column_index)), shape=(len(rows), N))
    cost = np.zeros(N)
    cost[:n] = 1.0
    cost[a0:] = 1e-4  # among equal boxes the gentlest law
    lower = np.full(N, -np.inf)
    lower[:n] = 0.0
    lower[s0:] = 0.0
    try:
        solution = solve_lp(cost, matrix, np.full(len(rows), -np.inf), upper, lower).x
    except InfeasibleError as error:
        raise InfeasibleError(
            "no box in these coordinates is robustly invariant for all agents together: choose other coordinates, "
            "smaller disturbances, wider limits, or less authority for the optimiser",
            error.status,
        ) from error
    y = np.maximum(solution[:n], 1e-12)
    K = np.zeros((m, n))
    effort = np.zeros(m)
    for (u, j), column in column_of.items():
        K[u, j] = solution[column] / y[j]
        effort[u] += abs(solution[column])
    factor = room
    with np.errstate(divide="ignore"):
        factor = min(factor, float(np.min((input_limit - authority) / effort, initial=np.inf)))
        factor = min(factor, float(np.min(limits / (np.abs(limit_rows) @ y), initial=np.inf)))
    factor = max(factor, 1.0)
    boxes = InvariantBoxes(y * factor, K, factor)
    excess = (one_step_growth(A, B, boxes, w, authority) - 1.0) * boxes.y
    if np.max(excess) > TOLERANCE:
        raise NumericalError(
            f"the boxes of the linear program are not invariant: coordinate {int(np.argmax(excess))} leaves its box of "
            f"+-{boxes.y[np.argmax(excess)]:.4g} by {np.max(excess):.2g}",
            "not invariant",
        )
    return boxes


def one_step_growth(A: Matrix, B: Matrix, boxes: InvariantBoxes, w: Vector, authority: Vector) -> Vector:
    """Largest |x+| over |x| <= y, |c| <= gamma and all disturbances, divided by y; (n,), at most 1 when invariant."""
    reach = np.abs(A + B @ boxes.K) @ boxes.y + np.abs(B) @ authority + w
    return reach / boxes.y
