"""One agent, for an edge controller: `ros2 launch rmpc_ros agent.launch.py agent:=reactor1`.

It runs on the machine's clock, listens to the wired sensors, drives the wired actuators, and exchanges measurements and
promises with its neighbours wherever they run. Its journal outlives it: a new start goes on with the old promises.
"""

from pathlib import Path

from launch.actions import DeclareLaunchArgument, OpaqueFunction
from launch_ros.actions import Node

from launch import LaunchContext, LaunchDescription
from rmpc_ros import bringup
from rmpc_ros.config import load_plant
from rmpc_ros.nodes.launching import NAMESPACE, PLANT, node_action, plant_path, state_folder, value


def generate_launch_description() -> LaunchDescription:
    """Describe arguments and the node."""
    return LaunchDescription(
        [
            DeclareLaunchArgument("agent", description="Which agent of the plant file runs here."),
            PLANT,
            NAMESPACE,
            DeclareLaunchArgument(
                "journals",
                default_value=str(state_folder()),
                description="Folder of the agents' journals (promises in force), below it <plant>/<agent>.journal.",
            ),
            DeclareLaunchArgument(
                "learn",
                default_value="false",
                choices=["true", "false"],
                description="Send transitions to a learner (learner.launch.py) and take its updates.",
            ),
            OpaqueFunction(function=start_agent),
        ]
    )


def start_agent(context: LaunchContext) -> list[Node]:
    """Start the agent's node; it is started again when it dies."""
    plant_file = plant_path(value(context, "plant"))
    config = load_plant(plant_file)
    journals = Path(value(context, "journals")).expanduser() / config.plant.name
    specs = bringup.node_specs(
        config,
        plant_file,
        run=config.plant.name,  # agents that are started one by one belong together by the plant's name
        namespace=value(context, "namespace"),
        only=[value(context, "agent")],
        timing="free",
        journals=journals,
        simulated=False,
        learn=journals / "learning" if value(context, "learn") == "true" else None,
    )
    return [node_action(spec, respawn=True, respawn_delay=1.0) for spec in specs]
