"""One run of a plant, from the plant file to the report."""

from __future__ import annotations

import os
import secrets
import shutil
import time
from collections.abc import Callable, Sequence
from io import StringIO
from pathlib import Path
from typing import Any, Literal

from ruamel.yaml import YAML

from rmpc_ros import bringup
from rmpc_ros.config import load_plant
from rmpc_ros.errors import ConfigError, RmpcError
from rmpc_ros.record import repair
from rmpc_ros.run.domain import Domain, remove_orphaned_segments
from rmpc_ros.run.mode import leave_word
from rmpc_ros.run.supervisor import Event, Supervisor, pack

THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")  # agents are processes: one thread each


def run_plant(
    plant_file: Path,
    *,
    duration: float | None = None,
    speed: float | Literal["max"] | None = None,
    timing: Literal["lockstep", "free"] | None = None,
    folder: Path | None = None,
    record: Path | None = None,
    processes: int | None = None,
    only: Sequence[str] = (),
    kills: Sequence[str] = (),
    restart_after: float = 0.0,
    learn: bool = False,
    policy: Path | None = None,
    mode: str = "",
    seed: int | None = None,
    on_event: Callable[[Event], None] | None = None,
) -> dict[str, Any]:
    """Start the nodes of a plant file, wait for the end, report.

    Parameters
    ----------
    duration : seconds of plant time
    speed : plant time over wall time, or "max"
    folder : of the run, made here; `runs/<plant>-<time>` by default
    record : folder of the bag; `bag` in the run's folder by default
    processes : pack the agents into so many processes; one each by default
    only : run these agents alone, on the machine's clock, until SIGINT
    kills, restart_after : faults and how long a dead process is kept away [s]
    learn : with the learner, whose database stays in the run's folder
    policy : file of a policy that the learner tries first
    mode : rung of the ladder on which all agents start; the file's by default
    seed : of the simulated plant's disturbances and noise; the file's by default

    Returns
    -------
    dict
        The content of `run.json`; with `only`, just what was started and restarted.

    Raises
    ------
    RmpcError
        The plant file is wrong, a node could not start, or the run was interrupted before its end.
    """
    config = load_plant(plant_file)
    if seed is not None and only:
        raise ConfigError(f"--seed {seed}: --only controls a plant that is not simulated here")
    if policy is not None and not learn:
        raise ConfigError(f"--policy {policy}: it is the learner that tries a policy; give --learn too")
    if learn and config.learning is None:
        raise ConfigError(f"{plant_file}: --learn needs a section 'learning' (prices, actions); docs/learner.md")
    for word in kills:
        bringup.parse_kill(word)
    # An edge controller's journal outlives its run: the next one goes on with the promises in force.
    journals = bringup.state_folder() / config.plant.name if only and folder is None else None
    folder = folder or _fresh(Path("runs"), config.plant.name)
    folder.mkdir(parents=True, exist_ok=True)
    bag = None if only else (record or folder / "bag")
    if bag is not None and bag.exists():
        raise ConfigError(f"--record {bag}: exists already; give a folder that does not")
    run = f"{config.plant.name}-{secrets.token_hex(4)}"
    shutil.copyfile(plant_file, folder / "plant.yaml")
    if seed is not None:
        plant_file = folder / "plant.yaml"
        plant_file.write_text(_with_seed(plant_file.read_text(encoding="utf-8"), seed), encoding="utf-8")
        config = load_plant(plant_file)
    specs = bringup.node_specs(
        config,
        plant_file.resolve(),
        run=run if not only else config.plant.name,
        only=only,
        timing="free" if only else timing,
        speed=speed,
        duration=duration,
        bag=bag.resolve() if bag else None,
        journals=(journals or folder / "journal").resolve(),
        kills=kills,
        simulated=not only,
        learn=((journals or folder) / "learning").resolve() if learn else None,
        policy=policy.resolve() if policy else None,
        mode=mode,
    )
    threads = {name: os.environ.get(name, "1") for name in THREADS}
    began = time.monotonic()
    with Domain() as domain:
        leave_word(folder, config, domain.environment)
        children = pack(specs, processes)
        supervisor = Supervisor(children, folder, {**threads, **domain.environment}, restart_after, on_event)
        complete = supervisor.run()
        if any(event["event"] == "died" for event in supervisor.events):
            remove_orphaned_segments()
    counts = {child.name: child.restarts for child in supervisor.children.values()}
    if only:
        return {"plant": config.plant.name, "run": run, "processes": len(children), "restarts": counts}
    assert bag is not None
    repair(bag, bringup.summary(config, run=run))
    from rmpc_ros.report import write_report

    facts = {
        "processes": len(children),
        "restarts": sum(counts.values()),
        "restarts_by_process": counts,
        "complete": complete,
        "wall_s": time.monotonic() - began,
        "cpu_s_by_process": supervisor.usage.cpu_s,
        "cpu_steps": supervisor.usage.steps,
        "events": supervisor.events,
    }
    figures = write_report(bag, folder, facts)
    if not complete:
        raise RmpcError(f"stopped at step {supervisor.step}, before the end; what was recorded is in {folder}")
    return figures


def _with_seed(text: str, seed: int) -> str:
    """A plant file with another seed."""
    yaml, out = YAML(), StringIO()
    content = yaml.load(text)
    content.setdefault("simulation", {})["seed"] = seed
    yaml.dump(content, out)
    return out.getvalue()


def _fresh(parent: Path, plant: str) -> Path:
    """`<plant>-<date>-<time>`, with a number behind it where that exists."""
    name = f"{plant}-{time.strftime('%Y%m%d-%H%M%S')}"
    folder, n = parent / name, 1
    while folder.exists():
        n += 1
        folder = parent / f"{name}-{n}"
    return folder
