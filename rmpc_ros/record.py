"""Bags: rosbag2 folders (MCAP, message definitions inside) written from serialized messages, and read back.

Needs no ROS: the bytes are written as they came from the wire, the definitions come from the installed packages' `.msg`
files. Any rosbag2 or MCAP reader decodes the result, our own messages included.

What was handed to :meth:`BagWriter.write` is not lost when the process dies: chunks are closed and flushed at every
:meth:`BagWriter.flush`, and :func:`repair` turns the cut file of a killed recorder into a complete bag.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mcap.exceptions import McapError
from mcap.records import Channel, Message, Schema
from mcap.stream_reader import StreamReader
from rosbags.highlevel import AnyReader
from rosbags.interfaces import Connection, Qos, QosDurability, QosHistory, QosLiveliness, QosReliability, QosTime
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.rosbag2.storage_mcap import McapWriter
from rosbags.typesys import Stores, get_types_from_msg, get_typestore
from rosbags.typesys.store import Typestore

from rmpc_ros.errors import DataError

SUMMARY = "rmpc_ros"  # key of our own entry in the bag's custom data


def share_folders() -> list[Path]:
    """`share` folders of the ROS environment, nearest first (a virtual environment is one itself)."""
    prefixes = [p for p in os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep) if p]
    return [Path(p) / "share" for p in [*prefixes, sys.prefix]]


def full_name(msgtype: str) -> str:
    """`std_msgs/Float64` or `std_msgs/msg/Float64` as `std_msgs/msg/Float64`."""
    package, _, name = msgtype.partition("/")
    return f"{package}/msg/{name.removeprefix('msg/')}"


def typestore_for(msgtypes: Iterable[str]) -> Typestore:
    """Standard messages and the given ones, with what they are made of, from the installed definitions.

    Raises
    ------
    DataError
        A type's definition is not installed; the message gives the folders searched.
    """
    store = get_typestore(Stores.ROS2_KILTED)
    waiting = [full_name(m) for m in msgtypes]
    found: dict[str, Any] = {}
    while waiting:
        name = waiting.pop()
        if name in store.fielddefs or name in found:
            continue
        package, _, short = name.split("/")
        files = [folder / package / "msg" / f"{short}.msg" for folder in share_folders()]
        file = next((f for f in files if f.is_file()), None)
        if file is None:
            raise DataError(f"message type {name}: no definition; looked for {', '.join(str(f) for f in files)}")
        types = get_types_from_msg(file.read_text(encoding="utf-8"), name)
        found.update(types)
        for _, fields in types.values():
            waiting += [inner for _, field in fields for inner in _named_types(field)]
    store.register(found)
    return store


def _named_types(field: Any) -> list[str]:
    """Message types inside a rosbags field description: (Nodetype, (name, ...)) nested for arrays."""
    kind, description = field
    if kind.name == "NAME":
        return [str(description)]
    if kind.name in ("ARRAY", "SEQUENCE"):
        return _named_types(description[0])
    return []


def offered(reliable: bool, keep: int, transient: bool) -> Qos:
    """QoS as the bag remembers it, so that a player offers the same."""
    never = QosTime(2147483647, 4294967295)
    return Qos(
        QosHistory.KEEP_LAST,
        keep,
        QosReliability.RELIABLE if reliable else QosReliability.BEST_EFFORT,
        QosDurability.TRANSIENT_LOCAL if transient else QosDurability.VOLATILE,
        never,
        never,
        QosLiveliness.AUTOMATIC,
        never,
        False,
    )


class BagWriter:
    """One rosbag2 folder being written.

    Parameters
    ----------
    folder : made here; must not exist.
    summary : what a reader needs to know about the plant (names, units, limits); kept in the bag's metadata.
    topics : (topic, message type, QoS) of everything that will be written.
    """

    def __init__(self, folder: Path, summary: Mapping[str, Any], topics: Iterable[tuple[str, str, Qos]]) -> None:
        topics = list(topics)
        store = typestore_for(msgtype for _, msgtype, _ in topics)
        self._writer = Writer(folder, version=9, storage_plugin=StoragePlugin.MCAP)
        self._writer.set_custom_data(SUMMARY, json.dumps(summary))
        self._writer.open()
        self._topics: dict[str, Connection] = {
            topic: self._writer.add_connection(topic, full_name(msgtype), typestore=store, offered_qos_profiles=[qos])
            for topic, msgtype, qos in topics
        }
        self.count = 0

    def write(self, topic: str, stamp: int, data: bytes) -> None:
        """Append one serialized message received at `stamp` [ns]."""
        self._writer.write(self._topics[topic], stamp, data)
        self.count += 1

    def flush(self) -> None:
        """Everything written so far survives the death of this process."""
        storage = self._writer.storage
        assert isinstance(storage, McapWriter)
        if storage.chunk.msgs:
            storage.close_chunk()
        storage.bio.flush()
        os.fdatasync(storage.bio.fileno())

    def close(self) -> None:
        """Write index and metadata; the bag is complete."""
        self._writer.close()


@dataclass(frozen=True)
class Entry:
    """One recorded message: topic, reception time [ns], decoded message."""

    topic: str
    stamp: int
    message: Any


def read_bag(folder: Path) -> Iterator[Entry]:
    """Recorded messages in order of reception, decoded with the definitions in the bag.

    Raises
    ------
    DataError
        The folder is not a complete bag.
    """
    if not (folder / "metadata.yaml").is_file():
        raise DataError(f"{folder}: no rosbag2 folder (no metadata.yaml in it)")
    with AnyReader([folder], default_typestore=get_typestore(Stores.ROS2_KILTED)) as reader:
        for connection, stamp, data in reader.messages():
            yield Entry(connection.topic, stamp, reader.deserialize(data, connection.msgtype))


def read_summary(folder: Path) -> dict[str, Any]:
    """What :class:`BagWriter` was told about the plant.

    Raises
    ------
    DataError
        The folder is not a bag, or not one of ours.
    """
    from ruamel.yaml import YAML

    path = folder / "metadata.yaml"
    if not path.is_file():
        raise DataError(f"{folder}: no rosbag2 folder (no metadata.yaml in it)")
    metadata = YAML(typ="safe").load(path.read_text(encoding="utf-8"))
    custom = metadata["rosbag2_bagfile_information"].get("custom_data") or {}
    if SUMMARY not in custom:
        raise DataError(f"{folder}: recorded by another program (no '{SUMMARY}' in its custom_data)")
    summary = json.loads(custom[SUMMARY])
    assert isinstance(summary, dict)
    return summary


def set_aside(folder: Path) -> Path | None:
    """Move an existing bag away before a restarted recorder writes its own; returns where it is now."""
    if not folder.exists():
        return None
    n = 1
    while (part := folder.with_name(f"{folder.name}.part{n}")).exists():
        n += 1
    return folder.rename(part)


def repair(folder: Path, summary: Mapping[str, Any]) -> bool:
    """Make one complete bag of what a killed recorder left and what its successors wrote.

    Returns
    -------
    bool
        Whether there was anything to repair.
    """
    if not folder.exists() and not list(folder.parent.glob(f"{folder.name}.part*")):
        raise DataError(f"{folder}: nothing was recorded")
    complete = (folder / "metadata.yaml").is_file()
    parts = sorted(folder.parent.glob(f"{folder.name}.part*"), key=lambda p: int(p.name.rpartition("part")[2]))
    if complete and not parts:
        return False
    sources = [*parts, folder] if folder.exists() else parts
    messages = [found for source in sources for file in sorted(source.glob("*.mcap")) for found in _salvage(file)]
    joined = folder.with_name(folder.name + ".joined")
    topics = {channel.topic: (channel.topic, schema.name, _qos_of(channel)) for schema, channel, _ in messages}
    writer = BagWriter(joined, summary, topics.values())
    for _, channel, message in sorted(messages, key=lambda found: found[2].log_time):
        writer.write(channel.topic, message.log_time, message.data)
    writer.close()
    for source in sources:
        shutil.rmtree(source)
    joined.rename(folder)
    (folder / f"{joined.name}.mcap").rename(folder / f"{folder.name}.mcap")
    meta = folder / "metadata.yaml"
    text = meta.read_text(encoding="utf-8")
    meta.write_text(text.replace(f"{joined.name}.mcap", f"{folder.name}.mcap"), encoding="utf-8")
    return True


def _qos_of(channel: Channel) -> Qos:
    text = channel.metadata.get("offered_qos_profiles", "")
    return offered("reliability: reliable" in text, 1, "durability: transient_local" in text)


def _salvage(file: Path) -> list[tuple[Schema, Channel, Message]]:
    """Messages of an MCAP file up to where it was cut."""
    schemas: dict[int, Schema] = {}
    channels: dict[int, Channel] = {}
    found: list[tuple[Schema, Channel, Message]] = []
    with file.open("rb") as stream:
        reader = StreamReader(stream, record_size_limit=None).records
        while True:
            try:
                record = next(reader, None)
            except (McapError, EOFError):  # the cut: everything before it has been read
                return found
            if record is None:
                return found
            if isinstance(record, Schema):
                schemas[record.id] = record
            elif isinstance(record, Channel):
                channels[record.id] = record
            elif isinstance(record, Message):
                channel = channels[record.channel_id]
                found.append((schemas[channel.schema_id], channel, record))
