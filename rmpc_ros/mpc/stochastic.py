"""Stochastic MPC from samples: support-vector set (DRMPC), scenarios, or a box of scenarios, in one controller.

    x(t+1) = A x(t) + B u(t) + E w(t) + d(t),   u(t) = v(t) + sum_{s<t} M(t,s) phi(w(s)),   input limits for every w,
    P(H x(t) <= h(t)) >= 1 - epsilon for every t

M is free ("full"), M = m M_K with one decision m and the reaction M_K of a stabilising law u = K x ("scaled"), or
M = M_K ("fixed"); all three for every method.

The stacked disturbances of a horizon (w(0), ..., w(N-1)) need not be independent in time. What differs is who speaks
for the chance constraint:

- `support_vectors`: one calibrated set per stage on what the rows of stage t can see of the lifted vector (w, phi(w))
  for any v and M (mpc/stage_sets.py), of all rows together ("joint", the paper's) or of each direction ("rows"). The
  number of calibration samples depends neither on the horizon nor on the feedback.
- `scenarios`: every stage must hold for sample_size(decisions that act on the last one) samples, as in the paper's
  experiments (fewer would do for the early stages).
- `box`: the smallest box around sample_size(2 N) samples.

Where no policy satisfies the constraints, unbounded noise has led too far: the backup controller is the same problem
with the state constraints softened by an exact penalty. It is the only case with a slack above zero, and is counted.
Source: Shang, Huang, You (seed 003), sections 2 and 3.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rmpc_ros.errors import ConfigError, DataError
from rmpc_ros.mpc.stage_sets import StageSet, groups_of
from rmpc_ros.robust.box_robust import box_samples
from rmpc_ros.robust.cuts import CuttingPlanes, Oracle, worst_sample
from rmpc_ros.robust.horizon import LinearHorizon
from rmpc_ros.robust.policy import structure
from rmpc_ros.robust.scenario import sample_size
from rmpc_ros.robust.uncertain_program import UncertainProgram
from rmpc_ros.sets.box import Box
from rmpc_ros.sets.lifting import Saturation

Vector = NDArray[np.float64]
Matrix = NDArray[np.float64]
Method = Literal["support_vectors", "scenarios", "box"]
Feedback = Literal["full", "scaled", "fixed"]
Shape = Literal["joint", "rows"]
METHODS: tuple[Method, ...] = ("support_vectors", "scenarios", "box")


@dataclass(frozen=True)
class StochasticProblem:
    """System, limits and cost.

    Attributes
    ----------
    A, B, E : system matrices
    horizon : N
    H : (m, nx) rows of the state constraint
    u_lower, u_upper : (nu,) hard input limits
    state_root, input_root : factors L of the stage cost |L x|^2 + |L u|^2 (may have no rows)
    input_price : (nu,) linear cost of the inputs
    penalty : of one unit of slack; must exceed the multipliers of the state constraints
    K : (nu, nx) law behind scaled and fixed feedback
    terminal : (nx, nx) weight of the last state, default that of the stages
    """

    A: Matrix
    B: Matrix
    E: Matrix
    horizon: int
    H: Matrix
    u_lower: Vector
    u_upper: Vector
    state_root: Matrix
    input_root: Matrix
    input_price: Vector
    penalty: float = 1e3
    K: Matrix | None = None
    terminal: Matrix | None = None


@dataclass(frozen=True)
class StochasticStep:
    """A decision: input (nu,), the largest slack (0 unless the backup controller was needed), seconds, rounds."""

    input: Vector
    slack: float
    seconds: float
    rounds: int

    @property
    def backup(self) -> bool:
        """Whether the softened problem was needed."""
        return self.slack > 1e-5


def samples_needed(
    method: Method, horizon: int, nw: int, epsilon: float, beta: float, feedback: Feedback = "full"
) -> int:
    """Samples behind the guarantee: calibration, scenarios of the last stage, or samples of the box.

    Examples
    --------
    >>> [samples_needed(m, 5, 1, 0.05, 0.1) for m in METHODS]
    [45, 400, 282]
    """
    if method == "support_vectors":
        return int(np.ceil(np.log(beta) / np.log(1 - epsilon)))
    if method == "scenarios":
        return sample_size(_decisions(horizon, nw, feedback), epsilon, beta)
    if method == "box":
        return box_samples(horizon * nw, epsilon, beta)
    raise ConfigError(f"method {method!r} is unknown; known: {', '.join(METHODS)}")


def _decisions(stage: int, nw: int, feedback: Feedback) -> int:
    """Decisions (of one input) that act on the state after `stage` steps: v(0..stage-1) and M."""
    if feedback == "fixed":
        return stage
    if feedback == "scaled":
        return stage + (stage > 1)
    return stage + nw * stage * (stage - 1) // 2


class StochasticMpc:
    """The controller, built once.

    Parameters
    ----------
    problem : system, limits, cost
    method : see the module
    training : (n, N nw) stacked disturbances: shapes of the support-vector sets; moments of the cost, for all methods
    samples : (>= samples_needed, N nw) fresh stacked disturbances: calibration (all of them, by the order statistic
        that keeps the guarantee), scenarios, or samples of the box (the first `samples_needed`)
    saturation : phi
    epsilon, beta : chance and one minus confidence
    nu : share of the training points left outside by the support-vector program
    feedback : "full", "scaled" or "fixed"
    shape : of the support-vector sets, "joint" or "rows"

    Raises
    ------
    DataError
        Too few samples.
    ConfigError
        An unknown choice, or no law K behind the feedback.
    """

    def __init__(
        self,
        problem: StochasticProblem,
        method: Method,
        training: ArrayLike,
        samples: ArrayLike,
        saturation: Saturation,
        epsilon: float = 0.05,
        beta: float = 0.05,
        nu: float = 0.05,
        feedback: Feedback = "full",
        shape: Shape = "joint",
    ) -> None:
        for word, known in ((feedback, ("full", "scaled", "fixed")), (shape, ("joint", "rows"))):
            if word not in known:
                raise ConfigError(f"choice {word!r} is unknown; known: {', '.join(known)}")
        self.problem, self.method, self.feedback, self.shape = problem, method, feedback, shape
        self.saturation = saturation
        N, nu_inputs, nw = problem.horizon, problem.B.shape[1], problem.E.shape[1]
        learn, fresh = np.atleast_2d(np.asarray(training, float)), np.atleast_2d(np.asarray(samples, float))
        self.samples = samples_needed(method, N, nw, epsilon, beta, feedback)
        if len(fresh) < self.samples or fresh.shape[1] != N * nw or learn.shape[1] != N * nw:
            raise DataError(f"{method}: {self.samples} samples of {N * nw} numbers needed, got {fresh.shape}")
        if method == "support_vectors":  # calibration wastes less with more samples: all of them count
            self.samples = len(fresh)
        fresh = fresh[: self.samples]
        limit = np.full(2 * N * nw, saturation.limit)
        p = UncertainProgram()
        lifted = saturation.lift(learn)
        both = p.uncertain("lifted", p.members("range", Box(-limit, limit)), lifted.mean(0), np.cov(lifted.T))
        w, seen = both[: N * nw], both[N * nw :]
        x0, offset = p.parameter("x0", problem.A.shape[0]), p.parameter("offset", N * problem.A.shape[0])
        bound = p.parameter("bound", N * len(problem.H))
        if feedback == "full":
            u = p.decide("u", structure("full", N, nu_inputs, nw), seen)
        elif feedback == "scaled":
            u = p.decide("u", N * nu_inputs) + p.decide("m", 1).spread(self._reaction(), seen)
        else:
            u = p.decide("u", N * nu_inputs) + self._reaction() @ seen
        slack = p.decide("slack", N, lower=0.0)
        X = LinearHorizon(problem.A, problem.B, problem.E, N).states(x0, u, w, offset)
        p.forall(u <= np.tile(problem.u_upper, N), "input limit")
        p.forall(u >= np.tile(problem.u_lower, N), "input limit")
        nx = problem.A.shape[0]
        last = problem.state_root if problem.terminal is None else np.linalg.cholesky(problem.terminal).T
        cost = p.expected_squares(np.kron(np.eye(N - 1), problem.state_root) @ X[: (N - 1) * nx])
        cost = cost + p.expected_squares(last @ X[(N - 1) * nx :])
        cost = cost + p.expected_squares(np.kron(np.eye(N), problem.input_root) @ u)
        cost = cost + p.economic(u * np.tile(problem.input_price, N)) + problem.penalty * p.economic(slack)
        p.minimise(cost + p.nominal_squares(slack))
        m = len(problem.H)
        rows = np.kron(np.eye(N), problem.H) @ X - np.kron(np.eye(N), np.ones((m, 1))) @ slack - bound
        oracles = self._oracles(learn, fresh, saturation, epsilon, beta, nu)
        self._solver = CuttingPlanes(
            p, [(rows[t * m : (t + 1) * m] <= 0.0, oracle) for t, oracle in enumerate(oracles)]
        )
        self._u, self._slack, self._N, self._nu = u, slack, N, nu_inputs

    def _oracles(
        self, learn: Matrix, fresh: Matrix, saturation: Saturation, epsilon: float, beta: float, nu: float
    ) -> list[Oracle]:
        """Worst members for the rows of stage 1..N."""
        N = self.problem.horizon
        if self.method == "scenarios":
            lifted = saturation.lift(fresh)
            return [worst_sample(lifted)] * N
        if self.method == "box":
            return [worst_in_box(fresh.min(axis=0), fresh.max(axis=0), saturation)] * N
        learn, fresh = saturation.lift(learn), saturation.lift(fresh)
        self.stage_sets = [
            StageSet(groups_of(self._visible(t), self.shape == "joint"), learn, fresh, nu, epsilon, 1 - beta)
            for t in range(1, N + 1)
        ]
        return [stage.worst for stage in self.stage_sets]

    def _reaction(self) -> Matrix:
        """M_K (N nu, N nw): how u = K x reacts to the disturbances."""
        problem, N = self.problem, self.problem.horizon
        if problem.K is None:
            raise ConfigError("scaled feedback needs a law K")
        nx = problem.A.shape[0]
        closed = LinearHorizon(problem.A, problem.B, problem.E, N, problem.K).through(problem.E)
        before = np.vstack([np.zeros((nx, closed.shape[1])), closed[:-nx]])
        return np.asarray(np.kron(np.eye(N), problem.K) @ before)

    def _visible(self, t: int) -> list[Matrix]:
        """For each row of stage t the directions (k, 2 N nw) in (w, phi(w)) that its coefficients can take."""
        problem, N = self.problem, self.problem.horizon
        nx, nw = problem.A.shape[0], problem.E.shape[1]
        if self.feedback == "full":
            acting = np.concatenate([np.arange(t * nw), N * nw + np.arange((t - 1) * nw)])
            return [np.eye(2 * N * nw)[acting]] * len(problem.H)
        horizon = LinearHorizon(problem.A, problem.B, problem.E, N)
        rows = slice((t - 1) * nx, t * nx)
        direct = problem.H @ horizon.through(problem.E)[rows]
        fed_back = problem.H @ horizon.through(problem.B)[rows] @ self._reaction()
        if self.feedback == "fixed":
            return list(np.hstack([direct, fed_back])[:, None, :])
        none = np.zeros_like(direct)
        return list(np.stack([np.hstack([direct, none]), np.hstack([none, fed_back])], axis=1))

    def step(self, x: ArrayLike, bound: ArrayLike, offset: ArrayLike | None = None) -> StochasticStep:
        """Decide from the measured state (nx,), state bounds h(1..N) (N m,), known offsets d(0..N-1) (N nx,).

        Raises
        ------
        NumericalError
        """
        shift = np.zeros(self._N * self.problem.A.shape[0]) if offset is None else np.asarray(offset, float)
        solution = self._solver.solve(x0=np.asarray(x, float), offset=shift, bound=np.asarray(bound, float))
        first = solution.value(self._u)[: self._nu]
        inside = np.clip(first, self.problem.u_lower, self.problem.u_upper)  # the solver's tolerance, not a decision
        slack = float(solution.value(self._slack).max())
        return StochasticStep(inside, slack, solution.seconds, self._solver.rounds)


def worst_in_box(lower: Vector, upper: Vector, saturation: Saturation) -> Oracle:
    """Worst (w, phi(w)) of a'w + b'phi(w) over lower <= w <= upper: at an end, or where a_i + b_i phi'(w_i) = 0."""
    d = lower.size

    def oracle(directions: Matrix) -> Matrix:
        a, b = directions[:, :d], directions[:, d:]
        if saturation.kind == "clip":
            turn = np.full_like(a, saturation.limit)
        else:
            ratio = np.divide(a, b, out=np.zeros_like(a), where=b != 0)
            turn = saturation.limit * np.arctanh(np.sqrt(np.clip(1 + ratio, 0.0, 1 - 1e-12)))
        ends = np.broadcast_to(lower, a.shape), np.broadcast_to(upper, a.shape)
        candidates = np.stack([*ends, np.clip(turn, lower, upper), np.clip(-turn, lower, upper)])
        best = np.argmax(a * candidates + b * saturation(candidates), axis=0)
        return saturation.lift(np.take_along_axis(candidates, best[None], axis=0)[0])

    return oracle
