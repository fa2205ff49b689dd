"""One robust control step: ours, the bare solver call on the same data, and cvxpy with parameters, in one run.

The fixed-feedback step (N=20, nx=4, nu=2) is timed from new data to a checked plan with its promise; the bare solver
gets the same matrices and sides ready-made. cvxpy solves the same tightened problem with parameters (DPP) by the
open solvers that are installed. The Toeplitz and full forms follow at N=10.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import cvxpy as cp
import numpy as np
from scipy.linalg import solve_discrete_are

from rmpc_ros.errors import SolverError
from rmpc_ros.mpc.feedback import AffineFeedback
from rmpc_ros.mpc.fixed import FixedFeedback, spread
from rmpc_ros.mpc.local import Cost, LocalModel, StepData, Vector
from rmpc_ros.studies.registry import Settings, Study


def system(seed: int) -> tuple[LocalModel, Cost]:
    """A random unstable system (nx=4, nu=2, four promised disturbances) with its LQ law closed."""
    generator = np.random.default_rng(seed)
    A = generator.normal(size=(4, 4))
    A *= 1.05 / np.max(np.abs(np.linalg.eigvals(A)))
    B = generator.normal(size=(4, 2))
    Q, R = np.eye(4), 0.1 * np.eye(2)
    P = solve_discrete_are(A, B, Q, R)
    K = -np.linalg.solve(R + B.T @ P @ B, B.T @ P @ A)
    return LocalModel(A + B @ K, B, K, np.eye(4), (), np.full(2, -1.0), np.full(2, 1.0)), Cost(Q, R, P)


def fill(data: StepData, state: Vector, target: Vector, radius: float) -> None:
    """Data of one step: a state, a target away from the origin so that limits act, neighbours' half-widths."""
    data.x[:], data.x_ref[:] = state, target
    data.radius[:] = radius
    data.x_lower[:], data.x_upper[:] = -1.5, 1.5
    data.c_lower[:], data.c_upper[:] = -1.0, 1.0


def milliseconds(call: Callable[[], Any]) -> float:
    """Wall time of one call in milliseconds."""
    began = time.perf_counter()
    call()
    return 1e3 * (time.perf_counter() - began)


def run(settings: Settings, folder: Path) -> dict[str, Any]:
    """Time all routes, interleaved state by state; infeasible states are drawn again."""
    model, cost = system(settings["seed"])
    N = settings["horizon"]
    generator = np.random.default_rng(settings["seed"])
    ours = FixedFeedback(model, cost, N)
    modelled = [
        (name, *_cvxpy_twin(ours, cost)) for name in ("PIQP", "CLARABEL", "OSQP") if name in cp.installed_solvers()
    ]
    times: dict[str, list[float]] = {"ours": [], "bare": [], **{name: [] for name, *_ in modelled}}
    gap, active, rounds = 0.0, 0, 0
    before = None
    while rounds < settings["states"]:
        fill(ours.data, generator.uniform(-0.6, 0.6, 4), generator.uniform(-1, 1, 4), 0.02)
        wanted = ours.sides()
        try:
            ours.qp.update(*wanted)
            solution = ours.qp.solve()
        except SolverError:
            continue
        if before is not None:  # both calls start from the active set of the state before
            _settle(ours, before)
            times["ours"].append(milliseconds(ours.solve))
            _settle(ours, before)
            times["bare"].append(milliseconds(partial(_settle, ours, wanted)))
        before = wanted
        room = np.minimum(wanted[1] - solution.rows, solution.rows - wanted[2])
        active += bool(np.any(room < 1e-7))
        if rounds < settings["cvxpy_states"]:
            for name, problem, parameters, v in modelled:
                for key, parameter in parameters.items():
                    parameter.value = getattr(ours.data, key).ravel()
                times[name].append(milliseconds(partial(problem.solve, solver=name, warm_start=True)))
                gap = max(gap, float(np.max(np.abs(v.value - solution.v))))
        rounds += 1
    median = {name: float(np.median(values[1:])) for name, values in times.items()}
    fastest = min((name for name, *_ in modelled), key=lambda name: median[name])
    return {
        "N": N,
        "nx": model.nx,
        "nu": model.nu,
        "states": rounds,
        "states_with_active_limits": active,
        "ours_ms": median["ours"],
        "bare_solver_ms": median["bare"],
        "cvxpy_ms": median[fastest],
        "cvxpy_solver": fastest,
        "cvxpy_all_ms": {name: median[name] for name, *_ in modelled},
        "ratio_to_bare": median["ours"] / median["bare"],
        "over_bare_ms": median["ours"] - median["bare"],
        "times_faster_than_cvxpy": median[fastest] / median["ours"],
        "largest_difference_to_cvxpy": gap,
        "affine": {form: _affine(model, cost, form, settings) for form in ("toeplitz", "full")},
    }


