"""Joining and leaving at run time: what a newcomer says to the agents it touches (`joining`).

To each host it promises how strong the connection is in every step of the host's horizon: 0 while it is apart. Beyond
the horizon that is e, what the host has to bear of it in the worst case; so a host that hears nothing is safe whatever
happens. To join is to propose e from a near step on. A host acknowledges when its own robust problem is solved with it
(`negotiation`); when every host has, and not before, the newcomer has joined.

apart     the connection must not exist
asking    it must not exist either. After `patience` steps without everybody's word the request is withdrawn, everything
          stays as it was, and who is missing is named
joined    it may exist in every step for which `may_connect` says so
leaving   first the connection is cut, then the newcomer promises 0 again: sets shrink, nobody is asked

Loss, delay, re-ordering, duplicates and crashes of hosts are dealt with by the rules of `proposal`. A newcomer that
crashes while it is joined has to be started as joined (`connected`): the connection exists, whatever it remembers.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import numpy as np

from rmpc_ros.network.forecast import ForecastSet
from rmpc_ros.network.joining import JoinPlan
from rmpc_ros.network.negotiation import NOTICE
from rmpc_ros.network.proposal import Proposer

Where = Literal["apart", "asking", "joined"]


class Newcomer:
    """Who joins and leaves.

    Parameters
    ----------
    plan : of the join
    patience : steps until a request is given up
    connected : the connection exists already (a start after a crash)

    Attributes
    ----------
    refused_by : hosts whose word was missing when the last request was given up; empty before
    """

    def __init__(self, plan: JoinPlan, patience: int = 20, connected: bool = False) -> None:
        self._plan, self._patience = plan, patience
        self._proposer = Proposer(plan.hosts)
        self._wish = False
        self._asked_from = 0  # first step of the connection in the request
        self._from: int | None = 0 if connected else None  # first step at which it may exist; None: never
        self.refused_by: tuple[str, ...] = ()

    @property
    def where(self) -> Where:
        """Where it stands."""
        if self._from is not None:
            return "joined"
        return "asking" if self._wish else "apart"

    def may_connect(self, step: int) -> bool:
        """Whether the connection may exist during a step that `step` has been called for."""
        return self._from is not None and step >= self._from

    def ask(self) -> None:
        """Ask to join, from the next step on."""
        self._wish, self.refused_by = True, ()

    def leave(self) -> None:
        """The connection has been cut: promise so from the next step on."""
        self._proposer.withdraw()
        self._from, self._wish = None, False

    @property
    def waits_for(self) -> tuple[str, ...]:
        """Hosts whose word is missing."""
        return tuple(sorted(self._proposer.missing))

    def hear(self, answer: ForecastSet) -> None:
        """Take in an acknowledgement."""
        if answer.acknowledged_agent == self._plan.newcomer:
            self._proposer.acknowledged(answer)

    def step(self, step: int) -> dict[str, list[ForecastSet]]:
        """What to tell each host at a step, after everything heard was taken in."""
        proposer = self._proposer
        proposer.stepped(step)
        if proposer.pending is not None:
            if not proposer.missing:
                proposer.adopt(proposer.pending)
                self._from, self._wish = max(self._asked_from, step), False
            elif step - proposer.pending.step >= self._patience:
                self.refused_by = tuple(sorted(proposer.missing))
                proposer.withdraw()
                self._wish = False
        elif self._wish and proposer.may_propose(step):
            self._asked_from = step + NOTICE
            proposer.propose(self._connection(self._plan.hosts[0], step, self._asked_from))
        return {host: self._messages(host, step) for host in self._plan.hosts}

    def _messages(self, host: str, step: int) -> list[ForecastSet]:
        word = self._proposer.sign(self._connection(host, step, self._from))
        pending = self._proposer.pending
        if pending is None:
            return [word]
        asked = self._connection(host, pending.step, self._asked_from)
        numbered = replace(asked, kind="proposal", iteration=pending.iteration)
        return [word, replace(numbered, adopted=pending.adopted, settled=pending.settled)]

    def _connection(self, host: str, step: int, first: int | None) -> ForecastSet:
        """The connection as a host's neighbour: 0 before its first step, e from then on and beyond the horizon."""
        design = self._plan.designs[host]
        neighbour = design.neighbours[self._plan.newcomer]
        standing = neighbour.terminal_promise(step, design.period)
        steps = step + np.arange(design.horizon + 1)
        there = np.zeros(len(steps), bool) if first is None else steps >= first
        scale = np.where(there[:, None], standing.terminal_scale, 0.0)
        return replace(standing, center=np.zeros_like(scale), scale=scale)
