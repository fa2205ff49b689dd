"""The learner node in this process: which transitions it takes, and when."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("rmpc_ros.msg", reason="needs the package's messages (make setup)")

from builtin_interfaces.msg import Time
from rmpc_ros.msg import Transition as TransitionMessage
from ros_plant import begin, end, make, own_domain

from rmpc_ros import bringup
from rmpc_ros.config import load_plant
from rmpc_ros.learning.transition import Transition
from rmpc_ros.nodes.convert_learning import transition_message
from rmpc_ros.nodes.learner import LearnerNode

pytestmark = pytest.mark.processes

FILE = Path(__file__).parents[1] / "config" / "reactor_separator.yaml"


@pytest.fixture(scope="module", autouse=True)
def ros() -> Iterator[None]:
    with own_domain():
        yield


def learner(folder: Path, simulated: bool) -> LearnerNode:
    node = make(bringup.learner_spec(load_plant(FILE), FILE, "r", folder, "here", simulated=simulated), think=False)
    begin(node)
    assert isinstance(node, LearnerNode)
    return node


def message(node: LearnerNode, step: int, previous: int) -> TransitionMessage:
    design = node.designs["reactor1"]
    rest, still = design.steady_state, np.zeros(design.nx)
    others = {name: node.designs[name].steady_state for name in design.neighbours}
    said = Transition("reactor1", step, rest, rest, design.steady_input, others, still, {"steam": -1.0})
    return transition_message(said, node.peers, Time(), previous)


def test_a_step_that_cannot_be_yet_is_refused_and_stops_no_acknowledgement(tmp_path: Path) -> None:
    node = learner(tmp_path, simulated=False)
    try:
        for step, previous in ((4, -1), (10**12, -1), (5, 4)):
            node._on_transition(node.peers, "reactor1", message(node, step, previous))
        node.tick(0.0)
        assert node.store.acknowledged("r") == {"reactor1": 5}
        assert node.diagnostics.rejected == {"future": 1}
        assert any("field step: 1000000000000" in status.message for status in node.diagnostics.statuses())
    finally:
        end(node)


def test_before_its_clock_runs_it_takes_nothing_and_counts_it(tmp_path: Path) -> None:
    node = learner(tmp_path, simulated=True)  # nobody publishes /clock here
    try:
        node._on_transition(node.peers, "reactor1", message(node, 4, -1))
        node.tick(0.0)
        assert not node._held and not len(node.store) and node._early == 1
        assert not node.diagnostics.rejected  # it is not wrong, and it will be sent again
    finally:
        end(node)
