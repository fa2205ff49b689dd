"""A bag is complete, public readers decode it, and a killed recorder loses nothing it had flushed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from rmpc_ros.errors import DataError
from rmpc_ros.record import BagWriter, offered, read_bag, read_summary, repair, set_aside, typestore_for

FLOAT = "std_msgs/msg/Float64"
QOS = offered(True, 5, True)
TOPICS = [("/p/a/heat", "std_msgs/Float64", QOS), ("/p/a/temperature", "sensor_msgs/msg/Temperature", QOS)]


def heat(value: float) -> bytes:
    store = typestore_for([FLOAT])
    return bytes(store.serialize_cdr(store.types[FLOAT](data=value), FLOAT))


def test_what_was_written_is_read_back(tmp_path: Path) -> None:
    bag = BagWriter(tmp_path / "bag", {"plant": "p"}, TOPICS)
    for n in range(5):
        bag.write("/p/a/heat", n, heat(0.5 * n))
    bag.close()
    found = list(read_bag(tmp_path / "bag"))
    assert [(e.topic, e.stamp, e.message.data) for e in found] == [("/p/a/heat", n, 0.5 * n) for n in range(5)]
    assert read_summary(tmp_path / "bag") == {"plant": "p"}


def test_a_public_mcap_reader_finds_definitions_and_messages(tmp_path: Path) -> None:
    from mcap.reader import make_reader

    bag = BagWriter(tmp_path / "bag", {}, TOPICS)
    bag.write("/p/a/heat", 7, heat(3.0))
    bag.close()
    with (tmp_path / "bag" / "bag.mcap").open("rb") as stream:
        ((schema, channel, message),) = list(make_reader(stream).iter_messages())
    assert (schema.name, schema.encoding, channel.topic, message.log_time) == (FLOAT, "ros2msg", "/p/a/heat", 7)
    assert b"float64 data" in schema.data


def test_a_folder_that_is_no_bag_is_named_in_the_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="metadata"):
        list(read_bag(tmp_path))
    with pytest.raises(DataError, match="metadata"):
        read_summary(tmp_path)
    with pytest.raises(DataError, match="no_such_package"):
        typestore_for(["no_such_package/msg/Thing"])


RECORDER = """
import sys
from pathlib import Path
sys.path.insert(0, {test!r})
from test_record import TOPICS, heat
from rmpc_ros.record import BagWriter
bag = BagWriter(Path({bag!r}), {{"plant": "p"}}, TOPICS)
data = heat(1.0)
for n in range(100000):
    bag.write("/p/a/heat", n, data)
    if n % 50 == 49:
        bag.flush()
        print(n, flush=True)
"""


def test_a_killed_recorder_loses_nothing_it_had_flushed(tmp_path: Path) -> None:
    folder = tmp_path / "bag"
    code = RECORDER.format(test=str(Path(__file__).parent), bag=str(folder))
    recorder = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert recorder.stdout is not None
    for _ in range(5):
        recorder.stdout.readline()
    os.kill(recorder.pid, signal.SIGKILL)
    flushed = 249 + 50 * len(recorder.communicate(timeout=10)[0].split())
    with pytest.raises(DataError):
        read_summary(folder)

    assert set_aside(folder) == tmp_path / "bag.part1"
    successor = BagWriter(folder, {"plant": "p"}, TOPICS)
    successor.write("/p/a/heat", 10**9, heat(2.0))
    successor.close()
    assert repair(folder, {"plant": "p"})
    stamps = [entry.stamp for entry in read_bag(folder)]
    assert stamps[: flushed + 1] == list(range(flushed + 1))
    assert stamps[-1] == 10**9
    assert read_summary(folder) == {"plant": "p"}
    assert not list(tmp_path.glob("*part*"))
    assert repair(folder, {"plant": "p"}) is False


def test_our_own_messages_carry_the_hash_that_ros_gives_them() -> None:
    import json

    from rmpc_ros.record import share_folders

    for name in ("ForecastSet", "Command", "AgentReport", "Measurement"):
        files = [f / "rmpc_ros" / "msg" / f"{name}.json" for f in share_folders()]
        described = next((f for f in files if f.is_file()), None)
        if described is None:
            pytest.skip("rmpc_ros.msg is not installed here")
        hashes = {h["type_name"]: h["hash_string"] for h in json.loads(described.read_text())["type_hashes"]}
        full = f"rmpc_ros/msg/{name}"
        assert typestore_for([full]).hash_rihs01(full) == hashes[full]
