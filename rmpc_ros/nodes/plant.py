"""The simulated plant as a node: sensors and measurements out, commands in, one period per step.

Lockstep: step k is published, and k+1 follows as soon as every agent that is alive has commanded k. Who has not within
`deadline` counts as silent, is not waited for until it is heard again, and its actuators run its last plan.
Free-running: a step per period of wall time (divided by `speed`); the command of the step drives, and the last plan
where none came in time. Who never sends commands drives by the wired actuator topics.

It also makes the time (/clock), injects the faults it is asked for, and ends the run.
"""

from __future__ import annotations

import sys
import time
from functools import partial
from typing import Any, ClassVar

import numpy as np
from builtin_interfaces.msg import Time
from rosgraph_msgs.msg import Clock

from rmpc_ros.bringup import parse_kill
from rmpc_ros.config import load_plant
from rmpc_ros.errors import ConfigError, MessageError
from rmpc_ros.msg import Command, Measurement
from rmpc_ros.nodes import convert, qos
from rmpc_ros.nodes.actuator import ActuatorSide
from rmpc_ros.nodes.checks import Layout, Peers, Window, packed
from rmpc_ros.nodes.designed import designed
from rmpc_ros.nodes.diagnostics import ERROR, OK, WARN
from rmpc_ros.nodes.joining import Connection
from rmpc_ros.nodes.managed import ManagedNode
from rmpc_ros.nodes.parameters import Param
from rmpc_ros.nodes.process import main as run_node
from rmpc_ros.nodes.resource import Headers
from rmpc_ros.nodes.wiring import Readings, Wire
from rmpc_ros.plants import make_plant

CLOCK_TICKS = 4  # free-running: parts of a period
CLOCK_AT = (0, 1)  # the ends of parts that /clock tells (a step's begin, the agents' phase): every node pays for each
AGAIN = 0.3  # seconds after which a measurement is published again to who has not answered
START = 60.0  # the most to wait for everybody at the start and for an agent that was revived [s]
STRIKE = 0.5  # seconds that the supervisor gets to kill an agent before the step begins
PROGRESS = 0.25  # seconds between words to the supervisor


