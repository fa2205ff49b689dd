"""Plant files that are written by a program: networks of any size and form as files one can read, edit and run.

A plant module that has a `GENERATOR` can be asked for a file (`rmpc plant-file NAME --set agents=20 > plant.yaml`). The
file says everything itself; the generator is not needed to read it.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from rmpc_ros.errors import ConfigError

WIDTH = 110  # characters of a line that a mapping or list may fill before it is written over several lines
NESTED_WIDTH = 60  # the same for a mapping that holds mappings
Settings = Mapping[str, Any]


@dataclass(frozen=True)
class Generator:
    """How a plant file comes about.

    Attributes
    ----------
    defaults : settings and their default values
    sections : sections of the file (nested mappings, lists, words, numbers) from complete settings
    title : first line of the file, one sentence
    """

    defaults: dict[str, Any]
    sections: Callable[[Settings], dict[str, Any]]
    title: str


def generators() -> dict[str, Generator]:
    """Every plant that can write files, by name."""
    package = importlib.import_module("rmpc_ros.plants")
    found = {}
    for entry in pkgutil.iter_modules(package.__path__):
        generator = getattr(importlib.import_module(f"{package.__name__}.{entry.name}"), "GENERATOR", None)
        if isinstance(generator, Generator):
            found[entry.name] = generator
    return found


def generator(name: str) -> Generator:
    """The generator of a plant.

    Raises
    ------
    ConfigError
        No plant of that name writes files; the message lists those that do.
    """
    known = generators()
    if name not in known:
        raise ConfigError(f"no plant file can be generated for '{name}'; known: {', '.join(known)}")
    return known[name]


def plant_file(name: str, settings: Settings | None = None) -> str:
    """Text of a generated plant file.

    Parameters
    ----------
    name : of the plant
    settings : changes of the generator's defaults

    Raises
    ------
    ConfigError
        The plant or a setting does not exist, or a value is not allowed.
    """
    chosen = generator(name)
    unknown = set(settings or {}) - set(chosen.defaults)
    if unknown:
        raise ConfigError(f"plant file '{name}' has no setting '{min(unknown)}'; known: {', '.join(chosen.defaults)}")
    complete = {**chosen.defaults, **(settings or {})}
    words = " ".join(f"{key}={_word(value)}" for key, value in complete.items())
    head = [f"# {chosen.title}", f"# Written by: rmpc plant-file {name} --set {words}"]
    return "\n".join([*head, *_block(chosen.sections(complete), 0)]) + "\n"


def whole(settings: Settings, name: str, least: int) -> int:
    """A setting that counts something.

    Raises
    ------
    ConfigError
        It is below `least`.
    """
    value = int(settings[name])
    if value < least:
        raise ConfigError(f"{name} = {value}: give at least {least}")
    return value


def wired(states: Iterable[str], inputs: Iterable[str]) -> dict[str, Any]:
    """Sections `sensors` and `actuators` of an agent: a topic of plain numbers for each state and input."""
    return {
        "sensors": [{"topic": name, "type": "std_msgs/Float64", "state": name} for name in states],
        "actuators": [{"topic": name, "type": "std_msgs/Float64", "input": name} for name in inputs],
    }


def _word(value: Any) -> str:
    return ",".join(str(v) for v in value) if isinstance(value, (list, tuple)) else str(value)


def _block(mapping: Mapping[str, Any], indent: int) -> list[str]:
    """Lines of a mapping; what fits a line and holds no further mapping is written in one."""
    lines = [""] if indent == 0 else []
    for key, value in mapping.items():
        head = f"{' ' * indent}{key}:"
        if value == {}:
            continue
        text = _flow(value)
        nested = isinstance(value, Mapping) and any(isinstance(v, Mapping) for v in value.values())
        listed = isinstance(value, list) and value and isinstance(value[0], Mapping)
        if indent and not listed and len(head) + 1 + len(text) <= (NESTED_WIDTH if nested else WIDTH):
            lines.append(f"{head} {text}")
        elif isinstance(value, Mapping):
            lines += [head, *_block(value, indent + 2)]
        elif listed:
            lines += [head, *(f"{' ' * (indent + 2)}- {_flow(item)}" for item in value)]
        else:
            lines.append(f"{head} {text}")
        if indent == 0:
            lines.append("")
    return lines[:-1] if indent == 0 else lines


def _flow(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}: {_flow(v)}" for key, v in value.items()) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(_flow(v) for v in value) + "]"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:.9g}"
    return f'"{value}"' if isinstance(value, str) and value.isdigit() else str(value)  # the unit "1" is a word
