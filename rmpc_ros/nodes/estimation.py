"""Part of the agent node: estimates instead of measurements (`rmpc_ros.network.estimation`), before a step is prepared.

The own estimate goes out on `estimate` in the form of a measurement; the neighbours' are waited for as their
measurements are, for a bounded time. Whose estimate does not come is covered by its promise.
"""

from __future__ import annotations

import time
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from rmpc_ros.errors import MessageError, NumericalError
from rmpc_ros.msg import Measurement
from rmpc_ros.network.estimation import Estimated, Estimation
from rmpc_ros.network.observer import Observer
from rmpc_ros.nodes import convert, qos
from rmpc_ros.nodes.agent_part import AgentPart
from rmpc_ros.nodes.diagnostics import ERROR, OK, WARN
from rmpc_ros.nodes.round import Inputs

if TYPE_CHECKING:
    from rmpc_ros.nodes.agent import AgentNode


class Estimating(AgentPart):
    """Turns a step's readings into the states it is decided on."""

    def __init__(self, node: AgentNode) -> None:
        super().__init__(node)
        self._publisher = node.create_publisher(Measurement, "estimate", qos.STEP)
        self._waiting: tuple[Inputs, float, float] | None = None
        self._observer = Observer(node.config, node.agent)

    @property
    def busy(self) -> bool:
        """Whether a step waits for the neighbours' estimates."""
        return self._waiting is not None

    def open(self) -> None:
        """Begin anew: what was estimated before a restart is of another time."""
        node = self.node
        self._estimation = Estimation(node.controller, self._observer, node.designs)
        self._heard: dict[str, tuple[int, np.ndarray]] = {}
        self._waiting = None
        self._unsolved = 0
        for name in node.spec.neighbours:
            node.listen(Measurement, f"{node.base}/{name}/estimate", partial(self._on_estimate, name), qos.STEP_NOW)

    def begin(self, inputs: Inputs, began: float) -> None:
        """Estimate the own state and say so; `finish` when the neighbours have, too."""
        node = self.node
        for promise in inputs.promises:
            self._estimation.promised(promise)
        readings = {node.agent: inputs.state, **inputs.neighbour_states}
        try:
            applied = inputs.applied if inputs.step > 0 else None  # before the first step nobody has done anything
            found = self._estimation.estimate(inputs.step, readings, applied, node.promise)
        except NumericalError as error:
            node.diagnostics.say("sensors", ERROR, f"no estimate: {error}", step=inputs.step)
            node.prepare(replace(inputs, state=np.full(inputs.state.shape, np.nan), neighbour_states={}), began)
            return
        own = convert.Measurement(node.agent, inputs.step, found.state)
        self._publisher.publish(convert.measurement_message(own, node.layout, node.stamp(), node.run))
        self._say(inputs, found)
        self._waiting = replace(inputs, state=found.state, neighbour_states={}), began, time.monotonic() + node.wait
        self.finish()

    def finish(self) -> None:
        """Hand the step over once every neighbour's estimate has come, or waiting has been long enough."""
        if self._waiting is None:
            return
        inputs, began, latest = self._waiting
        states = {name: state for name, (step, state) in self._heard.items() if step == inputs.step}
        missing = [name for name in self.node.spec.neighbours if name not in states]
        if set(missing) - self.node.round.silent and time.monotonic() < latest:
            return
        self._waiting = None
        self._estimation.used(states)
        self.node.prepare(replace(inputs, neighbour_states=states), began)

    def tick(self, now: float) -> None:
        """Waiting is bounded."""
        del now
        self.finish()

    def _on_estimate(self, name: str, message: Measurement) -> None:
        node = self.node
        try:
            heard = convert.measurement_from(message, node.only(name), node.window())
        except MessageError as error:
            node.diagnostics.reject(str(error))
            return
        self._heard[name] = heard.step, heard.values
        self.finish()
        node.go_on()

    def _say(self, inputs: Inputs, found: Estimated) -> None:
        names, node = self.node.spec.states, self.node
        self._unsolved += not found.view.solved
        faults = [fault for fault in found.view.faults if fault.sensor in names]
        doubt = float(np.max(found.followed.doubt))
        words = [f"{fault.sensor} {fault.kind} since step {fault.step} ({fault.evidence})" for fault in faults]
        if doubt > 1.0:
            words.append("the estimate is less sure than the limits were tightened for: they are not guaranteed now")
        node.diagnostics.say(
            "sensors",
            WARN if words else OK,
            "; ".join(words) or "all sensors trusted",
            step=inputs.step,
            missing=int(np.sum(~np.isfinite(inputs.state))),
            doubt=doubt,
            programs_not_solved=self._unsolved,
            **{f"fault of {fault.sensor}": fault.kind for fault in faults},
            **{f"lag of {name}": float(value) for name, value in zip(names, found.followed.lag, strict=True)},
        )
