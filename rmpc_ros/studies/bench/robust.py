"""Robust programs re-solved for new states and sets: ours, the bare solver, cvxpy with parameters (DPP), and rsome.

One system (nx=4, nu=2, a box of disturbances of 4 numbers per step), fixed feedback, Toeplitz and full disturbance
feedback. "ours" is one call from new data (state and box) to a checked policy of the modelling interface; "control
loop" is the specialised Toeplitz or fixed controller of rmpc_ros/mpc. cvxpy gets the natural condensed model with
state and half-widths as parameters and its fastest installed solver; rsome has no parameters, so it builds and solves
(linear cost only, the cost its default solver takes; fixed and full feedback, it has no Toeplitz rule).

"bare" is the solver alone: a second solver object that gets the same sequence of ready-made arrays (nothing is
computed, nothing checked) and starts from the same point: PIQP cold, as it always does, HiGHS from its last basis.
Blocks of states take turns, ours and bare; a ratio is the median over the blocks, so that what else the machine does
slows both alike. All times are processor time of this process, solver and Python together.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import cvxpy as cp
import numpy as np
from numpy.typing import ArrayLike, NDArray

from rmpc_ros.errors import ConfigError, SolverError
from rmpc_ros.mpc.feedback import AffineFeedback
from rmpc_ros.mpc.fixed import FixedFeedback
from rmpc_ros.robust.compiled import CompiledProgram
from rmpc_ros.robust.horizon import LinearHorizon
from rmpc_ros.robust.policy import structure
from rmpc_ros.robust.uncertain_program import UncertainProgram
from rmpc_ros.sets.base import UncertaintySet
from rmpc_ros.sets.box import Box
from rmpc_ros.studies.bench.step import fill, milliseconds, system
from rmpc_ros.studies.registry import Settings, Study

Vector = NDArray[np.float64]
Given = tuple[Vector, Box]  # a state and a set
STATE_LIMIT, INPUT_LIMIT, RADIUS = 0.8, 1.0, 0.02
TARGET = 0.7  # beyond what the tubes leave, so that limits act
FORMS = ("fixed", "toeplitz", "full")
POLICIES = {"fixed": "static", "toeplitz": "toeplitz", "full": "full"}


def horizon_of(seed: int, N: int) -> LinearHorizon:
    """The benchmark's system with its LQ law closed."""
    model, _ = system(seed)
    return LinearHorizon(model.A - model.B @ model.K, model.B, np.eye(model.nx), N, model.K)


def ours(horizon: LinearHorizon, form: str, cost: str) -> CompiledProgram:
    """The robust program, compiled."""
    nx, nu = horizon.B.shape
    N = horizon.N
    p = UncertainProgram()
    radius = np.full(N * nx, RADIUS)
    w = p.uncertain("w", p.members("noise", Box(-radius, radius)))
    x0 = p.parameter("x0", nx)
    c = p.decide("c", structure(POLICIES[form], N, nu, nx), w)  # type: ignore[arg-type]
    X = horizon.states(x0, c, w)
    U = horizon.inputs(x0, X, c)
    p.forall(X <= STATE_LIMIT)
    p.forall(-X <= STATE_LIMIT)
    p.forall(U <= INPUT_LIMIT)
    p.forall(-U <= INPUT_LIMIT)
    if cost == "quadratic":
        p.minimise(p.nominal_squares(X - TARGET) + 0.1 * p.nominal_squares(U))
    else:
        p.minimise(p.nominal_one_norm(X - TARGET) + 0.1 * p.nominal_one_norm(U))
    return p.compile()


