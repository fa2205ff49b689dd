"""`rmpc setpoint`: move, or ask for, the set-points of an agent of a running plant."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rmpc_ros.errors import ConfigError, RmpcError
from rmpc_ros.run.mode import asked


def move(agent: str, words: Sequence[str], run: Path | None, plant: Path | None) -> tuple[dict[str, Any], list[str]]:
    """Ask an agent to move set-points.

    Parameters
    ----------
    agent : its name
    words : STATE=VALUE, in the plant file's units; all are taken or none; without any, only ask
    run : folder of the run; the newest one below `runs/` that is alive by default
    plant : plant file of a plant that something else runs, reached through this shell's ROS environment

    Raises
    ------
    ConfigError
        A word is not STATE=VALUE, or there is no such run or agent.
    RmpcError
        The agent is not reached, or refuses.
    """
    for word in words:
        state, equals, value = word.partition("=")
        if not (state and equals and _finite(value)):
            raise ConfigError(f"set-point {word!r}: write STATE=VALUE, for example T1=432.4")
    what = f"set-point of {agent}"
    answer = asked(agent, run, plant, what, "rmpc_ros.nodes.setpoint_client", "", *words)
    if not answer["success"]:
        raise RmpcError(f"{what} stays: {answer['message']}")
    points: dict[str, float] = answer["setpoints"]
    return {"agent": agent, "setpoints": points}, [f"{agent}: {name} = {value:.8g}" for name, value in points.items()]


def _finite(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False
