"""Part of the agent node: the learning loop (`rmpc_ros.learning.adaptation`), after the command of a step is out."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rmpc_ros.config.adapting import Adaptation as Settings
from rmpc_ros.errors import ConfigError
from rmpc_ros.learning.adaptation import Adaptation, AdaptationReport, promised_deviation
from rmpc_ros.network.decision import Decision
from rmpc_ros.network.forecast import ForecastSet
from rmpc_ros.nodes.agent_part import AgentPart
from rmpc_ros.nodes.diagnostics import OK, WARN
from rmpc_ros.nodes.round import Inputs

if TYPE_CHECKING:
    from rmpc_ros.nodes.agent import AgentNode


class Adapting(AgentPart):
    """Feeds the loop with what the node has heard, and tells /diagnostics what it did.

    Raises
    ------
    ConfigError
        The controller's feedback has the design's set compiled in.
    """

    def __init__(self, node: AgentNode, settings: Settings) -> None:
        super().__init__(node)
        self._settings = settings
        if node.design.form != "fixed":
            raise ConfigError(
                f"adaptation: feedback '{node.design.form}' has the design's set compiled in; give feedback: fixed, or "
                "leave the section out"
            )

    def open(self) -> None:
        """A fresh loop: what was learned before a restart was about another stretch of time."""
        self._loop = Adaptation(self.node.controller, self._settings)
        self._promises: dict[str, ForecastSet] = {}
        self._last: Decision | None = None
        self._event = ""

    def prepare(self, inputs: Inputs) -> None:
        """Remember what the neighbours promised in the step before."""
        for promise in inputs.promises:
            self._promises[promise.agent] = promise

    def decided(self, decision: Decision, inputs: Inputs) -> None:
        """Learn from the step before; perhaps reckon with another set from the next step on."""
        before, step = self._last, decision.step
        self._last = decision
        applied = inputs.applied
        if applied is None and self.node.values["timing"] == "free" and before is not None:
            applied = before.input  # on the clock nobody says what the actuators did
        known = {
            name: promised_deviation(self._promises[name], step - 1, neighbour)
            for name, neighbour in self.node.design.neighbours.items()
            if name in self._promises and self._promises[name].step <= step - 1
        }
        self._say(self._loop.step(step, inputs.state, inputs.neighbour_states, applied, known))

    def _say(self, report: AdaptationReport) -> None:
        if report.event:
            self._event = report.event
        lost = self.node.controller.disturbance.lost
        names = self.node.design.names
        word = f"learned set {report.version}" if self.node.controller.disturbance.learned else "the design's set"
        if lost:
            word = f"{word}; the learned one was given up: {lost}"
        self.node.diagnostics.say(
            "adaptation",
            WARN if lost or report.event.startswith("refused") else OK,
            word,
            version=report.version,
            model_version=report.model_version,
            last_event=self._event or "none",
            share_covered=report.covered,
            verdict_on_model=report.verdict or "none",
            **{f"radius over design's ({n})": float(v) for n, v in zip(names, report.share, strict=False)},
            **{f"calibrated over design's ({n})": float(v) for n, v in zip(names, report.wanted, strict=False)},
            **report.counts,
        )
