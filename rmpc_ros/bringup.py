"""Which nodes a plant needs, with which names and parameters: the one list that `rmpc run` and the launch files share.

Also the table of topics, so that what is recorded is what is published.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from rmpc_ros.config import PlantConfig
from rmpc_ros.config.sections import Actuator, Sensor
from rmpc_ros.config.shipped import shipped_file
from rmpc_ros.errors import ConfigError

Kind = Literal["agent", "plant", "monitor", "recorder", "learner"]
SOCKETS = {"FASTDDS_BUILTIN_TRANSPORTS": "UDPv4?sockets_size=2MB"}  # 2 MB hold the burst of a hundred agents' sensors
PROFILES = ("FASTDDS_DEFAULT_PROFILES_FILE", "FASTRTPS_DEFAULT_PROFILES_FILE")
PEERS = "ROS_STATIC_PEERS"
RANGE = "ROS_AUTOMATIC_DISCOVERY_RANGE"
Profile = Literal["SENSOR", "STEP", "PROMISE", "ROUNDS", "REPORT", "UPDATE", "STATUS", "CLOCK"]


@dataclass(frozen=True)
class NodeSpec:
    """One node to start.

    Attributes
    ----------
    kind : also the name of its executable in the package
    name, namespace : as ROS knows it
    parameters : by name
    """

    kind: Kind
    name: str
    namespace: str
    parameters: dict[str, Any] = field(default_factory=dict)

    @property
    def label(self) -> str:
        """Short unique name: the agent's, or the kind of node."""
        return self.namespace.rpartition("/")[2] if self.kind == "agent" else self.kind


@dataclass(frozen=True)
class Topic:
    """A topic by its full name, its message type (`package/Type`) and its QoS profile in `nodes.qos`."""

    name: str
    type: str
    profile: Profile


def state_folder() -> Path:
    """Folder for what must outlive a process and its run: journals of edge controllers, below ROS's own folder."""
    return Path(os.environ.get("ROS_HOME", Path.home() / ".ros")) / "rmpc_ros"


def transport(discovery: str | None = None) -> dict[str, str]:
    """Environment that makes Fast DDS talk through sockets; empty where the user has chosen how it talks.

    Its ports in shared memory are under a lock that every writer and the reading process share: a reader that the
    system has put aside while it holds it stops whoever publishes to it. For LOCALHOST, rmw_fastrtps takes shared
    memory whatever is asked for; a profile of ours has the same reach without.

    Parameters
    ----------
    discovery : range that is wanted; by default ROS_AUTOMATIC_DISCOVERY_RANGE of this environment
    """
    other = os.environ.get("RMW_IMPLEMENTATION", "rmw_fastrtps_cpp")
    if any(name in os.environ for name in (*SOCKETS, *PROFILES, PEERS)) or not other.startswith("rmw_fastrtps"):
        return {}
    if (discovery or os.environ.get(RANGE)) == "LOCALHOST":
        return {RANGE: "SYSTEM_DEFAULT", PROFILES[0]: str(shipped_file("fastdds_localhost.xml"))}
    return dict(SOCKETS)


def base_namespace(config: PlantConfig, namespace: str = "") -> str:
    """`/<plant>`, below `namespace` if one is given."""
    outer = namespace.strip("/")
    return f"/{outer}/{config.plant.name}" if outer else f"/{config.plant.name}"


