"""A simulated plant with all its agents: `ros2 launch rmpc_ros plant.launch.py`; `--show-args` explains the arguments.

The nodes are those of `rmpc run`. An agent that dies is started again and goes on from its journal. When the plant has
run its duration, or on SIGINT, everything is taken down.
"""

import secrets
import time
from pathlib import Path

from ament_index_python.packages import get_package_share_directory
from launch.actions import DeclareLaunchArgument, OpaqueFunction, Shutdown
from launch.conditions import IfCondition
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node

from launch import LaunchContext, LaunchDescription
from rmpc_ros import bringup
from rmpc_ros.config import load_plant
from rmpc_ros.errors import ConfigError
from rmpc_ros.nodes.launching import NAMESPACE, PLANT, node_action, plant_path, state_folder, value
from rmpc_ros.run.command import parse_speed

MARKERS = "/reactor_separator/markers"  # the topic in config/rmpc.rviz


def generate_launch_description() -> LaunchDescription:
    """Describe arguments and nodes."""
    return LaunchDescription(
        [
            PLANT,
            NAMESPACE,
            DeclareLaunchArgument(
                "speed",
                default_value="file",
                description="Seconds of plant time per second, or 'max'; 'file': as the plant file says.",
            ),
            DeclareLaunchArgument(
                "duration",
                default_value="file",
                description="Seconds of plant time until everything ends; 'file': as the plant file says.",
            ),
            DeclareLaunchArgument(
                "record",
                default_value="",
                description="Folder to make for an MCAP bag of the run (then `rmpc report FOLDER`); empty: no bag.",
            ),
            DeclareLaunchArgument(
                "rviz",
                default_value="false",
                choices=["true", "false"],
                description="Also start RViz (package rviz2) on the plant's markers.",
            ),
            OpaqueFunction(function=start_nodes),
        ]
    )


def start_nodes(context: LaunchContext) -> list[Node]:
    """Nodes of the plant file, in the order in which they are brought up."""
    plant_file = plant_path(value(context, "plant"))
    config = load_plant(plant_file)
    namespace, speed, duration, record = (value(context, name) for name in ("namespace", "speed", "duration", "record"))
    run = f"{config.plant.name}-{secrets.token_hex(4)}"
    specs = bringup.node_specs(
        config,
        plant_file,
        run=run,
        namespace=namespace,
        speed=None if speed == "file" else parse_speed(speed),
        duration=None if duration == "file" else parse_duration(duration),
        bag=Path(record).expanduser().resolve() if record else None,
        journals=state_folder() / time.strftime(f"{config.plant.name}-%Y%m%d-%H%M%S"),
    )
    options = {
        "agent": {"respawn": True, "respawn_delay": 1.0},
        "plant": {"on_exit": Shutdown(reason="the plant has ended")},
    }
    rviz = Node(
        package="rviz2",
        executable="rviz2",
        arguments=["-d", str(Path(get_package_share_directory("rmpc_ros")) / "config" / "rmpc.rviz")],
        remappings=[(MARKERS, f"{bringup.base_namespace(config, namespace)}/markers")],
        condition=IfCondition(LaunchConfiguration("rviz")),
    )
    return [rviz, *(node_action(spec, **options.get(spec.kind, {})) for spec in specs)]  # without RViz nothing starts


def parse_duration(word: str) -> float:
    """Seconds of plant time.

    Raises
    ------
    ConfigError
        It is not a number above 0.
    """
    try:
        seconds = float(word)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < float("inf"):
        raise ConfigError(f"duration:={word}: give seconds of plant time above 0, or file")
    return seconds
