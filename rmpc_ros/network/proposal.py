"""Larger promises by consent: propose, acknowledge, adopt (math.md 3.1). The rules, without a solver.

A promise may shrink at will, but within an epoch it grows in its last row only. To grow earlier its sender proposes a
set Q, numbered m, that contains its promise P. A receiver that has solved its robust problem for the hull of what it
holds and Q answers with an acknowledgement and holds that hull from then on. When every agent that relies on the
sender has acknowledged m, and not before, the sender adopts it: its promise becomes hull(P, Q). Otherwise it withdraws
m, and P stands. Each commitment says which number was adopted last (`adopted`) and up to which number everything is
adopted or withdrawn (`settled`); only such a word lets a receiver go back to the commitment alone.

What a receiver holds therefore contains what the sender may do, whatever the network does:

loss, delay       A lost proposal or acknowledgement delays adoption; the sender repeats the one, the receiver the
                  other, until m is settled. A lost commitment leaves the receiver with the hull, which contains both
                  P (which has only shrunk) and Q. There is no time-out on the receiver's side; the sender's patience
                  ends in a withdrawal, after which it never adopts m.
re-ordering       An older commitment is refused by its step. A proposal whose number the held commitment calls settled
                  is ignored; acknowledgements count for the pending number only.
duplicates        Every message says what is, not what changes: hearing it twice is hearing it once.
sender crashes    Its journal holds the last commitment, so an adoption that anybody heard of is remembered. A pending
                  proposal is forgotten, which is a withdrawal. Numbers are steps, and nothing is proposed in the first
                  step after a start, so no number is used twice and no acknowledgement from before counts.
receiver crashes  What it has acknowledged is in its journal before anybody hears of it (`to_record`).
new epoch         The sender withdraws what is pending. A receiver keeps the hull until it hears that m is settled.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from rmpc_ros.errors import DataError, PromiseError
from rmpc_ros.network.commitment import check_successor
from rmpc_ros.network.forecast import ForecastSet
from rmpc_ros.network.journal import decode, encode, facts_of

Matrix = NDArray[np.float64]
Vector = NDArray[np.float64]


def hull_windows(sets: Iterable[ForecastSet], step: int, count: int) -> tuple[Matrix, Matrix]:
    """Centres and half-widths (count, n) of the smallest boxes around several promises of one sender.

    Every promise begins at or before `step`.
    """
    lower, upper = None, None
    for promise in sets:
        center, scale = promise.window(step, count)
        low, high = center - scale, center + scale
        lower = low if lower is None else np.minimum(lower, low)
        upper = high if upper is None else np.maximum(upper, high)
    if lower is None or upper is None:
        raise ValueError("the hull of no promise was asked for")
    return (lower + upper) / 2, (upper - lower) / 2


def hull(promise: ForecastSet, proposal: ForecastSet) -> ForecastSet:
    """The promise enlarged by a proposal, from the later of their first steps on.

    Examples
    --------
    >>> one = np.ones((2, 1))
    >>> small = ForecastSet("a", 4, 1.0, ("x",), 0 * one, one, np.zeros(1), np.array([5.0]))
    >>> large = ForecastSet("a", 5, 1.0, ("x",), one, 3 * one, np.zeros(1), np.array([5.0]), "proposal", 5)
    >>> both = hull(small, large)
    >>> both.step, (both.center - both.scale).ravel(), (both.center + both.scale).ravel()
    (5, array([-2., -5.]), array([4., 5.]))
    """
    step = max(promise.step, proposal.step)
    last = max(promise.step + promise.horizon, proposal.step + proposal.horizon)
    center, scale = hull_windows((promise, proposal), step, max(last - step, 0) + 1)
    return replace(promise, step=step, center=center, scale=scale)


@dataclass(frozen=True)
class Held:
    """What a receiver relies on of one sender: the hull of its newest commitment and the acknowledged proposals.

    Attributes
    ----------
    newest : the newest commitment that was believed
    acknowledged : proposals that were acknowledged and of which it is not known that they are settled
    offer : a proposal that waits for an answer
    """

    newest: ForecastSet
    acknowledged: tuple[ForecastSet, ...] = ()
    offer: ForecastSet | None = None

    @property
    def iteration(self) -> int:
        """Epoch of the newest commitment."""
        return self.newest.iteration

    def window(self, step: int, count: int, offered: bool = False) -> tuple[Matrix, Matrix]:
        """Centres and half-widths (count, n) of the hull from an absolute step on; `offered` takes the offer in too."""
        if not self.acknowledged and not (offered and self.offer is not None):
            return self.newest.window(step, count)
        more = (self.offer,) if offered and self.offer is not None else ()
        return hull_windows((self.newest, *self.acknowledged, *more), step, count)

    def contains(self, step: int, values: Vector, tolerance: float = 1e-7) -> bool:
        """Whether the first `len(values)` promised quantities lie in the hull at a step, as `ForecastSet.contains`."""
        center, scale = self.window(step, 1)
        n = len(values)
        room = scale[0, :n] + tolerance * self.newest.terminal_scale[:n]
        return bool(np.all(np.abs(values - center[0, :n]) <= room))

    def heard(self, new: ForecastSet, tolerance: float = 1e-7) -> Held:
        """After a new commitment: that one, and the acknowledged proposals that it does not call settled.

        Raises
        ------
        PromiseError
            It may not follow the newest one (see `check_successor`): older, or larger without a new epoch and without
            a proposal that was acknowledged.
        """
        old = self.newest
        if new.iteration == old.iteration and new.adopted > old.adopted:
            for proposal in self.acknowledged:
                if proposal.iteration <= new.adopted:  # the word on an earlier one may have been lost
                    old = hull(old, proposal)
        check_successor(old, new, tolerance)
        open_ones = tuple(p for p in self.acknowledged if p.iteration > new.settled)
        offer = self.offer if self.offer is not None and self.offer.iteration > new.settled else None
        return Held(new, open_ones, offer)

    def offered(self, proposal: ForecastSet) -> Held:
        """After a proposal: it waits for an answer, unless it is settled, answered, or older than the one that waits.

        Raises
        ------
        PromiseError
            It is about other quantities, or reaches beyond the invariant box.
        """
        newest = self.newest
        if proposal.agent != newest.agent or proposal.names != newest.names:
            raise PromiseError(
                f"a proposal of '{proposal.agent}' about {', '.join(proposal.names)} does not fit the promise of "
                f"'{newest.agent}' about {', '.join(newest.names)}"
            )
        reach = np.abs(proposal.center - newest.terminal_center) + proposal.scale
        if np.any(reach > newest.terminal_scale * (1 + 1e-6)):
            worst = int(np.argmax(np.max(reach / np.maximum(newest.terminal_scale, 1e-300), axis=0)))
            raise PromiseError(f"'{proposal.agent}' proposes {newest.names[worst]} beyond its invariant box")
        number = proposal.iteration
        known = max((p.iteration for p in self.acknowledged), default=0)
        waiting = self.offer.iteration if self.offer is not None else 0
        if number <= newest.settled or number <= known or number < waiting:
            return self
        return replace(self, offer=proposal)

    def answered(self) -> Held:
        """After the offer was found bearable: it is part of what is held."""
        if self.offer is None:
            return self
        return Held(self.newest, (*self.acknowledged, self.offer))


class Proposer:
    """The sender's side: at most one proposal is pending.

    Parameters
    ----------
    followers : all agents that rely on this one
    """

    def __init__(self, followers: Iterable[str]) -> None:
        self.followers = frozenset(followers)
        self.adopted = 0
        self.pending: ForecastSet | None = None
        self._acknowledged: set[str] = set()
        self._last = 0  # newest number used
        self._first: int | None = None  # first step after a start
        self.counts = {"proposed": 0, "adopted": 0, "withdrawn": 0}

    def begin(self, promise: ForecastSet) -> None:
        """Take up a promise that is in force: what was pending is withdrawn."""
        self.withdraw()
        self.adopted, self._first = promise.adopted, None

    def stepped(self, step: int) -> None:
        """A step has begun."""
        if self._first is None:
            self._first = step

    def may_propose(self, step: int) -> bool:
        """Whether a number is free: nothing pending, and no number was or can have been used at this step."""
        return self.pending is None and self._first is not None and step > max(self._first, self._last, 0)

    def propose(self, wanted: ForecastSet) -> ForecastSet:
        """Make a proposal of a set that contains the promise in force; its number is its first step.

        Raises
        ------
        PromiseError
            The number is not free, see `may_propose`.
        """
        number = wanted.step
        if not self.may_propose(number):
            why = "one is pending" if self.pending is not None else "that number was or may have been used"
            raise PromiseError(f"'{wanted.agent}' cannot propose at step {number}: {why}")
        self.pending = replace(wanted, kind="proposal", iteration=number, adopted=self.adopted, settled=number - 1)
        self._last, self._acknowledged = number, set()
        self.counts["proposed"] += 1
        return self.pending

    def acknowledged(self, answer: ForecastSet) -> None:
        """An acknowledgement has come; one of another number or from somebody who does not rely on us says nothing."""
        if self.pending is not None and answer.iteration == self.pending.iteration and answer.agent in self.followers:
            self._acknowledged.add(answer.agent)

    @property
    def missing(self) -> frozenset[str]:
        """Who has not acknowledged what is pending."""
        return self.followers - self._acknowledged if self.pending is not None else frozenset()

    def adopt(self, promise: ForecastSet) -> ForecastSet:
        """The promise in force: enlarged if every follower has acknowledged what is pending, else as it is."""
        if self.pending is None or self.missing:
            return promise
        self.adopted = self.pending.iteration
        enlarged = hull(promise, self.pending)
        self.pending = None
        self.counts["adopted"] += 1
        return replace(enlarged, adopted=self.adopted)

    def withdraw(self) -> None:
        """Give up what is pending."""
        if self.pending is not None:
            self.pending = None
            self.counts["withdrawn"] += 1

    def sign(self, promise: ForecastSet) -> ForecastSet:
        """A commitment with its words on proposals: adopted, and settled up to the pending one or to the last step."""
        settled = (promise.step if self.pending is None else self.pending.iteration) - 1
        return replace(promise, adopted=self.adopted, settled=max(settled, self.adopted, 0))


def acknowledgement(proposal: ForecastSet, receiver: ForecastSet) -> ForecastSet:
    """The answer to a proposal; `receiver` is any promise of who answers and gives the names and the standing set."""
    return replace(
        receiver,
        step=max(receiver.step, proposal.step),
        center=receiver.terminal_center[None],
        scale=receiver.terminal_scale[None],
        kind="acknowledgement",
        iteration=proposal.iteration,
        acknowledged_agent=proposal.agent,
    )


# -- on disk ----------------------------------------------------------------------------------------------------------
def to_record(promise: ForecastSet, acknowledged: Iterable[ForecastSet], **facts: str | int | float) -> bytes:
    """A commitment and what its sender has acknowledged, for the journal."""
    sets = {"promise": promise, **{f"acknowledged{n}": proposal for n, proposal in enumerate(acknowledged)}}
    return encode(sets, acknowledged=len(sets) - 1, **facts)


def from_record(payload: bytes) -> tuple[ForecastSet, tuple[ForecastSet, ...]]:
    """Inverse of `to_record`.

    Raises
    ------
    DataError
        The record was written by another version.
    """
    count = facts_of(payload).get("acknowledged")
    if not isinstance(count, int):
        raise DataError("journal: the record does not say what was acknowledged; it was written by another version")
    names = [f"acknowledged{n}" for n in range(count)]
    found = decode(payload, dict.fromkeys(["promise", *names], ForecastSet))
    return found["promise"], tuple(found[name] for name in names)
