"""Messages of the learning side to objects and back: transitions, and versioned updates with certificate and checksum.

`*_message` makes a message, `*_from` checks one and raises `MessageError` naming the field before any content is used.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

import numpy as np
from builtin_interfaces.msg import Time
from numpy.typing import NDArray

import rmpc_ros.msg as msg
from rmpc_ros.learning.transition import Transition, Versions
from rmpc_ros.learning.update import Subject, Update
from rmpc_ros.nodes.checks import ANY_TIME, Check, Peers, Window, packed
from rmpc_ros.nodes.convert import header

Vector = NDArray[np.float64]
UPDATE_MESSAGES: dict[Subject, Any] = {
    "uncertainty": msg.UncertaintyUpdate,
    "model": msg.ModelUpdate,
    "policy": msg.PolicyUpdate,
}
LARGEST = 65_536  # characters of a content or certificate; a larger one is a damaged message
DIGITS = 18  # of a whole number
MOST = 2**63 - 1  # of a step or version: what the learner's database can hold
_KIND_FIELD = {"uncertainty": "family", "model": "kind", "policy": "kind"}


# -- transitions ------------------------------------------------------------------------------------------------------
def transition_message(transition: Transition, peers: Peers, stamp: Time, previous: int = -1) -> msg.Transition:
    """Message of a transition; `previous` is the step of the sender's transition before it, -1 where none will come."""
    layout = peers.agents[transition.agent]
    out = msg.Transition(header=header(stamp), run=peers.run, agent=transition.agent, step=transition.step)
    out.state_names = list(layout.states)
    out.state = packed(transition.state)
    out.next_state = packed(transition.next_state)
    out.input_names = list(layout.inputs)
    out.input = packed(transition.input)
    out.neighbours = list(transition.neighbours)
    states = list(transition.neighbours.values())
    out.neighbour_sizes = [len(values) for values in states]
    out.neighbour_states = packed(np.concatenate([np.zeros(0), *states]))
    out.disturbance_estimate = packed(transition.disturbance)
    out.reward_names = list(transition.rewards)
    out.rewards = packed(list(transition.rewards.values()))
    out.previous = previous
    versions = transition.versions
    out.set_version, out.model_version, out.policy_version = versions.uncertainty, versions.model, versions.policy
    return out


def transition_from(message: msg.Transition, peers: Peers, window: Window = ANY_TIME) -> Transition:
    """Checked transition of a message.

    Raises
    ------
    MessageError
        The message does not fit `peers` and `window`, or a number is not finite.
    """
    check = Check(message)
    layout = check.origin(peers)
    step = check.time(window)
    nx, nu = len(check.names("state_names", layout.states)), len(check.names("input_names", layout.inputs))
    names = tuple(message.neighbours)
    for name in names:
        if name not in peers.agents:
            raise check.refuse("unknown agent", "neighbours", f"'{name}'; known: {', '.join(peers.agents)}")
    if len(set(names)) < len(names):
        raise check.refuse("wrong names", "neighbours", f"{', '.join(names)}; each once")
    expected = [len(peers.agents[name].states) for name in names]
    sizes = message.neighbour_sizes.tolist()
    if sizes != expected:
        raise check.refuse("wrong length", "neighbour_sizes", f"{sizes}; expected {expected}")
    terms = tuple(message.reward_names)
    if len(set(terms)) < len(terms):
        raise check.refuse("wrong names", "reward_names", f"{', '.join(terms)}; each once")
    previous = int(message.previous)
    for field in ("step", "set_version", "model_version", "policy_version"):
        if getattr(message, field) > MOST:
            raise check.refuse("wrong value", field, f"{getattr(message, field)}; at most {MOST}")
    if not -1 <= previous < step:
        raise check.refuse("wrong value", "previous", f"{previous}; allowed: -1 to {step - 1}")
    # All numbers at once: a learner takes thousands of these a second.
    fields = {
        "state": nx,
        "next_state": nx,
        "input": nu,
        "disturbance_estimate": nx,
        "neighbour_states": sum(sizes),
        "rewards": len(terms),
    }
    raw = [getattr(message, field) for field in fields]
    together = np.frombuffer(b"".join(raw))
    if [len(values) for values in raw] != list(fields.values()) or not np.isfinite(together).all():
        for field, size in fields.items():  # which one it is
            check.floats(field, (size,))
    at = 3 * nx + nu
    others = {}
    for name, size in zip(names, sizes, strict=True):
        others[name] = together[at : at + size]
        at += size
    return Transition(
        agent=str(message.agent),
        step=step,
        state=together[:nx],
        next_state=together[nx : 2 * nx],
        input=together[2 * nx : 2 * nx + nu],
        neighbours=others,
        disturbance=together[2 * nx + nu : 3 * nx + nu],
        rewards=dict(zip(terms, together[at:].tolist(), strict=True)),
        versions=Versions(int(message.set_version), int(message.model_version), int(message.policy_version)),
    )


