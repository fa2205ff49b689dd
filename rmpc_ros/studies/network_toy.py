"""Two agents, one stage: how the shape of the announced set decides the cost (seeds 002 and 004, section 5.1)."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np

from rmpc_ros.errors import ConfigError, InfeasibleError
from rmpc_ros.network.affine_table import Matrix
from rmpc_ros.network.cases.toy import STATE_BOUND, B, E, toy_network
from rmpc_ros.network.design import NetworkDesign, design_network
from rmpc_ros.network.design_flexible import design_flexible
from rmpc_ros.network.primitive import Shape, ellipse, polytope, rectangle, regular_polygon, rotation
from rmpc_ros.network.report import design_summary
from rmpc_ros.studies.registry import Settings, Study

matplotlib.use("Agg")
import matplotlib.pyplot as plt

SHAPES = ("box", "rhombus", "rectangle", "circle", "ellipse", "polygon", "flexible")


def shape_named(name: str, degrees: float, ratio: float) -> Shape:
    """The primitive set of a name; rotations are counter-clockwise.

    Raises
    ------
    ConfigError
        The name is unknown.
    """
    turn, together = rotation(degrees), ((0, 1),)
    match name:
        case "box":
            return Shape("box", turn, together)
        case "rhombus":
            return Shape("rhombus", turn, together)
        case "rectangle":
            return rectangle(degrees)
        case "circle":
            return ellipse(1.0)
        case "ellipse":
            return ellipse(ratio, degrees)
        case "polygon":
            points = regular_polygon(8).points
            assert points is not None
            return polytope(turn @ points)
    raise ConfigError(f"shape = {name!r}; known: {', '.join(SHAPES)}")


def solve(design: str, shape: str, degrees: float, ratio: float) -> NetworkDesign:
    """One design of the example."""
    if design == "local" and shape == "flexible":
        return design_flexible(toy_network()).design
    if design == "local":
        return design_network(toy_network(), "local", shape_named(shape, degrees, ratio))
    return design_network(toy_network(), design)  # type: ignore[arg-type]


def run(settings: Settings, folder: Path) -> dict[str, Any]:
    """Solve the chosen design, draw agent 1's states and set; with sweep=true solve every 5 degrees."""
    name, shape, degrees, ratio = (settings[k] for k in ("design", "shape", "rotation_deg", "ratio"))
    result: dict[str, Any] = {"design": name, "shape": shape if name == "local" else None}
    result |= {"rotation_deg": degrees, "ratio": ratio}
    try:
        answer = solve(name, shape, degrees, ratio)
    except InfeasibleError as error:
        result |= {"status": "infeasible", "objective": None, "reason": str(error)}
    else:
        result |= design_summary(answer)
        _draw(answer, folder / "sets.png", f"{name} {shape if name == 'local' else ''}: {answer.objective:.4f}")
        result["figure"] = str(folder / "sets.png")
    if settings["sweep"]:
        result["sweep"] = _sweep(ratio, folder / "rotations.png")
    return result


def _sweep(ratio: float, path: Path) -> list[dict[str, Any]]:
    rows = []
    for degrees in range(0, 180, 5):
        row: dict[str, Any] = {"rotation_deg": degrees}
        for shape in ("rectangle", "ellipse"):
            try:
                row[shape] = solve("local", shape, float(degrees), ratio).objective
            except InfeasibleError:
                row[shape] = None
        rows.append(row)
    figure, axes = plt.subplots(figsize=(7, 4))
    for shape in ("rectangle", "ellipse"):
        values = [np.nan if r[shape] is None else r[shape] for r in rows]
        axes.plot([r["rotation_deg"] for r in rows], values, ".-", label=shape)
    axes.axhline(solve("nested", "", 0, 1).objective, color="k", ls=":", label="nested")
    axes.set(xlabel="rotation [degrees]", ylabel="objective", title="gaps: infeasible")
    axes.legend()
    figure.savefig(path, dpi=120)
    plt.close(figure)
    return rows


def _draw(answer: NetworkDesign, path: Path, title: str) -> None:
    policy = answer.policies[0]
    figure, axes = plt.subplots(figsize=(5, 5))
    axes.add_patch(plt.Rectangle((-STATE_BOUND,) * 2, 2 * STATE_BOUND, 2 * STATE_BOUND, fill=False, ec="r"))
    rng = np.random.default_rng(0)
    size = policy.gains[0].shape[1] - 1
    w = np.concatenate([rng.uniform(-1, 1, (400, size)), rng.choice([-1.0, 1.0], (40, size))])
    states = [_first_state(policy.input(0, row), row) for row in w]
    axes.plot(*np.array(states).T, "b.", ms=3, label="states of agent 1")
    announced = answer.announced.get((0, "x"), (None,))[0]
    if announced is not None:
        form = answer.forms[0, "x"]
        angle = np.linspace(0, 2 * np.pi, 400)
        rays = np.array([np.cos(angle), np.sin(angle)]).T
        reach = form.gauge(announced.centre + rays, announced, 0)
        axes.plot(*(announced.centre + rays / reach[:, None]).T, "g", label="announced set")
    axes.set(title=title, xlim=(-10, 10), ylim=(-10, 10), xlabel="x1", ylabel="x2")
    axes.legend()
    figure.savefig(path, dpi=120)
    plt.close(figure)


def _first_state(u: Matrix, w: Matrix) -> Matrix:
    return B @ u + E @ w[:2]


def table(result: dict[str, Any]) -> Iterable[str]:
    """Lines for people."""
    yield f"{result['design']} {result['shape'] or ''} rotation {result['rotation_deg']} ratio {result['ratio']}: " + (
        f"{result['status']} {result['objective']}"
    )
    for row in result.get("sweep", []):
        yield f"  {row['rotation_deg']:4d} deg  rectangle {row['rectangle']}  ellipse {row['ellipse']}"


STUDY = Study(
    {"design": "local", "shape": "box", "rotation_deg": 0.0, "ratio": 1.5, "sweep": False},
    run,
    table,
)
