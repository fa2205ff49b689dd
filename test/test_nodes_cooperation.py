"""Rounds between nodes: the same in any order of arrival, over in bounded time, off for who does not cooperate."""

from __future__ import annotations

import random
import time
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("rmpc_ros.msg", reason="needs the package's messages (make setup)")

from builtin_interfaces.msg import Time

from rmpc_ros.config import load_plant
from rmpc_ros.config.shipped import shipped_plant
from rmpc_ros.network.ladder import LadderAgent
from rmpc_ros.network.rounds import Rounds as InProcess
from rmpc_ros.network.rounds import followers_of
from rmpc_ros.network.system import design_agents
from rmpc_ros.nodes.agent import peers_of
from rmpc_ros.nodes.checks import Window
from rmpc_ros.nodes.cooperation import Rounds
from rmpc_ros.nodes.diagnostics import Diagnostics
from rmpc_ros.nodes.round import Inputs


class Node:
    """What a part sees of an agent's node; messages go to a bus in this process."""

    def __init__(self, name, config, designs, bus, mode, deadline=10.0):
        self.agent, self.config, self.design, self.base, self.run = name, config, designs[name], "/plant", "run"
        self.deadline, self.peers = deadline, peers_of(designs, "run")
        self.diagnostics, self.bus, self.mode = Diagnostics(name), bus, mode
        self.controller = LadderAgent(self.design, {}, mode)
        self.controller.start(0)
        self.round, self.free = SimpleNamespace(silent=set()), None

    def mode_word(self, word):
        return word or self.config.agents[self.agent].mode or self.config.controller.mode

    def create_publisher(self, kind, topic, profile):
        return SimpleNamespace(publish=lambda message: self.bus.append((f"{self.base}/{self.agent}/{topic}", message)))

    def listen(self, kind, topic, callback, profile):
        self.ears = [*getattr(self, "ears", []), (topic, callback)]

    def get_clock(self):
        return SimpleNamespace(now=lambda: SimpleNamespace(to_msg=Time))

    def window(self, first_step=0):
        return Window(first_step=first_step)

    def go_on(self):
        pass

    def hear(self, topic, message):
        for own, callback in self.ears:
            if own == topic:
                callback(message)


@pytest.fixture(scope="module")
def plant():
    config = load_plant(shipped_plant("reactor_separator"))
    return config, design_agents(config)


def network(plant, modes=None, deadline=10.0):
    config, designs = plant
    bus: list = []
    followers = followers_of(designs)
    nodes = {n: Node(n, config, designs, bus, (modes or {}).get(n, "cooperative"), deadline) for n in designs}
    parts = {n: Rounds(node, tuple(followers[n])) for n, node in nodes.items()}
    for part in parts.values():
        part.open()
    return nodes, parts, bus


def inputs(designs, step=0, seed=0, missing=()):
    generator = np.random.default_rng(seed)
    states = {
        n: d.physical_states(0.4 * d.terminal[: d.nx] * generator.uniform(-1, 1, d.nx)) for n, d in designs.items()
    }
    return {
        n: Inputs(step, states[n], {o: states[o] for o in d.neighbours if o not in missing}, (), tuple(missing))
        for n, d in designs.items()
    }


def deliver(nodes, bus, generator=None, lose=()):
    """Every message to everybody, in any order between senders; one sender's messages stay in order."""
    while bus:
        senders = sorted({topic for topic, _ in bus})
        topic = generator.choice(senders) if generator else bus[0][0]
        at = next(i for i, (t, _) in enumerate(bus) if t == topic)
        topic, message = bus.pop(at)
        for node in nodes.values():
            if topic not in lose:
                node.hear(topic, message)


def test_any_order_of_arrival_gives_the_in_process_plans(plant):
    config, designs = plant
    agents = {n: LadderAgent(d, {}, "cooperative") for n, d in designs.items()}
    wanted = {}
    for n, agent in agents.items():
        agent.start(0)
        given = inputs(designs)[n]
        agent.look(0, given.state, given.neighbour_states)
    InProcess(designs, config.network.cooperation)(0, agents)
    wanted = {n: agent.aim for n, agent in agents.items()}
    for seed in range(3):
        nodes, parts, bus = network(plant)
        generator = random.Random(seed)
        for n in generator.sample(list(nodes), 3):
            parts[n].prepare(inputs(designs)[n])
            if generator.random() < 0.5:
                deliver(nodes, bus, generator)
        deliver(nodes, bus, generator)
        for n in nodes:
            assert parts[n].ready(time.monotonic())
            assert np.array_equal(nodes[n].controller.aim, wanted[n])
            assert parts[n].counts["settled"] + parts[n].counts["used_up"] == 1