class PlantNode(ManagedNode):
    """Simulates the plant of a plant file."""

    PARAMETERS: ClassVar[tuple[Param, ...]] = (
        Param("timing", "lockstep", "wait for the agents, or run on the clock", choices=("lockstep", "free")),
        Param("speed", 0.0, "plant time over wall time; 0: as fast as possible (lockstep only)", low=0, high=1e6),
        Param("steps", 0, "end after so many steps; 0: never", low=0, high=10**9),
        Param("deadline", -1.0, "most to wait for a command in lockstep [s]; -1: the plant file's", low=-1, high=600),
        Param("recorded", False, "wait for a recorder before the first step"),
        Param("kills", [""], "faults: AGENT@STEP:STEPS, killed at a step and kept away for a number of steps"),
    )

    # -- configure ----------------------------------------------------------------------------------------------------
    def configure(self) -> None:
        """Plant, actuator sides, publishers."""
        self.config = load_plant(self.values["plant"])
        if self.values["timing"] == "free" and self.values["speed"] == 0:
            raise ConfigError(
                "parameter speed = 0 (as fast as possible) needs timing:=lockstep; free running wants a speed"
            )
        self.sim = make_plant(self.config)
        run = self.values["run"] or self.config.plant.name
        self.peers = Peers(
            run,
            {
                name: Layout(tuple(agent.states), tuple(agent.inputs), (), self.config.period)
                for name, agent in self.config.agents.items()
            },
        )
        deadline = self.values["deadline"]
        self.deadline = self.config.network.deadline if deadline < 0 else deadline
        self.kills = [parse_kill(word) for word in self.values["kills"] if word]
        self.actuators: dict[str, ActuatorSide] = {}
        self.sensors: dict[str, list[tuple[Wire, Any]]] = {}
        self._made: dict[str, dict[str, Any]] = {}
        for name, agent in self.config.agents.items():
            lower, upper = self.config.input_limits(name)
            steady = self.config.linear.steady_input[self.config.linear.columns(name)]
            safe = [self.config.controller.safe_inputs.get(u, s) for u, s in zip(agent.inputs, steady, strict=True)]
            self.actuators[name] = ActuatorSide(lower, upper, np.array(safe))
            self._made[name] = {
                "measurement": self.create_publisher(Measurement, f"{name}/measurement", qos.STEP),
                "truth": self.create_publisher(Measurement, f"{name}/truth", qos.REPORT),
                "applied": self.create_publisher(Measurement, f"{name}/applied", qos.REPORT),
            }
            wires = [Wire(s, list(agent.states), f"agent {name}, sensor {s.topic}") for s in agent.sensors]
            self.sensors[name] = [
                (w, self.create_publisher(w.kind, self._full(name, w.topic), qos.SENSOR)) for w in wires
            ]
        self._clock_out = self.create_publisher(Clock, "/clock", qos.CLOCK)
        self.connection = Connection(self) if self.config.network.join is not None else None
        self.headers: Headers | None = None
        if self.config.resources:
            self.headers = Headers(self, self.config, designed(self.values["plant"])[1], self.peers)

    def _full(self, agent: str, topic: str) -> str:
        return topic if topic.startswith("/") else f"{agent}/{topic}"

    # -- activate -----------------------------------------------------------------------------------------------------
    def open(self) -> None:
        """Listen to the agents and begin."""
        self.k = -1
        self.silent: set[str] = set()
        self.deadlines_missed = dict.fromkeys(self.config.agents, 0)
        self.away_steps = dict.fromkeys(self.config.agents, 0)
        self._expected = self._listeners()
        self._revived: dict[str, float] = {}  # who is expected back, and how long a step waits for it
        self._waiting = False
        self._due = False
        if self.headers is not None:
            self.headers.open()
        if self.connection is not None:
            self.connection.open()
        self._told = 0.0
        self._opened = time.monotonic()
        self.inputs: dict[str, Readings] = {}
        for name, agent in self.config.agents.items():
            self.listen(Command, f"{name}/command", partial(self._on_command, name), qos.STEP_ALL)
            if self.values["timing"] == "free":
                wires = [Wire(a, list(agent.inputs), f"agent {name}, actuator {a.topic}") for a in agent.actuators]
                self.inputs[name] = Readings(wires, len(agent.inputs))
                for wire in wires:
                    take = self.inputs[name].listener(wire, time.monotonic, self.diagnostics.reject)
                    self.listen(wire.kind, self._full(name, wire.topic), take, qos.SENSOR)
        speed = self.values["speed"]
        wall_period = self.config.period / speed if speed else 0.0
        self._pace = None
        if self.values["timing"] == "free":
            self._ticks = 0
            self._pace = self.create_timer(wall_period / CLOCK_TICKS, self._free_tick, clock=self.wall)
        elif speed:
            self._pace = self.create_timer(wall_period, self._lockstep_pace, clock=self.wall)

    def close(self) -> None:
        """Stop the world; the recorder gets all of it."""
        self.drain(*(self._made[name][what] for name in self._made for what in ("truth", "applied")))
        self.deafen()
        if self._pace is not None:
            self.destroy_timer(self._pace)

    def _listeners(self) -> dict[str, set[str]]:
        """Nodes that must listen to a measurement before the first step: its agent, the neighbours, a recorder."""
        base = self.get_namespace().rstrip("/")
        node = {name: f"{base}/{name}/agent" for name in self.config.agents}
        of: dict[str, set[str]] = {name: set() for name in self.config.agents}
        for name, agent in self.config.agents.items():
            if self.values["timing"] == "lockstep":
                of[name].add(node[name])
            if self.values["recorded"]:
                of[name].add(f"{base}/recorder")
            for neighbour in agent.neighbours:
                of[neighbour].add(node[name])
        return of

    def _everybody_listens(self) -> bool:
        base = self.get_namespace().rstrip("/")
        if self.values["timing"] == "free" and not all(
            self.heard_by(publisher, {f"{base}/{name}/agent"})
            for name, wired in self.sensors.items()
            for _, publisher in wired
        ):
            return False
        return all(self.heard_by(self._made[name]["measurement"], nodes) for name, nodes in self._expected.items())

    # -- the clock and the steps --------------------------------------------------------------------------------------
    def tick(self, now: float) -> None:
        """Begin when everybody listens; in lockstep ask again, and give up waiting at the deadline."""
        if self.k < 0:
            waited = now - self._opened
            if self._everybody_listens() or waited > START:
                level, word = (OK, "everybody listens") if waited <= START else (WARN, "begins although not all listen")
                self.diagnostics.say("start", level, word, waited_s=waited)
                self._publish_step(0)
        elif self._waiting:
            self._look_at_the_late(now)
        self._say_how_it_goes(now)

    def _publish_step(self, k: int) -> None:
        """Everything that can be seen of step k."""
        self.k = k
        for agent, at, away in self.kills:
            if k == at:
                self.tell("kill", agent=agent, step=k)
                time.sleep(STRIKE)
            elif k == at + away:
                self.tell("revive", agent=agent, step=k)
                self._revived[agent] = START
        self._publish_clock(k * self.config.period)
        stamp = self._stamp
        measured, truth = self.sim.measure(), self.sim.true_state()
        self.measured = measured
        for name, layout in self.peers.agents.items():
            self._publish(name, "truth", k, layout.states, truth[name])
            for wire, publisher in self.sensors[name]:
                if np.isfinite(measured[name][wire.index]):
                    publisher.publish(wire.message(float(measured[name][wire.index]), stamp, convert.FRAME))
            if self.values["timing"] == "lockstep":
                self._publish(name, "measurement", k, layout.states, measured[name])
        self._published = time.monotonic()
        self._asked = self._published
        self._waiting = self.values["timing"] == "lockstep"

    def _look_at_the_late(self, now: float) -> None:
        late = self._awaited()
        if not late and self._anybody(now):
            self._finish_step()
            return
        patience = START if self.k == 0 else max([self.deadline, *(self._revived.get(a, 0.0) for a in late)])
        if now - self._published > patience:
            for name in late:
                self.deadlines_missed[name] += 1
                self.silent.add(name)
                self._revived.pop(name, None)
                self.diagnostics.say(f"agent {name}", ERROR, "silent: its actuators run its last plan", step=self.k)
            self._finish_step()
        elif now - self._asked > AGAIN:
            self._asked = now
            for name in late:
                self._publish(name, "measurement", self.k, self.peers.agents[name].states, self.measured[name])

    def _awaited(self) -> list[str]:
        """Agents that are alive (or just revived) and have not commanded this step."""
        alive = [a for a in self.config.agents if a not in self.silent or a in self._revived]
        return [a for a in alive if not self.actuators[a].heard(self.k)]

    def _anybody(self, now: float) -> bool:
        """With every agent silent the world waits a deadline per step: who comes back finds it not far on."""
        everybody_silent = len(self.silent) == len(self.config.agents)
        return not everybody_silent or now - self._published > self.deadline

    def _lockstep_pace(self) -> None:
        self._due = True
        if self.k >= 0 and self._waiting and not self._awaited():
            self._finish_step()

    def _on_command(self, name: str, message: Command) -> None:
        lockstep = self.values["timing"] == "lockstep"
        window = Window(self.k, self.k)  # a late command's plan rests on an input that was not applied
        try:
            command = convert.command_from(message, Peers(self.peers.run, {name: self.peers.agents[name]}), window)
        except MessageError as error:
            if self._is_old(name, message, error):
                return
            self.diagnostics.reject(str(error))
            return
        self.actuators[name].command(command)
        if name in self.silent or name in self._revived:
            self.silent.discard(name)
            self._revived.pop(name, None)
            self.diagnostics.say(f"agent {name}", OK, "is back", step=self.k)
            self.tell("back", agent=name, step=self.k)
        if lockstep and self._waiting and not self._awaited():
            self._finish_step()

    def _is_old(self, name: str, message: Command, error: MessageError) -> bool:
        """A late command of a silent agent, or one repeated on request, is no fault: it is ignored, not refused.

        Hearing a silent agent means that it lives: the next step waits for it.
        """
        if not str(error).startswith("stale") or message.agent != name or message.run != self.peers.run:
            return False
        if self.values["timing"] == "free":
            self.actuators[name].commanded = True
            return int(message.step) < self.k
        if name in self.silent:
            self.silent.discard(name)
            self._revived[name] = self.deadline
            return True
        return name in self._revived or int(message.step) == self.k - 1

    def _finish_step(self) -> None:
        """Apply and advance; the next step follows at once or when its time comes."""
        if self.values["timing"] == "lockstep" and self.values["speed"] and not self._due:
            return
        self._due = False
        self._waiting = False
        self._advance()
        if self.exit_status is None:
            self._publish_step(self.k + 1)

    def _advance(self) -> None:
        applied = {}
        for name, side in self.actuators.items():
            applied[name], source = side.input(self.k, self.measured[name])
            if source != "agent":
                self.away_steps[name] += 1
        if self.headers is not None:
            applied = self.headers.cut(self.k, applied)
        for name in applied:
            self._publish(name, "applied", self.k, self.peers.agents[name].inputs, applied[name])
        self.sim.step(applied)
        if self.values["steps"] and self.k + 1 >= self.values["steps"]:
            self._publish_clock((self.k + 1) * self.config.period)
            for name, layout in self.peers.agents.items():
                self._publish(name, "truth", self.k + 1, layout.states, self.sim.true_state()[name])
            self._say_how_it_goes(time.monotonic(), last=True)
            self.publish_diagnostics()
            self.tell("finished", step=self.k + 1)
            self.exit_status = 0

    def _somebody_starts(self) -> bool:
        """Whether the first step lasts longer: no plan runs yet where an agent has not commanded."""
        late = any(not side.heard(0) and self._wired(name) is None for name, side in self.actuators.items())
        return late and time.monotonic() - self._published < START

    def _wired(self, name: str) -> convert.Vector | None:
        """What drives an agent's actuators where it never sends commands."""
        readings = self.inputs[name]
        if not readings.wires or self.actuators[name].commanded:
            return None
        return readings.fresh(self._published)

    def _free_tick(self) -> None:
        """Free-running: a tick of /clock; every last one of a period ends a step and begins the next."""
        if self.k < 0 or self.exit_status is not None:
            return
        if self.k == 0 and self._ticks % CLOCK_TICKS == CLOCK_TICKS - 1 and self._somebody_starts():
            return
        self._ticks += 1
        k, part = divmod(self._ticks, CLOCK_TICKS)
        if part:
            if part in CLOCK_AT:
                self._publish_clock(self._ticks * self.config.period / CLOCK_TICKS)
            return
        for name, side in self.actuators.items():
            wired = self._wired(name)
            if wired is not None:
                side.wired(self.k, wired)
            if wired is None and not side.heard(self.k):
                if name not in self.silent:
                    self.deadlines_missed[name] += 1
                    self.diagnostics.say(f"agent {name}", ERROR, "silent: its actuators run its last plan", step=self.k)
                self.silent.add(name)
            elif name in self.silent:
                self.silent.discard(name)
                self.diagnostics.say(f"agent {name}", OK, "is back", step=self.k)
                self.tell("back", agent=name, step=self.k)
        self._advance()
        if self.exit_status is None:
            self._publish_step(k)

    # -- messages out -------------------------------------------------------------------------------------------------
    def _publish_clock(self, seconds: float) -> None:
        nanoseconds = round(seconds * 1e9)
        self._stamp = Time(sec=nanoseconds // 10**9, nanosec=nanoseconds % 10**9)
        self._clock_out.publish(Clock(clock=self._stamp))

    def _publish(self, agent: str, what: str, step: int, names: tuple[str, ...], values: convert.Vector) -> None:
        message = Measurement(header=convert.header(self._stamp), run=self.peers.run, agent=agent, step=step)
        message.names = list(names)
        message.values = packed(values)
        self._made[agent][what].publish(message)

    def _say_how_it_goes(self, now: float, last: bool = False) -> None:
        if self.k < 0:
            self.diagnostics.say("", OK, "waits until everybody listens")
            return
        silent = ", ".join(sorted(self.silent))
        cut = sum(side.cut for side in self.actuators.values())
        self.diagnostics.say(
            "",
            WARN if silent else OK,
            f"silent: {silent}" if silent else "runs",
            step=self.k,
            silent=silent or "none",
            cut_at_limits=cut,
            **{f"deadlines_missed_{name}": count for name, count in self.deadlines_missed.items()},
            **{f"steps_without_{name}": count for name, count in self.away_steps.items()},
        )
        if now - self._told > PROGRESS or last:
            self._told = now
            self.tell("progress", step=self.k, steps=self.values["steps"], silent=sorted(self.silent))


def main() -> int:
    """`ros2 run rmpc_ros plant`."""
    return run_node("plant", sys.argv)
