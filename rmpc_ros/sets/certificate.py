"""What is guaranteed about a fitted set, by which test, on which data, under which assumption.

with probability >= confidence over the data:   support(a) <= b   implies   P(a'u <= b) >= 1 - epsilon
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from rmpc_ros.errors import MessageError, SetError
from rmpc_ros.sets.base import UncertaintySet


@dataclass(frozen=True)
class Certificate:
    """The evidence behind a fitted set.

    Attributes
    ----------
    family : name of the set family
    epsilon : accepted probability of violation; None for a set that promises none (explicit thresholds only)
    confidence : probability, over the data, that the promise holds; None where there is none
    samples : number of samples used
    test : name of the test or bound that gives the thresholds
    thresholds : their values, by name (numbers or lists of numbers)
    window : first and last row of the data that were used, counted from 1
    statement : one plain sentence: what is guaranteed, under which assumption
    columns : names of the components of u
    version : grows by one with every change of an online set
    notes : what a reader should know besides, one sentence each
    """

    family: str
    epsilon: float | None
    confidence: float | None
    samples: int
    test: str
    thresholds: Mapping[str, Any] = field(default_factory=dict)
    window: tuple[int, int] = (1, 1)
    statement: str = ""
    columns: tuple[str, ...] = ()
    version: int = 1
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """JSON form."""
        out = asdict(self)
        out["thresholds"] = dict(self.thresholds)
        out["window"], out["columns"], out["notes"] = list(self.window), list(self.columns), list(self.notes)
        return out

    @staticmethod
    def from_dict(data: Mapping[str, Any]) -> Certificate:
        """Inverse of `to_dict`.

        Raises
        ------
        SetError
            A field is missing or unknown.
        """
        values = dict(data)
        try:
            for name in ("window", "columns", "notes"):
                values[name] = tuple(values[name])
            return Certificate(**values)
        except (TypeError, KeyError) as error:
            raise SetError(f"a certificate cannot be read from the fields {sorted(values)}: {error}") from error


@dataclass(frozen=True)
class FittedSet:
    """A set together with its certificate; the two never travel apart."""

    set: UncertaintySet
    certificate: Certificate

    def with_notes(self, *notes: str) -> FittedSet:
        """The same with further notes in the certificate."""
        return replace(self, certificate=replace(self.certificate, notes=(*self.certificate.notes, *notes)))

    def to_dict(self) -> dict[str, Any]:
        """JSON form: {"set": ..., "certificate": ...}."""
        return {"set": self.set.to_dict(), "certificate": self.certificate.to_dict()}

    @staticmethod
    def from_dict(data: Mapping[str, Any]) -> FittedSet:
        """Inverse of `to_dict`, exact to the last bit."""
        return FittedSet(UncertaintySet.from_dict(data["set"]), Certificate.from_dict(data["certificate"]))

    def to_message(self, plant: str = "", agents: tuple[str, ...] = ()) -> dict[str, Any]:
        """Fields of an UncertaintyUpdate message (without its header)."""
        content = json.dumps(self.set.to_dict(), allow_nan=False)
        return {
            "plant": plant,
            "agents": list(agents),
            "version": self.certificate.version,
            "family": self.certificate.family,
            "content_json": content,
            "certificate_json": json.dumps(self.certificate.to_dict(), allow_nan=False),
            "sha256": hashlib.sha256(content.encode()).hexdigest(),
        }

    @staticmethod
    def from_message(message: Mapping[str, Any]) -> FittedSet:
        """Inverse of `to_message`.

        Raises
        ------
        MessageError
            The checksum, the version or the JSON is wrong.
        """
        content = str(message["content_json"])
        digest = hashlib.sha256(content.encode()).hexdigest()
        if digest != message["sha256"]:
            raise MessageError(f"sha256 of content_json is {digest}, the message says {message['sha256']}: refused")
        try:
            fitted = FittedSet(
                UncertaintySet.from_dict(json.loads(content)),
                Certificate.from_dict(json.loads(message["certificate_json"])),
            )
        except (json.JSONDecodeError, SetError) as error:
            raise MessageError(f"an uncertainty update cannot be read: {error}") from error
        if fitted.certificate.version != message["version"]:
            raise MessageError(
                f"version {message['version']} of the message differs from its certificate's "
                f"{fitted.certificate.version}: refused"
            )
        return fitted
