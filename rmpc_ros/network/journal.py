"""What an agent has promised, on disk before anybody hears of it.

A commitment binds the agent that published it, also when the agent has died since. So the order is: write, flush to the
disk, publish. A restarted agent reads its newest commitment back and takes it as binding (math of commitments: a
neighbour may rely on it for ever).

The file has two slots of equal size. A record goes into the slot that does not hold the newest one, so that a crash in
the middle of a write leaves the newest complete record untouched; a checksum tells complete from cut. The file does not
grow with the run. When a record outgrows its slot, a larger file takes the old one's place in one step (rename).

Layout, little-endian: magic (8 bytes), slot capacity (u64), then twice: number (u64), length (u64), CRC-32 of number,
length and payload (u32), payload.
"""

from __future__ import annotations

import json
import os
import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from rmpc_ros.errors import DataError

MAGIC = b"RMPCJRN1"
_HEAD = struct.Struct("<8sQ")
_SLOT = struct.Struct("<QQI")

T = TypeVar("T")


@dataclass(frozen=True)
class Record:
    """One journalled payload: its number (counts up by one per write) and its bytes."""

    number: int
    payload: bytes


class Journal:
    """The newest records of one writer, crash-safe.

    Parameters
    ----------
    path : the file; made (with its folder) at the first write.
    durable : whether a write waits for the disk, and so survives the machine's power; else it survives the process.

    Examples
    --------
    >>> import tempfile, pathlib
    >>> journal = Journal(pathlib.Path(tempfile.mkdtemp()) / "agent.journal")
    >>> journal.read() is None
    True
    >>> journal.write(b"first"); journal.write(b"second")
    >>> journal.read()
    Record(number=2, payload=b'second')
    """

    def __init__(self, path: Path, durable: bool = True) -> None:
        self.path, self._durable = path, durable
        self._file: int | None = None
        self._capacity = 0
        newest = self.read()
        self._number = newest.number if newest else 0

    def read(self) -> Record | None:
        """Newest complete record; None when there is no file or no complete record in it."""
        try:
            data = self.path.read_bytes()
        except FileNotFoundError:
            return None
        found = [record for _, record in _slots(data) if record is not None]
        return max(found, key=lambda record: record.number, default=None)

    def write(self, payload: bytes) -> None:
        """Write one record; returns when the disk has it (where durable) or the operating system (where not).

        Raises
        ------
        OSError
            The disk refused (full, read-only): the caller must not publish what it wanted to record.
        """
        if self._file is None or len(payload) > self._capacity:
            self._make(max(4096, 2 * len(payload)))
        assert self._file is not None
        number = self._number + 1
        offset = _HEAD.size + (number % 2) * (_SLOT.size + self._capacity)
        _write_all(self._file, _pack(number, payload), offset)
        if self._durable:
            os.fdatasync(self._file)
        self._number = number

    def _make(self, capacity: int) -> None:
        """Put a file with larger slots in place; it starts with the newest record of the old one."""
        newest = self.read()
        capacity = max(capacity, len(newest.payload) if newest else 0)
        self.close()
        self.path.parent.mkdir(parents=True, exist_ok=True)
        fresh = self.path.with_name(self.path.name + ".new")
        handle = os.open(fresh, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600)
        os.ftruncate(handle, _HEAD.size + 2 * (_SLOT.size + capacity))
        _write_all(handle, _HEAD.pack(MAGIC, capacity), 0)
        if newest is not None:
            offset = _HEAD.size + (newest.number % 2) * (_SLOT.size + capacity)
            _write_all(handle, _pack(newest.number, newest.payload), offset)
        os.fsync(handle)
        os.replace(fresh, self.path)
        folder = os.open(self.path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
        self._file, self._capacity = handle, capacity

    def close(self) -> None:
        """Close the file; the journal may be written again later."""
        if self._file is not None:
            os.close(self._file)
            self._file = None


def _write_all(handle: int, data: bytes, offset: int) -> None:
    done = 0
    while done < len(data):
        done += os.pwrite(handle, data[done:], offset + done)


def _checksum(number: int, payload: bytes) -> int:
    return zlib.crc32(payload, zlib.crc32(struct.pack("<QQ", number, len(payload))))


def _pack(number: int, payload: bytes) -> bytes:
    return _SLOT.pack(number, len(payload), _checksum(number, payload)) + payload


def _slots(data: bytes) -> list[tuple[int, Record | None]]:
    """Both slots of a file's bytes: (offset, record), the record None where it is not complete."""
    if len(data) < _HEAD.size:
        return []
    magic, capacity = _HEAD.unpack_from(data)
    if magic != MAGIC:
        return []
    found: list[tuple[int, Record | None]] = []
    for slot in range(2):
        offset = _HEAD.size + slot * (_SLOT.size + capacity)
        if len(data) < offset + _SLOT.size:
            break
        number, length, checksum = _SLOT.unpack_from(data, offset)
        payload = data[offset + _SLOT.size : offset + _SLOT.size + length]
        complete = number > 0 and length <= capacity and len(payload) == length
        good = complete and _checksum(number, payload) == checksum
        found.append((offset, Record(number, payload) if good else None))
    return found


def encode(things: Mapping[str, Any], **facts: str | int | float) -> bytes:
    """Frozen dataclasses of arrays, numbers and words as bytes, exact to the last bit.

    Parameters
    ----------
    things : dataclass instances by name; fields are float arrays (any shape), numbers, words, None or tuples of words.
    facts : plain values kept beside them (the run's identifier, the step).
    """
    arrays: list[bytes] = []
    described: dict[str, dict[str, Any]] = {}
    for name, thing in things.items():
        described[name] = {}
        for field in fields(thing):
            value = getattr(thing, field.name)
            if isinstance(value, np.ndarray):
                arrays.append(np.ascontiguousarray(value, dtype="<f8").tobytes())
                described[name][field.name] = {"shape": list(value.shape)}
            else:
                described[name][field.name] = {"value": value}
    head = json.dumps({"facts": facts, "things": described}).encode()
    return struct.pack("<I", len(head)) + head + b"".join(arrays)


def facts_of(payload: bytes) -> dict[str, Any]:
    """Plain values that :func:`encode` kept beside the dataclasses."""
    facts = _head(payload)[0]["facts"]
    assert isinstance(facts, dict)
    return facts


def decode(payload: bytes, kinds: Mapping[str, type[T]]) -> dict[str, T]:
    """Dataclasses from :func:`encode`'s bytes.

    Parameters
    ----------
    kinds : the class of each name that is wanted.

    Raises
    ------
    DataError
        A name is not in the payload, or its fields are not those of its class (written by another version).
    """
    head, offset = _head(payload)
    out: dict[str, T] = {}
    for name, described in head["things"].items():
        values: dict[str, Any] = {}
        for field, what in described.items():
            if "shape" in what:
                count = int(np.prod(what["shape"], dtype=int))
                array = np.frombuffer(payload, dtype="<f8", count=count, offset=offset)
                values[field] = array.reshape(what["shape"]).copy()
                offset += 8 * count
            else:
                value = what["value"]
                values[field] = tuple(value) if isinstance(value, list) else value
        if name in kinds:
            kind = kinds[name]
            assert is_dataclass(kind)
            expected = {field.name for field in fields(kind)}
            if expected != set(values):
                raise DataError(f"journal: {name} has the fields {sorted(values)}; expected {sorted(expected)}")
            out[name] = kind(**values)
    missing = set(kinds) - set(out)
    if missing:
        raise DataError(f"journal: no {sorted(missing)} in the record; it holds {sorted(head['things'])}")
    return out


def _head(payload: bytes) -> tuple[dict[str, Any], int]:
    (length,) = struct.unpack_from("<I", payload)
    head = json.loads(payload[4 : 4 + length])
    assert isinstance(head, dict)
    return head, 4 + length
