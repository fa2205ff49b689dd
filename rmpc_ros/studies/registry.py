"""How `rmpc study` and `rmpc bench` find what they run.

A study is a module of `rmpc_ros.studies` (a benchmark: of `rmpc_ros.studies.bench`) that defines `STUDY`. Its file name
is its name with dashes written as underscores, so that nothing has to be registered anywhere.
"""

from __future__ import annotations

import ast
import importlib
import pkgutil
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol

import rmpc_ros.studies
import rmpc_ros.studies.bench
from rmpc_ros.errors import ConfigError

Settings = dict[str, Any]


@dataclass(frozen=True)
class Study:
    """An experiment that a command runs.

    Attributes
    ----------
    defaults : every setting with its default value; `--set` takes no other key and casts to the default's type
        (a list's items take the type of its first item; a default of None takes a number or a word).
    run : called with the complete settings and a folder for figures; returns what `--json` prints.
    table : turns the result into the lines that are printed without `--json`.
    """

    defaults: Mapping[str, Any]
    run: Callable[[Settings, Path], dict[str, Any]]
    table: Callable[[dict[str, Any]], Iterable[str]] | None = None


_NOT_STUDIES = {"registry", "bench"}


def _package(kind: str) -> ModuleType:
    return rmpc_ros.studies if kind == "study" else rmpc_ros.studies.bench


def names(kind: str) -> dict[str, str]:
    """Names of all studies ("study") or benchmarks ("bench") with the first line of their docstring; imports none."""
    found = {}
    for folder in _package(kind).__path__:
        for info in pkgutil.iter_modules([folder]):
            if info.name in _NOT_STUDIES or info.name.startswith("_"):
                continue
            doc = ast.get_docstring(ast.parse((Path(folder) / f"{info.name}.py").read_text(encoding="utf-8"))) or ""
            found[info.name.replace("_", "-")] = doc.partition("\n")[0]
    return dict(sorted(found.items()))


class HasDefaults(Protocol):
    """Anything with settings: a study, a generator of plant files."""

    @property
    def defaults(self) -> Mapping[str, Any]:
        """Settings and their default values."""


def load(kind: str, name: str) -> Study:
    """Import one study.

    Raises
    ------
    ConfigError
        The name is unknown; the message lists the known ones.
    """
    if name not in names(kind):
        raise ConfigError(f"{kind} '{name}' is unknown; known: {', '.join(names(kind))}")
    study = importlib.import_module(f"{_package(kind).__name__}.{name.replace('-', '_')}").STUDY
    assert isinstance(study, Study)
    return study


def parse_settings(study: HasDefaults, words: Iterable[str], origin: str = "--set") -> Settings:
    """Complete settings from `key=value` words.

    Raises
    ------
    ConfigError
        A word is not key=value, its key is unknown, or its value does not fit the default's type.
    """
    settings = dict(study.defaults)
    for word in words:
        key, equals, text = word.partition("=")
        if not equals:
            raise ConfigError(f"{origin} {word}: write key=value")
        if key not in settings:
            raise ConfigError(f"{origin} {key}: unknown; known: {', '.join(settings)}")
        settings[key] = cast_like(study.defaults[key], text, f"{origin} {key}")
    return settings


def cast_like(default: Any, text: str, name: str) -> Any:
    """Cast `text` to the type of `default`; lists are comma-separated."""
    if isinstance(default, (list, tuple)):
        like = default[0] if default else None
        return [cast_like(like, item, name) for item in text.split(",") if item]
    if isinstance(default, bool):
        if text.lower() in ("true", "yes", "1", "on"):
            return True
        if text.lower() in ("false", "no", "0", "off"):
            return False
        raise ConfigError(f"{name} = {text!r}: give true or false")
    if isinstance(default, int):
        try:
            return int(text)
        except ValueError:
            raise ConfigError(f"{name} = {text!r}: give a whole number") from None
    if isinstance(default, float):
        try:
            return float(text)
        except ValueError:
            raise ConfigError(f"{name} = {text!r}: give a number") from None
    if default is None:
        for kind in (int, float):
            try:
                return kind(text)
            except ValueError:
                continue
    return text
