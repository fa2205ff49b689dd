"""Robust MPC under a union of disturbance sets: the first move by CCG, certified by the tightened nominal problem.

1. c0 = the first move of the two-stage problem whose disturbance lies in the union (`ccg_mpc.py`): it knows that the
   feed is one supplier's or the other's and never in between, which the convex hull forgets.
2. The nearest move to c0 that fixed feedback can complete inside the promise for the whole hull: the QP of `fixed.py`
   with a large weight on |v(0) - c0|^2. Its plan and tube are what is promised.

So the union improves what the agent does now, and the guarantee stays that of fixed feedback over the hull.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from rmpc_ros.errors import ConfigError
from rmpc_ros.mpc.ccg_mpc import UnionController
from rmpc_ros.mpc.fixed import FixedFeedback
from rmpc_ros.mpc.local import Cost, LocalModel, LocalPlan, StepData
from rmpc_ros.robust.polytope_union import PolytopeUnion
from rmpc_ros.sets.union import UnionSet
from rmpc_ros.solvers.qp import DenseQp

HORIZON = 2  # steps of the two-stage problem: K^HORIZON combinations of subsets in one mixed-integer program
PULL = 1e3  # weight of the pull towards c0, over the largest diagonal entry of the nominal cost


class UnionFeedback:
    """Compiled problem of one agent; fill `data`, call `solve`.

    Parameters
    ----------
    model : exactly one of its disturbances is a `UnionSet` of polytopes
    cost, horizon : as for `FixedFeedback`; the two-stage problem takes the 1-norm with the square roots of the diagonal
        of Q and R over its own short horizon

    Raises
    ------
    ConfigError
        None or several of the model's disturbances are unions.
    """

    form = "union"

    def __init__(self, model: LocalModel, cost: Cost, horizon: int) -> None:
        unions = [(E, members) for E, members in model.disturbances if isinstance(members, UnionSet)]
        if len(unions) != 1:
            raise ConfigError(
                f"controller.feedback: union needs one disturbance set of family 'union' in controller.set, has "
                f"{len(unions)}"
            )
        self.model, self.N = model, horizon
        self.fixed = FixedFeedback(model, cost, horizon)
        E, members = unions[0]
        rest = tuple(pair for pair in model.disturbances if pair[1] is not members)
        self._short = UnionController(
            replace(model, disturbances=rest),
            E,
            PolytopeUnion.from_union(members),
            min(HORIZON, horizon),
            np.sqrt(np.diag(cost.Q)),
            np.sqrt(np.diag(cost.R)),
        )
        self._pull = PULL * float(np.max(np.diag(self.fixed.qp.H)))
        H = self.fixed.qp.H.copy()
        first = np.arange(model.nu)
        H[first, first] += self._pull
        self._qp = DenseQp(H, self.fixed.qp.A)

    @property
    def data(self) -> StepData:
        """The data of the step."""
        return self.fixed.data

    def solve(self) -> LocalPlan:
        """Solve for the data in force.

        Raises
        ------
        InfeasibleError, UnboundedError, NumericalError
        """
        data, short, rows = self.data, self._short.data, self._short.N
        short.x[:], short.x_ref[:], short.u_ref[:] = data.x, data.x_ref, data.u_ref
        for name in ("zeta", "radius", "x_lower", "x_upper", "c_lower", "c_upper"):
            getattr(short, name)[:] = getattr(data, name)[:rows]
        wanted = self._short.solve().c
        f, upper, lower = self.fixed.sides()
        f[: self.model.nu] -= self._pull * wanted
        self._qp.update(f, upper, lower)
        solution = self._qp.solve()
        return self.fixed.plan(solution.v, None, solution.objective, solution.iterations)
