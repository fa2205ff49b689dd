"""Policies a = pi(o): the same parameters for every agent, local observations in, actions in [-1, 1] out.

    constant  a = clip(b_agent)            affine  a = clip(W o)            network  a = tanh(W2 tanh(W1 o + b1))

The observation holds which agent it is (one-hot), so W o contains a constant per agent. All parameters zero (for the
network: W2 zero) gives zero actions: the plant file's own controllers, from which learning starts. A batch of parameter
vectors is evaluated at once: parameters (P, size), observations (P, ..., a, o).
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from rmpc_ros.config.learning import LEAST_MOVES, MOVES, Move
from rmpc_ros.errors import DataError

Array = NDArray[np.float64]
Kind = Literal["constant", "affine", "network"]
KINDS: tuple[Kind, ...] = get_args(Kind)

FORMAT = 1
HIDDEN = 8
MOST_BYTES = 4_000_000  # a policy file is some kB; anything larger is not one


@dataclass(frozen=True)
class Actor:
    """Shape of a policy: its kind, number of agents, observations and actions per agent."""

    kind: Kind
    agents: int
    observations: int
    actions: int

    @property
    def size(self) -> int:
        """Number of parameters."""
        match self.kind:
            case "constant":
                return self.agents * self.actions
            case "affine":
                return self.observations * self.actions
            case "network":
                return HIDDEN * (self.observations + 1) + HIDDEN * self.actions

    def start(self, generator: np.random.Generator) -> Array:
        """Parameters (size,) whose actions are zero."""
        out = np.zeros(self.size)
        if self.kind == "network":  # the first layer must differ between units to learn anything
            first = HIDDEN * (self.observations + 1)
            out[:first] = generator.standard_normal(first) / np.sqrt(self.observations)
        return out

    def still(self, parameters: Array, columns: Sequence[int]) -> Array:
        """The same parameters (size,) but for some actions, which stay zero whatever is observed."""
        out = parameters.copy()
        last = out[-HIDDEN * self.actions :] if self.kind == "network" else out
        last.reshape(-1, self.actions)[:, list(columns)] = 0.0
        return out

    def output(self, parameters: Array, observations: Array) -> Array:
        """What is bounded to actions: (P, ..., a, actions) of parameters (P, size), observations (P, ..., a, o)."""
        P = len(parameters)
        lead = observations.shape[:-2]
        if self.kind == "constant":
            shape = (P,) + (1,) * (len(lead) - 1) + (self.agents, self.actions)
            return np.broadcast_to(parameters.reshape(shape), (*lead, self.agents, self.actions)).copy()
        rows = observations.reshape(P, -1, self.observations)
        if self.kind == "affine":
            out = rows @ parameters.reshape(P, self.observations, self.actions)
        else:
            cut = HIDDEN * self.observations
            W1, b1 = parameters[:, :cut], parameters[:, cut : cut + HIDDEN]
            W2 = parameters[:, cut + HIDDEN :].reshape(P, HIDDEN, self.actions)
            out = np.tanh(rows @ W1.reshape(P, self.observations, HIDDEN) + b1[:, None]) @ W2
        return out.reshape(*lead, self.agents, self.actions)

    def bound(self, output: Array) -> Array:
        """Actions in [-1, 1]: tanh for the network, clipped for the others."""
        return np.tanh(output) if self.kind == "network" else np.clip(output, -1.0, 1.0)

    def act(self, parameters: Array, observations: Array) -> Array:
        """Actions (P, ..., a, actions) of parameters (P, size) for observations (P, ..., a, o)."""
        return self.bound(self.output(parameters, observations))


@dataclass(frozen=True)
class Policy:
    """A policy that can be stored, checked and used.

    Attributes
    ----------
    plant : name of the plant it was trained for
    actor, parameters : what it computes
    version : counts up over one training's results
    references : what evaluation compares with: parameters of constant policies by name
    surrogate : the surrogate it was trained on (`Surrogate.to_dict`), which the myopic baseline optimises; may be empty
    training : algorithm, seed, iterations, settings
    named : what each column of the actions moves; empty: set-point and back-off, or something of a study's own
    """

    plant: str
    actor: Actor
    parameters: Array
    version: int = 1
    references: dict[str, Array] = field(default_factory=dict)
    surrogate: dict[str, Any] = field(default_factory=dict)
    training: dict[str, Any] = field(default_factory=dict)
    named: tuple[Move, ...] = ()

    def __post_init__(self) -> None:
        if self.parameters.shape != (self.actor.size,) or not np.all(np.isfinite(self.parameters)):
            raise DataError(
                f"policy of kind '{self.actor.kind}': parameters of shape {self.parameters.shape}, "
                f"finite: {bool(np.all(np.isfinite(self.parameters)))}; {self.actor.size} finite numbers are needed"
            )
        if self.named:
            check_moves(self.named, self.actor.actions)

    @property
    def moves(self) -> tuple[Move, ...]:
        """What each column of the actions moves.

        Raises
        ------
        DataError
            Nothing is named, and the actions are not set-point and back-off.
        """
        return check_moves(self.named or LEAST_MOVES, self.actor.actions)

    def act(self, observations: Array) -> Array:
        """Actions (..., a, actions) in [-1, 1] for observations (..., a, o)."""
        actions: Array = self.actor.act(self.parameters[None], observations[None])[0]
        return actions

    def save(self, path: Path) -> None:
        """Write JSON with format, version and the checksum of the content; the file is complete or not there."""
        content = {
            "plant": self.plant,
            "kind": self.actor.kind,
            "agents": self.actor.agents,
            "observations": self.actor.observations,
            "actions": self.actor.actions,
            "parameters": self.parameters.tolist(),
            "references": {name: values.tolist() for name, values in self.references.items()},
            "surrogate": self.surrogate,
            "training": self.training,
        }
        if self.named not in ((), LEAST_MOVES):  # files without it are older, or of policies that move the first two
            content["moves"] = list(self.named)
        write_document(path, self.version, content)


def check_moves(words: Sequence[str], actions: int) -> tuple[Move, ...]:
    """What the columns of a policy's actions move.

    Raises
    ------
    DataError
        Unknown or repeated words, the set-point or the back-off is missing, or their number is not that of the actions.
    """
    moves = tuple(move for move in MOVES if move in words)
    if list(moves) != list(words) or not set(LEAST_MOVES) <= set(moves):
        raise DataError(
            f"moves = {', '.join(map(str, words))}; known, in this order: {', '.join(MOVES)}; the first two needed"
        )
    if len(moves) != actions:
        raise DataError(f"{actions} actions per agent for the {len(moves)} moves {', '.join(moves)}")
    return moves


def load_policy(path: Path) -> Policy:
    """Read and check a policy file.

    Raises
    ------
    DataError
        The file is missing, too large, not of this format, incomplete, not finite, or its checksum is wrong.
    """
    content, version = read_document(path)
    try:
        if content["kind"] not in KINDS:
            raise DataError(f"policy {path}: kind '{content['kind']}'; known: {', '.join(KINDS)}")
        actor = Actor(content["kind"], *(int(content[key]) for key in ("agents", "observations", "actions")))
        references = {name: np.array(values, float) for name, values in content["references"].items()}
        if not all(np.all(np.isfinite(values)) for values in references.values()):
            raise DataError(f"policy {path}: a reference policy is not finite")
        return Policy(
            str(content["plant"]),
            actor,
            np.array(content["parameters"], float),
            version,
            references,
            dict(content["surrogate"]),
            dict(content["training"]),
            check_moves(content["moves"], actor.actions) if "moves" in content else (),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"policy {path} is not complete: {error!r}") from error


def write_document(path: Path, version: int, content: dict[str, Any]) -> None:
    """Write JSON with format, version and the checksum of the content; the file is complete or not there."""
    document = {"format": FORMAT, "version": version, "sha256": _checksum(version, content), "content": content}
    write_atomically(path, json.dumps(document, allow_nan=False))


def read_document(path: Path) -> tuple[dict[str, Any], int]:
    """Content and version of a file that `write_document` wrote.

    Raises
    ------
    DataError
        The file is missing, too large, not of this format, or its checksum is wrong.
    """
    try:
        if path.stat().st_size > MOST_BYTES:
            raise DataError(f"policy {path}: {path.stat().st_size} bytes; at most {MOST_BYTES} are allowed")
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"policy {path} cannot be read: {error}") from error
    try:
        if document["format"] != FORMAT:
            raise DataError(f"policy {path}: format {document['format']}; this program reads format {FORMAT}")
        content, version = dict(document["content"]), int(document["version"])
        if document["sha256"] != _checksum(version, content):
            raise DataError(f"policy {path}: the checksum does not fit the content; the file was changed or damaged")
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"policy {path} is not complete: {error!r}") from error
    return content, version


def read_checkpoint(path: Path, what: dict[str, Any]) -> dict[str, Any]:
    """Document of a checkpoint of the training `what`.

    Raises
    ------
    DataError
        It cannot be read, or belongs to another training.
    """
    try:
        document: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        fits = document["what"] == json.loads(json.dumps(what))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"checkpoint {path} cannot be used: {error!r}") from error
    if not fits:
        raise DataError(f"checkpoint {path} belongs to another training; leave --resume out, or use another --out")
    return document


def write_atomically(path: Path, text: str) -> None:
    """Replace a file in one step, so that a program killed here leaves the old one or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".part")
    with temporary.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def _checksum(version: int, content: dict[str, Any]) -> str:
    text = json.dumps([version, content], sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode("utf-8")).hexdigest()
