"""The negotiation's optimum from one desk: all agents' nominal plans in one quadratic program, for comparison.

    min over (v_1..v_M)  sum_i J_i(v_i, zeta_i(v))   s.t.  every agent's own rows

where the trajectories s = (x, v) of all agents follow from s = S_v v + S_zeta P s + s_0, P picking the neighbours'.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from scipy.linalg import block_diag

from rmpc_ros.mpc.local import Matrix, Vector
from rmpc_ros.network.cooperation import Cooperation
from rmpc_ros.solvers.qp import DenseQp


class JointPlan:
    """Central twin of `cooperation.negotiate`.

    Parameters
    ----------
    agents : all of the network; their compiled quadratics are used, and the data of their last `begin`
    """

    def __init__(self, agents: Mapping[str, Cooperation]) -> None:
        self.agents = dict(agents)
        members = list(self.agents.values())
        self._sizes = [c.plan.size for c in members]
        at = np.concatenate([[0], np.cumsum([len(c.trajectory_of) for c in members])])
        where = {name: slice(at[n], at[n + 1]) for n, name in enumerate(self.agents)}
        pick = [self._pick(c, where, int(at[-1])) for c in members]
        through = [c.trajectory_of[:, c.plan.size :] @ P for c, P in zip(members, pick, strict=True)]
        inverse = np.linalg.inv(np.eye(int(at[-1])) - np.vstack(through))
        from_v = inverse @ block_diag(*[c.trajectory_of[:, : c.plan.size] for c in members])
        ends = np.cumsum([0, *self._sizes])
        self._own: list[tuple[Matrix, Matrix]] = []  # (v_i, zeta_i) of all v, and of all s_0
        H = np.zeros((int(ends[-1]), int(ends[-1])))
        for n, (c, P) in enumerate(zip(members, pick, strict=True)):
            own = np.eye(int(ends[-1]))[ends[n] : ends[n + 1]]
            of_v = np.vstack([own, P @ from_v])
            self._own.append((of_v, np.vstack([np.zeros((len(own), int(at[-1]))), P @ inverse])))
            H += of_v.T @ c.H @ of_v
        self.H = (H + H.T) / 2
        self._qp = DenseQp(self.H, block_diag(*[c.rows for c in members]))

    def _pick(self, c: Cooperation, where: Mapping[str, slice], size: int) -> Matrix:
        """Matrix (N ng, all trajectories) that picks what an agent feels of its neighbours."""
        N, ng = c.design.horizon, c.design.model.ng
        P = np.zeros((N, ng, size))
        for name, other in c.design.neighbours.items():
            n = len(other.terminal)
            for t in range(N):
                P[t, other.columns, where[name].start + t * n : where[name].start + (t + 1) * n] = np.eye(n)
        return P.reshape(N * ng, size)

    def load(self) -> None:
        """Take over the data of the step that the agents have begun."""
        start = np.concatenate([c.start.ravel() for c in self.agents.values()])
        self._f, self._constant = np.zeros(len(self.H)), 0.0
        for c, (of_v, of_start) in zip(self.agents.values(), self._own, strict=True):
            fixed = of_start @ start
            self._f += of_v.T @ (c.H @ fixed + c.linear)
            self._constant += float(0.5 * fixed @ c.H @ fixed + c.linear @ fixed + c.constant)
        split = [(c.plan.size, c.upper, c.lower) for c in self.agents.values()]
        upper = np.concatenate([u[:n] for n, u, _ in split] + [u[n:] for n, u, _ in split])
        lower = np.concatenate([low[:n] for n, _, low in split] + [low[n:] for n, _, low in split])
        self._qp.update(self._f, upper, lower)

    def solve(self) -> tuple[dict[str, Matrix], float]:
        """Best nominal plans (N, nu) and the sum of costs, after `load`.

        Raises
        ------
        InfeasibleError, NumericalError
        """
        solution = self._qp.solve()
        parts = np.split(solution.v, np.cumsum(self._sizes)[:-1])
        plans = {n: v.reshape(c.plan.shape) for v, (n, c) in zip(parts, self.agents.items(), strict=True)}
        return plans, solution.objective + self._constant

    def value(self, plans: Mapping[str, Matrix]) -> float:
        """Sum of costs of some plans (N, nu) for the data of the last `load`."""
        v: Vector = np.concatenate([plans[name].ravel() for name in self.agents])
        return float(0.5 * v @ self.H @ v + self._f @ v + self._constant)
