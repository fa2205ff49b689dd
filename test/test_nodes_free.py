"""Free-running: nobody waits for an agent, and yet nobody relies on a promise whose command came too late."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("rmpc_ros.msg", reason="needs the package's messages (make setup)")

from rmpc_ros.msg import Command
from ros_plant import begin, end, own_domain
from ros_plant import make as node_of

from rmpc_ros import bringup
from rmpc_ros.config import load_plant
from rmpc_ros.mpc.backup import BackupPlan
from rmpc_ros.network.journal import Journal
from rmpc_ros.network.proposal import from_record
from rmpc_ros.nodes import convert
from rmpc_ros.nodes.agent import AgentNode
from rmpc_ros.nodes.checks import Layout
from rmpc_ros.nodes.free import PHASE, FreeRunning
from rmpc_ros.nodes.plant import CLOCK_TICKS, PlantNode
from rmpc_ros.nodes.round import Inputs

pytestmark = pytest.mark.processes

FILE = Path(__file__).parents[1] / "config" / "reactor_separator.yaml"
PERIOD = 36.0


@pytest.fixture(autouse=True)
def ros() -> Iterator[None]:
    with own_domain():
        yield


def make(kind: str, **changes: Any) -> Any:
    spec = next(
        s for s in bringup.node_specs(load_plant(FILE), FILE, run="r", timing="free", speed=1.0) if s.kind == kind
    )
    node = node_of(spec, **changes)
    begin(node)
    return node


class Hand:
    """Drives one agent node by hand: clock, sensors and what the actuators say."""

    def __init__(self, journal: Path | None = None) -> None:
        self.node: AgentNode = make("agent", mode="robust", autostart=False, journal=str(journal or ""))
        node = self.node
        assert node.free is not None
        self.free: FreeRunning = node.free
        self.free._begun = True
        self.said: list[Any] = []
        node._forecast.publish = self.said.append  # type: ignore[method-assign]
        self._inputs = Layout(node.layout.inputs, node.layout.inputs, (), PERIOD)
        self.clock(0.0)

    def clock(self, now: float) -> None:
        self.node.now = lambda: now  # type: ignore[method-assign]

    def sensors(self, taken: float) -> None:
        """Every sensor speaks of a time."""
        readings = self.free.readings
        readings.values[:] = self.node.design.steady_state
        readings.heard[:] = taken
        self.free._on_sensor()

    def decide(self, step: int) -> None:
        """A step whose neighbours stay silent until its phase."""
        self.clock(step * PERIOD)
        self.sensors(step * PERIOD)
        self.clock((step + PHASE + 0.05) * PERIOD)
        self.free._on_clock()
        assert self.node.round.done == step

    def applied(self, step: int, change: float = 0.0) -> None:
        """The actuators' word about a step: the command itself, or something else."""
        values = np.array(self.node._last[1].values) + change  # type: ignore[index]
        word = convert.Measurement(self.node.agent, step, values)
        self.node._on_applied(convert.measurement_message(word, self._inputs, self.node.stamp(), "r"))

    def end(self) -> None:
        end(self.node)


@pytest.fixture
def hand(ros: None) -> Iterator[Hand]:
    found = Hand()
    yield found
    found.end()


def test_a_promise_is_said_when_the_actuators_have_done_what_it_rests_on(hand: Hand) -> None:
    hand.decide(0)
    assert [m.step for m in hand.said] == [0]  # nobody has said yet that the actuators tell
    hand.applied(0)
    hand.decide(1)
    assert [m.step for m in hand.said] == [0]
    hand.applied(1)
    assert [m.step for m in hand.said] == [0, 1]
    assert hand.node.late == 0


def test_a_promise_whose_command_came_too_late_is_never_said(hand: Hand) -> None:
    hand.decide(0)
    hand.applied(0)
    hand.decide(1)
    hand.applied(1)
    horizon = hand.said[-1].horizon
    hand.decide(2)
    hand.applied(2, change=0.5)
    assert hand.node.late == 1 and hand.node.promise.step == 1
    hand.decide(3)  # the promise of step 1 again
    assert [(m.step, m.horizon) for m in hand.said[1:]] == [(1, horizon), (3, horizon - 2)]
    hand.applied(3)
    hand.decide(4)
    hand.applied(4)
    assert (hand.said[-1].step, hand.said[-1].horizon) == (4, horizon)


def test_a_promise_that_the_actuators_never_confirm_is_never_said(hand: Hand) -> None:
    hand.decide(0)
    hand.applied(0)
    hand.decide(1)
    hand.decide(2)
    assert hand.node.late == 1
    assert [m.step for m in hand.said] == [0, 2]
    assert hand.said[1].horizon == hand.said[0].horizon - 2  # the promise of step 0 again


