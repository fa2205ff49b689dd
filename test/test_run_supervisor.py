"""Processes are packed, watched, restarted and ended; only those that were started are ever signalled."""

from __future__ import annotations

import json
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

from rmpc_ros.bringup import NodeSpec
from rmpc_ros.errors import ConfigError, RmpcError
from rmpc_ros.run import supervisor as room
from rmpc_ros.run.command import parse_speed, parse_timing
from rmpc_ros.run.supervisor import Supervisor, pack


def agent(name: str) -> NodeSpec:
    return NodeSpec("agent", "agent", f"/p/{name}", {})


PLANT, MONITOR = NodeSpec("plant", "plant", "/p", {}), NodeSpec("monitor", "monitor", "/p", {})


def test_agents_are_packed_into_as_many_processes_as_asked_for() -> None:
    specs = [*(agent(f"a{n}") for n in range(5)), MONITOR, PLANT]
    assert [c.name for c in pack(specs, None)] == ["a0", "a1", "a2", "a3", "a4", "monitor", "plant"]
    two = pack(specs, 2)
    assert [len(c.nodes) for c in two] == [3, 2, 1, 1]
    assert [c.name for c in pack(specs, 9)] == [c.name for c in pack(specs, None)]
    assert [c.essential for c in two] == [False, False, False, True]


def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, **programs: str) -> None:
    """Children run these small programs, by the name of their process, instead of nodes."""
    for name, program in programs.items():
        (tmp_path / f"{name}.py").write_text(textwrap.dedent(program))
    start = room.subprocess.Popen

    def popen(words: list[str], **options: Any) -> Any:
        name = json.loads(Path(words[-1]).read_text())["name"]
        return start([sys.executable, str(tmp_path / f"{name}.py"), words[-1]], **options)

    monkeypatch.setattr(room.subprocess, "Popen", popen)


ACTIVE = 'print(\'{"event": "active"}\', flush=True)\n'
WAIT = "import time\ntime.sleep(60)\n"


def test_a_process_that_dies_is_restarted_and_told_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dies_once = (
        ACTIVE
        + """
import json, os, sys
restarts = json.load(open(sys.argv[1]))["nodes"][0]["parameters"]["restarts"]
if not restarts:
    os.kill(os.getpid(), 9)
print(f'{{"event": "back after {restarts}"}}', flush=True)
"""
        + WAIT
    )
    plant = ACTIVE + 'import time\ntime.sleep(1.5)\nprint(\'{"event": "finished", "step": 7}\', flush=True)\n'
    fake(tmp_path, monkeypatch, a=dies_once, plant=plant)
    supervisor = Supervisor(pack([agent("a"), PLANT], None), tmp_path / "run", {})
    assert supervisor.run()
    told = [(e["event"], e["process"]) for e in supervisor.events]
    assert told == [("died", "a"), ("restarted", "a"), ("back after 1", "a"), ("finished", "plant")]
    assert supervisor.events[0]["how"] == "signal SIGKILL"
    assert supervisor.step == 7
    assert supervisor.children["a"].process is None
    assert (tmp_path / "run" / "events.jsonl").read_text().count("\n") == 4


def test_the_death_of_the_plant_ends_the_run_with_its_last_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake(tmp_path, monkeypatch, a=ACTIVE + WAIT, plant=ACTIVE + "import sys\nsys.exit('the tank is empty')\n")
    with pytest.raises(RmpcError, match=r"plant ended with exit status 1; last words: the tank is empty"):
        Supervisor(pack([agent("a"), PLANT], None), tmp_path / "run", {}).run()


def test_a_process_that_dies_again_and_again_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake(tmp_path, monkeypatch, a=ACTIVE + "import os\nos.kill(os.getpid(), 9)\n", plant=ACTIVE + WAIT)
    with pytest.raises(RmpcError, match="a died 6 times in a row, last with signal SIGKILL"):
        Supervisor(pack([agent("a"), PLANT], None), tmp_path / "run", {}).run()


def test_a_process_that_does_not_listen_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    deaf = "import signal\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\n" + ACTIVE + WAIT
    plant = ACTIVE + 'import time\ntime.sleep(0.7)\nprint(\'{"event": "finished"}\', flush=True)\n'
    fake(tmp_path, monkeypatch, a=deaf, plant=plant)
    monkeypatch.setattr(room, "PATIENCE", 0.5)
    supervisor = Supervisor(pack([agent("a"), PLANT], None), tmp_path / "run", {})
    assert supervisor.run()
    assert supervisor.events[-1]["event"] == "did not end"


def test_what_a_child_prints_is_in_its_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plant = """
    import signal
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    print('hello')
    print('{"event": broken')
    print('{"event": "finished"}')
    """
    fake(tmp_path, monkeypatch, plant=plant)
    assert Supervisor(pack([PLANT], None), tmp_path / "run", {}).run()
    assert (tmp_path / "run" / "log" / "plant.log").read_text() == 'hello\n{"event": broken\n'


@pytest.mark.parametrize("word", ["fast", "0", "-1", "nan", "1e9"])
def test_a_speed_that_is_none_is_refused(word: str) -> None:
    with pytest.raises(ConfigError, match="give max, or"):
        parse_speed(word)


def test_words_for_speed_and_timing() -> None:
    assert parse_speed("max") == "max"
    assert parse_speed("12.5") == 12.5
    assert parse_timing("free") == "free"
    with pytest.raises(ConfigError, match="give lockstep or free"):
        parse_timing("never")
