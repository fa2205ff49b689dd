"""Recourse at one point: Q(x, v) = min { b'y : W y <= h - T x - M v, bounds on y }, built once."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rmpc_ros.errors import InfeasibleError
from rmpc_ros.robust.two_stage import TwoStageProblem
from rmpc_ros.solvers.lp import LinearProgram

Vector = NDArray[np.float64]

EXACT: dict[str, str | int | float | bool] = {
    "mip_rel_gap": 1e-9,
    "mip_abs_gap": 1e-9,
    "mip_feasibility_tolerance": 1e-9,
    "primal_feasibility_tolerance": 1e-9,
    "dual_feasibility_tolerance": 1e-9,
}

# Small searches are solved at the root: HiGHS's large-neighbourhood heuristics take most of their time and find nothing
# (measured on building-union: 3 x faster without, T = 6 to 20).
SEARCH: dict[str, str | int | float | bool] = EXACT | {
    "mip_heuristic_effort": 0.0,
    "mip_heuristic_run_feasibility_jump": False,
    "mip_heuristic_run_rens": False,
    "mip_heuristic_run_rins": False,
    "mip_heuristic_run_root_reduced_cost": False,
}


@dataclass(frozen=True)
class Recourse:
    """Cost, decision y and multipliers lambda >= 0 of W y <= r (empty for mixed-integer recourse)."""

    cost: float
    y: Vector
    multipliers: Vector


class RecourseProgram:
    """Q(x, v) as a linear (or mixed-integer) program that keeps its basis between calls."""

    def __init__(self, problem: TwoStageProblem) -> None:
        self.problem = problem
        low, high = problem.row_bounds(problem.h)
        self._rows = np.arange(problem.h.size)
        self._program = LinearProgram(
            problem.b,
            problem.W,
            low,
            high,
            problem.recourse_lower,
            problem.recourse_upper,
            problem.recourse_integer or None,
            options={"mip_rel_gap": 1e-9, "mip_abs_gap": 1e-9},  # rows looser than the master's, which set x
        )

    def solve(self, x: Vector, v: Vector) -> Recourse:
        """Optimal recourse.

        Raises
        ------
        InfeasibleError
            No y satisfies the rows; `details` holds x and v.
        """
        p = self.problem
        self._program.set_row_bounds(self._rows, *p.row_bounds(p.h - p.T @ x - p.M @ v))
        try:
            found = self._program.solve()
        except InfeasibleError as error:
            raise InfeasibleError(
                f"no recourse exists at x = {np.round(x, 6)}, v = {np.round(v, 6)}",
                error.status,
                {"first_stage": x, "scenario": v},
            ) from error
        return Recourse(found.objective, found.x, -found.row_dual)
