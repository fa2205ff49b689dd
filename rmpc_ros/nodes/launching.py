"""What both launch files share: the plant file by path or name, and a launch action for each node of `bringup`.

Imported on machines with ROS 2's `launch` only. Faults are told as launch tells them: one error line, exit status 1.
"""

from __future__ import annotations

import os
from typing import Any

from launch.actions import DeclareLaunchArgument
from launch_ros.actions import Node

from launch import LaunchContext
from rmpc_ros.bringup import NodeSpec, state_folder, transport
from rmpc_ros.config.shipped import plant_path

__all__ = ["NAMESPACE", "PLANT", "node_action", "plant_path", "state_folder", "value"]

THREADS = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}  # agents are processes

PLANT = DeclareLaunchArgument(
    "plant",
    default_value="reactor_separator",
    description="Plant file: a path, or the name of one that comes with the package.",
)
NAMESPACE = DeclareLaunchArgument(
    "namespace",
    default_value="",
    description="Prefix of all names, e.g. 'site_a' for /site_a/<plant>/<agent>/...; empty: none.",
)


def value(context: LaunchContext, name: str) -> str:
    """Value of a launch argument."""
    return str(context.launch_configurations[name]).strip()


def node_action(spec: NodeSpec, **options: Any) -> Node:
    """Launch action of a node; `options` are launch_ros's (respawn, on_exit, ...)."""
    return Node(
        package="rmpc_ros",
        executable=spec.kind,
        name=spec.name,
        namespace=spec.namespace,
        parameters=[spec.parameters],
        output="both",
        emulate_tty=True,
        additional_env={name: os.environ.get(name, threads) for name, threads in THREADS.items()} | transport(),
        **options,
    )
