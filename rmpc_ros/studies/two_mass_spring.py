"""Two masses and a spring: DRMPC, scenario MPC and box-robust MPC on the same noise (seed 003, section 4).

Noise (the study's own choice): w = scale * a, a(t) = rho a(t-1) + sqrt(1 - rho^2) s(t), s Student-t with `freedom`
degrees scaled to unit variance: unbounded, heavy-tailed, correlated in time. Each run draws its own training,
calibration and scenario data and its own disturbances, the same for the three methods, which all have the same feedback
(`--set feedback=fixed|scaled|full`). The published numbers come from another noise (its coefficients were not printed):
compare the order, not the values.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from numpy.typing import NDArray
from scipy.linalg import solve_discrete_are

from rmpc_ros.errors import ConfigError
from rmpc_ros.mpc.stochastic import StochasticMpc, StochasticProblem
from rmpc_ros.studies._stochastic import CHOICES, NAMES, STATED, compared, controllers, lines, samples_wanted
from rmpc_ros.studies.registry import Settings, Study

Matrix = NDArray[np.float64]
STEP, SPRING, MASS = 0.1, 1.0, (0.5, 2.0)
A = np.array(
    [
        [1.0, 0.0, STEP, 0.0],
        [0.0, 1.0, 0.0, STEP],
        [-STEP * SPRING / MASS[0], STEP * SPRING / MASS[0], 1.0, 0.0],
        [STEP * SPRING / MASS[1], -STEP * SPRING / MASS[1], 0.0, 1.0],
    ]
)
B = np.array([[0.0], [0.0], [STEP / MASS[0]], [0.0]])
E = np.array([[1.0], [0.5], [0.3], [0.4]])
START = np.array([0.2, 1.0, -0.1, 0.1])
SPEED, FORCE = 0.38, 1.6
PUBLISHED = {  # table 3: average cost-to-go, CPU seconds per horizon 5, 10, 15
    "ssmpc": {"cost": [5.7117, 4.8119, 4.3150], "cpu_s": [2.2020, 5.0475, 10.3079]},
    "rmpc": {"cost": [6.0306, 5.4727, 5.3097], "cpu_s": [0.4664, 0.4934, 0.5709]},
    "drmpc": {"cost": [5.2010, 4.1595, 3.9448], "cpu_s": [1.0029, 1.4268, 2.0197]},
}


def noise(count: int, length: int, settings: Settings, rng: np.random.Generator) -> Matrix:
    """Independent stretches (count, length) of the stationary series."""
    warm = 40
    freedom, rho = settings["freedom"], settings["rho"]
    s = rng.standard_t(freedom, (count, warm + length)) * np.sqrt((freedom - 2) / freedom)
    a = np.zeros((count, warm + length))
    for t in range(1, warm + length):
        a[:, t] = rho * a[:, t - 1] + np.sqrt(1 - rho**2) * s[:, t]
    return np.asarray(settings["scale"] * a[:, warm:])


def problem(horizon: int, caution: float) -> StochasticProblem:
    """The paper's system, limits, stage weights; the last state's weight: LQ cost with speeds `caution` times dearer.

    Without foresight beyond the horizon the spring accelerates mass 2 past its limit whatever the controller does.
    """
    P = solve_discrete_are(A, B, 5 * np.diag([1, 1, caution, caution]), np.eye(1))
    K = -np.linalg.solve(np.eye(1) + B.T @ P @ B, B.T @ P @ A)
    rows = np.array([[0.0, 0, 1, 0], [0, 0, -1, 0], [0, 0, 0, 1], [0, 0, 0, -1]])
    limit = np.array([FORCE])
    weights = np.sqrt(5) * np.eye(4), np.eye(1)
    return StochasticProblem(A, B, E, horizon, rows, -limit, limit, *weights, np.zeros(1), K=K, terminal=P)


def simulate(controller: StochasticMpc, w: Matrix) -> dict[str, Any]:
    """One closed loop over the given disturbances."""
    x, states, inputs, backup, seconds = START, [START], [], 0, []
    bound = np.full(4 * controller.problem.horizon, SPEED)
    for t in range(w.size):
        step = controller.step(x, bound)
        x = A @ x + B @ step.input + E[:, 0] * w[t]
        states.append(x)
        inputs.append(step.input[0])
        backup += step.backup
        seconds.append(step.seconds)
    path = np.array(states)
    stage = 5 * np.sum(path[:-1] ** 2, axis=1) + np.array(inputs) ** 2
    return {
        "states": path,
        "inputs": np.array(inputs),
        "average_cost": float(stage.mean()),
        "violations": float(np.mean(np.any(np.abs(path[1:, 2:]) > SPEED, axis=1))),
        "backup": backup,
        "samples": controller.samples,
        "cpu_s": float(np.mean(seconds)),
    }


def draws(settings: Settings) -> list[int]:
    """Runs for each horizon; one number stands for all.

    Raises
    ------
    ConfigError
    """
    runs, horizons = settings["runs"], settings["horizons"]
    if len(runs) not in (1, len(horizons)):
        raise ConfigError(f"runs = {runs}: give one number, or one for each of the horizons {horizons}")
    return list(runs) * (len(horizons) if len(runs) == 1 else 1)


def run(settings: Settings, folder: Path) -> dict[str, Any]:
    """Closed loops of all methods and horizons."""
    results: dict[str, dict[str, Any]] = {}
    paths: dict[tuple[int, str], dict[str, Any]] = {}
    for horizon, count in zip(settings["horizons"], draws(settings), strict=True):
        gathered: dict[str, list[dict[str, Any]]] = {name: [] for name in NAMES.values()}
        outside: list[float] = []
        for n in range(count):
            rng = np.random.default_rng([settings["seed"], n])
            w = noise(1, settings["steps"], settings, rng)[0]
            training = noise(settings["n_train"], horizon, settings, rng)
            fresh = noise(samples_wanted(settings, horizon), horizon, settings, rng)
            three = controllers(problem(horizon, settings["caution"]), training, fresh, settings["scale"], settings)
            test = three["drmpc"].saturation.lift(noise(4000, horizon, settings, rng))
            outside += [float(np.mean(~stage.contains(test))) for stage in three["drmpc"].stage_sets]
            for name, controller in three.items():
                gathered[name].append(simulate(controller, w))
        results[str(horizon)] = {
            "runs": count,
            "set_violation_mean": float(np.mean(outside)),
            **compared(gathered, "average_cost"),
        }
        paths |= {(horizon, name): loops[0] for name, loops in gathered.items()}
    folder.mkdir(parents=True, exist_ok=True)
    figure = folder / "two_mass_spring.png"
    _draw(paths, settings["horizons"], figure)
    return {
        **{key: settings[key] for key in (*STATED, "steps", "freedom")},
        "runs": draws(settings),
        "horizons": results,
        "published": PUBLISHED,
        "figure": str(figure),
    }


def _draw(paths: dict[tuple[int, str], dict[str, Any]], horizons: list[int], file: Path) -> None:
    figure, axes = plt.subplots(3, len(horizons), figsize=(4 * len(horizons), 7), sharex=True, squeeze=False)
    for column, horizon in enumerate(horizons):
        for name in NAMES.values():
            loop = paths[horizon, name]
            time = STEP * np.arange(len(loop["states"]))
            axes[0, column].plot(time, loop["states"][:, 1], label=name)
            axes[1, column].plot(time, loop["states"][:, 3], label=name)
            axes[2, column].plot(time[:-1], loop["inputs"], label=name)
        axes[1, column].axhline(-SPEED, color="k", lw=0.5)
        axes[0, column].set_title(f"horizon {horizon}")
        axes[2, column].set_xlabel("time in s")
    for row, label in enumerate(("position of mass 2", "speed of mass 2", "force")):
        axes[row, 0].set_ylabel(label)
    axes[0, 0].legend()
    figure.tight_layout()
    figure.savefig(file, dpi=120)
    plt.close(figure)


def table(result: dict[str, Any]) -> Iterable[str]:
    """Lines for people: ours beside the paper's."""
    yield (
        f"runs of {result['steps']} steps from seed {result['seed']}, epsilon {result['epsilon']}, "
        f"beta {result['beta']}, {result['feedback']} feedback for all; the paper's cost and CPU in brackets (its "
        "noise is not published)"
    )
    yield f"DRMPC: {result['n_train']} training and {result['n_calibration']} calibration samples at every horizon"
    for horizon, methods in result["horizons"].items():
        share = 100 * methods["set_violation_mean"]
        yield f"horizon {horizon}, {methods['runs']} runs: the sets leave out {share:.2f} % of new samples"
        beside = {}
        if horizon in ("5", "10", "15"):
            k = ("5", "10", "15").index(horizon)
            beside = {
                name: f"({paper['cost'][k]:.3f}, {paper['cpu_s'][k]:.2f} s)"
                for name, paper in result["published"].items()
            }
        yield from lines(methods, "average_cost", beside, 3)


STUDY = Study(
    defaults={
        "horizons": [5, 10, 15],
        "steps": 100,
        "runs": [600, 200, 200],
        "n_train": 300,
        "n_calibration": 59,
        "caution": 10.0,
        "epsilon": 0.05,
        "beta": 0.05,
        "rho": 0.5,
        "freedom": 2.5,
        "scale": 0.01,
        **CHOICES,
        "seed": 8111,
    },
    run=run,
    table=table,
)
