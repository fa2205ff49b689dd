"""The readable twin of a compiled program: the same `UncertainProgram` written with cvxpy, one counterpart per row.

It shares nothing with `compiled.py` beyond the expressions: each family's own `counterpart` is used row by row. Tests
compare the two, benchmarks time them; a control loop uses the compiled one.
"""

from __future__ import annotations

from collections.abc import Mapping

import cvxpy as cp
import numpy as np
from scipy import sparse

from rmpc_ros.robust.affine import CONSTANT, NOMINAL, Affine, Vector
from rmpc_ros.robust.uncertain_program import UncertainProgram
from rmpc_ros.sets.base import UncertaintySet


def readable(
    program: UncertainProgram,
    sets: Mapping[str, UncertaintySet] | None = None,
    parameters: Mapping[str, cp.Parameter | Vector] | None = None,
) -> tuple[cp.Problem, cp.Variable]:
    """(problem, its decision vector), with sets and parameters by name; default: the declared sets, zeros.

    `cvxpy.Parameter` objects may be given for parameters, so that the model can be re-solved (DPP).
    """
    x = cp.Variable(max(program.size, 1))
    members = {name: slot.initial for name, slot in program.slots.items()} | dict(sets or {})
    p: cp.Expression = cp.Constant(np.zeros(max(program.parameter_size, 1)))
    if program.parameters:
        given = dict(parameters or {})
        p = cp.hstack([given.get(name, np.zeros(index.size)) for name, index in program.parameters.items()])

    def expression(e: Affine) -> cp.Expression:
        """Entries of an expression without uncertainty."""
        shape_x, shape_p = (e.rows, x.size), (e.rows, p.size)
        decided, given = e.sym >= 0, e.sym < CONSTANT
        F = sparse.csr_array((e.val[decided], (e.row[decided], e.sym[decided])), shape=shape_x)
        P = sparse.csr_array((e.val[given], (e.row[given], -2 - e.sym[given])), shape=shape_p)
        number = np.zeros(e.rows)
        fixed = e.sym == CONSTANT
        np.add.at(number, e.row[fixed], e.val[fixed])
        return F @ x + P @ p + number

    constraints: list[cp.Constraint] = []
    if program.size:
        lower, upper = np.concatenate(program.lower), np.concatenate(program.upper)
        low, up = np.flatnonzero(np.isfinite(lower)), np.flatnonzero(np.isfinite(upper))
        constraints += [x[low] >= lower[low]] if low.size else []
        constraints += [x[up] <= upper[up]] if up.size else []
    for _, e in program.equalities:
        for column in np.unique(e.col):
            constraints.append(expression(e.part(e.col == column)) == 0)
    for constraint in program.constraints:
        e = constraint.expression
        for i in range(e.rows):
            row = e.part(e.row == i)
            here = Affine(1, np.zeros_like(row.row), row.col, row.sym, row.val)
            total = expression(here.part(here.col == NOMINAL))[0]
            for vector in program.vectors.values():
                inside = (here.col >= vector.columns[0]) & (here.col <= vector.columns[-1])
                if not np.any(inside):
                    continue
                term = here.part(inside)
                d = vector.columns.size
                direction = expression(Affine(d, term.col - vector.columns[0], term.row, term.sym, term.val))
                bound = cp.Variable()
                slot = constraint.over.get(vector.name, vector.members)
                constraints += members[slot.name].counterpart(direction, bound)
                total = total + bound
            constraints.append(total <= 0)
    cost: cp.Expression = cp.sum(expression(program.objective.linear))
    for e, weights in program.objective.squares:
        cost = cost + cp.sum_squares(cp.multiply(np.sqrt(weights), expression(e)))
    return cp.Problem(cp.Minimize(cost), constraints), x