def newest(journal: Path) -> int:
    """Step of the promise that a restart would go on with."""
    record = Journal(journal).read()
    assert record is not None
    return from_record(record.payload)[0].step


def test_a_promise_that_was_taken_back_is_not_in_the_journal(ros: None, tmp_path: Path) -> None:
    hand = Hand(tmp_path / "reactor1.journal")
    hand.decide(0)
    hand.applied(0)
    hand.decide(1)
    assert newest(tmp_path / "reactor1.journal") == 0
    hand.applied(1)
    assert newest(tmp_path / "reactor1.journal") == 1
    hand.decide(2)
    hand.applied(2, change=0.5)
    hand.end()
    assert newest(tmp_path / "reactor1.journal") == 1
    back = Hand(tmp_path / "reactor1.journal")
    assert back.node.promise.step == 1
    back.decide(5)  # what runs at its actuators is not known: its first command comes with the old promise
    assert (back.said[-1].step, back.said[-1].horizon) == (5, back.node.design.horizon - 4)
    back.free.late_after = -1.0
    back.end()


def test_who_comes_back_drops_a_late_decision_and_who_comes_first_does_not(ros: None, tmp_path: Path) -> None:
    for late in (0, 1):  # the first start, the second
        hand = Hand(tmp_path / "reactor1.journal")
        node, step = hand.node, 3 * late
        inputs = Inputs(step, node.design.steady_state, {}, (), ())
        node._decide(inputs, time.monotonic() - 1.0, 0.5)
        assert node.late == late
        hand.end()


def test_nothing_is_given_away_on_a_promise_that_is_held_back(hand: Hand) -> None:
    hand.decide(0)
    hand.applied(0)
    hand.decide(1)
    assert not hand.node.renewed(hand.node._decision)
    hand.applied(1)
    assert hand.node.renewed(hand.node._decision)


def test_values_of_an_earlier_period_are_not_the_state_of_this_one(hand: Hand) -> None:
    node = hand.node
    stamped = [wire.index for wire in hand.free._sensors if wire.stamped]
    assert stamped and len(stamped) < len(
        hand.free._sensors
    )  # a temperature says when it was taken, a fraction does not
    hand.clock((3 + PHASE + 0.05) * PERIOD)
    hand.free.readings.values[:] = node.design.steady_state
    hand.free.readings.heard[:] = 2.5 * PERIOD
    hand.free._on_clock()
    assert node.round.done == -1
    hand.free.readings.heard[stamped] = 3.0 * PERIOD  # the others may have come a little before
    hand.free._on_clock()
    assert node.round.done == 3


def test_values_of_the_next_period_are_not_the_state_of_this_one(hand: Hand) -> None:
    hand.clock(3.3 * PERIOD)
    hand.sensors(4.0 * PERIOD)
    hand.free._on_clock()
    assert hand.node.round.done == -1


def test_the_plant_follows_no_late_command_and_stays_at_its_first_step_until_everybody_commands(ros: None) -> None:
    plant: PlantNode = make("plant", autostart=False)
    agents = list(plant.config.agents)
    plans: dict[str, Command] = {}
    plant._publish_step(0)
    for name in agents:
        layout = plant.peers.agents[name]
        nu, nx = len(layout.inputs), len(layout.states)
        flat = BackupPlan(
            step=0,
            nominal_inputs=np.zeros((2, nu)),
            nominal_states=np.zeros((3, nx)),
            gain=np.zeros((nu, nx)),
            memory_gain=np.zeros((0, 0, nu, nx)),
            terminal_state=np.zeros(nx),
            terminal_input=np.zeros(nu),
            input_lower=np.zeros(nu),
            input_upper=np.ones(nu),
        )
        what = convert.Command(name, 0, "optimal", np.zeros(nu), flat)
        plans[name] = convert.command_message(what, layout, plant._stamp, "r")
    for _ in range(3 * CLOCK_TICKS):
        plant._free_tick()
    assert plant.k == 0
    for name in agents:
        plant._on_command(name, plans[name])
    for _ in range(CLOCK_TICKS):
        plant._free_tick()
    assert plant.k == 1
    side = plant.actuators[agents[0]]
    follower = side._follower
    plant._on_command(agents[0], plans[agents[0]])  # of step 0, in step 1
    assert side._follower is follower and not side.heard(1)
    assert plant.diagnostics.rejected.total() == 0
    for transition in (plant.trigger_deactivate, plant.trigger_shutdown, plant.destroy_node):
        transition()
