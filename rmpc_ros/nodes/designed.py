"""A plant file's design, made once per process: twenty agents in one process need it twenty times."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from rmpc_ros.config import PlantConfig, load_plant
from rmpc_ros.network.agent_design import AgentDesign
from rmpc_ros.network.joining import JoinPlan, joined_plant, plan_join
from rmpc_ros.network.system import design_agents

_joins: dict[int, tuple[PlantConfig, PlantConfig, JoinPlan]] = {}  # by identity of the file's config, kept alive here


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
    return config, (design_agents(config) if config.network.join is None else join_of(config)[1].designs)


def join_of(config: PlantConfig) -> tuple[PlantConfig, JoinPlan]:
    """The plant file after the join that a file describes, and the plan of it; made once per file.

    Raises
    ------
    ConfigError, InfeasibleError
        See `joined_plant` and `plan_join`.
    """
    if id(config) not in _joins:
        joined = joined_plant(config)
        assert config.network.join is not None
        _joins[id(config)] = config, joined, plan_join(config, joined, config.network.join.agent)
    return _joins[id(config)][1:]