def _affine(model: LocalModel, cost: Cost, form: str, settings: Settings) -> dict[str, Any]:
    """Toeplitz or full feedback at N=10: step and bare solver call."""
    controller = AffineFeedback(model, cost, 10, toeplitz=form == "toeplitz")
    generator = np.random.default_rng(settings["seed"])
    ours: list[float] = []
    bare: list[float] = []
    while len(ours) < settings["affine_states"]:
        fill(controller.data, generator.uniform(-0.5, 0.5, 4), generator.uniform(-1, 1, 4), 0.02)
        try:
            ours.append(milliseconds(controller.solve))
        except SolverError:
            continue
        assert controller.qp is not None
        bare.append(milliseconds(controller.qp.solve_raw))
    return {
        "N": 10,
        "variables": controller.variables,
        "ours_ms": float(np.median(ours)),
        "p99_ms": float(np.quantile(ours, 0.99)),
        "bare_solver_ms": float(np.median(bare)),
    }


def _settle(controller: FixedFeedback, sides: tuple[Vector, Vector, Vector]) -> None:
    """Hand over data and call the solver, nothing else: the bare call, which leaves the data's active set behind."""
    controller.qp.update(*sides)
    controller.qp.solve_raw()


def _cvxpy_twin(ours: FixedFeedback, cost: Cost) -> tuple[cp.Problem, dict[str, cp.Parameter], cp.Variable]:
    """The same tightened problem as a parametrised cvxpy model."""
    model, pred, N = ours.model, ours.prediction, ours.N
    nx, nu = model.nx, model.nu
    names = ("drive", "radius", "x_lower", "x_upper", "c_lower", "c_upper", "x_ref", "u_ref")
    par = {name: cp.Parameter(getattr(ours.data, name).size, name=name) for name in names}
    v = cp.Variable(N * nu)
    x = pred.x_v @ v + pred.x_d @ par["drive"]
    u = pred.u_v @ v + pred.u_d @ par["drive"]
    x_tube = spread(pred, np.eye(nx)) @ par["radius"]
    u_tube = cp.hstack([np.zeros(nu), spread(pred, model.K)[: (N - 1) * nu] @ par["radius"]])
    Q = np.kron(np.eye(N), cost.Q)
    Q[-nx:, -nx:] = cost.P
    x_error = np.linalg.cholesky(Q).T @ (x - np.tile(np.eye(nx), (N, 1)) @ par["x_ref"])
    u_error = np.linalg.cholesky(np.kron(np.eye(N), cost.R)).T @ (u - np.tile(np.eye(nu), (N, 1)) @ par["u_ref"])
    constraints = [
        v <= par["c_upper"],
        v >= par["c_lower"],
        x <= par["x_upper"] - x_tube,
        x >= par["x_lower"] + x_tube,
        u <= np.tile(model.input_upper, N) - u_tube,
        u >= np.tile(model.input_lower, N) + u_tube,
    ]
    return cp.Problem(cp.Minimize(cp.sum_squares(x_error) + cp.sum_squares(u_error)), constraints), par, v


def table(result: dict[str, Any]) -> list[str]:
    """Lines for people."""
    lines = [
        f"fixed feedback, N={result['N']}, nx={result['nx']}, nu={result['nu']}, median of {result['states']} states",
        f"  ours {result['ours_ms']:.3f} ms | bare solver {result['bare_solver_ms']:.3f} ms | "
        f"cvxpy ({result['cvxpy_solver']}) {result['cvxpy_ms']:.2f} ms",
        f"  ours / bare {result['ratio_to_bare']:.2f} (over it by {result['over_bare_ms']:.3f} ms); "
        f"{result['times_faster_than_cvxpy']:.0f} times faster than cvxpy",
    ]
    for form, figures in result["affine"].items():
        lines.append(
            f"{form} feedback, N=10: ours {figures['ours_ms']:.1f} ms (p99 {figures['p99_ms']:.1f}), "
            f"bare solver {figures['bare_solver_ms']:.1f} ms, {figures['variables']} variables"
        )
    return lines


STUDY = Study(
    defaults={"horizon": 20, "states": 200, "cvxpy_states": 30, "affine_states": 20, "seed": 0}, run=run, table=table
)
