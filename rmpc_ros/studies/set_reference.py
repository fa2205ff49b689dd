"""Check values of the data-driven sets: writes the reference data as CSV files and compares supports with them.

`rmpc study set-reference --out DIR` leaves DIR/sines.csv and DIR/atoms.csv for `rmpc fit`.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from rmpc_ros.sets.fit import fit_set
from rmpc_ros.studies.registry import Settings, Study

# family, data, epsilon, explicit parameters, published d*((1,1))
CHECKS: tuple[tuple[str, str, float, dict[str, Any], float], ...] = (
    ("lcx", "sines", 0.1, {"G": 0.05}, 0.87932245),
    ("chi2", "atoms", 0.6, {}, 1.23979217),
    ("g", "atoms", 0.6, {}, 1.23602793),
    ("i", "sines", 0.1, {"G": 0.2, "box": [-1.2, 1.2, -0.8, 0.8]}, 1.91286562),
    ("cs", "sines", 0.1, {"G1": 0.1, "G2": 0.05}, 2.76000611),
    ("dy", "sines", 0.1, {"g1": 0.1, "g2": 1.3, "box": [-4.8, 4.8, -3.2, 3.2]}, 2.9207623),
    (
        "fb",
        "sines",
        0.1,
        {"mf": [0.1, 0.2], "mb": [-0.05, -0.25], "sf": [1.0, 2.0], "sb": [2.0, 0.5]},
        5.09852591,
    ),
    ("svc", "sines", 0.1, {"nu": 0.2, "l_factor": 1.01, "n_calibration": 0}, 0.74487706),
)


def reference_data() -> dict[str, np.ndarray[Any, np.dtype[np.float64]]]:
    """`sines`: (sin j, 0.5 cos 2j), j = 1..20; `atoms`: the unit square's corners 160, 120, 80 and 40 times."""
    j = np.arange(1, 21)
    corners = np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    return {
        "sines": np.column_stack([np.sin(j), 0.5 * np.cos(2 * j)]),
        "atoms": np.repeat(corners, [160, 120, 80, 40], axis=0),
    }


def run(settings: Settings, folder: Path) -> dict[str, Any]:
    """Write the files and evaluate every family at (1, 1)."""
    data = reference_data()
    for name, rows in data.items():
        with (folder / f"{name}.csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(["u1", "u2"])
            writer.writerows([[repr(float(v)) for v in row] for row in rows])
    rows_out = []
    for family, name, epsilon, parameters, expected in CHECKS:
        fitted = fit_set(data[name], family, epsilon, settings["confidence"], parameters=parameters)
        value = float(fitted.set.support([1.0, 1.0]))
        point = fitted.set.maximiser([1.0, 1.0])
        rows_out.append(
            {
                "family": family,
                "data": f"{name}.csv",
                "epsilon": epsilon,
                "parameters": parameters,
                "support": value,
                "expected": expected,
                "difference": value - expected,
                "maximiser": point.tolist(),
                "maximiser_is_member": bool(fitted.set.contains(point)),
            }
        )
    return {"confidence": settings["confidence"], "checks": rows_out, "files": [f"{n}.csv" for n in data]}


def table(result: dict[str, Any]) -> Iterable[str]:
    """One line per family."""
    yield f"{'family':8}{'support':>14}{'expected':>14}{'difference':>12}  maximiser is a member"
    for row in result["checks"]:
        yield (
            f"{row['family']:8}{row['support']:14.8f}{row['expected']:14.8f}{row['difference']:12.1e}  "
            f"{row['maximiser_is_member']}"
        )


STUDY = Study({"confidence": 0.9}, run, table)