def with_cvxpy(horizon: LinearHorizon, form: str, cost: str) -> tuple[cp.Problem, cp.Parameter, cp.Parameter]:
    """The same program as a natural cvxpy model; (problem, state, half-widths)."""
    nx, nu = horizon.B.shape
    N = horizon.N
    x0, r = cp.Parameter(nx), cp.Parameter(N * nx, nonneg=True)
    v = cp.Variable(N * nu)
    phi, gamma, theta = horizon.phi(), horizon.through(horizon.B), horizon.through(np.eye(nx))
    K = np.kron(np.eye(N), horizon.K if horizon.K is not None else np.zeros((nu, nx)))
    first = np.vstack([np.eye(nx), np.zeros(((N - 1) * nx, nx))])
    shift = np.eye(N * nx, k=-nx)
    table = structure(POLICIES[form], N, nu, nx)  # type: ignore[arg-type]
    X_w: cp.Expression = cp.Constant(theta)
    c_w: cp.Expression = cp.Constant(np.zeros((N * nu, N * nx)))
    if form != "fixed":
        pick = np.zeros((table.size, int(table.max()) + 1))
        place = np.flatnonzero(table.ravel() >= 0)
        pick[place, table.ravel()[place]] = 1.0
        c_w = cp.reshape(pick @ cp.Variable(pick.shape[1]), table.shape, order="C")
        X_w = theta + gamma @ c_w
    x = phi @ x0 + gamma @ v
    u = K @ (first @ x0 + shift @ x) + v
    X_tube, U_tube = cp.abs(X_w) @ r, cp.abs(K @ shift @ X_w + c_w) @ r
    rows = [
        x + X_tube <= STATE_LIMIT,
        -x + X_tube <= STATE_LIMIT,
        u + U_tube <= INPUT_LIMIT,
        -u + U_tube <= INPUT_LIMIT,
    ]
    if cost == "quadratic":
        objective = cp.sum_squares(x - TARGET) + 0.1 * cp.sum_squares(u)
    else:
        objective = cp.norm1(x - TARGET) + 0.1 * cp.norm1(u)
    return cp.Problem(cp.Minimize(objective), rows), x0, r


def with_rsome(horizon: LinearHorizon, form: str, state: np.ndarray, radius: np.ndarray) -> float:
    """Build and solve the linear-cost program with rsome; its optimal value.

    Raises
    ------
    ConfigError
        Rsome is not installed.
    """
    try:
        from rsome import ro
    except ImportError as error:
        raise ConfigError("rsome is not installed: pip install 'rsome>=1.3', or --set rsome_states=0") from error
    nx, nu = horizon.B.shape
    N = horizon.N
    model = ro.Model()
    z = model.rvar(N * nx)
    c = model.dvar(N * nu) if form == "fixed" else model.ldr(N * nu)
    if form != "fixed":
        for t in range(1, N):
            for s in range(t):
                c[t * nu : (t + 1) * nu].adapt(z[s * nx : (s + 1) * nx])
    phi, gamma, theta = horizon.phi(), horizon.through(horizon.B), horizon.through(np.eye(nx)) * radius
    K = np.kron(np.eye(N), horizon.K if horizon.K is not None else np.zeros((nu, nx)))
    first = np.vstack([np.eye(nx), np.zeros(((N - 1) * nx, nx))])
    X = phi @ state + gamma @ c + theta @ z
    shift = np.eye(N * nx, k=-nx)
    U = K @ (first @ state) + K @ shift @ X + c
    a, b = model.dvar(N * nx), model.dvar(N * nu)
    box, center = (abs(z) <= 1,), (z == 0,)
    model.min(a.sum() + 0.1 * b.sum())
    for left, limit in ((X, STATE_LIMIT), (-1 * X, STATE_LIMIT), (U, INPUT_LIMIT), (-1 * U, INPUT_LIMIT)):
        model.st((left <= limit).forall(*box))
    for left, bound in ((X - TARGET, a), (TARGET - X, a), (U, b), (-1 * U, b)):
        model.st((left <= bound).forall(*center))
    model.solve(display=False)
    return float(model.get())


def bare_call(twin: CompiledProgram, **data: ArrayLike | UncertaintySet) -> Callable[[], object]:
    """Everything computed, nothing handed over yet: the call hands the new data to the twin's solver and runs it."""
    hand_over = twin.backend.prepare(twin.write(**data))

    def call() -> object:
        hand_over()
        return twin.backend.solve_raw()

    return call


def processor_ms(call: Callable[[], object]) -> float:
    """Processor time of one call in milliseconds."""
    start = time.process_time()
    call()
    return 1e3 * (time.process_time() - start)


@dataclass(frozen=True)
class _Pairs:
    """Processor times in ms, ours and the bare solver's on the same data, (states,) by block of states."""

    ours: list[Vector]
    bare: list[Vector]

    def medians(self) -> tuple[float, float]:
        """Of all states."""
        return float(np.median(np.concatenate(self.ours))), float(np.median(np.concatenate(self.bare)))

    def ratio(self) -> float:
        """Median over the blocks of the ratio of the block's sums; the first block warms up."""
        ratios = [o.sum() / b.sum() for o, b in zip(self.ours, self.bare, strict=True) if o.size]
        return float(np.median(ratios[1:] if len(ratios) > 1 else ratios))


