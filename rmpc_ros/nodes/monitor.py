"""The monitor: looks at the whole plant from outside and says on /diagnostics and in RViz how it goes.

It trusts nobody's own report where it can check: every measurement is compared with the newest promise made before it,
and every state with its limits.
"""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass, field
from functools import partial
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from visualization_msgs.msg import MarkerArray

from rmpc_ros.config import load_plant
from rmpc_ros.errors import MessageError
from rmpc_ros.msg import AgentReport, ForecastSet, Measurement
from rmpc_ros.network import forecast as core
from rmpc_ros.network.decision import StepReport
from rmpc_ros.network.system import promised_names
from rmpc_ros.nodes import convert, qos
from rmpc_ros.nodes.checks import ANY_TIME, Layout, Peers
from rmpc_ros.nodes.diagnostics import ERROR, OK, STALE, WARN
from rmpc_ros.nodes.managed import ONLOOKER, ManagedNode
from rmpc_ros.nodes.markers import AgentView, Scene
from rmpc_ros.nodes.parameters import Param
from rmpc_ros.nodes.process import main as run_node

Vector = NDArray[np.float64]

PERIOD = 1.0  # seconds of wall time between two looks
QUIET = 2.5  # seconds (and at least as many periods of wall time) of silence until an agent counts as stale
TOLERANCE = 1e-6  # of a promise, relative to its terminal half-width
KEPT = 64  # promises remembered per agent


@dataclass
class Watched:
    """What is known of one agent."""

    report: StepReport | None = None
    step: int = -1
    measured: Vector | None = None
    promises: dict[int, core.ForecastSet] = field(default_factory=dict)
    waiting: dict[int, Vector] = field(default_factory=dict)
    heard: float = -np.inf
    checked: int = 0
    broken: int = 0
    violations: int = 0


