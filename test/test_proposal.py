"""The protocol of larger promises: no adoption without everybody's word, and nobody relies on too little."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from rmpc_ros.errors import DataError, PromiseError
from rmpc_ros.network.carry import carried
from rmpc_ros.network.forecast import ForecastSet
from rmpc_ros.network.journal import encode
from rmpc_ros.network.proposal import Held, Proposer, acknowledgement, from_record, hull, to_record

T = 4
SHARES = st.lists(st.floats(0, 1), min_size=2 * (T + 1), max_size=2 * (T + 1))
RECEIVER = st.sampled_from(["a", "b"])


def between(step, low, high, epoch=0):
    """A scalar promise of 's' with the given rows and the standing set [-1, 1]."""
    low, high = np.asarray(low, float)[:, None], np.asarray(high, float)[:, None]
    return ForecastSet(
        "s", step, 1.0, ("x",), (low + high) / 2, (high - low) / 2, np.zeros(1), np.ones(1), iteration=epoch
    )


def standing(step, epoch=0):
    return between(step, [-1.0], [1.0], epoch)


def rows(promise, step, count=T + 3):
    center, scale = promise.window(step, count)
    return (center - scale).ravel(), (center + scale).ravel()


def inside(small, large, step):
    (low, high), (lower, upper) = rows(small, step), rows(large, step)
    return bool(np.all(low >= lower - 1e-9) and np.all(high <= upper + 1e-9))


class Network(RuleBasedStateMachine):
    """One sender, two receivers, crashes of each, and a network that may do anything with what was sent.

    Rows are compared from the step after the last decision on: what is past binds nobody.
    """

    proposer_class = Proposer

    @initialize()
    def begin(self):
        self.k = 0
        self.proposer = self.proposer_class(("a", "b"))
        self.promise = standing(0)
        self.proposer.begin(self.promise)
        self.disk = {"s": to_record(self.promise, ()), "a": (0, b""), "b": (0, b"")}
        self.held = {name: Held(standing(0)) for name in "ab"}
        self.wire = []
        self.numbers = []
        self.answered = {"a": set(), "b": set()}

    # -- the sender ---------------------------------------------------------------------------------------------------
    def decide(self, shares, impatient):
        """One control step up to, not including, the disk; the plan is any box inside the promise."""
        self.k += 1
        self.proposer.stepped(self.k)
        if impatient:
            self.proposer.withdraw()
        before, asked = self.promise, self.proposer.pending
        allowed = self.proposer.adopt(before)
        if allowed.adopted != before.adopted:
            assert asked is not None and allowed.adopted == asked.iteration
            assert all(asked.iteration in self.answered[name] for name in "ab"), "adopted without every acknowledgement"
            assert inside(allowed, hull(before, asked), self.k)
        else:
            assert inside(allowed, before, self.k)
        lower, upper = rows(allowed, self.k, T + 1)
        middle = lower + np.array(shares[: T + 1]) * (upper - lower)
        width = np.array(shares[T + 1 :])
        made = between(self.k, middle + width * (lower - middle), middle + width * (upper - middle), before.iteration)
        return self.proposer.sign(made)

    def publish(self, promise):
        self.disk["s"] = to_record(promise, ())
        self.promise = promise
        self.wire += [("a", promise), ("b", promise)]

    @rule(shares=SHARES, impatient=st.sampled_from([False, False, False, True]))
    def sender_steps(self, shares, impatient):
        self.publish(self.decide(shares, impatient))

    @rule(shares=SHARES)
    def sender_steps_but_its_command_is_not_in_force(self, shares):
        self.decide(shares, False)
        self.publish(carried(self.promise, self.k))
        self.proposer.begin(self.promise)

    @rule(shares=SHARES, on_disk=st.booleans())
    def sender_crashes_in_a_step_and_comes_back(self, shares, on_disk):
        promise = self.decide(shares, False)
        if on_disk:  # and nobody has heard it
            self.disk["s"] = to_record(promise, ())
        self.sender_comes_back()

    @rule()
    def sender_comes_back(self):
        self.promise, _ = from_record(self.disk["s"])
        self.proposer = self.proposer_class(("a", "b"))
        self.proposer.begin(self.promise)
        self.wire += [("a", self.promise), ("b", self.promise)]

    @rule()
    def sender_starts_a_new_epoch(self):
        self.k += 1
        self.proposer.stepped(self.k)
        self.proposer.withdraw()
        self.publish(self.proposer.sign(standing(self.k, self.promise.iteration + 1)))

    @precondition(lambda self: self.k > 0 and self.promise.step == self.k and self.proposer.may_propose(self.k))
    @rule(shares=SHARES)
    def sender_proposes(self, shares):
        lower, upper = rows(self.promise, self.k, T + 1)
        low = lower + np.array(shares[: T + 1]) * (-1.0 - lower)
        high = upper + np.array(shares[T + 1 :]) * (1.0 - upper)
        proposal = self.proposer.propose(between(self.k, low, high))
        self.numbers.append(proposal.iteration)
        self.wire += [("a", proposal), ("b", proposal)]

    @precondition(lambda self: self.proposer.pending is not None)
    @rule()
    def sender_repeats(self):
        self.wire += [("a", self.proposer.pending), ("b", self.proposer.pending)]

    # -- the receivers ------------------------------------------------------------------------------------------------
    @rule(name=RECEIVER, bears=st.booleans())
    def receiver_steps(self, name, bears):
        held = self.held[name]
        if held.offer is not None and held.offer.step < self.k and bears:
            held = held.answered()
        self.disk[name] = (self.k, to_record(standing(self.k), held.acknowledged))  # before anybody hears of it
        self.held[name] = held
        for proposal in held.acknowledged:
            self.answered[name].add(proposal.iteration)
            self.wire.append(("s", acknowledgement(proposal, replace(standing(self.k), agent=name))))

    @rule(name=RECEIVER)
    def receiver_comes_back(self, name):
        step, record = self.disk[name]
        known = from_record(record)[1] if record else ()
        self.held[name] = Held(standing(step, self.held[name].iteration), known)

    # -- the network --------------------------------------------------------------------------------------------------
    @precondition(lambda self: bool(self.wire))
    @rule(data=st.data(), again=st.booleans())
    def something_arrives(self, data, again):
        """The newest, or something old that had been kept back."""
        which = data.draw(st.one_of(st.just(len(self.wire) - 1), st.integers(0, len(self.wire) - 1)))
        to, message = self.wire[which] if again else self.wire.pop(which)
        if to == "s":
            self.proposer.acknowledged(message)
            return
        held = self.held[to]
        if message.kind == "proposal":
            self.held[to] = held.offered(message)
            return
        try:
            self.held[to] = held.heard(message)
        except PromiseError as error:
            assert message.step < held.newest.step or message.iteration < held.iteration, error

    @precondition(lambda self: bool(self.wire))
    @rule(data=st.data())
    def something_is_lost(self, data):
        self.wire.pop(data.draw(st.integers(0, len(self.wire) - 1)))

    @rule(bears=st.tuples(st.booleans(), st.booleans()), shares=SHARES)
    def a_good_moment(self, bears, shares):
        """What was sent arrives, receivers answer, answers arrive, the sender steps: rare by chance alone."""
        self.sender_steps(shares, False)
        for to, message in list(self.wire):
            if to != "s" and message.kind == "proposal":
                self.held[to] = self.held[to].offered(message)
        for name, yes in zip("ab", bears, strict=True):
            self.receiver_steps(name, yes)
        for to, message in list(self.wire):
            if to == "s":
                self.proposer.acknowledged(message)
            elif message.kind == "commitment" and message.step == self.k:
                self.held[to] = self.held[to].heard(message)
        self.sender_steps(shares, False)

    # -- what must hold -----------------------------------------------------------------------------------------------
    @invariant()
    def receivers_rely_on_no_less_than_the_sender_may_do(self):
        for name, held in getattr(self, "held", {}).items():
            if held.iteration == self.promise.iteration:
                step = max(self.k + 1, held.newest.step, self.promise.step)
                assert inside(self.promise, held, step), f"{name} relies on too little"

    @invariant()
    def numbers_are_never_used_twice(self):
        numbers = getattr(self, "numbers", [])
        assert len(set(numbers)) == len(numbers)


FEW = settings(
    max_examples=60,
    stateful_step_count=30,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)


def test_protocol_keeps_everybody_safe_whatever_the_network_and_crashes_do():
    run_state_machine_as_test(Network, settings=FEW)


class Hasty(Proposer):
    """Adopts as soon as one has acknowledged."""

    @property
    def missing(self):
        missing = super().missing
        return missing if len(missing) > 1 else frozenset()


class Forgetful(Proposer):
    """Calls what is pending settled."""

    def sign(self, promise):
        return replace(super().sign(promise), settled=promise.step)


class Reuser(Proposer):
    """Counts from one again after a start."""

    def may_propose(self, step):
        return self.pending is None

    def propose(self, wanted):
        self.pending = replace(wanted, kind="proposal", iteration=self._last + 1, settled=self._last)
        self._last, self._acknowledged = self._last + 1, set()
        return self.pending


@pytest.mark.parametrize("broken", [Hasty, Forgetful, Reuser])
def test_the_properties_have_teeth(broken):
    class Broken(Network):
        proposer_class = broken

        @precondition(lambda self: self.k > 0 and self.promise.step == self.k and self.proposer.may_propose(self.k))
        @rule(shares=SHARES, wide=SHARES)
        def a_proposal_at_a_good_moment(self, shares, wide):
            """By chance alone up to a thousand examples pass until there is one, and which ones depends on all code."""
            self.sender_proposes(wide)
            self.a_good_moment((True, True), shares)

    with pytest.raises((AssertionError, PromiseError)):
        run_state_machine_as_test(Broken, settings=settings(FEW, max_examples=400, phases=[Phase.generate]))


def agreed(followers=("a", "b")):
    """A sender with promise [-0.2, 0.2] that asks for [-0.6, 0.6]."""
    proposer = Proposer(followers)
    proposer.begin(standing(0))
    proposer.stepped(1)
    proposer.stepped(2)
    promise = proposer.sign(between(2, [-0.2] * 4, [0.2] * 4))
    return proposer, promise, proposer.propose(between(2, [-0.6] * 4, [0.6] * 4))


def answer(proposal, name):
    return acknowledgement(proposal, replace(standing(3), agent=name))


def test_adoption_waits_for_the_last_acknowledgement_and_then_enlarges():
    proposer, promise, proposal = agreed()
    proposer.acknowledged(answer(proposal, "a"))
    proposer.acknowledged(answer(proposal, "a"))
    assert proposer.adopt(promise) is promise
    proposer.acknowledged(answer(replace(proposal, iteration=1), "b"))  # of another number
    assert proposer.missing == {"b"}
    proposer.acknowledged(answer(proposal, "b"))
    assert rows(proposer.adopt(promise), 3, 1) == (-0.6, 0.6)
    assert proposer.counts == {"proposed": 1, "adopted": 1, "withdrawn": 0}
    assert proposer.sign(standing(4)).adopted == 2


def test_a_receiver_goes_back_to_the_commitment_when_the_proposal_is_settled_not_before():
    proposer, promise, proposal = agreed()
    held = Held(promise).offered(proposal).answered()
    waiting = proposer.sign(between(4, [-0.1] * 4, [0.1] * 4))
    assert rows(held.heard(waiting), 5, 1) == (-0.6, 0.6)
    proposer.withdraw()
    withdrawn = proposer.sign(between(5, [-0.1] * 4, [0.1] * 4))
    assert rows(held.heard(waiting).heard(withdrawn), 6, 1) == (-0.1, 0.1)
    assert held.heard(withdrawn).offered(proposal).offer is None  # an old copy is ignored


def test_an_enlargement_nobody_was_asked_about_is_refused():
    _, promise, proposal = agreed()
    larger = replace(between(4, [-0.5] * 4, [0.5] * 4), adopted=2, settled=3)
    with pytest.raises(PromiseError, match="enlarged its promise"):
        Held(promise).offered(proposal).heard(larger)
    assert Held(promise).offered(proposal).answered().heard(larger).newest is larger
    with pytest.raises(PromiseError, match="enlarged its promise"):
        Held(promise).offered(proposal).answered().heard(replace(larger, scale=1.3 * larger.scale))


def test_a_lost_word_on_an_adoption_does_not_make_the_next_one_a_lie():
    _, promise, first = agreed()
    second = replace(between(4, [-0.1] * 4, [0.8] * 4), kind="proposal", iteration=4, adopted=2, settled=3)
    held = Held(promise).offered(first).answered().offered(second).answered()
    both = replace(between(6, [-0.6] * 2, [0.8] * 2), adopted=4, settled=5)
    assert held.heard(both).newest is both
    with pytest.raises(PromiseError, match="enlarged its promise"):
        held.heard(replace(both, scale=1.3 * both.scale))


def test_proposals_that_make_no_sense_are_refused():
    proposer, promise, proposal = agreed()
    held = Held(promise)
    with pytest.raises(PromiseError, match="beyond its invariant box"):
        held.offered(replace(proposal, scale=2 * proposal.scale))
    with pytest.raises(PromiseError, match="does not fit"):
        held.offered(replace(proposal, names=("y",)))
    with pytest.raises(PromiseError, match="cannot propose at step 2: one is pending"):
        proposer.propose(between(2, [-1.0], [1.0]))
    proposer.withdraw()
    with pytest.raises(PromiseError, match="may have been used"):
        proposer.propose(between(2, [-1.0], [1.0]))


def test_no_number_is_used_in_the_first_step_after_a_start():
    _, promise, _ = agreed()
    back = Proposer(("a",))
    back.begin(promise)
    back.stepped(2)  # the step it died in is asked for again
    assert not back.may_propose(2)
    back.stepped(3)
    assert back.may_propose(3)


def test_journal_keeps_what_was_acknowledged():
    _, promise, proposal = agreed()
    found, acknowledged = from_record(to_record(promise, (proposal,), run="r", step=2))
    assert np.array_equal(found.scale, promise.scale) and found.adopted == promise.adopted
    assert [p.iteration for p in acknowledged] == [2] and np.array_equal(acknowledged[0].scale, proposal.scale)
    with pytest.raises(DataError, match="another version"):
        from_record(encode({"promise": promise}, run="r"))