def measure(
    program: CompiledProgram, twin: CompiledProgram, blocks: Sequence[Sequence[Given]]
) -> tuple[_Pairs, _Pairs]:
    """New set and new state, ours and bare: blocks in turns, so that a loaded machine slows both alike.

    Both solvers get the same data in the same order, so each starts from the same point. What the bare solver is given
    is computed just before its own call, so that caches are as for ours. Infeasible data drop out for both.
    """

    def ours(given: Given) -> tuple[float, float]:
        def solve(**data: Any) -> float:
            start = time.process_time()
            try:
                program.solve(**data)
            except SolverError:
                return np.nan
            return 1e3 * (time.process_time() - start)

        state, members = given
        return solve(x0=state, noise=members), solve(x0=0.95 * state)

    def bare(given: Given) -> tuple[float, float]:
        state, members = given
        new_set = processor_ms(bare_call(twin, x0=state, noise=members))
        return new_set, processor_ms(bare_call(twin, x0=0.95 * state))

    sets, states = _Pairs([], []), _Pairs([], [])
    for k, block in enumerate(blocks):
        both = {call: np.array([call(given) for given in block]) for call in ((ours, bare) if k % 2 else (bare, ours))}
        solved = np.all(np.isfinite(both[ours]), axis=1)
        for column, pairs in enumerate((sets, states)):
            pairs.ours.append(both[ours][solved, column])
            pairs.bare.append(both[bare][solved, column])
    return sets, states


