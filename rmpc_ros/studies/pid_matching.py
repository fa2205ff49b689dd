"""A PID as an MPC: exact gains for every horizon, and what changes when a limit is met.

Three plants with dead time. (1) The first move's gain of the compiled problem's optimality system against the PID's
law, for the cost with a cross term and for the rotated, positive definite one. (2) Closed loops where the PID
overshoots a limit of y: the PID crosses it, the PID-MPC does not, and wherever the PID's own plan meets no limit both
move alike.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from numpy.typing import NDArray

from rmpc_ros.models.delayed import DelayProcess
from rmpc_ros.mpc.pid import PidSettings, gains_from_law
from rmpc_ros.mpc.pid_loop import Loop, PidLoop, PidMpcLoop
from rmpc_ros.mpc.pid_mpc import OutputLimits, PidMpc, StageCost, augment, pid_cost, rotated_cost
from rmpc_ros.studies.registry import Settings, Study

matplotlib.use("Agg")
Vector = NDArray[np.float64]

PERIOD = 0.5
PLANTS: dict[str, tuple[DelayProcess, PidSettings]] = {
    "first order": (
        DelayProcess(1.0, (10.0,), 2.5),
        PidSettings(2.4, 0.36, 2.0, PERIOD, filter_time=0.2, setpoint_weight=1.0),
    ),
    "second order": (
        DelayProcess(2.0, (6.0, 3.0), 2.0),
        PidSettings(1.0, 0.13, 2.0, PERIOD, filter_time=0.5, setpoint_weight=1.0),
    ),
    "integrating": (
        DelayProcess(0.2, (2.0,), 3.0, integrating=True),
        PidSettings(0.7, 0.03, 1.5, PERIOD, filter_time=0.5, setpoint_weight=0.9),
    ),
}


def gain_errors(process: DelayProcess, settings: PidSettings, horizons: Iterable[int]) -> dict[str, Any]:
    """Largest entry of |K_mpc - K| and of |(kp, ki, kd)_mpc - (kp, ki, kd)| per horizon, for both costs."""
    system = augment(process.sampled(settings.period), settings)
    costs: dict[str, StageCost] = {"cross term": pid_cost(system), "rotated": rotated_cost(system)}
    out: dict[str, Any] = {}
    for name, cost in costs.items():
        out[name] = {}
        for horizon in horizons:
            row = PidMpc(system, cost, settings, OutputLimits(), horizon).condensed.gain()
            recovered = np.array(gains_from_law(row[0, system.n :], settings))
            parameters = np.abs(recovered - [settings.kp, settings.ki, settings.kd])
            out[name][str(horizon)] = float(max(np.max(np.abs(row - system.K)), np.max(parameters)))
    full = np.block([[costs["rotated"].Q, costs["rotated"].S], [costs["rotated"].S.T, costs["rotated"].R]])
    out["rotated_smallest_eigenvalue"] = float(np.linalg.eigvalsh(full)[0])
    return out


def closed_loop(
    process: DelayProcess, loop: Loop, setpoints: Vector
) -> tuple[Vector, Vector, Vector, NDArray[np.bool_]]:
    """Outputs, inputs, |du - the PID's du in the same state|, and where the PID's plan met a limit; plant from rest."""
    plant = process.sampled(PERIOD)
    x = np.zeros(plant.A.shape[0])
    y, u, difference = np.zeros(setpoints.size), np.zeros(setpoints.size), np.zeros(setpoints.size)
    limited = np.zeros(setpoints.size, bool)
    loop.start(0.0, 0.0, 0.0)
    for k, target in enumerate(setpoints):
        y[k] = (plant.C @ x)[0]
        u[k] = loop.step(float(target), float(y[k]))
        x = plant.A @ x + plant.B[:, 0] * u[k]
        if isinstance(loop, PidMpcLoop) and loop.last is not None:
            difference[k], limited[k] = abs(loop.last.du - loop.last.pid_du), loop.last.limited
    return y, u, difference, limited


def run(settings: Settings, folder: Path) -> dict[str, Any]:
    """Gains for all horizons, then the closed loops."""
    horizons = [int(n) for n in settings["horizons"]]
    steps = int(settings["steps"])
    setpoints = np.concatenate([np.zeros(5), np.ones(steps - 5)])
    plants: dict[str, Any] = {}
    traces = {}
    for name, (process, pid_settings) in PLANTS.items():
        gains = gain_errors(process, pid_settings, horizons)
        pid_y, pid_u, _, _ = closed_loop(process, PidLoop(pid_settings), setpoints)
        limit = 1.0 + 0.3 * float(np.max(pid_y) - 1.0)  # 30 % of the PID's overshoot is allowed
        limits = OutputLimits(upper=limit)
        mpc_loop = PidMpcLoop(process.sampled(PERIOD), pid_settings, limits, int(settings["horizon"]))
        mpc_y, mpc_u, difference, limited = closed_loop(process, mpc_loop, setpoints)
        first = int(np.argmax(limited)) if limited.any() else steps
        plants[name] = {
            "gain_error": gains,
            "output_limit": limit,
            "pid_violation": float(max(np.max(pid_y) - limit, 0.0)),
            "pid_mpc_violation": float(max(np.max(mpc_y) - limit, 0.0)),
            "limited_steps": int(limited.sum()),
            "free_steps": int((~limited).sum()),
            "move_difference_elsewhere": float(np.max(difference[~limited], initial=0.0)),
            "largest_correction": float(np.max(difference[limited], initial=0.0)),
            "trajectory_difference_before_first_limit": float(np.max(np.abs(pid_u[:first] - mpc_u[:first]))),
        }
        traces[name] = (pid_y, mpc_y, pid_u, mpc_u, limit)
    _figure(traces, folder)
    exact = [v for p in plants.values() for v in p["gain_error"]["cross term"].values()]
    rotated = [v for p in plants.values() for v in p["gain_error"]["rotated"].values()]
    return {
        "max_gain_error": max(exact),
        "max_gain_error_rotated": max(rotated),
        "horizons": horizons,
        "pid_violates": all(p["pid_violation"] > 1e-3 for p in plants.values()),
        "max_pid_mpc_violation": max(p["pid_mpc_violation"] for p in plants.values()),
        "max_move_difference_elsewhere": max(p["move_difference_elsewhere"] for p in plants.values()),
        "plants": plants,
    }


def _figure(traces: dict[str, Any], folder: Path) -> None:
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(2, len(traces), figsize=(4 * len(traces), 5), sharex=True, squeeze=False)
    for column, (name, (pid_y, mpc_y, pid_u, mpc_u, limit)) in enumerate(traces.items()):
        time = np.arange(pid_y.size) * PERIOD
        axes[0, column].plot(time, pid_y, label="PID")
        axes[0, column].plot(time, mpc_y, "--", label="PID-MPC")
        axes[0, column].axhline(limit, color="0.5", lw=0.8)
        axes[0, column].set_title(name)
        axes[1, column].step(time, pid_u, where="post")
        axes[1, column].step(time, mpc_u, "--", where="post")
        axes[1, column].set_xlabel("time")
    axes[0, 0].set_ylabel("y")
    axes[1, 0].set_ylabel("u")
    axes[0, 0].legend()
    figure.tight_layout()
    figure.savefig(folder / "pid-matching.png", dpi=120)
    plt.close(figure)


def table(result: dict[str, Any]) -> Iterable[str]:
    """Lines for people."""
    yield f"largest gain error {result['max_gain_error']:.1e} (rotated cost {result['max_gain_error_rotated']:.1e})"
    yield f"{'plant':14} {'PID over limit':>15} {'PID-MPC over':>13} {'limited steps':>14} {'difference elsewhere':>21}"
    for name, p in result["plants"].items():
        yield (
            f"{name:14} {p['pid_violation']:15.4f} {p['pid_mpc_violation']:13.1e} {p['limited_steps']:14d} "
            f"{p['move_difference_elsewhere']:21.1e}"
        )


STUDY = Study(defaults={"horizons": [1, 5, 20], "horizon": 20, "steps": 160}, run=run, table=table)
