"""What `rmpc run` and `rmpc report` do: options in, figures and lines out, progress on standard error."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from rmpc_ros.errors import ConfigError, DataError
from rmpc_ros.network.decision import CONTROLLERS
from rmpc_ros.report import write_report
from rmpc_ros.report.write import lines
from rmpc_ros.run.plant_run import run_plant
from rmpc_ros.run.supervisor import Event


def run(
    plant: Path,
    duration: float | None,
    speed: str | None,
    timing: str | None,
    record: Path | None,
    processes: int | None,
    only: Sequence[str] | None,
    kill: Sequence[str] | None,
    restart_after: float,
    out: Path | None,
    learn: bool = False,
    policy: Path | None = None,
    mode: str | None = None,
    seed: int | None = None,
) -> tuple[dict[str, Any], list[str]]:
    """Run a plant file.

    Raises
    ------
    ConfigError
        An option has a value that is not allowed.
    """
    if duration is not None and not duration > 0:
        raise ConfigError(f"--duration {duration:g}: give seconds of plant time above 0")
    progress = Progress()
    result = run_plant(
        plant,
        duration=duration,
        speed=None if speed is None else parse_speed(speed),
        timing=None if timing is None else parse_timing(timing),
        folder=out,
        record=record,
        processes=processes,
        only=only or (),
        kills=kill or (),
        restart_after=restart_after,
        learn=learn,
        policy=policy,
        mode="" if mode is None else parse_mode(mode),
        seed=seed,
        on_event=progress.show,
    )
    progress.end()
    return result, ([f"{', '.join(only)}: ended"] if only else lines(result))


def report(folder: Path, out: Path | None) -> tuple[dict[str, Any], list[str]]:
    """Report on a bag, or on the bag in a run's folder (then with what its supervisor wrote down)."""
    bag = folder / "bag" if (folder / "bag" / "metadata.yaml").is_file() else folder
    known = bag.parent / "run.json"
    facts: dict[str, Any] = {}
    if known.is_file():
        try:
            earlier = json.loads(known.read_text(encoding="utf-8"))
        except json.JSONDecodeError as error:
            raise DataError(f"{known}: not valid JSON: {error}") from error
        facts = {key: earlier[key] for key in SUPERVISED if key in earlier}
    result = write_report(bag, out or bag.parent, facts)
    return result, lines(result)


SUPERVISED = (
    "processes",
    "restarts",
    "restarts_by_process",
    "complete",
    "wall_s",
    "cpu_s_by_process",
    "cpu_steps",
    "events",
)


def parse_speed(word: str) -> float | Literal["max"]:
    """Speed: "max" or a number above 0.

    Raises
    ------
    ConfigError
        It is neither.
    """
    if word == "max":
        return "max"
    try:
        value = float(word)
    except ValueError:
        value = float("nan")
    if not 0 < value < 1e6:
        raise ConfigError(f"--speed {word}: give max, or how many seconds of plant time pass per second")
    return value


def parse_mode(word: str) -> str:
    """Rung of the ladder by name.

    Raises
    ------
    ConfigError
        The name is unknown.
    """
    if word not in CONTROLLERS:
        raise ConfigError(f"--mode {word}: give one of {', '.join(CONTROLLERS)}")
    return word


def parse_timing(word: str) -> Literal["lockstep", "free"]:
    """Timing by name.

    Raises
    ------
    ConfigError
        The name is unknown.
    """
    if word == "lockstep":
        return "lockstep"
    if word == "free":
        return "free"
    raise ConfigError(f"--timing {word}: give lockstep or free")


class Progress:
    """One line on a terminal that keeps changing; a line per event elsewhere."""

    def __init__(self) -> None:
        self._terminal = sys.stderr.isatty()
        self._open = False
        self._told = False

    def show(self, event: Event) -> None:
        """Show an event of the supervisor."""
        match event["event"]:
            case "progress":
                if self._terminal:
                    silent = f", silent: {', '.join(event['silent'])}" if event["silent"] else ""
                    print(
                        f"\rstep {event['step']} of {event['steps']}{silent}\x1b[K", end="", file=sys.stderr, flush=True
                    )
                    self._open = True
            case "active":
                if not self._told:
                    print("rmpc: nodes are coming up", file=sys.stderr)
                    self._told = True
            case "finished":
                self.end()
            case kind:
                self.end()
                facts = ", ".join(f"{k} {v}" for k, v in event.items() if k not in ("event", "step", "process"))
                print(f"rmpc: step {event['step']}: {event['process']}: {kind} {facts}".rstrip(), file=sys.stderr)

    def end(self) -> None:
        """Close the changing line."""
        if self._open:
            print(file=sys.stderr)
            self._open = False