def node_specs(
    config: PlantConfig,
    plant_file: Path | str,
    *,
    run: str,
    namespace: str = "",
    only: Sequence[str] = (),
    timing: str | None = None,
    speed: float | Literal["max"] | None = None,
    duration: float | None = None,
    bag: Path | None = None,
    journals: Path | None = None,
    kills: Sequence[str] = (),
    simulated: bool = True,
    executor: str = "events",
    learn: Path | None = None,
    policy: Path | None = None,
    mode: str = "",
) -> list[NodeSpec]:
    """Nodes of a plant file, in the order in which they are brought up.

    Parameters
    ----------
    plant_file : where the nodes find the file
    run : identifier of the run
    namespace : prefix of all names
    only : these agents and nothing else (an edge controller); all agents and their surroundings by default
    timing, speed, duration : override the file's simulation section; duration in seconds of plant time
    bag : folder to record into; nothing is recorded without it
    journals : folder of the agents' journals
    kills : faults to inject, `AGENT@STEP:STEPS` (killed at a step, kept away for a number of steps)
    simulated : whether the plant is simulated here; else the agents use the machine's clock
    learn : folder of the learner's database and the agents' outboxes; nothing is learned without it
    policy : file of a policy that the learner tries first
    mode : rung of the ladder on which all agents start, instead of the file's

    Raises
    ------
    ConfigError
        An agent or a fault names something the plant file does not have.
    """
    for agent in [*only, *(parse_kill(word)[0] for word in kills)]:
        if agent not in config.agents:
            raise ConfigError(f"{plant_file}: no agent {agent!r}; there are {', '.join(config.agents)}")
    if not simulated and config.simulation.model == "linear" and config.nonlinear is not None:
        raise ConfigError(
            f"{plant_file}: simulation.model 'linear' makes the design reckon with a perfect linear model; for a real "
            "plant write 'nonlinear'"
        )
    base = base_namespace(config, namespace)
    timing = timing or config.simulation.timing
    pace = config.simulation.speed if speed is None else speed
    common: dict[str, Any] = {"plant": str(plant_file), "run": run, "executor": executor, "use_sim_time": simulated}
    agents = [
        NodeSpec(
            "agent",
            "agent",
            f"{base}/{agent}",
            {
                **common,
                "agent": agent,
                "timing": timing,
                "speed": float(pace) if simulated and pace != "max" else 1.0,
                "recorded": bag is not None and not only,
                "journal": str(journals / f"{agent}.journal") if journals else "",
                "outbox": str(learn / f"{agent}.outbox") if learn else "",
                "mode": mode or ("learned" if learn else ""),  # policies move targets on the rung `learned`
                "durable": not simulated,  # a simulated plant does not outlive the machine either
            },
        )
        for agent in (only or config.agents)
    ]
    if only:
        return agents
    length = config.simulation.duration if duration is None else duration
    if length < config.period:  # no steps would mean steps without end
        raise ConfigError(f"duration = {length:g} s; give at least one period of '{plant_file}', {config.period:g} s")
    steps = round(length / config.period)
    around = [NodeSpec("monitor", "monitor", base, dict(common))]
    if learn is not None:
        around.append(learner_spec(config, plant_file, run, learn, namespace, policy, simulated, executor))
    if bag is not None:
        recording = {"bag": str(bag), "learning": learn is not None}
        around.insert(0, NodeSpec("recorder", "recorder", base, {**common, **recording}))
    if simulated:
        parameters = {
            **common,
            "use_sim_time": False,  # it makes the time
            "timing": timing,
            "speed": 0.0 if pace == "max" else float(pace),
            "steps": steps,
            "recorded": bag is not None,
        }
        if kills:
            parameters["kills"] = list(kills)
        around.append(NodeSpec("plant", "plant", base, parameters))
    return [*agents, *around]


def learner_spec(
    config: PlantConfig,
    plant_file: Path | str,
    run: str,
    folder: Path,
    namespace: str = "",
    policy: Path | None = None,
    simulated: bool = True,
    executor: str = "events",
) -> NodeSpec:
    """The learner alone; its database is in `folder`, `policy` is a file that it tries first."""
    parameters: dict[str, Any] = {
        **{"plant": str(plant_file), "run": run, "executor": executor, "use_sim_time": simulated},
        **{"store": str(folder / "store.db"), "policy": str(policy) if policy else ""},
    }
    return NodeSpec("learner", "learner", base_namespace(config, namespace), parameters)


def parse_kill(word: str) -> tuple[str, int, int]:
    """`AGENT@STEP:STEPS` as (agent, step, steps away).

    Raises
    ------
    ConfigError
        The word has another form.
    """
    agent, at, rest = word.partition("@")
    begin, colon, away = rest.partition(":")
    if not (agent and at and colon and begin.isdigit() and away.isdigit()):
        raise ConfigError(f"fault {word!r}: write AGENT@STEP:STEPS, for example reactor1@60:100")
    return agent, int(begin), int(away)


