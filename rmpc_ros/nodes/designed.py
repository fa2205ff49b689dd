"""A plant file's design, made once per process: twenty agents in one process need it twenty times."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from rmpc_ros.config import PlantConfig, load_plant
from rmpc_ros.network.agent_design import AgentDesign
from rmpc_ros.network.system import design_agents


def designed(file: str) -> tuple[PlantConfig, dict[str, AgentDesign]]:
    """The checked plant file and the designs of all its agents; made anew where the file has changed.

    Raises
    ------
    ConfigError, InfeasibleError
        See `load_plant` and `design_agents`.
    """
    path = Path(file)
    return _made(file, path.stat().st_mtime_ns if path.is_file() else 0)


@lru_cache(maxsize=4)
def _made(file: str, changed: int) -> tuple[PlantConfig, dict[str, AgentDesign]]:
    del changed
    config = load_plant(file)
    return config, design_agents(config)
