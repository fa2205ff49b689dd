"""The learner of a plant whose agents run elsewhere: `ros2 launch rmpc_ros learner.launch.py`.

Agents that were started with `learn:=true` send it their transitions and take its updates. It may die, come back or
never come: they run on. Its database outlives it.
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
            PLANT,
            NAMESPACE,
            DeclareLaunchArgument(
                "stores",
                default_value=str(state_folder()),
                description="Folder of the learner's databases, below it <plant>/learning/store.db.",
            ),
            DeclareLaunchArgument(
                "policy",
                default_value="",
                description="Policy file to try first, as a canary in one agent; empty: none.",
            ),
            OpaqueFunction(function=start_learner),
        ]
    )


def start_learner(context: LaunchContext) -> list[Node]:
    """Start the learner's node; it is started again when it dies."""
    plant_file = plant_path(value(context, "plant"))
    config = load_plant(plant_file)
    policy = value(context, "policy")
    spec = bringup.learner_spec(
        config,
        plant_file,
        run=config.plant.name,  # as agents that are started one by one
        folder=Path(value(context, "stores")).expanduser() / config.plant.name / "learning",
        namespace=value(context, "namespace"),
        policy=Path(policy).expanduser().resolve() if policy else None,
        simulated=False,
    )
    return [node_action(spec, respawn=True, respawn_delay=1.0)]
