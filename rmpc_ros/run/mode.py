"""`rmpc mode`: change, or ask for, the controller of an agent of a running plant.

A run keeps in its folder, in `ros.json`, what it takes to reach its nodes: the ROS environment that it has chosen, the
namespace, and the process that supervises it. Without a run of ours the plant file's namespace and this shell's own
environment are taken, as every ROS tool does.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from rmpc_ros import bringup
from rmpc_ros.config import PlantConfig, load_plant
from rmpc_ros.errors import ConfigError, RmpcError

FILE = "ros.json"
PATIENCE = 60.0  # seconds for the whole call


def leave_word(folder: Path, config: PlantConfig, environment: dict[str, str]) -> None:
    """Write down how to reach the nodes of a run."""
    what = {
        "supervisor": os.getpid(),
        "base": bringup.base_namespace(config),
        "agents": list(config.agents),
        "environment": environment,
    }
    (folder / FILE).write_text(json.dumps(what, indent=2) + "\n", encoding="utf-8")


def change(agent: str, mode: str, run: Path | None, plant: Path | None) -> tuple[dict[str, Any], list[str]]:
    """Ask an agent to change its controller.

    Parameters
    ----------
    agent : its name
    mode : a rung of the ladder; empty: only ask which one is in force
    run : folder of the run; the newest one below `runs/` that is alive by default
    plant : plant file of a plant that something else runs, reached through this shell's ROS environment

    Raises
    ------
    ConfigError
        There is no such run or agent.
    RmpcError
        The agent is not reached, or refuses.
    """
    answer = asked(agent, run, plant, f"mode of {agent}", "rmpc_ros.nodes.mode_client", "set_mode", mode)
    if not answer["success"]:
        raise RmpcError(f"mode of {agent} stays {answer['mode']}: {answer['message']}")
    result = {"agent": agent, "mode": answer["mode"]}
    return result, [f"{agent}: {answer['mode']}{' from the next step on' if mode else ''}"]


def asked(agent: str, run: Path | None, plant: Path | None, what: str, client: str, *words: str) -> dict[str, Any]:
    """What a node of a running plant answers.

    Parameters
    ----------
    agent, run, plant : as for `change`
    what : is asked, for messages
    client : module that asks, run with the full name of the node with the first word appended, then the other words

    Raises
    ------
    ConfigError
        There is no such run or agent.
    RmpcError
        The agent is not reached.
    """
    environment: dict[str, str] = {}
    if plant is not None:
        config = load_plant(plant)
        base, agents = bringup.base_namespace(config), list(config.agents)
    else:
        base, agents, environment = _running(run)
    if agent not in agents:
        raise ConfigError(f"no agent {agent!r}; there are {', '.join(agents)}")
    try:
        done = subprocess.run(
            [sys.executable, "-m", client, f"{base}/{agent}/agent/{words[0]}", *words[1:]],
            env={**os.environ, **environment},
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise RmpcError(f"{what}: no answer within {PATIENCE:g} s") from error
    if done.returncode:
        raise RmpcError(f"{what}: {_last(done.stderr)}")
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def _running(run: Path | None) -> tuple[str, list[str], dict[str, str]]:
    """Namespace, agents and environment of a run that is alive."""
    files = [run / FILE] if run is not None else sorted(Path("runs").glob(f"*/{FILE}"), key=_age, reverse=True)
    foreign = []  # of another user: the number of a process that has ended may be anybody's by now
    for file in files:
        try:
            what = json.loads(file.read_text(encoding="utf-8"))
            os.kill(int(what["supervisor"]), 0)
        except ProcessLookupError:
            continue
        except PermissionError:
            foreign.append(str(file.parent))
            continue
        except (OSError, ValueError, KeyError) as error:
            raise ConfigError(f"{file}: {error!r}; give the folder of a run") from error
        return str(what["base"]), list(what["agents"]), dict(what["environment"])
    where = f"{run} has ended" if run is not None else "no run below runs/ is alive"
    if foreign:
        where = f"{where}, or is another user's ({', '.join(foreign)})"
    raise ConfigError(f"{where}; give --run FOLDER, or --plant FILE for a plant that something else runs")


def _age(file: Path) -> float:
    return file.stat().st_mtime


def _last(text: str) -> str:
    lines = text.strip().splitlines()
    return lines[-1] if lines else "no answer"
