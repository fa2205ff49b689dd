"""A recorded run as arrays."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from rmpc_ros.config.sections import Mode as Controller
from rmpc_ros.errors import DataError
from rmpc_ros.learning.recorded import TAKE, Recorded, values_of
from rmpc_ros.network.decision import MODES, StepReport, kept_word
from rmpc_ros.network.forecast import ForecastSet
from rmpc_ros.record import read_bag, read_summary

Vector = NDArray[np.float64]
Matrix = NDArray[np.float64]

NEEDED = {  # what a learner's certificates say
    "uncertainty": {"made_at", "epsilon", "share_of_design", "samples"},
    "model": {"made_at"},
    "policy": {"made_at", "stage"},
}
SUBJECTS = tuple(NEEDED)
STAGES = {"canary", "everybody", "planned", "roll-back"}
LEVELS = ("OK", "WARN", "ERROR", "STALE")


@dataclass(frozen=True)
class Status:
    """One status of /diagnostics."""

    time: float
    name: str
    level: str
    message: str
    values: dict[str, str]


@dataclass(frozen=True)
class Published:
    """An update that a learner published."""

    time: float
    subject: str
    agent: str
    version: int
    certificate: dict[str, Any]


@dataclass
class AgentData(Recorded):
    """Everything recorded of one agent, by step; vectors in the plant file's units.

    Attributes
    ----------
    states, inputs : dictionaries with name, unit, lower, upper
    transform : (nx, nx) coordinates in which it promises
    truth : (nx,); commanded : (nu,)
    versions : (set, model, policy) in force, where the agent learned
    """

    states: list[dict[str, Any]]
    inputs: list[dict[str, Any]]
    transform: Matrix
    estimated: dict[int, Vector] = field(default_factory=dict)  # what agents that estimate control with
    truth: dict[int, Vector] = field(default_factory=dict)
    commanded: dict[int, Vector] = field(default_factory=dict)
    reports: dict[int, StepReport] = field(default_factory=dict)
    versions: dict[int, tuple[int, int, int]] = field(default_factory=dict)

    def limits(self, what: str) -> tuple[Vector, Vector]:
        """Lower and upper limits of "states" or "inputs"; infinite where there is none."""
        rows = self.states if what == "states" else self.inputs
        low = [-np.inf if r["lower"] is None else r["lower"] for r in rows]
        high = [np.inf if r["upper"] is None else r["upper"] for r in rows]
        return np.array(low, float), np.array(high, float)

    def promise_before(self, step: int, ahead: int = 1) -> ForecastSet | None:
        """Newest promise made `ahead` steps before `step` or earlier: what neighbours relied on."""
        for made in range(step - ahead, -1, -1):
            if made in self.promises:
                return self.promises[made]
        return None

    def promised_states(self, promise: ForecastSet, step: int) -> tuple[Vector, Vector]:
        """Centre and half-width (nx,) of the smallest box of physical states around what was promised for a step."""
        center, scale = promise.at(step)
        return self._physical(center, scale)

    def invariant_box(self) -> tuple[Vector, Vector]:
        """The same of the set beyond the horizon."""
        promise = next(iter(self.promises.values()))
        return self._physical(promise.terminal_center, promise.terminal_scale)

    def _physical(self, center: Vector, scale: Vector) -> tuple[Vector, Vector]:
        n = len(self.states)
        back = np.linalg.inv(self.transform)
        return back @ center[:n], np.abs(back) @ scale[:n]


@dataclass
class RunData:
    """A recorded run."""

    plant: str
    run: str
    seed: int
    period: float
    agents: dict[str, AgentData]
    statuses: list[Status]
    prices: dict[str, Any] | None = None  # the plant file's, where it has some
    updates: list[Published] = field(default_factory=list)

    @property
    def steps(self) -> int:
        """Steps in which something was applied (or, without a simulated plant, measured)."""
        done = [max(a.applied or a.measured, default=-1) for a in self.agents.values()]
        return max(done, default=-1) + 1


def read_run(bag: Path) -> RunData:
    """Read a bag.

    Raises
    ------
    DataError
        It is not a bag of ours, or nothing is in it.
    """
    what = read_summary(bag)
    agents = {
        name: AgentData(a["states"], a["inputs"], np.array(a["transform"], float)) for name, a in what["agents"].items()
    }
    by_topic = {f"{what['base']}/{name}/{kind}": (agents[name], kind) for name in agents for kind in _TAKE}
    statuses: list[Status] = []
    published: dict[tuple[str, str, int], Published] = {}
    learned = {f"{what['base']}/{name}/{subject}_update": (name, subject) for name in agents for subject in SUBJECTS}
    for entry in read_bag(bag):
        if entry.topic in by_topic:
            agent, kind = by_topic[entry.topic]
            _TAKE[kind](agent, entry.message)
        elif entry.topic in learned:
            name, subject = learned[entry.topic]
            found = _published(entry.stamp * 1e-9, subject, name, entry.message)
            if found is not None:
                published.setdefault((name, subject, found.version), found)
        elif entry.topic == "/diagnostics":
            statuses += [
                Status(
                    entry.stamp * 1e-9,
                    status.name,
                    LEVELS[int(status.level)],
                    status.message,
                    {pair.key: pair.value for pair in status.values},
                )
                for status in entry.message.status
            ]
    if not any(a.measured or a.truth for a in agents.values()):
        raise DataError(f"{bag}: no measurement was recorded")
    return RunData(
        what["plant"],
        what["run"],
        what["seed"],
        what["period"],
        agents,
        statuses,
        what.get("prices"),
        list(published.values()),
    )


def _estimated(agent: AgentData, message: Any) -> None:
    agent.estimated[int(message.step)] = values_of(message)


def _truth(agent: AgentData, message: Any) -> None:
    agent.truth[int(message.step)] = values_of(message)


def _commanded(agent: AgentData, message: Any) -> None:
    agent.commanded[int(message.step)] = values_of(message)


def _reported(agent: AgentData, message: Any) -> None:
    agent.reports[int(message.step)] = StepReport(
        MODES[int(message.mode)],
        str(message.solver_status),
        float(message.solve_ms),
        float(message.step_ms),
        float(message.cost),
        dict(zip(message.margin_names, np.array(message.margins).tolist(), strict=True)),
        np.array(message.promise_width).reshape(-1, len(agent.states)),
        kept_word(bool(message.promise_kept), float(message.cost)),
        str(message.reason),
        cast(Controller, str(message.controller)),
    )


def _learned(agent: AgentData, message: Any) -> None:
    agent.versions[int(message.step)] = (
        int(message.set_version),
        int(message.model_version),
        int(message.policy_version),
    )


def _published(time: float, subject: str, agent: str, message: Any) -> Published | None:
    """An update; None for one whose certificate is not our learner's: what agents made of it is on /diagnostics."""
    try:
        certificate = json.loads(message.certificate_json)
    except json.JSONDecodeError:
        return None
    if not isinstance(certificate, dict) or not NEEDED[subject] <= certificate.keys():
        return None
    if subject == "policy" and certificate["stage"] not in STAGES:
        return None
    return Published(time, subject, agent, int(message.version), certificate)


_TAKE: dict[str, Callable[[AgentData, Any], None]] = {
    **TAKE,
    "estimate": _estimated,
    "truth": _truth,
    "command": _commanded,
    "report": _reported,
    "transition": _learned,
}
