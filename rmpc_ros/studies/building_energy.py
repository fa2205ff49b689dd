"""Heating a room under weather forecast errors: DRMPC, scenario MPC and box-robust MPC (seed 003, section 5).

Weather: a typical winter of real hours (plants/winter_greensboro.csv). Forecast, made every hour k for the next hours:
what the same hour of day was on average over the last seven days, plus the present deviation from that average fading
by `fade` per hour. The error (truth minus forecast) over the horizon is what is uncertain. October to December give the
error samples (windows that do not overlap, in random order), January to March are simulated. The room must stay
above 20 deg C from 7 to 18 h and above 15 deg C otherwise, with probability 1 - epsilon; energy is minimised.
Building matrices as published (plants/building.py); the paper's weather and building area are not available, so its
energies (W/m2 per month) are shown for their order.
"""

from __future__ import annotations

from collections.abc import Iterable
from importlib import resources
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from numpy.typing import NDArray

from rmpc_ros.errors import DataError
from rmpc_ros.mpc.stochastic import StochasticMpc, StochasticProblem
from rmpc_ros.plants.building import GAMMA, PHI
from rmpc_ros.studies._stochastic import CHOICES, NAMES, STATED, compared, controllers, lines, samples_wanted
from rmpc_ros.studies.registry import Settings, Study

Vector = NDArray[np.float64]
Matrix = NDArray[np.float64]
DAY, NIGHT, FROM, TO = 20.0, 15.0, 7, 18
POWER = 200.0
GROUND = 12.0  # the average outdoor temperature of the year, deg C
PUBLISHED = {  # table 5, W/m2 per month January to May
    "ssmpc": [68346, 55453, 67617, 32264, 27092],
    "rmpc": [69480, 56460, 68747, 33262, 27497],
    "drmpc": [67591, 54785, 66865, 31604, 25916],
}


def winter() -> tuple[NDArray[np.int64], NDArray[np.int64], Vector]:
    """(month, hour of day, outdoor temperature) of every hour in the file."""
    text = resources.files("rmpc_ros.plants").joinpath("winter_greensboro.csv").read_text("utf-8")
    rows = [line.split(",") for line in text.splitlines() if line and not line.startswith(("#", "month"))]
    month, _, hour, outdoor = zip(*rows, strict=True)
    return np.array(month, np.int64), np.array(hour, np.int64) % 24, np.array(outdoor, float)


def forecasts(outdoor: Vector, horizon: int, fade: float) -> Matrix:
    """Forecast of hours k+1..k+N made at hour k, (hours, N); NaN in the first week and the last hours."""
    out = np.full((outdoor.size, horizon), np.nan)
    for k in range(7 * 24 + horizon, outdoor.size - horizon):
        usual = np.array([outdoor[k + lead - 24 * np.arange(1, 8)].mean() for lead in range(horizon + 1)])
        out[k] = usual[1:] + fade ** np.arange(1, horizon + 1) * (outdoor[k] - usual[0])
    return out


def problem(horizon: int) -> StochasticProblem:
    """The building; cost: energy alone. The law behind scaled and fixed feedback reacts to the room's temperature."""
    return StochasticProblem(
        PHI,
        GAMMA[:, :1],
        GAMMA[:, 3:],
        horizon,
        np.array([[-1.0, 0.0, 0.0, 0.0]]),
        np.zeros(1),
        np.array([POWER]),
        np.zeros((0, 4)),
        np.zeros((0, 1)),
        np.ones(1),
        penalty=1e4,
        K=np.array([[-2.0, 0.0, 0.0, 0.0]]),
    )


def comfort(hours: NDArray[np.int64]) -> Vector:
    """Lowest allowed room temperature at these hours of day."""
    return np.where((hours >= FROM) & (hours <= TO), DAY, NIGHT)


def simulate(controller: StochasticMpc, span: NDArray[np.int64], data: dict[str, Any]) -> dict[str, Any]:
    """Closed loop over the named hours: room (hours,), heating (hours,), backup steps, seconds."""
    N = controller.problem.horizon
    x = np.array([20.0, GROUND, 12.0, 12.0])
    room, heating, backup, seconds = [], [], 0, 0.0
    for k in span:
        offset = (data["forecast"][k][:, None] * GAMMA[:, 1] + GROUND * GAMMA[:, 2]).ravel()
        step = controller.step(x, -comfort((data["hour"][k] + 1 + np.arange(N)) % 24), offset)
        truth = np.array([step.input[0], data["outdoor"][k + 1], GROUND])
        x = PHI @ x + GAMMA[:, :3] @ truth
        room.append(x[0])
        heating.append(step.input[0])
        backup += step.backup
        seconds += step.seconds
    return {
        "room": np.array(room),
        "heating": np.array(heating),
        "backup": backup,
        "cpu_s": seconds / len(span),
        "samples": controller.samples,
    }


