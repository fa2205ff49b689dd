"""norm2(e(w)) <= y for all w, where e is affine in w: the trajectory stays in an announced ball.

Maximising a norm over a box is hard in general, so two ways are used:

- up to `CORNERS` corners of the boxes involved: one second-order cone per corner, exact;
- more: the S-procedure, sound but possibly conservative (Ben-Tal, Nemirovski 2001; seed 004 section 5.1 uses it too):
      [ y - sum(l)   0         e_0' ]
      [ 0            diag(l)   G'   ]  >= 0,  l >= 0,  with one multiplier per box coordinate or ball.
      [ e_0          G         y I  ]
"""

from __future__ import annotations

from itertools import product

import numpy as np

from rmpc_ros.errors import ConfigError
from rmpc_ros.network.affine_table import Integers, Table, Vector, stack
from rmpc_ros.network.robust_program import RobustProgram

CORNERS = 256


def contain_in_ball(program: RobustProgram, e: Table, y: Table) -> None:
    """Add norm2(e(w)) <= y, with e (n entries) and y (1 entry, column 0)."""
    columns = np.unique(e.col[e.col > 0])
    owners = program.w.block_of_column()[columns] if columns.size else np.empty(0, np.int64)
    if np.all(owners < 0) and 2**columns.size <= CORNERS:
        _at_corners(program, e, y, columns)
    else:
        _s_procedure(program, e, y, columns, owners)


def _at_corners(program: RobustProgram, e: Table, y: Table, columns: Integers) -> None:
    place = np.searchsorted(columns, e.col)
    for corner in product([-1.0, 1.0], repeat=columns.size):
        weights = np.array([*corner, 0.0])
        value = np.where(e.col == 0, 1.0, weights[place]) * e.val
        program.cones.append(stack([y, Table(e.rows, e.row, np.zeros_like(e.col), e.var, value)]))


def _s_procedure(program: RobustProgram, e: Table, y: Table, columns: Integers, owners: Integers) -> None:
    blocks = program.w.blocks
    if any(blocks[b].kind == "vertices" for b in owners[owners >= 0]):
        raise ConfigError("ball-shaped forecast sets cannot be fed by polytope-shaped ones; use boxes or balls")
    q, n = columns.size, e.rows
    group = np.where(owners < 0, -1 - np.arange(q), owners)  # a rhombus lies in the unit ball: one multiplier too
    names, multiplier_of = np.unique(group, return_inverse=True)
    multipliers = program.new(names.size, 0.0)
    order = 1 + q + n
    rows: list[Integers] = []
    var: list[Integers] = []
    val: list[Vector] = []

    def put(i: Integers, j: Integers, variables: Integers, values: Vector) -> None:
        low, high = np.minimum(i, j), np.maximum(i, j)
        rows.append(high * (high + 1) // 2 + low)
        var.append(variables)
        val.append(values * np.where(low == high, 1.0, np.sqrt(2.0)))

    zero = np.zeros(names.size, np.int64)
    put(np.zeros(y.row.size, np.int64), np.zeros(y.row.size, np.int64), y.var, y.val)
    put(zero, zero, multipliers, -np.ones(names.size))
    diagonal = 1 + np.arange(q)
    put(diagonal, diagonal, multipliers[multiplier_of], np.ones(q))
    for k in range(n):
        corner = np.full(y.row.size, 1 + q + k)
        put(corner, corner, y.var, y.val)
    place = np.where(e.col == 0, 0, 1 + np.searchsorted(columns, e.col))
    put(place, 1 + q + e.row, e.var, e.val)
    table = Table(
        order * (order + 1) // 2,
        np.concatenate(rows),
        np.zeros(sum(r.size for r in rows), np.int64),
        np.concatenate(var),
        np.concatenate(val),
    )
    program.matrices.append((order, table))
