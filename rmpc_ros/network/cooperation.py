"""Agents that aim at what is best for all of them: consensus ADMM rounds about nominal trajectories before each step.

    min  sum_i J_i(v_i, zeta_i)   s.t.  v_i keeps agent i's tightened rows,  zeta_i = (x_j, v_j) of its neighbours j,
                                        x_i(t+1) = A_i x_i + B_i v_i + G_i zeta_i

J_i and the rows are those of the agent's own robust problem: the rows reckon with everything the neighbours' HELD
promises allow, so they bind v_i alone and a negotiated plan is a certified one; only the objectives are coupled.
Without negotiation an agent minimises its own J_i with zeta_i at the centres of the promises of the step before.

Each agent keeps its own trajectory s_i = (x_i, v_i) and a copy of each neighbour's; one edge (j, i) per copy:

    own problem   min J_i + rho/2 sum_edges |w - y + l|^2_W,    w = s_i for who listens, w = copy of a neighbour's s_j
    message       m = a w + (1 - a) y + l                        (over-relaxed value plus scaled multiplier)
    both ends     y = (m + m')/2,   l = m - y

(Boyd et al. 2011, sections 3.4.3 and 7.2, on edges, so that only neighbours talk). y and l follow from the last two
messages alone, so what was lost in one round is mended in the next. The copies are eliminated, and what is left is a QP
in v_i of the size of the control problem, compiled once. W weighs inputs by INPUT_WEIGHT.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
from scipy.linalg import block_diag

from rmpc_ros.config.sections import Cooperation as Options
from rmpc_ros.errors import ConfigError, DataError
from rmpc_ros.mpc.fixed import FixedFeedback
from rmpc_ros.mpc.local import Matrix
from rmpc_ros.network.agent_design import AgentDesign
from rmpc_ros.solvers.qp import DenseQp

INPUT_WEIGHT = 0.01  # of an input in W, a state has 1: equal weights took three times the rounds on the shipped plants
LARGEST = 1e3  # of a number in a message (1 is the distance to a limit): beyond it is nonsense


@dataclass(frozen=True)
class Proposal:
    """What one agent says in one round.

    Attributes
    ----------
    agent, step, round : round 1 is the first; 0 says "I do not negotiate in this step"
    own : per listening agent, the sender's trajectory plus multiplier, (N, nx+nu), normalised
    copies : per neighbour, the sender's copy of its trajectory plus multiplier, (N, n), normalised
    residual : largest disagreement in the round before
    last : nothing more comes in this step; this message stands for all rounds to come
    """

    agent: str
    step: int
    round: int
    own: dict[str, Matrix] = field(default_factory=dict)
    copies: dict[str, Matrix] = field(default_factory=dict)
    residual: float = np.nan
    last: bool = False


@dataclass
class _Edge:
    """One end of an agreement: agreed trajectory y, scaled multiplier l, own value w and message m, all (N, n)."""

    y: Matrix
    l: Matrix  # noqa: E741
    w: Matrix
    m: Matrix

    def meet(self, other: Matrix) -> tuple[float, float]:
        """Take the other end's message in; returns disagreement and movement (root mean squares)."""
        agreed = (self.m + other) / 2
        moved = _rms(agreed - self.y)
        self.y, self.l = agreed, self.m - agreed
        return _rms(self.w - agreed), moved

    def shift(self) -> None:
        """One step on, the last stage repeated."""
        self.y, self.l = np.vstack([self.y[1:], self.y[-1:]]), np.vstack([self.l[1:], self.l[-1:]])


