"""Building heating under a union of forecast errors: one mixed-integer program against enumeration (seed 001, case 1).

Instance "comfort band": hourly steps, x = (room, ground-coupled mass, roof, wall) in deg C, u in [0, 200] W/m2,
weather (outdoor forecast 2, ground 10) deg C, forecast error v_t of the outdoor temperature in [-2, 0] or [0, 2].
The room is counted after steps 1..T: above 20 (100 per degree below) and below 20.6 (60 per degree above). u_0 is
decided now; u_1.. and the slacks see all of v. Cost: sum of u plus the penalties.

`time_ratio` compares processor time, models built and solved, after one warm-up of both forms (the one-program form:
median of three). Enumeration solves the same model with its subset binaries fixed; it builds nothing anew.
`enumerate_to` is the longest horizon that is enumerated at all.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rmpc_ros.errors import ConfigError
from rmpc_ros.robust.ccg import ColumnConstraintGeneration
from rmpc_ros.robust.polytope_union import PolytopeUnion
from rmpc_ros.robust.two_stage import TwoStageProblem, TwoStageResult
from rmpc_ros.studies.registry import Settings, Study

# x+ = PHI x + GAMMA_U u + GAMMA_W w + GAMMA_V v; the public supplement prints 0.409 for PHI[0][3], a misprint: only
# with 0.1409 do the rows of [PHI, GAMMA_W] sum to one.
PHI = np.array(
    [
        [0.0167, 0.0048, 0.1245, 0.1409],
        [0.0005, 0.0002, 0.0039, 0.0044],
        [0.0253, 0.0073, 0.3321, 0.0617],
        [0.0244, 0.0070, 0.0526, 0.3456],
    ]
)
GAMMA_U = np.array([0.0986, 0.0029, 0.0288, 0.0275])
GAMMA_W = np.array([[0.2536, 0.4596], [0.0070, 0.9840], [0.4450, 0.1287], [0.4477, 0.1225]])
GAMMA_V = np.array([0.2536, 0.0070, 0.4450, 0.4477])
ERRORS = (([-2.0], [0.0]), ([0.0], [2.0]))
ROOM = (20.0, 20.6)
PENALTY = (100.0, 60.0)
POWER = 200.0


def impulse_response(gain: NDArray[np.float64], steps: int) -> NDArray[np.float64]:
    """Room temperature after t+1 steps for a unit input in step 0, (steps,)."""
    out, state = np.empty(steps), gain
    for t in range(steps):
        out[t] = state[0]
        state = PHI @ state
    return out


def building_problem(steps: int, state: ArrayLike = (18, 10, 8, 8), weather: ArrayLike = (2, 10)) -> TwoStageProblem:
    """The "comfort band" two-stage problem over `steps` hours; x = u_0, y = (u_1.., slack below, slack above)."""
    heat, error = impulse_response(GAMMA_U, steps), impulse_response(GAMMA_V, steps)
    free = np.empty(steps)
    x = np.asarray(state, float)
    for t in range(steps):
        x = PHI @ x + GAMMA_W @ np.asarray(weather, float)
        free[t] = x[0]
    by_u = np.array([[heat[t - s] if s <= t else 0.0 for s in range(steps)] for t in range(steps)])
    by_v = np.array([[error[t - s] if s <= t else 0.0 for s in range(steps)] for t in range(steps)])
    eye, none = np.eye(steps), np.zeros((steps, steps))
    return TwoStageProblem(
        c=np.ones(1),
        b=np.concatenate([np.ones(steps - 1), np.full(steps, PENALTY[0]), np.full(steps, PENALTY[1])]),
        T=np.concatenate([-by_u[:, 0], by_u[:, 0]])[:, None],
        W=np.block([[-by_u[:, 1:], -eye, none], [by_u[:, 1:], none, -eye]]),
        M=np.vstack([-by_v, by_v]),
        h=np.concatenate([free - ROOM[0], ROOM[1] - free]),
        lower=0.0,
        upper=POWER,
        recourse_lower=0.0,
        recourse_upper=np.concatenate([np.full(steps - 1, POWER), np.full(2 * steps, np.inf)]),
        row_names=[f"room above {ROOM[0]} after step {t + 1}" for t in range(steps)]
        + [f"room below {ROOM[1]} after step {t + 1}" for t in range(steps)],
    )


def solve(steps: int, form: Any) -> tuple[TwoStageResult, float]:
    """Result and processor seconds (models built, then solved) of one form."""
    begin = time.process_time()
    result = ColumnConstraintGeneration(building_problem(steps), PolytopeUnion.boxes(ERRORS, steps), form).solve()
    return result, time.process_time() - begin


def run(settings: Settings, folder: Path) -> dict[str, Any]:
    """Solve one horizon in both forms (or the one-program form alone), or sweep horizons for the figure."""
    steps = settings["T"]
    if steps < 1:
        raise ConfigError(f"building-union: T = {steps}, give at least 1")
    for form in ("monolithic", "enumeration"):  # both start warm: imports and first calls are nobody's search time
        solve(1, form)
    runs = [solve(steps, "monolithic") for _ in range(3)]
    one, seconds = runs[0][0], float(np.median([run[1] for run in runs]))
    result: dict[str, Any] = {
        "T": steps,
        "combinations": len(ERRORS) ** steps,
        "objective_monolithic": one.objective,
        "subproblems_monolithic": one.subproblems,
        "iterations_monolithic": one.iterations,
        "seconds_monolithic": seconds,
        "gap_monolithic": one.gap,
        "u0": float(one.x[0]),
        "worst": one.worst,
    }
    if settings["enumeration"] and steps <= settings["enumerate_to"]:
        each, long = solve(steps, "enumeration")
        result |= {
            "objective_enumeration": each.objective,
            "subproblems_enumeration": each.subproblems,
            "iterations_enumeration": each.iterations,
            "seconds_enumeration": long,
            "gap_enumeration": each.gap,
            "time_ratio": long / seconds,
        }
    return result


def table(result: dict[str, Any]) -> Iterable[str]:
    """Lines for people."""
    yield f"T = {result['T']}: {result['combinations']} combinations of subsets"
    for form in ("monolithic", "enumeration"):
        if f"objective_{form}" in result:
            yield (
                f"{form:12} objective {result[f'objective_{form}']:.5f}  iterations {result[f'iterations_{form}']}  "
                f"subproblems {result[f'subproblems_{form}']}  {result[f'seconds_{form}']:.3f} s"
            )
    if "time_ratio" in result:
        yield f"time ratio {result['time_ratio']:.1f}"


STUDY = Study({"T": 6, "enumeration": True, "enumerate_to": 10}, run, table)
