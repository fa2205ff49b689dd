"""A YAML file as plain values that remember their lines, so that every error can point at one."""

from __future__ import annotations

import difflib
import math
import sys
import types
import typing
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq
from ruamel.yaml.error import MarkedYAMLError

from rmpc_ros.errors import ConfigError

Key = str | int
KeyPath = tuple[Key, ...]

_WORDS = {
    "missing": "is missing; it must be given",
    "float_type": "give a number",
    "float_parsing": "give a number",
    "finite_number": "give a finite number",
    "int_type": "give a whole number",
    "int_from_float": "give a whole number",
    "string_type": "give a word",
    "bool_type": "give true or false",
    "list_type": "give a list",
    "tuple_type": "give a list",
    "dict_type": "give a mapping of keys to values",
    "model_type": "give a mapping of keys to values",
    "model_attributes_type": "give a mapping of keys to values",
}


@dataclass(frozen=True)
class Problem:
    """Something wrong at a place in the file."""

    path: KeyPath
    message: str


@dataclass(frozen=True)
class Source:
    """A parsed file.

    Attributes
    ----------
    name : how messages call it
    data : mappings, lists, words and numbers only
    lines : line of every key and item, counted from 1
    """

    name: str
    data: dict[str, Any]
    lines: dict[KeyPath, int] = field(repr=False)

    def line(self, path: KeyPath) -> int:
        """Line of `path`, or of its nearest parent that is in the file."""
        while path and path not in self.lines:
            path = path[:-1]
        return self.lines.get(path, 1)

    def value(self, path: KeyPath) -> Any:
        """What the file holds at `path`; None where it holds nothing."""
        here: Any = self.data
        for key in path:
            try:
                here = here[key]
            except (KeyError, IndexError, TypeError):
                return None
        return here

    def error(self, problems: Sequence[Problem]) -> ConfigError:
        """One error that names the first problem in the file and counts the others."""
        # Of two problems in one line the written key explains the missing one.
        first = min(problems, key=lambda p: (self.line(p.path), p.path not in self.lines))
        where = ".".join(str(key) for key in first.path)
        value = self.value(first.path)
        shown = "" if value is None or isinstance(value, dict) else f" = {_short(value)}"
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        return ConfigError(f"{self.name}:{self.line(first.path)}: {where}{shown}: {first.message}{more}")


def read(text: str, name: str) -> Source:
    """Parse YAML text.

    Raises
    ------
    ConfigError
        The text is not YAML, repeats a key, or is not a mapping.
    """
    try:
        tree = YAML(typ="rt").load(text)
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark else 1
        problem = " ".join((error.problem or str(error)).split())
        raise ConfigError(f"{name}:{line}: not valid YAML: {problem}") from error
    except ValueError as error:
        raise ConfigError(f"{name}:1: not valid YAML: {error}") from error
    if not isinstance(tree, CommentedMap):
        raise ConfigError(f"{name}:1: a plant file is a mapping with the sections plant and agents")
    lines: dict[KeyPath, int] = {}
    return Source(name, _plain(tree, (), lines), lines)


def read_file(path: Path | str) -> Source:
    """Read and parse a file.

    Raises
    ------
    ConfigError
        The file cannot be read; see also `read`.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: is not a text file in UTF-8") from error
    return read(text, str(path))


def problems_of(error: ValidationError, root: type[BaseModel], source: Source) -> list[Problem]:
    """Translate a validation error into problems that name keys of the file and what is allowed there."""
    found = []
    for item in error.errors():
        path = _path_in_file(item["loc"], source, item["type"] == "missing")
        match item["type"]:
            case "extra_forbidden":
                allowed = _keys_at(root, path[:-1])
                message = f"unknown key{did_you_mean(str(path[-1]), allowed)}; allowed: {', '.join(allowed)}"
            case "literal_error":
                message = f"allowed: {item['ctx']['expected']}{did_you_mean(str(item['input']), _words(item))}"
            case "value_error" | "assertion_error":
                message = str(item["ctx"]["error"])
            case kind:
                text = item["msg"].removeprefix("Input should be ")
                message = _WORDS.get(kind, f"it should be {text}" if text != item["msg"] else text)
        found.append(Problem(path, message))
    return found


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Hint with the nearest known word, or nothing."""
    near = difflib.get_close_matches(word, list(known), 1)
    return f"; did you mean '{near[0]}'?" if near else ""


def _plain(node: Any, path: KeyPath, lines: dict[KeyPath, int]) -> Any:
    if isinstance(node, CommentedMap):
        out: dict[str, Any] = {}
        for key, value in node.items():
            here = (*path, str(key))
            position = node.lc.key(key) if key in (node.lc.data or {}) else None
            lines[here] = position[0] + 1 if position else lines.get(path, 1)
            out[str(key)] = _plain(value, here, lines)
        return out
    if isinstance(node, CommentedSeq):
        for n in range(len(node)):
            position = node.lc.item(n) if n in (node.lc.data or {}) else None
            lines[(*path, n)] = position[0] + 1 if position else lines.get(path, 1)
        return [_plain(value, (*path, n), lines) for n, value in enumerate(node)]
    if isinstance(node, int) and abs(node) > sys.float_info.max:
        return math.inf  # no number of ours: refused as one that is not finite
    for kind in (bool, int, float, str):  # the reader's own number and word types become the plain ones
        if isinstance(node, kind):
            return kind(node)
    return node


def _path_in_file(loc: tuple[Key, ...], source: Source, missing: bool) -> KeyPath:
    """Drop what the validator adds to a location (names of union members) and the file does not have."""
    path: KeyPath = ()
    for n, key in enumerate(loc):
        if (*path, key) in source.lines or (missing and n == len(loc) - 1):
            path = (*path, key)
    return path


def _keys_at(root: type[BaseModel], path: KeyPath) -> list[str]:
    """Keys allowed at a place of the schema."""
    here: list[Any] = [root]
    for key in path:
        following: list[Any] = []
        for kind in here:
            if isinstance(kind, type) and issubclass(kind, BaseModel):
                if key in kind.model_fields:
                    following.append(kind.model_fields[str(key)].annotation)
            else:
                following += list(getattr(kind, "__args__", ()))
        here = following
        while any(_is_union(kind) for kind in here):
            here = [inner for kind in here for inner in (kind.__args__ if _is_union(kind) else (kind,))]
    return sorted(
        {name for kind in here if isinstance(kind, type) and issubclass(kind, BaseModel) for name in kind.model_fields}
    )


def _is_union(kind: Any) -> bool:
    return isinstance(kind, types.UnionType) or typing.get_origin(kind) is typing.Union


def _words(item: Any) -> list[str]:
    return [word.strip(" '") for word in str(item["ctx"]["expected"]).replace(" or ", ",").split(",")]


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