def _one(settings: Settings, N: int, form: str, cost: str) -> dict[str, Any]:
    rng = np.random.default_rng(settings["seed"])
    horizon = horizon_of(settings["seed"], N)
    began = time.process_time()
    program = ours(horizon, form, cost)
    compile_ms = 1e3 * (time.process_time() - began)
    twin = ours(horizon, form, cost)
    nx = horizon.A.shape[0]

    def draw() -> Given:
        radius = np.asarray(RADIUS * rng.uniform(0.5, 1.0, N * nx))
        return np.asarray(rng.uniform(-0.5, 0.5, nx)), Box(-radius, radius)

    large = settings["horizons"][0] < N
    states = settings["large_states"] if large else settings["states"]
    states *= 25 if form == "fixed" else 1  # a fraction of a millisecond each
    size = min(20, max(1, states // 20))
    sets, moved = measure(program, twin, [[draw() for _ in range(size)] for _ in range(-(-states // size))])
    (set_ms, bare_set_ms), (state_ms, bare_state_ms) = sets.medians(), moved.medians()
    out: dict[str, Any] = {
        **program.sizes,
        "solver": program.backend.name,
        "states": int(sum(block.size for block in sets.ours)),
        "blocks": len(sets.ours),
        "compile_ms": compile_ms,
        "new_set_ms": set_ms,
        "bare_new_set_ms": bare_set_ms,
        "new_set_over_bare": sets.ratio(),
        "new_state_ms": state_ms,
        "bare_new_state_ms": bare_state_ms,
        "new_state_over_bare": moved.ratio(),
    }
    return out | _peers(
        settings, horizon, (form, cost), program, draw, settings["large_peer_states"] if large else None
    )


def _peers(
    settings: Settings,
    horizon: LinearHorizon,
    kind: tuple[str, str],
    program: CompiledProgram,
    draw: Callable[[], Given],
    most: int | None,
) -> dict[str, Any]:
    """Cvxpy and rsome on the first data that have a solution: their times and the largest difference."""
    form, cost = kind
    counts = {name: settings[f"{name}_states"] for name in ("cvxpy", "rsome")}
    counts = counts if most is None else {name: min(count, most) for name, count in counts.items()}
    if cost == "quadratic" or form == "toeplitz":
        counts["rsome"] = 0
    names = ("PIQP", "CLARABEL") if cost == "quadratic" else ("HIGHS", "CLARABEL")
    usable = [name for name in names if name in cp.installed_solvers()] if counts["cvxpy"] else []
    twins = {name: with_cvxpy(horizon, form, cost) for name in usable}
    times: dict[str, list[float]] = {name: [] for name in ("ours", "rsome", *usable)}
    difference = 0.0
    tries = 0
    while len(times["ours"]) < max(counts.values()):
        tries += 1
        state, members = draw()
        start = time.process_time()
        try:
            value = program.solve(x0=state, noise=members).objective
        except SolverError:
            if tries > 20 * max(counts.values()):
                raise
            continue
        times["ours"].append(1e3 * (time.process_time() - start))
        if len(times["ours"]) <= counts["cvxpy"]:
            for name, (problem, x0, r) in twins.items():
                x0.value, r.value = state, members.radius
                times[name].append(processor_ms(partial(problem.solve, solver=name, warm_start=True)))
                difference = max(difference, abs(problem.value - value) / (1 + abs(value)))
        if len(times["ours"]) <= counts["rsome"]:
            start = time.process_time()
            theirs = with_rsome(horizon, form, state, members.radius)
            times["rsome"].append(1e3 * (time.process_time() - start))
            difference = max(difference, abs(theirs - value) / (1 + abs(value)))
    median = {name: float(np.median(v[1:] if len(v) > 1 else v)) for name, v in times.items() if v}
    best = min((n for n in usable if n in median), key=lambda n: median[n], default=None)
    out: dict[str, Any] = {"largest_relative_difference": difference}
    if best is not None:
        out |= {
            "cvxpy_ms": median[best],
            "cvxpy_solver": best,
            "times_faster_than_cvxpy": median[best] / median["ours"],
        }
    if "rsome" in median:
        out |= {"rsome_ms": median["rsome"], "times_faster_than_rsome": median["rsome"] / median["ours"]}
    return out


def _control_loop(settings: Settings, form: str, N: int) -> dict[str, Any]:
    """The agents' own controller: wall and processor time per step."""
    model, cost = system(settings["seed"])
    controller = (
        FixedFeedback(model, cost, N) if form == "fixed" else AffineFeedback(model, cost, N, form == "toeplitz")
    )
    rng = np.random.default_rng(settings["seed"])
    states = settings["loop_states"] if settings["horizons"][0] >= N else settings["large_states"]
    wall: list[float] = []
    busy: list[float] = []
    while len(wall) < states:
        fill(controller.data, rng.uniform(-0.5, 0.5, 4), rng.uniform(-1, 1, 4), RADIUS)
        start = time.process_time()
        try:
            wall.append(milliseconds(controller.solve))
        except SolverError:
            continue
        busy.append(1e3 * (time.process_time() - start))
    return {
        "N": N,
        "median_ms": float(np.median(wall)),
        "p99_ms": float(np.quantile(wall, 0.99)),
        "processor_median_ms": float(np.median(busy)),
        "processor_p99_ms": float(np.quantile(busy, 0.99)),
        "p99_over_median": float(np.quantile(busy, 0.99) / np.median(busy)),
    }


def run(settings: Settings, folder: Path) -> dict[str, Any]:
    """Every form, cost and horizon."""
    programs = {
        f"{form} N={N} {cost}": _one(settings, N, form, cost)
        for N in settings["horizons"]
        for cost in ("quadratic", "linear")
        for form in settings["forms"]
    }
    loops = {
        f"{form} N={N}": _control_loop(settings, form, N) for N in settings["horizons"] for form in settings["forms"]
    }
    return {"nx": 4, "nu": 2, "nw": 4, "states": settings["states"], "programs": programs, "control_loop": loops}


def table(result: dict[str, Any]) -> Iterable[str]:
    """Lines for people."""
    for name, p in result["programs"].items():
        other = f", cvxpy ({p['cvxpy_solver']}) {p['cvxpy_ms']:.1f} ms" if "cvxpy_ms" in p else ""
        other += f", rsome {p['rsome_ms']:.0f} ms" if "rsome_ms" in p else ""
        yield (
            f"{name:24s} {p['variables']:5d} variables ({p['solver']}), new set {p['new_set_ms']:.2f} ms = "
            f"{p['new_set_over_bare']:.2f} x bare, new state {p['new_state_ms']:.2f} ms = "
            f"{p['new_state_over_bare']:.2f} x bare{other}, difference {p['largest_relative_difference']:.0e}"
        )
    for name, f in result["control_loop"].items():
        yield (
            f"control loop, {name}: processor time median {f['processor_median_ms']:.2f} ms, p99 "
            f"{f['processor_p99_ms']:.2f} ms (wall {f['median_ms']:.2f}, {f['p99_ms']:.2f})"
        )


STUDY = Study(
    defaults={
        "horizons": [10, 20],
        "forms": list(FORMS),
        "states": 40,
        "large_states": 6,
        "large_peer_states": 1,
        "cvxpy_states": 4,
        "rsome_states": 2,
        "loop_states": 100,
        "seed": 0,
    },
    run=run,
    table=table,
)
