"""Location and transport under demand subsets: robust, KL, Wasserstein, scenario, box (seed 001, case 2).

Three sites, three customers (the benchmark of Zeng and Zhao 2013): open y_i (binary), capacity z_i <= 800 y_i; after
the demand d_j = d0_j + 40 v_j is seen, ship x_ij. Without enough capacity there is no recourse.

Settings: scheme = robust | kl | wasserstein | scenario | box_robust; subsets = union | classic | 1 | 2 | 3 | 4; p0, rho
("kl"; p0 also draws samples); form = fixed | plain, inner = cuts | conic ("kl"); N, radius ("wasserstein"; N = 0 in
"scenario" and "box_robust" takes the theory's number for epsilon, beta); seed.
`subset_worst` holds, per subset, first-stage cost plus worst recourse cost.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from rmpc_ros.errors import ConfigError
from rmpc_ros.robust.box_robust import box_samples
from rmpc_ros.robust.polytope_union import Polytope, PolytopeUnion
from rmpc_ros.robust.scenario import helly_dimension, sample_size
from rmpc_ros.robust.schemes import SCHEMES, solve_two_stage
from rmpc_ros.robust.two_stage import TwoStageProblem
from rmpc_ros.robust.worst_case import WorstCaseSearch
from rmpc_ros.studies.registry import Settings, Study

FIXED_COST = (400.0, 414.0, 326.0)
CAPACITY_COST = (18.0, 25.0, 20.0)
CAPACITY = 800.0
TRANSPORT = np.array([[22.0, 33.0, 24.0], [33.0, 23.0, 30.0], [20.0, 25.0, 27.0]])
DEMAND = np.array([206.0, 274.0, 220.0])
DEVIATION = 40.0
BOXES = (
    ([0.0, 0.0, 0.0], [0.3, 0.3, 0.3]),
    ([1.0, 1.0, 1.0], [1.2, 1.2, 1.2]),
    ([0.8, 0.0, 0.0], [1.0, 0.3, 0.3]),
    ([0.0, 0.7, 0.0], [0.3, 1.0, 0.3]),
)
PUBLISHED = {"classic robust": 33680.0, "union robust": 36632.0, "union kl": 35419.0, "union wasserstein": 35238.0}


def location_problem() -> TwoStageProblem:
    """Decisions x = (open, capacity), y = shipments by site then customer."""
    sites, customers = TRANSPORT.shape
    supply = np.kron(np.eye(sites), np.ones(customers))
    demand = np.kron(np.ones(sites), np.eye(customers))
    return TwoStageProblem(
        c=np.array(FIXED_COST + CAPACITY_COST),
        b=TRANSPORT.ravel(),
        T=np.block([[np.zeros((sites, sites)), -np.eye(sites)], [np.zeros((customers, 2 * sites))]]),
        W=np.vstack([supply, -demand]),
        M=np.vstack([np.zeros((sites, customers)), DEVIATION * np.eye(customers)]),
        h=np.concatenate([np.zeros(sites), -DEMAND]),
        A=np.hstack([-CAPACITY * np.eye(sites), np.eye(sites)]),
        a=np.zeros(sites),
        lower=0.0,
        upper=np.concatenate([np.ones(sites), np.full(sites, np.inf)]),
        integer=range(sites),
        recourse_lower=0.0,
        row_names=[f"capacity of site {i + 1}" for i in range(sites)]
        + [f"demand of customer {j + 1}" for j in range(customers)],
    )


def random_boxes(count: int, seed: int) -> PolytopeUnion:
    """Small boxes anywhere in [0, 1.2]^3: the size of the problem without its meaning, for timing."""
    rng = np.random.default_rng(seed)
    low = rng.uniform(0.0, 1.0, (count, 3))
    return PolytopeUnion.boxes([(a, b) for a, b in zip(low, low + rng.uniform(0.0, 0.2, (count, 3)), strict=True)])


def demand_union(subsets: str, seed: int = 0) -> PolytopeUnion:
    """The set named by the setting `subsets`."""
    if subsets == "union":
        return PolytopeUnion.boxes(BOXES)
    if subsets == "classic":  # Zeng and Zhao's own: box, v1 + v2 <= 1.2, v1 + v2 + v3 <= 1.8
        rows = np.vstack([np.eye(3), -np.eye(3), [[1, 1, 0], [1, 1, 1]]])
        return PolytopeUnion((Polytope(rows, np.array([1, 1, 1, 0, 0, 0, 1.2, 1.8])),))
    if subsets in ("1", "2", "3", "4"):
        return PolytopeUnion.boxes([BOXES[int(subsets) - 1]])
    name, _, count = subsets.partition(":")
    if name == "random" and count.isdecimal() and 1 <= int(count) <= 1000:
        return random_boxes(int(count), seed)
    raise ConfigError(f"location: subsets = {subsets!r}, allowed are union, classic, 1, 2, 3, 4, random:K (K to 1000)")


def published(settings: Settings, scheme: str) -> float | None:
    """The papers' value where they have this case (their p0 and rho are not printed; these reproduce it)."""
    if scheme == "kl" and (list(settings["p0"]) != [0.1, 0.2, 0.3, 0.4] or settings["rho"] != 0.1):
        return None
    return PUBLISHED.get(f"{settings['subsets']} {scheme}")


