"""A linear or conic program whose constraints hold for every value of an uncertain vector w.

    e(w) <= 0 for all w   becomes   e_0 + sum over blocks of sigma_block(e_block) <= 0,

one support function per block of w (math.md section 1). Each abs(coefficient) is p + q with coefficient = p - q and
p, q >= 0, a pair that all constraints share. Data are collected as sparse triplets and given to HiGHS
(linear) or Clarabel (second-order and semidefinite blocks, squares).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rmpc_ros.network.affine_table import CONSTANT, Integers, Matrix, Table, Vector, stack, total

Kind = Literal["box", "ball", "rhombus", "vertices"]


@dataclass(frozen=True)
class Block:
    """Consecutive columns of w that form one primitive set.

    Attributes
    ----------
    kind : "box" (abs(w_k) <= 1), "ball" (norm2 <= 1), "rhombus" (norm1 <= 1), "vertices" (convex hull of `points`).
    columns : column numbers in tables, (k,)
    label, time : whose uncertainty and at which step it becomes known
    points : (k, m) vertices, for "vertices" only
    """

    kind: Kind
    columns: Integers
    label: str
    time: int
    points: Matrix | None = None


@dataclass
class Uncertainty:
    """The uncertain vector w of one program: blocks in order; column 0 stands for the constant 1."""

    blocks: list[Block] = field(default_factory=list)
    size: int = 1

    def add(self, kind: Kind, size: int, label: str, time: int, points: Matrix | None = None) -> Integers:
        """Append a block; returns its columns."""
        columns = np.arange(self.size, self.size + size, dtype=np.int64)
        self.blocks.append(Block(kind, columns, label, time, points))
        self.size += size
        return columns

    def block_of_column(self) -> Integers:
        """(size,) number of the block of each column, -1 for column 0 and for boxes (whose entries are separate)."""
        out = np.full(self.size, -1, np.int64)
        for n, block in enumerate(self.blocks):
            if block.kind != "box":
                out[block.columns] = n
        return out


def _merge(table: Table) -> Table:
    """Sum terms of the same entry, column and variable."""
    if table.row.size == 0:
        return table
    order = np.lexsort((table.var, table.col, table.row))
    row, col, var, val = table.row[order], table.col[order], table.var[order], table.val[order]
    new = np.concatenate([[True], (np.diff(row) != 0) | (np.diff(col) != 0) | (np.diff(var) != 0)])
    start = np.flatnonzero(new)
    value = np.add.reduceat(val, start)
    keep = np.abs(value) > 1e-13
    return Table(table.rows, row[start][keep], col[start][keep], var[start][keep], value[keep])


def _filter(table: Table, keep: NDArray[np.bool_]) -> Table:
    return Table(table.rows, table.row[keep], table.col[keep], table.var[keep], table.val[keep])


class RobustProgram:
    """Collects variables, robust constraints and cost of one program.

    Attributes
    ----------
    w : the program's uncertain vector
    variables : number of decision variables so far
    rows : number of linear rows so far
    cones : second-order blocks, each a table (top, rest...) with norm2(rest) <= top
    matrices : semidefinite blocks (order, table of its scaled upper triangle, column-wise)
    """

    def __init__(self) -> None:
        self.w = Uncertainty()
        self.variables = 0
        self.rows = 0
        self.cones: list[Table] = []
        self.matrices: list[tuple[int, Table]] = []
        self.lower: list[Vector] = []
        self.upper: list[Vector] = []
        self.triplets: list[tuple[Integers, Integers, Vector]] = []
        self.row_lower: list[Vector] = []
        self.row_upper: list[Vector] = []
        self.cost: list[tuple[Integers, Vector]] = []
        self.squares: list[tuple[Integers, Vector]] = []
        self.cost_constant = 0.0
        self._abs: dict[int, tuple[int, int]] = {}

    # -- variables and plain rows -------------------------------------------------------------------------------------
    def new(self, count: int, lower: ArrayLike = -np.inf, upper: ArrayLike = np.inf) -> Integers:
        """New decision variables; returns their numbers."""
        index = np.arange(self.variables, self.variables + count, dtype=np.int64)
        self.variables += count
        self.lower.append(np.broadcast_to(np.asarray(lower, float), count).copy())
        self.upper.append(np.broadcast_to(np.asarray(upper, float), count).copy())
        return index

    def add_rows(self, table: Table, lower: ArrayLike, upper: ArrayLike) -> None:
        """Lower <= e_0 <= upper for the deterministic part of each entry."""
        t = _filter(table, table.col == 0)
        shift = np.zeros(table.rows)
        fixed = t.var == CONSTANT
        np.add.at(shift, t.row[fixed], t.val[fixed])
        self.triplets.append((t.row[~fixed] + self.rows, t.var[~fixed], t.val[~fixed]))
        self.row_lower.append(np.broadcast_to(np.asarray(lower, float), table.rows) - shift)
        self.row_upper.append(np.broadcast_to(np.asarray(upper, float), table.rows) - shift)
        self.rows += table.rows

    def equal_zero(self, table: Table) -> None:
        """e(w) = 0 for all w: every coefficient vanishes."""
        t = _merge(table)
        keys, row = np.unique(t.row * self.w.size + t.col, return_inverse=True)
        self.add_rows(Table(keys.size, row, np.zeros_like(row), t.var, t.val), 0.0, 0.0)

    # -- support functions --------------------------------------------------------------------------------------------
    def magnitude(self, table: Table) -> Table:
        """Upper bound (tight at the optimum) of max_w of each entry's uncertain part; a table of column 0 only."""
        t = _merge(_filter(table, table.col > 0))
        owner = self.w.block_of_column()[t.col] if t.col.size else np.empty(0, np.int64)
        parts = [self._box_magnitude(_filter(t, owner < 0))]
        for number in np.unique(owner[owner >= 0]):
            inside = _filter(t, owner == number)
            for row in np.unique(inside.row):
                parts.append(self._block_magnitude(inside, int(row), self.w.blocks[int(number)]))
        return total(parts)

    def _box_magnitude(self, t: Table) -> Table:
        if t.row.size == 0:
            return Table.zeros(t.rows)
        key = t.row * self.w.size + t.col
        _, first, group, counts = np.unique(key, return_index=True, return_inverse=True, return_counts=True)
        alone = counts[group] == 1
        number = alone & (t.var == CONSTANT)
        single = alone & (t.var != CONSTANT)
        zero = np.zeros
        parts = [Table(t.rows, t.row[number], zero(number.sum(), np.int64), t.var[number], np.abs(t.val[number]))]
        for half in self.absolute(t.var[single]):
            parts.append(Table(t.rows, t.row[single], zero(single.sum(), np.int64), half, np.abs(t.val[single])))
        many = np.flatnonzero(counts > 1)
        if many.size:
            place = np.full(counts.size, -1)
            place[many] = np.arange(many.size)
            inside = ~alone
            entry = place[group[inside]]
            values = Table(many.size, entry, zero(entry.size, np.int64), t.var[inside], t.val[inside])
            top = self._split(values)
            parts.append(Table(t.rows, t.row[first[many]][top.row], top.col, top.var, top.val))
        return total(parts)

    def _split(self, values: Table) -> Table:
        """abs(values) from above, as p + q with values = p - q, p, q >= 0: one equality row and no inequality."""
        p, q = self.new(values.rows, 0.0), self.new(values.rows, 0.0)
        plus, minus = Table.variables(p[:, None], [0]), Table.variables(q[:, None], [0])
        self.add_rows(total([values, plus.times(-1.0), minus]), 0.0, 0.0)
        return plus + minus

    def absolute(self, variables: Integers) -> tuple[Integers, Integers]:
        """Parts (p, q) with p + q >= abs(v) of the named variables; one pair per variable, shared by all who ask."""
        missing = np.array(sorted({int(v) for v in variables} - self._abs.keys()), np.int64)
        if missing.size:
            parts = self._split(Table.variables(missing[:, None], [0])).var.reshape(2, -1)
            self._abs.update((int(v), (int(p), int(q))) for v, p, q in zip(missing, *parts, strict=True))
        pairs = np.array([self._abs[int(v)] for v in variables], np.int64).reshape(-1, 2)
        return pairs[:, 0], pairs[:, 1]

    def _block_magnitude(self, t: Table, row: int, block: Block) -> Table:
        """Support of one non-box block for one entry, as a new variable."""
        here = _filter(t, t.row == row)
        local = np.searchsorted(block.columns, here.col)
        values = Table(block.columns.size, local, np.zeros(local.size, np.int64), here.var, here.val)
        r = self.new(1)
        top = Table.variables(r[:, None], [0])
        copies = top.left(np.ones((values.rows, 1)))
        match block.kind:
            case "ball":
                self.cones.append(stack([top, values]))
            case "rhombus":
                self.add_rows(stack([copies - values, copies + values]), 0.0, np.inf)
            case "vertices":
                assert block.points is not None
                at_vertices = values.left(block.points.T)
                self.add_rows(top.left(np.ones((at_vertices.rows, 1))) - at_vertices, 0.0, np.inf)
            case _:
                raise ValueError(f"block kind {block.kind!r}")
        return Table(t.rows, np.array([row]), np.zeros(1, np.int64), r, np.ones(1))

    # -- robust constraints -------------------------------------------------------------------------------------------
    def robust_le(self, table: Table, bound: ArrayLike = 0.0) -> None:
        """e(w) <= bound for all w, entry by entry."""
        fixed = _filter(table, table.col == 0)
        self.add_rows(fixed + self.magnitude(table), -np.inf, bound)

    def robust_abs_le(self, table: Table, bound: Table) -> None:
        """abs(e(w)) <= b for all w, with b affine in the decisions (column 0 only); symmetric blocks share slacks."""
        fixed = _filter(table, table.col == 0)
        if not np.any(table.col > 0) and np.all(bound.var == CONSTANT):  # nothing uncertain: one two-sided row each
            limit = bound.evaluate(np.empty(0), 1)[:, 0]
            self.add_rows(fixed, -limit, limit)
            return
        up = self.magnitude(table)
        symmetric = all(b.kind != "vertices" for b in self.w.blocks)
        down = up if symmetric else self.magnitude(table.times(-1.0))
        self.add_rows(stack([fixed + up - bound, down - fixed - bound]), -np.inf, 0.0)

    def at_least(self, table: Table) -> Integers:
        """New variables tau with e(w) <= tau for all w."""
        tau = self.new(table.rows)
        self.robust_le(table - Table.variables(tau[:, None], [0]))
        return tau

    def at_least_abs(self, table: Table) -> Integers:
        """New variables tau with abs(e(w)) <= tau for all w."""
        tau = self.new(table.rows, 0.0)
        self.robust_abs_le(table, Table.variables(tau[:, None], [0]))
        return tau

    # -- cost ---------------------------------------------------------------------------------------------------------
    def minimise(self, table: Table) -> None:
        """Add the sum of the deterministic parts to the cost."""
        t = _filter(table, table.col == 0)
        fixed = t.var == CONSTANT
        self.cost_constant += float(t.val[fixed].sum())
        self.cost.append((t.var[~fixed], t.val[~fixed]))

    def minimise_squares(self, variables: Integers, weights: ArrayLike = 1.0) -> None:
        """Add sum weights * v^2 to the cost."""
        self.squares.append((variables, np.broadcast_to(np.asarray(weights, float), variables.size).copy()))
