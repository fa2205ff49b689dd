"""One agent's ADMM iteration: ours (nominal and robust) against dmpcrl on the same chain of masses, in one run."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from rmpc_ros.network.admm import AdmmOptions, Negotiation
from rmpc_ros.network.affine_table import Vector
from rmpc_ros.network.cases.spring_chain import spring_network
from rmpc_ros.network.design_local import form_label
from rmpc_ros.network.graph import topology
from rmpc_ros.network.model import Cost, Disturbance, Network
from rmpc_ros.network.rollout import SignalKey
from rmpc_ros.network.set_form import PointForm, SetForm
from rmpc_ros.studies.registry import Settings, Study

# Per agent and iteration, measured earlier on a 2-core machine; quoted where a tool is not installed.
QUOTED_MS = {"dmpcrl": 20.0, "agentlib_mpc": 13.0}
RHO = 0.5


def run(settings: Settings, folder: Path) -> dict[str, Any]:
    """Median CPU time of one agent's iteration: data in, solve, check, copies out."""
    del folder
    graph = topology("chain", settings["M"])
    robust = spring_network(graph, settings["T"], settings["Ts"], settings["e"], settings["seed"])
    plain = nominal(robust)
    rounds = settings["rounds"]
    ours = {
        "nominal": _median_ms(Negotiation(plain, AdmmOptions("parallel", RHO), forms=_points(plain)), rounds),
        "robust": _median_ms(Negotiation(robust, AdmmOptions("sequential")), rounds),
    }
    result: dict[str, Any] = dict(settings) | {
        "ours_nominal_ms": ours["nominal"],
        "ours_robust_ms": ours["robust"],
        "problem": "nominal: same chain, horizon, limits and quadratic cost without disturbances, as dmpcrl solves it; "
        "robust: affine policies and announced boxes, which the others do not have",
        "quoted_ms": QUOTED_MS,
    }
    if importlib.util.find_spec("dmpcrl") is None:
        result |= {"dmpcrl_ms": None, "dmpcrl_note": "not installed here; the quoted figure is used"}
        theirs = QUOTED_MS["dmpcrl"]
    else:
        with _stdout_to_stderr():  # qpOASES prints a banner; standard output belongs to the JSON object
            timings = dmpcrl_ms(plain, rounds)
        theirs = min(timings.values())
        result |= {"dmpcrl_ms": theirs, "dmpcrl_by_solver_ms": timings, "dmpcrl_note": "measured in this run"}
    result |= {"agentlib_note": "not re-measured: its agents run in its own environment; the quoted bound is used"}
    result["times_faster_than_dmpcrl"] = theirs / ours["nominal"]
    result["robust_times_faster_than_dmpcrl_nominal"] = theirs / ours["robust"]  # below 1: slower
    result["times_faster_than_agentlib"] = QUOTED_MS["agentlib_mpc"] / ours["nominal"]
    return result


@contextmanager
def _stdout_to_stderr() -> Iterator[None]:
    sys.stdout.flush()
    kept = os.dup(1)
    os.dup2(2, 1)
    try:
        yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)


def nominal(network: Network) -> Network:
    """The same network without disturbances and with quadratic costs x'diag(1, 0)x + 0.01 u^2."""
    none = Disturbance(np.zeros(2), np.zeros((2, 0)))
    costs = (Cost("square", Mx=np.array([[1.0, 0.0]])), Cost("square", Mu=np.array([[0.1]])))
    return replace(network, agents=tuple(replace(a, disturbance=none, costs=costs) for a in network.agents))


def _points(network: Network) -> dict[SignalKey, SetForm]:
    return {(i, s.name): PointForm(s, form_label(i, s), network.horizon) for i, s in network.sent_signals()}


def _median_ms(negotiation: Negotiation, rounds: int) -> float:
    for _ in range(3):
        negotiation.iterate()
    return 1e3 * float(np.median([negotiation.iterate().agent_seconds for _ in range(rounds)]))


def dmpcrl_ms(network: Network, rounds: int) -> dict[str, float]:
    """Median time of dmpcrl's local solve of the middle agent, by CasADi solver (its own wrapper, data changing)."""
    out = {}
    for solver in ("qpoases", "ipopt"):
        mpc, size = _dmpcrl_agent(network, 1, solver)
        rng = np.random.default_rng(0)
        times: list[float] = []
        for _ in range(rounds + 3):
            start_state: Vector = network.agents[1].x0
            pars = {"x_0": start_state, "y": 0.1 * rng.normal(size=size), "z": rng.normal(size=size)}
            begin = time.thread_time()
            answer = mpc.solve(pars=pars)
            times.append(time.thread_time() - begin)
            assert answer.success, f"dmpcrl with {solver} failed"
        out[solver] = 1e3 * float(np.median(times[3:]))
    return out


def _dmpcrl_agent(network: Network, i: int, solver: str) -> tuple[Any, tuple[int, int]]:
    """Agent i as dmpcrl's `MpcAdmm`: multiple shooting, neighbours' copies, augmented cost."""
    cs, csnlp = importlib.import_module("casadi"), importlib.import_module("csnlp")
    admm_class = importlib.import_module("dmpcrl.mpc.mpc_admm").MpcAdmm
    agent, N = network.agents[i], network.horizon
    neighbours = [c.sender for c in agent.couplings]
    mpc = admm_class(csnlp.Nlp[cs.SX](), N)
    mine = sum(j < i for j in neighbours)
    x, others = mpc.augmented_state(len(neighbours), mine, size=2)
    u, _ = mpc.action("u", 1, lb=-4, ub=4)
    cost = 0
    for k in range(N):
        flow = agent.A @ x[:, k] + agent.D @ u[:, k]
        for n, c in enumerate(agent.couplings):
            flow += c.matrix @ others[2 * n : 2 * n + 2, k]
        mpc.constraint(f"dynamics_{k}", x[:, k + 1], "==", flow)
        mpc.constraint(f"upper_{k}", x[:, k + 1], "<=", 6)
        mpc.constraint(f"lower_{k}", x[:, k + 1], ">=", -6)
        cost += x[0, k + 1] ** 2 + 0.01 * u[:, k] ** 2
    mpc.set_local_cost(cost, RHO)
    quiet: dict[str, Any] = {"print_time": False, "expand": True, "error_on_fail": False}
    extra: dict[str, Any] = (
        {"printLevel": "none"} if solver == "qpoases" else {"ipopt": {"print_level": 0, "sb": "yes"}}
    )
    mpc.init_solver(quiet | extra, solver=solver)
    return mpc, (2 * (len(neighbours) + 1), N + 1)


def table(result: dict[str, Any]) -> Iterable[str]:
    """Lines for people."""
    yield "per agent and iteration:"
    yield f"ours nominal {result['ours_nominal_ms']:.3f} ms, ours robust {result['ours_robust_ms']:.2f} ms"
    yield f"dmpcrl {result['dmpcrl_ms']} ms ({result['dmpcrl_note']}) -> {result['times_faster_than_dmpcrl']:.1f} x"
    agentlib = result["quoted_ms"]["agentlib_mpc"]
    yield f"AgentLib-MPC <= {agentlib} ms (quoted) -> {result['times_faster_than_agentlib']:.1f} x"


STUDY = Study({"M": 3, "T": 11, "Ts": 0.5, "e": 0.1, "seed": 0, "rounds": 100}, run, table)