def acknowledgement_message(steps: Mapping[str, int], stamp: Time, run: str) -> msg.TransitionAck:
    """Message of the newest contiguous step per agent."""
    return msg.TransitionAck(header=header(stamp), run=run, agents=list(steps), steps=list(steps.values()))


def acknowledgement_from(message: msg.TransitionAck, peers: Peers) -> dict[str, int]:
    """Checked newest step per agent.

    Raises
    ------
    MessageError
        Another run, an unknown agent, or lists of different length.
    """
    check = Check(message)
    if message.run != peers.run:
        raise check.refuse("other run", "run", f"'{message.run}'; this is run '{peers.run}'")
    for name in message.agents:
        if name not in peers.agents:
            raise check.refuse("unknown agent", "agents", f"'{name}'; known: {', '.join(peers.agents)}")
    if len(message.steps) != len(message.agents):
        raise check.refuse("wrong length", "steps", f"{len(message.steps)} steps of {len(message.agents)} agents")
    return dict(zip(message.agents, (int(step) for step in message.steps), strict=True))


# -- versioned updates ------------------------------------------------------------------------------------------------
def update_message(update: Update, stamp: Time, run: str) -> Any:
    """UncertaintyUpdate, ModelUpdate or PolicyUpdate of an update.

    Raises
    ------
    ValueError
        The content or the certificate holds a number that is not finite.
    """
    out = UPDATE_MESSAGES[update.subject](header=header(stamp), run=run, plant=update.plant, agents=list(update.agents))
    out.version = update.version
    setattr(out, _KIND_FIELD[update.subject], update.kind)
    out.content_json = json.dumps(update.content, allow_nan=False)
    out.certificate_json = json.dumps(update.certificate, allow_nan=False)
    out.sha256 = checksum(out.content_json)
    return out


def subject_of(message: Any) -> Subject:
    """What an update is about.

    Raises
    ------
    TypeError
        The message is not an update.
    """
    for subject, kind in UPDATE_MESSAGES.items():
        if isinstance(message, kind):
            return subject
    raise TypeError(f"{type(message).__name__} is not an update")


def update_from(message: Any, plant: str, peers: Peers, kinds: Sequence[str], in_force: int = 0) -> Update:
    """Checked update of a message; what its content means is `rmpc_ros.learning.adoption`'s question.

    Parameters
    ----------
    plant : name of this plant
    kinds : families or kinds the receiver can use
    in_force : version that the update must exceed

    Raises
    ------
    MessageError
        Other run or plant, unknown agent or kind, stale version, damaged content.
    """
    check = Check(message)
    subject = subject_of(message)
    if message.run != peers.run:
        raise check.refuse("other run", "run", f"'{message.run}'; this is run '{peers.run}'")
    if message.plant != plant:
        raise check.refuse("wrong value", "plant", f"'{message.plant}'; this is plant '{plant}'")
    for name in message.agents:
        if name not in peers.agents:
            raise check.refuse("unknown agent", "agents", f"'{name}'; known: {', '.join(peers.agents)}")
    if message.version <= in_force:
        raise check.refuse("stale", "version", f"{message.version}; version {in_force} is in force")
    field = _KIND_FIELD[subject]
    kind = str(getattr(message, field))
    if kind not in kinds:
        raise check.refuse("wrong value", field, f"'{kind}'; allowed: {', '.join(kinds)}")
    for part in ("content_json", "certificate_json"):
        if len(getattr(message, part)) > LARGEST:
            raise check.refuse("too large", part, f"{len(getattr(message, part))} characters; at most {LARGEST}")
    if message.sha256 != checksum(message.content_json):
        raise check.refuse("damaged", "sha256", "does not belong to content_json")
    return Update(
        subject=subject,
        plant=plant,
        agents=tuple(message.agents),
        version=int(message.version),
        kind=kind,
        content=_object(check, "content_json", message.content_json),
        certificate=_object(check, "certificate_json", message.certificate_json),
    )


def checksum(text: str) -> str:
    """SHA-256 of a text's UTF-8 bytes, hexadecimal."""
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


def _object(check: Check, field: str, text: str) -> dict[str, Any]:
    def not_finite(word: str) -> NoReturn:
        raise check.refuse("not finite", field, f"{word} is in it")

    def number(word: str) -> float:
        value = float(word)
        return value if math.isfinite(value) else not_finite(word)

    def whole(word: str) -> int:
        return int(word) if len(word) <= DIGITS else not_finite(f"{word[:DIGITS]}...")

    try:
        found = json.loads(text, parse_constant=not_finite, parse_float=number, parse_int=whole)
    except (json.JSONDecodeError, RecursionError) as error:
        raise check.refuse("damaged", field, f"not valid JSON: {error}") from error
    if not isinstance(found, dict):
        raise check.refuse("damaged", field, f"a JSON {type(found).__name__}; expected an object")
    return found