def run(settings: Settings, folder: Path) -> dict[str, Any]:
    """All methods over the same hours, for several draws of the samples."""
    horizon = settings["horizon"]
    month, hour, outdoor = winter()
    data = {"hour": hour, "outdoor": outdoor, "forecast": forecasts(outdoor, horizon, settings["fade"])}
    ahead = np.arange(outdoor.size)[:, None] + 1 + np.arange(horizon)
    errors = outdoor[np.minimum(ahead, outdoor.size - 1)] - data["forecast"]
    autumn = np.flatnonzero(np.isin(month, (10, 11, 12)) & np.all(np.isfinite(errors), axis=1))[::horizon]
    train = settings["n_train"]
    most = max(train + settings["n_calibration"], samples_wanted(settings, horizon))
    if autumn.size < most:
        raise DataError(f"{autumn.size} windows of forecast errors in autumn, {most} needed: shorten the horizon")
    usable = np.flatnonzero(np.isin(month, (1, 2, 3)) & np.all(np.isfinite(data["forecast"]), axis=1))
    span = usable[: settings["hours"]] if settings["hours"] else usable
    span = span[span + horizon < outdoor.size]
    floor = comfort((hour[span] + 1) % 24)
    loops: dict[str, list[dict[str, Any]]] = {name: [] for name in NAMES.values()}
    for n in range(settings["runs"]):
        rng = np.random.default_rng([settings["seed"], n])
        windows = errors[rng.permutation(autumn)]
        # DRMPC calibrates on windows it was not trained on; the others may use all
        fresh = np.roll(windows, -train, axis=0)
        three = controllers(problem(horizon), windows[:train], fresh, float(windows.std()), settings)
        for name, controller in three.items():
            loop = simulate(controller, span, data)
            below = loop["room"] < floor - 1e-6
            loop |= {"energy_total": float(loop["heating"].sum()), "violations": float(np.mean(below)), "below": below}
            loops[name].append(loop)
    months = [int(m) for m in dict.fromkeys(month[span].tolist())]
    methods = compared(loops, "energy_total")
    for name, runs in loops.items():
        methods[name] |= {
            "energy_w_per_m2": [float(np.mean([r["heating"][month[span] == m].sum() for r in runs])) for m in months],
            "violations_by_month": [float(np.mean([r["below"][month[span] == m] for r in runs])) for m in months],
            "worst_shortfall_degC": float(max(np.max(floor - r["room"], initial=0.0) for r in runs)),
        }
    folder.mkdir(parents=True, exist_ok=True)
    figure = folder / "building_energy.png"
    _draw({name: runs[0] for name, runs in loops.items()}, floor, outdoor[span + 1], figure)
    return {
        "hours": int(span.size),
        "months": months,
        "horizon": horizon,
        "runs": settings["runs"],
        **{key: settings[key] for key in STATED},
        "forecast_error_std_degC": [float(v) for v in errors[autumn].std(axis=0)],
        "methods": methods,
        "drmpc_lowest_energy": methods["drmpc_cheapest"],
        "published_energy_w_per_m2": PUBLISHED,
        "figure": str(figure),
    }


def _draw(loops: dict[str, dict[str, Any]], floor: Vector, outdoor: Vector, file: Path) -> None:
    shown = slice(0, 24 * 7)
    figure, (top, bottom) = plt.subplots(2, 1, figsize=(10, 6), sharex=True)
    top.plot(floor[shown], "k", lw=0.8, label="comfort")
    for name, loop in loops.items():
        top.plot(loop["room"][shown], label=name)
        bottom.plot(loop["heating"][shown], label=name)
    bottom.plot(outdoor[shown], "k:", label="outdoor, deg C")
    top.set_ylabel("room, deg C")
    bottom.set_ylabel("heating, W/m2")
    bottom.set_xlabel("hours from the start")
    top.legend()
    bottom.legend()
    figure.tight_layout()
    figure.savefig(file, dpi=120)
    plt.close(figure)


def table(result: dict[str, Any]) -> Iterable[str]:
    """Lines for people: ours beside the paper's."""
    yield (
        f"{result['hours']} hours, {result['runs']} draws of the samples from seed {result['seed']}, horizon "
        f"{result['horizon']}, epsilon {result['epsilon']}, beta {result['beta']}, {result['feedback']} feedback for "
        "all; energy in W/m2 (the paper's January, February, March in brackets: another place and forecast)"
    )
    beside = {}
    for name, paper in result["published_energy_w_per_m2"].items():
        ours = result["methods"][name]["energy_w_per_m2"]
        beside[name] = "= " + " + ".join(f"{e:.0f} ({p})" for e, p in zip(ours, paper, strict=False))
    yield from lines(result["methods"], "energy_total", beside, 0)


STUDY = Study(
    defaults={
        "horizon": 5,
        "hours": 0,
        "runs": 32,
        "epsilon": 0.05,
        "beta": 0.1,
        "n_train": 237,
        "n_calibration": 45,
        "fade": 0.9,
        **CHOICES,
        "seed": 8201,
    },
    run=run,
    table=table,
)