def topics(config: PlantConfig, namespace: str = "", learning: bool = False) -> list[Topic]:
    """Every topic that the nodes of a plant publish, wired sensors and actuators included, each once.

    `learning`: with those of the learner and of agents that learn.
    """
    base = base_namespace(config, namespace)
    found = [Topic("/clock", "rosgraph_msgs/Clock", "CLOCK")]
    for name, agent in config.agents.items():
        own = f"{base}/{name}"
        found += [
            Topic(f"{own}/measurement", "rmpc_ros/Measurement", "STEP"),
            Topic(f"{own}/truth", "rmpc_ros/Measurement", "REPORT"),
            Topic(f"{own}/command", "rmpc_ros/Command", "STEP"),
            Topic(f"{own}/applied", "rmpc_ros/Measurement", "REPORT"),
            Topic(f"{own}/forecast", "rmpc_ros/ForecastSet", "PROMISE"),
            Topic(f"{own}/report", "rmpc_ros/AgentReport", "REPORT"),
            Topic(f"{own}/negotiation", "rmpc_ros/Negotiation", "ROUNDS"),
        ]
        if config.estimator is not None:
            found.append(Topic(f"{own}/estimate", "rmpc_ros/Measurement", "STEP"))
        if learning:
            found.append(Topic(f"{own}/transition", "rmpc_ros/Transition", "REPORT"))
            found += [
                Topic(f"{own}/{subject}_update", f"rmpc_ros/{subject.capitalize()}Update", "UPDATE")
                for subject in ("uncertainty", "model", "policy")
            ]
        join = config.network.join
        if join is not None:
            found.append(Topic(f"{own}/connection", "rmpc_ros/ForecastSet", "PROMISE"))
            if name == join.agent:
                found += [Topic(f"{own}/{word}", "std_msgs/Bool", "UPDATE") for word in ("connect", "connected")]
        if any(name in resource.users for resource in config.resources.values()):
            found.append(Topic(f"{own}/share", "rmpc_ros/Share", "PROMISE"))
        wires: list[Sensor | Actuator] = [*agent.sensors, *agent.actuators]
        found += [Topic(wired_topic(own, wire.topic), wire.type, "SENSOR") for wire in wires]
    if learning:
        found.append(Topic(f"{base}/transition_ack", "rmpc_ros/TransitionAck", "UPDATE"))
    found += [
        Topic(f"{base}/markers", "visualization_msgs/MarkerArray", "STATUS"),
        Topic("/diagnostics", "diagnostic_msgs/DiagnosticArray", "STATUS"),
    ]
    return list({topic.name: topic for topic in found}.values())


def wired_topic(own: str, topic: str) -> str:
    """Full name of a topic written in the plant file: relative to the agent's namespace unless it begins with '/'."""
    return topic if topic.startswith("/") else f"{own}/{topic}"


def summary(config: PlantConfig, namespace: str = "", run: str = "") -> dict[str, Any]:
    """What a reader of a bag needs to know: names, units, limits, coordinates. Kept in the bag itself."""
    agents = {}
    for name, agent in config.agents.items():
        low, high = config.state_limits(name)
        u_low, u_high = config.input_limits(name)
        coordinates = config.linear.agents[name].transform
        agents[name] = {
            "states": [
                {"name": s, "unit": v.unit, "lower": _finite(a), "upper": _finite(b)}
                for (s, v), a, b in zip(agent.states.items(), low, high, strict=True)
            ],
            "inputs": [
                {"name": s, "unit": v.unit, "lower": _finite(a), "upper": _finite(b)}
                for (s, v), a, b in zip(agent.inputs.items(), u_low, u_high, strict=True)
            ],
            "noise": config.noise(name).tolist(),
            "transform": coordinates.tolist(),
            "neighbours": list(agent.neighbours),
        }
    return {
        "plant": config.plant.name,
        "base": base_namespace(config, namespace),
        "run": run,
        "period": config.period,
        "seed": config.simulation.seed,
        "prices": config.learning.prices.model_dump(mode="json") if config.learning is not None else None,
        "agents": agents,
    }


def _finite(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
