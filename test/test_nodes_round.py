"""An agent decides on the same information whatever the order of arrival, and never waits for ever."""

from __future__ import annotations

import itertools

import numpy as np

from rmpc_ros.network.forecast import ForecastSet
from rmpc_ros.nodes.round import MOST, Round

X = np.array([1.0, 2.0])


def promise(agent: str, step: int) -> ForecastSet:
    box = np.ones((3, 2))
    return ForecastSet(agent, step, 36.0, ("a", "b"), box, box, box[0], box[0])


def ready(wait: float = 1.0) -> Round:
    """Everybody has promised and step 0 has been decided."""
    made = Round(("n1", "n2"), wait)
    for name in ("n1", "n2"):
        made.promise(promise(name, 0))
        made.measurement(name, 0, X)
    made.own(0, X, 0.0)
    assert made.due(0.0)
    first = made.take()
    assert {p.agent for p in first.promises} == {"n1", "n2"}
    assert first.applied is None  # before the first step nothing was applied
    return made


def test_any_order_of_arrival_gives_the_same_inputs() -> None:
    events = {
        "own": lambda r: r.own(1, X, 0.0),
        "echo": lambda r: r.applied(0, 7 * X),
        "m1": lambda r: r.measurement("n1", 1, 2 * X),
        "m2": lambda r: r.measurement("n2", 1, 3 * X),
        "p1": lambda r: r.promise(promise("n1", 0)),
        "p2": lambda r: r.promise(promise("n2", 0)),
        "early": lambda r: r.promise(promise("n1", 1)),
    }
    seen = set()
    for order in itertools.islice(itertools.permutations(events), 0, None, 7):
        if order.index("early") < order.index("p1"):
            continue  # one sender's promises arrive in order
        r = ready()
        for name in order:
            events[name](r)
        assert r.due(0.0)
        inputs = r.take()
        seen.add((inputs.step, tuple((p.agent, p.step) for p in sorted(inputs.promises, key=lambda p: p.agent))))
        assert np.array_equal(inputs.neighbour_states["n2"], 3 * X)
        assert inputs.missing == ()
        assert np.array_equal(inputs.applied, 7 * X)
    assert seen == {(1, (("n1", 0), ("n2", 0)))}


def test_what_waits_while_no_step_is_taken_is_bounded_and_ends_with_the_newest() -> None:
    r = ready()
    for step in range(3 * MOST):
        r.promise(promise("n1", step))
    r.promise(promise("n2", 2))
    r.own(3 * MOST, X, 0.0)
    assert r.due(10.0)
    taken = [(p.agent, p.step) for p in r.take().promises]
    assert taken == [("n2", 2), *(("n1", step) for step in range(2 * MOST, 3 * MOST))]


def test_a_promise_of_the_current_step_is_used_in_the_next() -> None:
    r = ready()
    r.promise(promise("n1", 1))
    r.promise(promise("n2", 1))
    for step in (1, 2):
        for name in ("n1", "n2"):
            r.measurement(name, step, X)
        r.own(step, X, 0.0)
        taken = [(p.agent, p.step) for p in r.take().promises]
        assert taken == ([] if step == 1 else [("n1", 1), ("n2", 1)])


def test_waiting_is_bounded_and_a_silent_neighbour_is_not_waited_for_again() -> None:
    r = ready(wait=1.0)
    r.promise(promise("n1", 0))
    r.promise(promise("n2", 0))
    r.measurement("n1", 1, X)
    r.measurement("n2", 1, X)
    r.applied(0, X)
    r.own(1, X, 10.0)
    r.take()
    r.applied(1, X)

    r.promise(promise("n1", 1))  # n2 stays silent from here on
    for name in ("n1", "n2"):
        r.measurement(name, 2, X)
    r.own(2, X, 20.0)
    assert not r.due(20.9)
    assert r.due(21.0)
    inputs = r.take()
    assert inputs.missing == ("n2",)
    assert r.silent == {"n2"}

    r.promise(promise("n1", 2))
    r.applied(2, X)
    for name in ("n1", "n2"):
        r.measurement(name, 3, X)
    r.own(3, X, 30.0)
    assert r.due(30.0)
    r.take()
    r.promise(promise("n2", 3))
    assert r.silent == set()


def test_a_repeated_measurement_is_recognised() -> None:
    r = ready()
    assert not r.own(0, X, 1.0)
    assert r.own(1, X, 1.0)


def test_a_neighbours_measurement_of_another_step_is_not_passed_on() -> None:
    r = ready(wait=0.0)
    r.measurement("n1", 4, X)
    r.own(5, X, 0.0)
    assert r.due(0.0)
    inputs = r.take()
    assert inputs.neighbour_states == {}
    assert set(inputs.missing) == {"n1", "n2"}


def test_a_late_joiner_takes_the_newest_of_what_writers_kept_for_it() -> None:
    r = Round(("n1",), wait=1.0)
    for step in (36, 14, 15, 35):  # what is kept and what is new may come in any order
        r.promise(promise("n1", step))
    r.measurement("n1", 37, X)
    r.own(37, X, 0.0)
    assert r.due(0.0)
    assert [p.step for p in r.take().promises] == [36]
    r.promise(promise("n1", 37))
    r.measurement("n1", 38, X)
    r.own(38, X, 0.0)
    assert [p.step for p in r.take().promises] == [37]


def test_the_actuators_word_about_the_step_before_is_waited_for_but_not_for_ever() -> None:
    r = ready(wait=1.0)
    for name in ("n1", "n2"):
        r.promise(promise(name, 0))
        r.measurement(name, 1, X)
    r.own(1, X, 0.0)
    assert not r.due(0.5)
    assert r.due(1.0)
    assert r.take().applied is None  # nobody knows whether the last command is in force


def test_a_first_promise_of_a_later_step_waits_for_that_step() -> None:
    r = Round(("n1",), 1.0)
    r.promise(promise("n1", 7))  # this agent lags: it decides 6 when it first hears of its neighbour
    r.measurement("n1", 6, X)
    r.own(6, X, 0.0)
    assert r.due(2.0)
    assert r.take().promises == ()
    r.own(7, X, 2.0)
    r.measurement("n1", 7, X)
    assert r.due(4.0)
    assert [p.step for p in r.take().promises] == [7]
