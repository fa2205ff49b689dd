"""Are the certificates kept? Repeated fits of every family on distributions that satisfy its assumption.

A repetition draws N samples, fits a set at (epsilon, confidence) and measures its violation on a large sample of the
true distribution. For the hypothesis-test families the promise is about linear constraints, so the violation is the
largest P(a'u > support(a)) over many directions a; for the others it is P(u not in U). The promise is kept if the share
of repetitions whose violation exceeds epsilon is at most alpha = 1 - confidence plus three standard errors.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rmpc_ros.errors import ConfigError
from rmpc_ros.sets import load_families
from rmpc_ros.sets.fit import FITTERS, HYPOTHESIS_TESTS, fit_set
from rmpc_ros.studies.registry import Settings, Study

Matrix = NDArray[np.float64]
Draw = Callable[[int, np.random.Generator], Matrix]


@dataclass(frozen=True)
class Source:
    """A distribution in two dimensions and what it satisfies."""

    draw: Draw
    independent: bool
    box: tuple[float, ...] | None = None
    finite: bool = False


_ROOT = np.array([[1.0, 0.0], [0.7, np.sqrt(1 - 0.49)]])
_ATOMS = np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [1.0, 1.0], [2.0, 2.0]])


def _skewed(count: int, rng: np.random.Generator) -> Matrix:
    top = 1 - np.exp(-6.0)
    return np.asarray(-np.log1p(-rng.random((count, 2)) * top))


def _skewed_correlated(count: int, rng: np.random.Generator) -> Matrix:
    return np.asarray(np.exp(0.6 * rng.standard_normal((count, 2)) @ _ROOT.T))


def _atoms(shares: tuple[float, ...]) -> Draw:
    return lambda count, rng: _ATOMS[rng.choice(len(_ATOMS), size=count, p=shares)]


SOURCES: dict[str, Source] = {
    "uniform": Source(lambda n, rng: rng.uniform(-1, 1, (n, 2)), True, (-1.0, 1.0, -1.0, 1.0)),
    "normal": Source(lambda n, rng: rng.standard_normal((n, 2)), True),
    "skewed": Source(_skewed, True, (0.0, 6.0, 0.0, 6.0)),
    "correlated": Source(lambda n, rng: rng.standard_normal((n, 2)) @ _ROOT.T, False),
    "skewed_correlated": Source(_skewed_correlated, False),
    "atoms": Source(_atoms((0.3, 0.2, 0.2, 0.2, 0.1)), False, finite=True),
    "skewed_atoms": Source(_atoms((0.55, 0.15, 0.15, 0.1, 0.05)), False, finite=True),
}
NEEDS_INDEPENDENCE, NEEDS_BOX, NEEDS_ATOMS = {"i", "fb"}, {"i"}, {"chi2", "g"}


def sources_for(family: str) -> list[str]:
    """Names of the distributions that satisfy a family's assumption."""
    return [
        name
        for name, s in SOURCES.items()
        if s.finite == (family in NEEDS_ATOMS)
        and (s.independent or family not in NEEDS_INDEPENDENCE)
        and (s.box is not None or family not in NEEDS_BOX)
    ]


def measure(family: str, name: str, settings: Settings) -> dict[str, Any]:
    """All repetitions of one family on one distribution."""
    source = SOURCES[name]
    rng = np.random.default_rng([settings["seed"], sum(map(ord, family + name))])
    truth = source.draw(settings["test_samples"], rng)
    angle = np.linspace(0, 2 * np.pi, settings["directions"], endpoint=False)
    directions = np.column_stack([np.cos(angle), np.sin(angle)])
    worth = np.sort(truth @ directions.T, axis=0)
    epsilon, n = settings["epsilon"], settings["samples"]
    parameters: dict[str, Any] = {}
    if family in NEEDS_BOX and source.box is not None:
        parameters["box"] = list(source.box)
    violations, sizes = [], []
    for repetition in range(settings["repetitions"]):
        data = source.draw(n, rng)
        fitted = fit_set(data, family, epsilon, settings["confidence"], parameters=parameters, seed=repetition).set
        if family in HYPOTHESIS_TESTS:
            values = np.asarray(fitted.support(directions))
            beyond = [
                1 - np.searchsorted(worth[:, k], v + 1e-7 * (1 + abs(v)), side="right") / len(worth)
                for k, v in enumerate(values)
            ]
            violations.append(max(beyond))
            sizes.append(float(np.mean(values + np.roll(values, len(values) // 2))))
        else:
            some = truth[rng.integers(len(truth), size=settings["membership_samples"])]
            violations.append(1 - float(np.mean(fitted.contains(some))))
            sizes.append(float(fitted.size(16)))
    alpha = 1 - settings["confidence"]
    error = float(np.sqrt(alpha * (1 - alpha) / len(violations)))
    share = float(np.mean(np.array(violations) > epsilon + 1e-12))
    return {
        "family": family,
        "distribution": name,
        "repetitions": len(violations),
        "share_exceeding": share,
        "promised": alpha,
        "standard_error": error,
        "limit": alpha + 3 * error,
        "kept": share <= alpha + 3 * error,
        "mean_violation": float(np.mean(violations)),
        "largest_violation": float(np.max(violations)),
        "mean_width": float(np.mean(sizes)),
    }


def run(settings: Settings, folder: Path) -> dict[str, Any]:
    """Every family on every distribution that fits it."""
    load_families()
    wanted = settings["families"] or sorted(FITTERS)
    for family in wanted:
        if family not in FITTERS:
            raise ConfigError(f"--set families: {family!r} is unknown; known: {', '.join(sorted(FITTERS))}")
    rows = [measure(family, name, settings) for family in wanted for name in sources_for(family)]
    return {
        "epsilon": settings["epsilon"],
        "confidence": settings["confidence"],
        "samples": settings["samples"],
        "all_kept": all(row["kept"] for row in rows),
        "table": rows,
    }


def table(result: dict[str, Any]) -> Iterable[str]:
    """One line per family and distribution."""
    yield (
        f"epsilon {result['epsilon']:g}, confidence {result['confidence']:g}, {result['samples']} samples; "
        f"share = repetitions whose violation exceeds epsilon"
    )
    yield f"{'family':12}{'distribution':20}{'share':>8}{'limit':>8}{'mean viol.':>12}{'width':>8}  kept"
    for row in result["table"]:
        yield (
            f"{row['family']:12}{row['distribution']:20}{row['share_exceeding']:8.3f}{row['limit']:8.3f}"
            f"{row['mean_violation']:12.4f}{row['mean_width']:8.2f}  {'yes' if row['kept'] else 'NO'}"
        )


STUDY = Study(
    {
        "families": [],
        "repetitions": 200,
        "samples": 200,
        "epsilon": 0.1,
        "confidence": 0.9,
        "directions": 16,
        "test_samples": 100_000,
        "membership_samples": 2000,
        "seed": 0,
    },
    run,
    table,
)
