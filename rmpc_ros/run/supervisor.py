"""One process per node (or several agents in one), watched: one that dies is restarted and reported, all end cleanly.

The supervisor knows no ROS. Its children report on standard output, one JSON object per line: {"event": NAME, ...};
every other line, and standard error, goes to the child's log file. It signals only processes it started, by their id.
"""

from __future__ import annotations

import json
import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from rmpc_ros.bringup import NodeSpec
from rmpc_ros.errors import RmpcError
from rmpc_ros.usage import Usage

PATIENCE = 8.0  # seconds that a process gets to end after SIGINT
MOST_RESTARTS = 5  # of one process without `QUIET` seconds of life between
QUIET = 30.0

Event = dict[str, Any]


@dataclass
class Child:
    """One process: what runs in it, and its life so far."""

    name: str
    nodes: list[NodeSpec]
    essential: bool
    optional: bool = False  # the run goes on without it where it cannot be kept alive
    process: subprocess.Popen[bytes] | None = None
    restarts: int = 0
    started: float = 0.0
    active: bool = False
    recent: int = 0
    held: bool = False
    due: float | None = None
    buffer: bytes = b""
    log: IO[bytes] | None = field(default=None, repr=False)


def pack(specs: Sequence[NodeSpec], processes: int | None) -> list[Child]:
    """Distribute nodes over processes: one each, or all agents over `processes` of them."""
    agents = [spec for spec in specs if spec.kind == "agent"]
    count = min(processes or len(agents), len(agents))
    children = []
    for n in range(count):
        share = agents[n::count]
        children.append(Child(share[0].label if len(share) == 1 else f"agents{n + 1}", share, essential=False))
    children += [
        Child(spec.label, [spec], essential=spec.kind == "plant", optional=spec.kind == "learner")
        for spec in specs
        if spec.kind != "agent"
    ]
    return children


