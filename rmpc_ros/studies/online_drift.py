"""Online sets on a real series: hourly flow of a water main with outages (river's water-flow.csv).

The disturbance is the error of the persistence forecast, e_t = y_t - y_{t-1}. A static set is fitted once, to the first
rows of the record, which hold two outages, and an online set follows the stream. The third outage is the change: the
study reports coverage before, during and after it, the radius while the plant is calm, and how long the radius stays
up. For comparison: a static set fitted to calm rows only, and the online set with certified (order-statistic) radius.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from numpy.typing import NDArray

from rmpc_ros.errors import DataError
from rmpc_ros.sets.calibrate import calibrate
from rmpc_ros.sets.online import Guarantee, OnlineOptions, OnlineSet
from rmpc_ros.studies.registry import Settings, Study

Vector = NDArray[np.float64]
SERIES = "river/datasets/water-flow.csv"


def water_flow() -> Vector:
    """The flow in l/s, hourly (1268 values), from the installed package river.

    Raises
    ------
    DataError
        The package or its file is missing.
    """
    try:
        import river

        path = Path(str(river.__file__)).parent.parent / SERIES
        with path.open(newline="", encoding="utf-8") as file:
            return np.array([float(row[1]) for row in list(csv.reader(file))[1:]])
    except (ImportError, FileNotFoundError):
        raise DataError(f"the series {SERIES} is not installed; run: pip install river") from None


def follow(errors: Vector, start: int, options: OnlineOptions) -> tuple[Vector, NDArray[np.bool_], OnlineSet]:
    """Half-width and coverage at each step from `start`; each set is judged on the sample it has not seen."""
    online = OnlineSet(errors[max(start - options.window, 0) : start, None], options)
    width, covered = np.empty(len(errors) - start), np.empty(len(errors) - start, bool)
    for n, e in enumerate(errors[start:]):
        width[n] = online.current.set.size() / 2
        covered[n] = online.covers(e)
        online.update(e)
    return width, covered, online


def report(covered: NDArray[np.bool_], width: Vector, parts: dict[str, slice]) -> dict[str, Any]:
    """Coverage of each part, and the mean half-width while calm (before and after)."""
    calm = np.concatenate([width[parts["before"]], width[parts["after"]]])
    out: dict[str, Any] = {f"coverage_{name}": float(covered[part].mean()) for name, part in parts.items()}
    return out | {"radius_calm_l_per_s": float(calm.mean()), "radius_calm_median_l_per_s": float(np.median(calm))}


def run(settings: Settings, folder: Path) -> dict[str, Any]:
    """All four sets on the same stream."""
    flow = water_flow()
    errors = np.diff(flow)
    train, target = settings["train"], 1 - settings["epsilon"]
    outage = np.flatnonzero(flow[settings["search_from"] :] < 0.8 * np.median(flow)) + settings["search_from"]
    # errors[t] leads to flow[t + 1]; the change lasts until the flow is back
    start, end = int(outage[0]) - 1, int(outage[-1]) + 1
    bound = float(np.ptp(flow))
    common = {
        "epsilon": settings["epsilon"],
        "confidence": settings["confidence"],
        "window": settings["window"],
        "lower": (-bound,),
        "upper": (bound,),
        "gamma": settings["gamma"],
    }

    def online(kind: Guarantee) -> tuple[Vector, NDArray[np.bool_], OnlineSet]:
        return follow(errors, train, OnlineOptions(guarantee=kind, **common))

    width, covered, adaptive = online("conformal")
    wide, held, certified = online("certified")
    offset = errors[:train].mean()
    static = calibrate(np.abs(errors[:train] - offset), settings["epsilon"], settings["confidence"]).level
    calm_rows = errors[settings["calm_from"] : train]
    calm_offset = calm_rows.mean()
    static_calm = calibrate(np.abs(calm_rows - calm_offset), settings["epsilon"], settings["confidence"]).level

    settle = np.median(width[: start - train])
    after_end = width[end - train :]
    back = np.flatnonzero(after_end <= settings["recovered"] * settle)
    recovery = int(back[0]) if back.size else None
    resume = end - train
    parts = {"before": slice(0, start - train), "during": slice(start - train, resume), "after": slice(resume, None)}
    main = report(covered, width, parts)
    stream = errors[train:]
    in_static, in_calm = np.abs(stream - offset) <= static, np.abs(stream - calm_offset) <= static_calm
    same = np.ones(len(stream))
    result: dict[str, Any] = {
        "series": f"{SERIES}, {len(flow)} hourly values, persistence error in l/s",
        "target": target,
        "train_rows": train,
        "change_rows": [start, end],
        **main,
        "static_radius_l_per_s": static,
        "radius_ratio_calm": main["radius_calm_l_per_s"] / static,
        "recovery_steps": recovery,
        "coverage_overall": float(covered.mean()),
        "coverage_bound": adaptive.conformal.bound(),
        "versions": adaptive.current.certificate.version,
        "rejections": [[n, name] for n, name in adaptive.rejections],
        "certified": {
            **report(held, wide, parts),
            "versions": certified.current.certificate.version,
            "rejections": [[n, name] for n, name in certified.rejections],
        },
        "static": report(in_static, static * same, parts),
        "static_calm_rows_only": report(in_calm, static_calm * same, parts),
        "figure": folder / "online_drift.png",
    }
    _draw(folder, errors, train, width, wide, static, (start, end))
    return result


def _draw(
    folder: Path, errors: Vector, train: int, width: Vector, wide: Vector, static: float, change: tuple[int, int]
) -> None:
    figure, axes = plt.subplots(figsize=(11, 4.5))
    hours = np.arange(train, len(errors))
    axes.semilogy(np.maximum(np.abs(errors), 1e-2), ".", ms=2, color="0.6", label="abs(error)")
    axes.semilogy(hours, width, lw=1, label="online, conformal")
    axes.semilogy(hours, wide, lw=1, label="online, certified")
    axes.axhline(static, color="k", ls="--", lw=1, label="static")
    axes.axvspan(*change, color="tab:red", alpha=0.15)
    axes.set(xlabel="hour", ylabel="half-width in l/s", title="persistence error of the flow; red: the change")
    axes.legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(folder / "online_drift.png", dpi=120)
    plt.close(figure)


def table(result: dict[str, Any]) -> Iterable[str]:
    """Coverage and size of the four sets."""
    yield f"{result['series']}; target coverage {result['target']:g}; change in rows {result['change_rows']}"
    yield f"{'set':24}{'before':>9}{'during':>9}{'after':>9}{'calm half-width':>17}"
    rows = {"online, conformal": result, "online, certified": result["certified"], "static": result["static"]}
    rows["static, calm rows only"] = result["static_calm_rows_only"]
    for name, row in rows.items():
        cells = "".join(f"{row['coverage_' + part]:9.3f}" for part in ("before", "during", "after"))
        yield f"{name:24}{cells}{row['radius_calm_l_per_s']:17.3f}"
    yield f"calm radius / static radius {result['radius_ratio_calm']:.3f}; recovered {result['recovery_steps']} h after"


STUDY = Study(
    defaults={
        "epsilon": 0.05,
        "confidence": 0.95,
        "window": 250,
        "gamma": 0.03,
        "train": 300,
        "calm_from": 230,
        "search_from": 500,
        "recovered": 1.5,
    },
    run=run,
    table=table,
)
