"""One door to all two-stage schemes: the same problem and union, the scheme by name.

| scheme | objective |
|---|---|
| robust | worst case over the union |
| kl | expected worst case over the subsets, worst probabilities in a KL ball |
| wasserstein | worst expectation over a Wasserstein ball around samples |
| scenario | worst case over N samples, N from the scenario theory |
| box_robust | worst case over the smallest box around N samples |
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rmpc_ros.errors import DataError
from rmpc_ros.robust.ambiguity import ExpectedWorstCase
from rmpc_ros.robust.box_robust import smallest_box
from rmpc_ros.robust.ccg import ColumnConstraintGeneration
from rmpc_ros.robust.polytope_union import PolytopeUnion
from rmpc_ros.robust.scenario import ScenarioProgram
from rmpc_ros.robust.two_stage import TwoStageProblem, TwoStageResult
from rmpc_ros.robust.wasserstein import WassersteinProgram

SCHEMES = ("robust", "kl", "wasserstein", "scenario", "box_robust")


def solve_two_stage(
    problem: TwoStageProblem,
    union: PolytopeUnion,
    scheme: str = "robust",
    *,
    p0: ArrayLike | None = None,
    rho: float | None = None,
    samples: NDArray[np.float64] | None = None,
    radius: float | None = None,
    **options: Any,
) -> TwoStageResult:
    """Solve a two-stage problem by the named scheme.

    Parameters
    ----------
    problem, union : what is decided, under what
    scheme : one of `SCHEMES`
    p0, rho : "kl": nominal probabilities (K,), radius
    samples : "wasserstein", "scenario", "box_robust": (N, q)
    radius : "wasserstein"
    options : of the scheme's class (gap, max_iterations, form, ...)

    Raises
    ------
    DataError
        The scheme is unknown or a value it needs is missing.
    InfeasibleError, UnboundedError, NumericalError

    Examples
    --------
    >>> problem = TwoStageProblem(c=[1.0], b=[3.0], T=[[-1.0]], W=[[-1.0]], M=[[1.0]], h=[0.0], lower=0.0,
    ...                           recourse_lower=0.0)
    >>> union = PolytopeUnion.boxes([([0.0], [1.0]), ([2.0], [4.0])])
    >>> round(solve_two_stage(problem, union, "kl", p0=[0.9, 0.1], rho=0.0).objective, 6)
    1.9
    """

    def need(name: str, value: Any) -> Any:
        if value is None:
            raise DataError(f"scheme '{scheme}' needs {name}")
        return value

    match scheme:
        case "robust":
            return ColumnConstraintGeneration(problem, union, **options).solve()
        case "kl":
            return ExpectedWorstCase(problem, union, need("p0", p0), need("rho", rho), **options).solve()
        case "wasserstein":
            return WassersteinProgram(
                problem, union, need("samples", samples), need("radius", radius), **options
            ).solve()
        case "scenario":
            return ScenarioProgram(problem, need("samples", samples), **options).solve()
        case "box_robust":
            return ColumnConstraintGeneration(problem, smallest_box(need("samples", samples)), **options).solve()
        case _:
            raise DataError(f"scheme '{scheme}' is unknown; known: {', '.join(SCHEMES)}")
