"""For tests of the nodes: a ROS domain of their own, single nodes, and a whole plant in this process."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rclpy
from rclpy.node import Node
from rclpy.parameter import Parameter

from rmpc_ros import bringup
from rmpc_ros.config import load_plant
from rmpc_ros.nodes.managed import ManagedNode
from rmpc_ros.nodes.plant import PlantNode
from rmpc_ros.nodes.process import make_executor, node_class
from rmpc_ros.run.domain import Domain

PATIENCE = 150.0  # seconds; the plant begins after 60 even if the graph still shows nodes of the test before
RUNS = itertools.count()


@contextmanager
def own_domain() -> Iterator[None]:
    """rclpy in a domain that nobody else uses, on this machine only."""
    with Domain() as domain, pytest.MonkeyPatch.context() as patch:
        for key, value in domain.environment.items():
            patch.setenv(key, value)
        rclpy.init()
        yield
        rclpy.try_shutdown()


def make(spec: bringup.NodeSpec, **changes: Any) -> Any:
    """The node of a specification, some of its parameters changed."""
    parameters = {**spec.parameters, **changes}
    return node_class(spec.kind)(
        spec.name,
        namespace=spec.namespace,
        parameter_overrides=[Parameter(key, value=value) for key, value in parameters.items()],
        use_global_arguments=False,
    )


def begin(node: ManagedNode) -> None:
    """From unconfigured to active."""
    assert node.trigger_configure().name == node.trigger_activate().name == "SUCCESS"


def end(node: ManagedNode) -> None:
    """From active to nothing."""
    node.trigger_deactivate()
    node.trigger_shutdown()
    node.destroy_node()


class PlantHere:
    """Nodes of a plant file and a node of somebody else (`other`), stepping in this process.

    Parameters
    ----------
    file : of the plant
    kinds : of nodes
    changes : parameters by node's label
    more : for `bringup.node_specs`
    """

    def __init__(
        self,
        file: Path,
        kinds: Iterable[str] = ("agent", "plant"),
        changes: dict[str, dict[str, Any]] | None = None,
        **more: Any,
    ) -> None:
        self.config = load_plant(file)
        outer = f"run{next(RUNS)}"  # names of their own: the graph still shows the nodes of the test before
        self.base = f"/{outer}/{self.config.plant.name}"
        specs = bringup.node_specs(self.config, file, run="r", executor="single", namespace=outer, **more)
        changes = changes or {}
        self.nodes: dict[str, Any] = {s.label: make(s, **changes.get(s.label, {})) for s in specs if s.kind in kinds}
        self.plant: PlantNode = self.nodes["plant"]
        self.other = Node("stranger", namespace=self.base, use_global_arguments=False)
        self.executor = make_executor("single")
        for node in [*self.nodes.values(), self.other]:
            self.executor.add_node(node)

    def run(self, after: Callable[[int, dict[str, np.ndarray]], None] | None = None) -> None:
        """To the plant's last step; `after` is called after each with its number and everybody's inputs."""
        assert all(node.start() for node in self.nodes.values())
        advance = self.plant.sim.step

        def step(inputs: dict[str, np.ndarray], *more: Any) -> None:
            advance(inputs, *more)
            if after is not None:
                after(self.plant.k, inputs)

        self.plant.sim.step = step  # type: ignore[method-assign]
        self.until(lambda: self.plant.exit_status is not None)
        for _ in range(300):  # what is still on its way
            self.executor.spin_once(timeout_sec=0.0)

    def until(self, done: Callable[[], bool]) -> None:
        """Spin until something is so, or patience ends."""
        limit = time.monotonic() + PATIENCE
        while not done() and time.monotonic() < limit:
            self.executor.spin_once(timeout_sec=0.1)

    def close(self) -> None:
        """Take everything down; the plant has made all its steps."""
        for node in self.nodes.values():
            node.stop()
        for node in [*self.nodes.values(), self.other]:
            self.executor.remove_node(node)
            node.destroy_node()
        assert self.plant.exit_status == 0