class Cooperation:
    """One agent's side of the rounds: `begin` a step, then `propose` and `take` in turn until `settled`.

    Parameters
    ----------
    design : of the agent; its feedback form is "fixed"
    followers : agents that have this one as a neighbour
    options : section `network.cooperation` of the plant file

    Attributes
    ----------
    partners : whom this agent negotiates with, neighbours and followers
    plan : (N, nu) nominal deviations from the backup law, of the newest round
    round : newest round of this step
    residual : largest disagreement of the newest round, root mean square over an edge; nan before it is known
    terminal_weight : factor of the design's P in J_i

    Raises
    ------
    ConfigError
        Another feedback form.
    """

    def __init__(self, design: AgentDesign, followers: Iterable[str], options: Options) -> None:
        if design.form != "fixed":
            raise ConfigError(
                f"agent '{design.name}' has feedback '{design.form}' and mode cooperative: the rounds are about the "
                "nominal plan of feedback 'fixed'; choose that, or mode robust"
            )
        self.design, self.options = design, options
        self.followers = tuple(followers)
        self.partners = tuple(dict.fromkeys([*design.neighbours, *self.followers]))
        self.round, self.residual, self.settled = 0, np.nan, False
        self.step = -1
        N, n = design.horizon, design.nx + design.nu
        self._edges_own = {f: _edge(N, n) for f in self.followers}
        self._edges_copy = {j: _edge(N, len(other.terminal)) for j, other in design.neighbours.items()}
        self.plan = np.zeros((N, design.nu))
        self._fixed, self.terminal_weight = design.build_fixed(), 1.0
        self._compile()

    def weigh_terminal(self, factor: float) -> None:
        """Another factor of the terminal weight in the own objective; between steps. The others need not know."""
        if factor != self.terminal_weight:
            self.terminal_weight = factor
            self._compile()

    def _compile(self) -> None:
        """The quadratic in (v, zeta), the own trajectory as a map of it, and the QP in v with zeta eliminated."""
        design, N, pred = self.design, self._fixed.N, self._fixed.prediction
        nx, nu, ng = design.nx, design.nu, design.model.ng
        self._nv = nv = N * nu
        X = np.hstack([pred.x_v, pred.x_d[:, nx:]])
        U = np.hstack([pred.u_v, pred.u_d[:, nx:]])
        Q, R = np.kron(np.eye(N), design.cost.Q), np.kron(np.eye(N), design.cost.R)
        Q[-nx:, -nx:] = self.terminal_weight * design.cost.P
        self.H = 2 * (X.T @ Q @ X + U.T @ R @ U)
        self._weights = block_diag(Q, R)  # of x(1..N) and u(0..N-1)
        self._to_cost = 2 * np.vstack([X, U]).T @ self._weights
        self._x_known, self._u_known = pred.x_d[:, :nx], pred.u_d[:, :nx]
        S = np.zeros((N, nx + nu, nv + N * ng))
        S[1:, :nx] = X.reshape(N, nx, -1)[:-1]
        for t in range(N):
            S[t, nx:, t * nu : (t + 1) * nu] = np.eye(nu)
        self.trajectory_of = S.reshape(N * (nx + nu), -1)
        self._weight = self.options.rho * np.tile(np.repeat([1.0, INPUT_WEIGHT], [nx, nu]), N)
        pull = np.empty(ng)
        for other in design.neighbours.values():
            states = other.transform.shape[0]
            pull[other.columns] = np.repeat([1.0, INPUT_WEIGHT], [states, len(other.terminal) - states])
        self._pull = self.options.rho * np.tile(pull, N)
        H = self.H + len(self.followers) * self.trajectory_of.T @ (self._weight[:, None] * self.trajectory_of)
        self._to_pull = self.trajectory_of.T * self._weight
        H[nv:, nv:] += np.diag(self._pull)
        self._inverse = np.linalg.inv(H[nv:, nv:])
        self._back = self._inverse @ H[nv:, :nv]
        reduced = H[:nv, :nv] - H[:nv, nv:] @ self._back
        self.rows = self._fixed.qp.A
        self._qp = DenseQp((reduced + reduced.T) / 2, self.rows)

    # -- a step -------------------------------------------------------------------------------------------------------
    def begin(self, step: int, fixed: FixedFeedback) -> None:
        """Take over the data of a step: the agent's own problem, after `Agent.look`.

        The agreements of the step before are continued, one stage on; after a pause they start anew from what the
        neighbours promised.
        """
        data, nx = fixed.data, self.design.nx
        _, self.upper, self.lower = fixed.sides()
        self.x = data.x.copy()
        offset = fixed.offset
        x_rest = self._x_known @ data.x + offset[: len(self._x_known)]
        u_rest = self._u_known @ data.x + offset[len(self._x_known) :]
        N = self.design.horizon
        error = np.concatenate([x_rest - np.tile(data.x_ref, N), u_rest - np.tile(data.u_ref, N)])
        self.linear, self.constant = self._to_cost @ error, float(error @ self._weights @ error)
        self.start = np.zeros((N, nx + self.design.nu))
        self.start[0, :nx], self.start[1:, :nx] = data.x, x_rest.reshape(N, nx)[:-1]
        self._held = {j: data.zeta[:, other.columns].copy() for j, other in self.design.neighbours.items()}
        continued = step == self.step + 1 and self.round > 0
        for edge in (*self._edges_own.values(), *self._edges_copy.values()):
            if continued:
                edge.shift()
            else:
                edge.l[:] = 0.0
        if not continued:
            for j, edge in self._edges_copy.items():
                edge.y = self._held[j].copy()
            for edge in self._edges_own.values():
                edge.y = self.start + (self.trajectory_of[:, self._nv :] @ data.zeta.ravel()).reshape(N, -1)
        self.step, self.round, self.residual, self.settled = step, 0, np.nan, False

    def propose(self) -> Proposal:
        """The next round: solve the own problem with what is agreed so far, and say so.

        Raises
        ------
        InfeasibleError, NumericalError
            The own rows have no solution (then neither has the robust problem), or the solver failed.
        """
        nv, N = self._nv, self.design.horizon
        linear = self.linear.copy()
        for edge in self._edges_own.values():
            linear += self._to_pull @ (self.start - edge.y + edge.l).ravel()
        target = np.zeros((N, self.design.model.ng))
        for j, other in self.design.neighbours.items():
            target[:, other.columns] = self._edges_copy[j].y - self._edges_copy[j].l
        linear[nv:] -= self._pull * target.ravel()
        self._qp.update(linear[:nv] - self._back.T @ linear[nv:], self.upper, self.lower)
        v = self._qp.solve().v
        zeta = -(self._back @ v + self._inverse @ linear[nv:])
        self.plan = v.reshape(N, -1)
        own = self.start + (self.trajectory_of @ np.concatenate([v, zeta])).reshape(N, -1)
        copies, a = zeta.reshape(N, -1), self.options.over_relaxation
        for edge in self._edges_own.values():
            edge.w = own
        for j, edge in self._edges_copy.items():
            edge.w = copies[:, self.design.neighbours[j].columns]
        for edge in (*self._edges_own.values(), *self._edges_copy.values()):
            edge.m = a * edge.w + (1 - a) * edge.y + edge.l
        self.round += 1
        return Proposal(
            self.design.name,
            self.step,
            self.round,
            {f: edge.m for f, edge in self._edges_own.items()},
            {j: edge.m for j, edge in self._edges_copy.items()},
            self.residual,
            self.settled or self.round >= self.options.rounds,
        )

    def take(self, heard: Mapping[str, Proposal | None]) -> None:
        """Agree with what the partners said in the same round; `settled` tells whether the next word is the last.

        A partner that does not negotiate (round 0) is taken at its promise's centres, and does not care for copies; one
        that was not heard (None, or missing) changes nothing in this round. What comes from outside is `check`ed first.
        """
        name, found, partners = self.design.name, [0.0], [0.0]
        for partner in self.partners:
            said = heard.get(partner)
            if said is None:
                found.append(np.inf)
                continue
            away = said.round == 0
            if not away:
                partners.append(0.0 if said.last else said.residual)
            if partner in self._edges_copy:
                edge = self._edges_copy[partner]
                if away:  # the method of multipliers: the copy comes to the promise's centre
                    edge.l = edge.m - self._held[partner]
                    edge.y = self._held[partner]
                    found.append(_rms(edge.w - edge.y))
                else:
                    found += edge.meet(said.own[name])
            if partner in self._edges_own:
                edge = self._edges_own[partner]
                found += edge.meet(edge.m if away else said.copies[name])
        self.residual = max(found)
        # Round 1 knows no partner's residual yet: nan is not <=.
        self.settled = bool(np.max([self.residual, *partners]) <= self.options.tolerance)

    def check(self, said: Proposal) -> None:
        """Whether a message can be taken.

        Raises
        ------
        DataError
            Its trajectories have the wrong shape, are not finite or far beyond any limit.
        """
        if said.round == 0:
            return
        for edges, blocks in ((self._edges_copy, said.own), (self._edges_own, said.copies)):
            if said.agent not in edges:
                continue
            values, shape = blocks.get(self.design.name), edges[said.agent].m.shape
            if values is None or values.shape != shape or not np.all(np.abs(values) <= LARGEST):  # refuses NaN too
                raise DataError(
                    f"round {said.round} of '{said.agent}' for step {said.step}: wanted is a trajectory of shape "
                    f"{shape} with numbers within +-{LARGEST:g}"
                )


def _edge(N: int, n: int) -> _Edge:
    return _Edge(*(np.zeros((N, n)) for _ in range(4)))


def _rms(values: Matrix) -> float:
    return float(np.sqrt(np.mean(values**2))) if values.size else 0.0