def run(settings: Settings, folder: Path) -> dict[str, Any]:
    """Solve one scheme on one set."""
    scheme = str(settings["scheme"]).replace("-", "_")
    if scheme not in SCHEMES:
        raise ConfigError(f"location: scheme = {scheme!r}, allowed are {', '.join(SCHEMES)}")
    problem, union = location_problem(), demand_union(str(settings["subsets"]), settings["seed"])
    count = len(union.polytopes)
    weights = np.asarray(settings["p0"], float) if len(settings["p0"]) == count else np.full(count, 1.0 / count)
    options: dict[str, Any] = {}
    if scheme == "kl":
        given = str(settings["subsets"]).startswith("random:")  # these have equal weights
        if len(settings["p0"]) != count and count > 1 and not given:
            raise ConfigError(f"location: p0 has {len(settings['p0'])} entries, the set has {count} subsets")
        options = {"p0": weights, "rho": settings["rho"], "form": settings["form"], "inner": settings["inner"]}
    elif scheme == "robust":
        options = {"form": settings["search"]}
    else:
        number = settings["N"]
        if number == 0:
            d = helly_dimension(4, 3)  # capacities and epigraph; open or not
            level = (settings["epsilon"], settings["beta"])
            number = {"scenario": sample_size(d, *level), "box_robust": box_samples(3, *level)}.get(scheme, 100)
        options["samples"] = union.sample(number, np.random.default_rng(settings["seed"]), weights)
        if scheme == "wasserstein":
            options["radius"] = settings["radius"]
    begin = time.perf_counter()
    found = solve_two_stage(problem, union, scheme, **options)
    seconds = time.perf_counter() - begin
    search = WorstCaseSearch(problem, union)
    first = float(problem.c @ found.x)
    worst = [first + search.worst(found.x, [k]).cost for k in range(count)]
    result: dict[str, Any] = {
        "scheme": scheme,
        "subsets": str(settings["subsets"]),
        "objective": found.objective,
        "lower_bound": found.lower_bound,
        "open": [round(float(v)) for v in found.x[:3]],
        "capacity": found.x[3:],
        "subset_worst": worst,
        "iterations": found.iterations,
        "subproblems": found.subproblems,
        "gap": found.gap,
        "seconds": seconds,
        "log": [vars(record) for record in found.log],
        "published": published(settings, scheme),
    }
    for key in ("probabilities", "cones", "cuts", "samples", "radius", "price", "multiplier_bounds"):
        if key in found.extra:
            result[key] = found.extra[key]
    return result


def table(result: dict[str, Any]) -> Iterable[str]:
    """Lines for people."""
    yield f"{result['scheme']} on {result['subsets']}: objective {result['objective']:.3f}, gap {result['gap']:.1e}"
    if result["published"] is not None:
        yield f"published {result['published']:.0f}"
    yield f"open {result['open']}, capacity {np.round(result['capacity'], 3).tolist()}"
    yield f"worst cost per subset {np.round(result['subset_worst'], 3).tolist()}"
    yield f"{result['iterations']} iterations, {result['subproblems']} subproblems, {result['seconds']:.2f} s"


STUDY = Study(
    {
        "scheme": "robust",
        "subsets": "union",
        "p0": [0.1, 0.2, 0.3, 0.4],
        "rho": 0.1,
        "form": "fixed",
        "inner": "cuts",
        "search": "monolithic",
        "N": 0,
        "radius": 0.1,
        "epsilon": 0.05,
        "beta": 0.05,
        "seed": 0,
    },
    run,
    table,
)