class MonitorNode(ManagedNode):
    """Aggregates; commands nothing."""

    niceness: ClassVar[int] = ONLOOKER
    PARAMETERS: ClassVar[tuple[Param, ...]] = ()

    def configure(self) -> None:
        """Layouts, limits, markers."""
        self.config = load_plant(self.values["plant"])
        linear = self.config.linear
        self.transforms = {name: linear.agents[name].transform for name in self.config.agents}
        self.limits = {name: self.config.state_limits(name) for name in self.config.agents}
        run = self.values["run"] or self.config.plant.name
        layouts = {}
        for name, agent in self.config.agents.items():
            promised = promised_names(self.config, name)
            layouts[name] = Layout(tuple(agent.states), tuple(agent.inputs), promised, self.config.period)
        self.peers = Peers(run, layouts)
        links = [(other, name) for name, agent in self.config.agents.items() for other in agent.neighbours]
        self.scene = Scene(list(self.config.agents), links)
        self._markers = self.create_publisher(MarkerArray, "markers", qos.STATUS)

    def open(self) -> None:
        """Listen to everybody."""
        self.watched = {name: Watched() for name in self.config.agents}
        self._due = 0.0
        for name in self.config.agents:
            self.listen(ForecastSet, f"{name}/forecast", partial(self._on_forecast, name), qos.recording(qos.PROMISE))
            # Agents that estimate promise the states they control with; what their sensors say may be wrong.
            said = "measurement" if self.config.estimator is None else "estimate"
            self.listen(Measurement, f"{name}/{said}", partial(self._on_measurement, name), qos.recording(qos.STEP))
            self.listen(AgentReport, f"{name}/report", partial(self._on_report, name), qos.recording(qos.REPORT))

    def close(self) -> None:
        """Stop listening."""
        self._look(time.monotonic())
        self.deafen()

    # -- messages in --------------------------------------------------------------------------------------------------
    def _only(self, name: str) -> Peers:
        return Peers(self.peers.run, {name: self.peers.agents[name]}, tuple(self.peers.agents))

    def _on_forecast(self, name: str, message: ForecastSet) -> None:
        try:
            forecast = convert.forecast_from(message, self._only(name), ANY_TIME)
        except MessageError as error:
            self.diagnostics.reject(str(error))
            return
        watched = self.watched[name]
        watched.heard = time.monotonic()
        if forecast.kind != "commitment":
            return
        watched.promises[forecast.step] = forecast
        while len(watched.promises) > KEPT:
            del watched.promises[min(watched.promises)]

    def _on_measurement(self, name: str, message: Measurement) -> None:
        try:
            heard = convert.measurement_from(message, self._only(name), ANY_TIME)
        except MessageError as error:
            self.diagnostics.reject(str(error))
            return
        self._compare(name, heard)

    def _on_report(self, name: str, message: AgentReport) -> None:
        try:
            report = convert.report_from(message, self._only(name), ANY_TIME)
        except MessageError as error:
            self.diagnostics.reject(str(error))
            return
        self.watched[name].report = report.step_report

    # -- checks -------------------------------------------------------------------------------------------------------
    def _compare(self, name: str, heard: convert.Measurement) -> None:
        watched = self.watched[name]
        if heard.step <= watched.step:
            return  # the plant asked again
        watched.step, watched.measured = heard.step, heard.values
        lower, upper = self.limits[name]
        if np.any(heard.values < lower) or np.any(heard.values > upper):
            watched.violations += 1
        made = [step for step in watched.promises if step < heard.step]
        if made:
            watched.checked += 1
            promise = watched.promises[max(made)]
            if not promise.contains(heard.step, self.transforms[name] @ heard.values, TOLERANCE):
                watched.broken += 1
                self.diagnostics.say(
                    f"promise of {name}",
                    ERROR,
                    f"its state left the set it promised at step {promise.step}",
                    step=heard.step,
                )

    # -- once a second ------------------------------------------------------------------------------------------------
    def tick(self, now: float) -> None:
        """Look at everything at 1 Hz."""
        if now >= self._due:
            self._due = now + PERIOD
            self._look(now)

    def _look(self, now: float) -> None:
        views = []
        newest = max((w.step for w in self.watched.values()), default=-1)
        for name, watched in self.watched.items():
            age = now - watched.heard
            behind = newest - max(watched.promises, default=newest)
            stale = watched.heard > -np.inf and age > QUIET and behind > 1
            margin = min((watched.report.margins.values()), default=np.nan) if watched.report else np.nan
            level, word = OK, "inside its limits and promises"
            if watched.report is None:
                level, word = STALE, "has not reported yet"
            elif stale:
                level, word = (
                    STALE,
                    f"silent for {age:.1f} s; neighbours rely on its promise of step {max(watched.promises)}",
                )
            elif watched.violations:
                level, word = ERROR, f"{watched.violations} measurements outside the limits"
            elif watched.broken:
                level, word = ERROR, f"{watched.broken} promises broken"
            elif not np.isnan(margin) and margin < 0.2:
                level, word = WARN, f"near a limit: {100 * margin:.0f} % of the half-range left"
            self.diagnostics.say(
                f"agent {name}",
                level,
                word,
                step=watched.step,
                promises_checked=watched.checked,
                promises_broken=watched.broken,
                violations=watched.violations,
                smallest_margin=float(margin),
                steps_behind=behind,
            )
            views.append(self._view(name, watched, float(margin), stale, behind))
        self._markers.publish(MarkerArray(markers=self.scene.markers(views, self.get_clock().now().to_msg())))
        broken = sum(w.broken for w in self.watched.values())
        violations = sum(w.violations for w in self.watched.values())
        self.diagnostics.say(
            "",
            ERROR if broken or violations else OK,
            f"{violations} violations, {broken} promises broken",
            violations=violations,
            promises_broken=broken,
            rejected_messages=self.diagnostics.rejected.total(),
        )

    def _view(self, name: str, watched: Watched, margin: float, stale: bool, behind: int) -> AgentView:
        lower, upper = self.limits[name]
        level = 0.5
        tube: Vector = np.zeros((0, 3))
        if watched.measured is not None and np.all(np.isfinite(upper - lower)):
            level = float(np.clip(((watched.measured - lower) / (upper - lower))[-1], 0.0, 1.0))
        if watched.promises:
            newest = watched.promises[max(watched.promises)]
            back = np.linalg.inv(self.transforms[name])
            n = len(lower)
            center = newest.center[:, :n] @ back.T
            half = newest.scale[:, :n] @ np.abs(back).T
            span = upper - lower
            tube = np.stack(
                [(center[:, -1] - lower[-1]) / span[-1], half[:, -1] / span[-1], np.arange(len(center), dtype=float)],
                axis=1,
            )
        return AgentView(name, level, margin, stale, behind, tube)


def main() -> int:
    """`ros2 run rmpc_ros monitor`."""
    return run_node("monitor", sys.argv)
