"""What learning costs in a control step: update, linearisation, rollout, and swapping in a newer model.

One agent with three states and 64 features (the first reactor of the reactor-separator plant, its neighbours' states as
disturbances). Compared in the same run with the bare numpy update of the layer and with building the model's CasADi
functions anew, which is what a design with the weights compiled in would have to do in every step. `_learning_loop`
times the whole loop around the agents' control steps.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import casadi as ca
import numpy as np
from numpy.typing import NDArray

from rmpc_ros.models.hybrid import HybridModel, Structure, Transitions, fit_hybrid
from rmpc_ros.models.physics import Physics
from rmpc_ros.plants import reactor_separator
from rmpc_ros.studies import _worn_reactor
from rmpc_ros.studies.bench._learning_loop import bench as bench_loop
from rmpc_ros.studies.registry import Settings, Study

Vector = NDArray[np.float64]
OWN = ("xA1", "xB1", "T1")


def first_reactor() -> Physics:
    """x+ of reactor 1 with the other vessels held over the period, by eight Runge-Kutta steps."""
    model = reactor_separator.build({})
    names, index = model.state_names, [model.state_names.index(n) for n in OWN]
    others = [k for k in range(len(names)) if k not in index]
    feeds = list(model.disturbance_names)
    x, u, d, theta = (ca.SX.sym(s, v) for s, v in (("x", 3), ("u", 1), ("d", len(others) + len(feeds)), ("theta", 2)))
    p: dict[str, Any] = dict(model.parameters)
    p["k1"], p["k2"] = p["k1"] * theta[0], p["k2"] * theta[1]

    def rhs(state: Any) -> Any:
        values = {names[k]: state[n] for n, k in enumerate(index)}
        values |= {names[k]: d[n] for n, k in enumerate(others)}
        inputs = {"Q1": u[0], "Q2": 0.0, "Q3": 0.0}
        feed = {name: d[len(others) + n] for n, name in enumerate(feeds)}
        return ca.vertcat(*[reactor_separator.balances(values, inputs, feed, p)[k] for k in index])

    now, h = x, _worn_reactor.PERIOD / 3600.0 / 8
    for _ in range(8):
        k1 = rhs(now)
        k2 = rhs(now + h / 2 * k1)
        k3 = rhs(now + h / 2 * k2)
        now = now + h / 6 * (k1 + 2 * k2 + 2 * k3 + rhs(now + h * k3))
    function = ca.Function("F", [x, u, d, theta], [now])
    outside = (*[names[k] for k in others], *feeds)
    return Physics("reactor1", OWN, ("Q1",), outside, ("k1", "k2"), _worn_reactor.PERIOD, function)


def agent_log(steps: int, seed: int) -> Transitions:
    """The agent's part of a log of the whole plant."""
    whole = _worn_reactor.excited_log(steps, seed, {})
    outside = np.hstack([whole.x[:, 3:], whole.d])
    return Transitions(whole.x[:, :3], whole.u[:, :1], outside, whole.after[:, :3], whole.time)


def timed(action: Callable[[int], object], count: int) -> dict[str, float]:
    """Milliseconds of a call: median and 99th percentile."""
    times = np.empty(count)
    for n in range(count):
        began = time.perf_counter()
        action(n)
        times[n] = 1e3 * (time.perf_counter() - began)
    return {"median_ms": float(np.median(times)), "p99_ms": float(np.quantile(times, 0.99))}


def run(settings: Settings, folder: Path) -> dict[str, Any]:
    """Time every part of learning."""
    count = int(settings["repeats"])
    log = agent_log(max(count, 300) + 20, 1)
    model = fit_hybrid(first_reactor(), log.rows(slice(0, 300)), str(settings["kind"]), count=int(settings["features"]))
    s, horizon = model.structure, int(settings["horizon"])
    model.linearised(log.x[0], log.u[0], log.d[0])  # builds the functions, as a node does when it is configured
    holder = {"model": model}

    def update(n: int) -> None:
        holder["model"] = holder["model"].updated(log.x[n], log.u[n], log.d[n], log.after[n], float(n))

    def layer(n: int) -> None:
        model.layer.updated(model.predict(log.x[0], log.u[0], log.d[0]).phi * (1 + 1e-6 * n), np.zeros(3))

    def rebuild(_: int) -> None:
        fresh: HybridModel = replace(
            model, structure=Structure(s.physics, s.features, s.centre, s.scale, s.residual_scale)
        )
        fresh.linearised(log.x[0], log.u[0], log.d[0])

    def swap(n: int) -> None:
        newer = replace(holder["model"], version=n)
        newer.linearised(log.x[n], log.u[n], log.d[n])

    parts = {
        "update": timed(update, count),
        "layer_alone": timed(layer, count),
        "linearise": timed(lambda n: model.linearised(log.x[n], log.u[n], log.d[n]), count),
        "swap_in_newer_model": timed(swap, count),
        "rollout": timed(
            lambda n: model.rollout(log.x[n], log.u[n : n + horizon], log.d[n : n + horizon]), max(count // 10, 5)
        ),
        "rebuild_functions": timed(rebuild, max(count // 50, 3)),
    }
    loop = bench_loop(int(settings["loop_steps"]))
    return {
        "states": 3,
        "features": s.features.count,
        "kind": s.features.kind,
        "update_ms": parts["update"]["median_ms"],
        "update_p99_ms": parts["update"]["p99_ms"],
        "relinearise_ms": parts["swap_in_newer_model"]["median_ms"],
        "rebuild_over_swap": parts["rebuild_functions"]["median_ms"] / parts["swap_in_newer_model"]["median_ms"],
        "update_over_layer_alone": parts["update"]["median_ms"] / parts["layer_alone"]["median_ms"],
        **{name: value for name, value in loop.items() if name != "parts"},
        "parts": parts | loop["parts"],
    }


def table(result: dict[str, Any]) -> Iterable[str]:
    """Lines for people."""
    yield f"{result['states']} states, {result['features']} features ({result['kind']})"
    for name, t in result["parts"].items():
        yield f"{name:22} median {t['median_ms']:8.3f} ms   p99 {t['p99_ms']:8.3f} ms"
    yield (
        f"control step with the learning loop over without: median {result['control_step_learning_over_plain']:.2f}, "
        f"p99 {result['control_step_learning_over_plain_p99']:.2f}"
    )
    yield f"compiling the agent's problem anew costs {result['compile_over_adopt']:.0f} times adopting a set"
    yield f"building the functions anew costs {result['rebuild_over_swap']:.0f} times a re-linearisation"


STUDY = Study(
    defaults={"repeats": 500, "features": 64, "kind": "network", "horizon": 10, "loop_steps": 240},
    run=run,
    table=table,
)