def test_a_partner_that_says_nothing_costs_one_deadline_and_is_not_waited_for_again(plant):
    _, designs = plant
    nodes, parts, bus = network(plant, deadline=0.1)
    lost = ("/plant/separator/negotiation",)
    for n in nodes:
        parts[n].prepare(inputs(designs)[n])
    deliver(nodes, bus, lose=lost)
    assert not parts["reactor1"].ready(time.monotonic())
    assert parts["reactor1"].ready(time.monotonic() + 1.0)
    assert parts["reactor2"].ready(time.monotonic() + 1.0)
    assert parts["reactor1"].counts["late"] == 1
    assert nodes["reactor1"].controller.aim is not None  # the newest plan
    deliver(nodes, bus, lose=lost)
    for step in (1, 2):
        for n in nodes:
            given = inputs(designs)[n]
            nodes[n].controller.step(step - 1, given.state, given.neighbour_states)
        for n in nodes:
            parts[n].prepare(inputs(designs, step)[n])
        deliver(nodes, bus, lose=lost if step == 1 else ())
        assert parts["reactor1"].ready(time.monotonic()) and parts["reactor1"].counts["late"] == 1
        assert np.isfinite(parts["reactor1"]._side.residual)  # reactor2 and reactor1 agree without it
    assert not parts["reactor1"]._silent  # it was heard again


def test_who_the_step_had_to_do_without_is_not_waited_for(plant):
    _, designs = plant
    nodes, parts, bus = network(plant)
    for n in ("reactor1", "reactor2"):
        nodes[n].round.silent = {"separator"}
        parts[n].prepare(inputs(designs, missing=("separator",))[n])
    deliver(nodes, bus)
    for n in ("reactor1", "reactor2"):
        assert parts[n].ready(time.monotonic()) and nodes[n].controller.aim is not None
        assert parts[n].counts["late"] == 0


def test_who_is_on_another_rung_says_so_and_the_others_agree_without_it(plant):
    _, designs = plant
    nodes, parts, bus = network(plant, {"reactor2": "robust"})
    for n in nodes:
        parts[n].prepare(inputs(designs)[n])
    deliver(nodes, bus)
    assert all(part.ready(time.monotonic()) for part in parts.values())
    assert nodes["reactor2"].controller.aim is None
    assert nodes["reactor1"].controller.aim is not None and nodes["separator"].controller.aim is not None


def test_an_agent_without_a_measurement_says_so_and_aims_at_nothing(plant):
    _, designs = plant
    nodes, parts, bus = network(plant)
    given = inputs(designs)
    hole = given["reactor1"]
    given["reactor1"] = Inputs(0, np.full(3, np.nan), hole.neighbour_states, (), ())
    for n in nodes:
        parts[n].prepare(given[n])
    deliver(nodes, bus)
    assert all(part.ready(time.monotonic()) for part in parts.values())
    assert nodes["reactor1"].controller.aim is None and nodes["reactor2"].controller.aim is not None


@pytest.mark.parametrize("damage", ["values", "nan", "about", "horizon", "run", "round"])
def test_damaged_rounds_are_refused_and_counted(plant, damage):
    _, designs = plant
    nodes, parts, bus = network(plant)
    for n in nodes:
        parts[n].prepare(inputs(designs)[n])
    topic, message = next(row for row in bus if "reactor2" in row[0])
    if damage == "values":
        message.values = message.values[:-1]
    elif damage == "nan":
        values = message.values
        values[3] = float("nan")
        message.values = values
    elif damage == "about":
        message.about = ["nobody", *message.about[1:]]
    elif damage == "horizon":
        message.horizon = 3
    elif damage == "run":
        message.run = "another"
    elif damage == "round":
        message.round = 10**6
    nodes["reactor1"].hear(topic, message)
    assert nodes["reactor1"].diagnostics.rejected.total() == 1
    assert not parts["reactor1"].ready(time.monotonic())


def test_what_a_partner_sends_fills_no_memory(plant):
    _, designs = plant
    nodes, parts, bus = network(plant)
    for n in nodes:
        parts[n].prepare(inputs(designs)[n])
    topic, message = next(row for row in bus if "reactor2" in row[0])
    for step in range(100):
        message.step, message.round, message.last = step + 5, 1, False
        nodes["reactor1"].hear(topic, message)
    assert len(parts["reactor1"]._heard["reactor2"]) <= 2