class Supervisor:
    """Runs the children until the plant is done or somebody stops it.

    Parameters
    ----------
    children : in the order in which they are started; they are ended in the opposite order, the recorder last
    folder : of the run; gets `log/`, `processes.json`, `events.jsonl`
    environment : added to this process's own
    restart_after : seconds that a dead process is kept away before it is restarted
    on_event : told of every event as it comes
    """

    def __init__(
        self,
        children: Sequence[Child],
        folder: Path,
        environment: Mapping[str, str],
        restart_after: float = 0.0,
        on_event: Callable[[Event], None] | None = None,
    ) -> None:
        self.children = {child.name: child for child in children}
        self.events: list[Event] = []
        self.step = 0
        self.usage = Usage()
        self._folder = folder
        self._environment = {**os.environ, **environment}
        self._restart_after = restart_after
        self._on_event = on_event
        self._selector = selectors.DefaultSelector()
        self._stopped = False
        self._finished = False
        (folder / "log").mkdir(parents=True, exist_ok=True)

    # -- life ---------------------------------------------------------------------------------------------------------
    def run(self) -> bool:
        """Start everything and wait for the end; True when the plant's run is complete."""
        before = {number: signal.signal(number, self._stop) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            for child in self.children.values():
                self._start(child)
            while not self._stopped and not self._finished:
                self._listen(0.1)
                self._look_after()
        finally:
            self._end()
            for number, handler in before.items():
                signal.signal(number, handler)
        return self._finished

    def _stop(self, number: int, frame: object) -> None:
        self._stopped = True

    @property
    def interrupted(self) -> bool:
        """Whether a signal, not the plant, ended the run."""
        return self._stopped

    # -- processes ----------------------------------------------------------------------------------------------------
    def _start(self, child: Child) -> None:
        specs = [
            {
                "kind": spec.kind,
                "name": spec.name,
                "namespace": spec.namespace,
                "parameters": {**spec.parameters, "restarts": child.restarts},
            }
            for spec in child.nodes
        ]
        file = self._folder / "log" / f"{child.name}.json"
        file.write_text(json.dumps({"name": child.name, "parent": os.getpid(), "nodes": specs}), encoding="utf-8")
        if child.log is None:
            child.log = (self._folder / "log" / f"{child.name}.log").open("ab")
        child.process = subprocess.Popen(
            [sys.executable, "-m", "rmpc_ros.nodes", str(file)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=child.log,
            env=self._environment,
            start_new_session=True,  # Ctrl-C reaches the supervisor, which ends the others in order
        )
        assert child.process.stdout is not None
        os.set_blocking(child.process.stdout.fileno(), False)
        self._selector.register(child.process.stdout, selectors.EVENT_READ, child)
        child.started, child.due = time.monotonic(), None
        self._write_processes()

    def _pids(self) -> dict[str, int]:
        return {name: child.process.pid for name, child in self.children.items() if child.process is not None}

    def _write_processes(self) -> None:
        """Who runs where, for people and for tests that kill."""
        table = {
            name: {"pid": child.process.pid if child.process else None, "nodes": [s.label for s in child.nodes]}
            for name, child in self.children.items()
        }
        fresh = self._folder / "processes.json.new"
        fresh.write_text(json.dumps(table, indent=2) + "\n", encoding="utf-8")
        fresh.replace(self._folder / "processes.json")

    def _look_after(self) -> None:
        """Notice who has died and start again who is due."""
        now = time.monotonic()
        for child in self.children.values():
            if child.process is not None and (status := child.process.poll()) is not None:
                self._listen(0.0)
                self._forget(child)
                if self._finished:
                    return
                self._died(child, status, now)
            if child.process is None and child.due is not None and now >= child.due and not child.held:
                child.restarts += 1
                self._start(child)
                self._report({"event": "restarted", "process": child.name, "restarts": child.restarts})

    def _died(self, child: Child, status: int, now: float) -> None:
        how = f"signal {signal.Signals(-status).name}" if status < 0 else f"exit status {status}"
        self._report({"event": "died", "process": child.name, "how": how})
        if child.essential:
            raise RmpcError(f"{child.name} ended with {how}; {self._last_words(child)}")
        if not child.active and status > 0:
            raise RmpcError(f"{child.name} could not start ({how}); {self._last_words(child)}")
        child.recent = child.recent + 1 if now - child.started < QUIET else 1
        if child.recent > MOST_RESTARTS and child.optional:
            self._report({"event": "given up", "process": child.name, "how": how})
            return
        if child.recent > MOST_RESTARTS:
            raise RmpcError(
                f"{child.name} died {child.recent} times in a row, last with {how}; {self._last_words(child)}"
            )
        child.due = now + self._restart_after

    def _last_words(self, child: Child) -> str:
        path = self._folder / "log" / f"{child.name}.log"
        lines = [line for line in path.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
        return f"last words: {lines[-1].strip()} (log: {path})" if lines else f"it said nothing (log: {path})"

    def _forget(self, child: Child) -> None:
        assert child.process is not None and child.process.stdout is not None
        self._selector.unregister(child.process.stdout)
        child.process.stdout.close()
        child.process = None

    # -- events -------------------------------------------------------------------------------------------------------
    def _listen(self, patience: float) -> None:
        for key, _ in self._selector.select(patience):
            child: Child = key.data
            assert child.process is not None and child.process.stdout is not None
            data = child.process.stdout.read(65536)
            if not data:
                continue
            *lines, child.buffer = (child.buffer + data).split(b"\n")
            for line in lines:
                self._line(child, line)

    def _line(self, child: Child, line: bytes) -> None:
        event = None
        if line.startswith(b'{"event"'):
            try:
                event = json.loads(line)
            except json.JSONDecodeError:  # a line that only looks like an event is kept like any other
                event = None
        if event is None:
            assert child.log is not None
            child.log.write(line + b"\n")
            child.log.flush()
            return
        self.step = int(event.get("step", self.step))
        match event["event"]:
            case "active":
                child.active = True
            case "progress":
                if self.step > 0:
                    self.usage.begin(self._pids(), self.step)
            case "finished":
                self._finished = True
                self.usage.end(self._pids(), self.step)
            case "kill":
                self._kill(event["agent"])
            case "revive":
                self._revive(event["agent"])
        self._report({**event, "process": child.name})

    def _report(self, event: Event) -> None:
        event = {"step": self.step, **event}
        if event["event"] not in ("progress", "active"):
            self.events.append(event)
            with (self._folder / "events.jsonl").open("a", encoding="utf-8") as file:
                file.write(json.dumps(event) + "\n")
        if self._on_event:
            self._on_event(event)

    def _of_agent(self, agent: str) -> Child:
        return next(c for c in self.children.values() if any(s.kind == "agent" and s.label == agent for s in c.nodes))

    def _kill(self, agent: str) -> None:
        """Injected fault: SIGKILL, and no restart until the plant says so."""
        child = self._of_agent(agent)
        child.held = True
        if child.process is not None:
            child.process.kill()

    def _revive(self, agent: str) -> None:
        child = self._of_agent(agent)
        child.held = False
        child.due = time.monotonic()

    # -- the end ------------------------------------------------------------------------------------------------------
    def _end(self) -> None:
        """SIGINT, the recorder last so that it hears the others' last words; SIGKILL for who does not listen."""
        order = sorted(self.children.values(), key=lambda c: any(s.kind == "recorder" for s in c.nodes))
        for last in (False, True):
            group = [c for c in order if c.process is not None and any(s.kind == "recorder" for s in c.nodes) is last]
            for child in group:
                assert child.process is not None
                if child.process.poll() is None:
                    child.process.send_signal(signal.SIGINT)
            deadline = time.monotonic() + PATIENCE
            for child in group:
                self._wait(child, deadline)
        for child in self.children.values():
            if child.log is not None:
                child.log.close()
        self._selector.close()

    def _wait(self, child: Child, deadline: float) -> None:
        assert child.process is not None
        while child.process.poll() is None and time.monotonic() < deadline:
            self._listen(0.02)
        if child.process.poll() is None:
            child.process.kill()
            child.process.wait()
            self._report({"event": "did not end", "process": child.name})
        self._listen(0.0)
        self._forget(child)
