"""Messages about shares: there and back unchanged; what is damaged is refused, with the field that is wrong."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

pytest.importorskip("rmpc_ros.msg", reason="needs the package's messages (make setup)")

from builtin_interfaces.msg import Time

from rmpc_ros.errors import MessageError
from rmpc_ros.network.accusations import FORGIVEN
from rmpc_ros.network.resource_guard import Guard
from rmpc_ros.network.shared_resource import ResourceDesign, Statement
from rmpc_ros.nodes.checks import Layout, Peers
from rmpc_ros.nodes.convert_shares import share_from, share_message
from rmpc_ros.nodes.diagnostics import Diagnostics
from rmpc_ros.nodes.resource import Headers

N = 4
STEAM = ResourceDesign(
    "steam", "kg/min", 9.0, ("a", "b"), (0, 0), np.ones(2), np.ones(2), np.full(2, 4.5), np.full(2, 8.0), 1.0, 1.0
)
PEERS = Peers("run", {"a": Layout(("T",), ("s",), ("T",), 60.0)})


def statement() -> Statement:
    g = np.random.default_rng(0)
    return Statement("a", "steam", 7, 7, g.random(N), g.normal(size=N), g.random((2, N)), g.random((2, N)))


def test_a_statement_arrives_as_it_was_made() -> None:
    sent = statement()
    got = share_from(share_message(sent, STEAM.users, Time(), "run"), PEERS, STEAM, N)
    for name in ("agent", "resource", "step", "first"):
        assert getattr(got, name) == getattr(sent, name)
    for name in ("wish", "price", "given", "taken"):
        assert np.array_equal(getattr(got, name), getattr(sent, name))


@pytest.mark.parametrize(
    ("field", "value", "word"),
    [
        ("run", "other", "run"),
        ("agent", "b", "agent"),
        ("resource", "water", "resource"),
        ("users", ["b", "a"], "users"),
        ("horizon", 3, "horizon"),
        ("first_step", 8, "horizon"),
        ("wish", [1.0, float("nan"), 1.0, 1.0], "wish"),
        ("price", [1.0, float("inf"), 1.0, 1.0], "price"),
        ("given", [-1.0] * 8, "given"),
        ("taken", [0.0] * 7, "taken"),
    ],
)
def test_a_damaged_statement_is_refused(field: str, value: object, word: str) -> None:
    message = share_message(statement(), STEAM.users, Time(), "run")
    setattr(message, field, value)
    with pytest.raises(MessageError, match=f"field {word}"):
        share_from(message, PEERS, STEAM, N)


def test_a_damaged_step_does_not_make_the_headers_deaf() -> None:
    node: Any = SimpleNamespace(diagnostics=Diagnostics("plant"))
    config: Any = SimpleNamespace(controller=SimpleNamespace(horizon=N), resources={})
    headers = Headers(node, config, {}, PEERS)
    headers.guards = {"steam": Guard(STEAM, N)}
    headers.cut(6, {"a": np.zeros(1), "b": np.zeros(1)})
    none = np.zeros((2, N))
    honest = Statement("a", "steam", 7, 7, np.zeros(N), np.zeros(N), none, none)
    for step in (2**60, 7):
        said = replace(honest, step=step, first=step)
        headers._on_message("steam", "a", share_message(said, STEAM.users, Time(), "run"))
    assert node.diagnostics.rejected["future"] == 1
    assert headers.guards["steam"].book.newest["a"].step == 7


def test_the_headers_say_who_is_named_until_when_and_who_was_cleared() -> None:
    node: Any = SimpleNamespace(diagnostics=Diagnostics("plant"))
    config: Any = SimpleNamespace(controller=SimpleNamespace(horizon=N), resources={})
    headers = Headers(node, config, {}, PEERS)
    headers.guards = {"steam": Guard(STEAM, N)}

    def said(step: int, a: float) -> tuple[str, dict[str, str]]:
        for user in STEAM.users:
            none = np.zeros((2, N))
            headers.guards["steam"].hear(Statement(user, "steam", step, step, np.zeros(N), np.zeros(N), none, none))
        headers.cut(step, {"a": np.array([a]), "b": np.zeros(1)})
        (status,) = node.diagnostics.statuses()
        return status.message, {value.key: value.value for value in status.values}

    message, numbers = said(0, 1e3)
    assert f"named until step {FORGIVEN} unless" in message and numbers["named"] == "a"
    message, numbers = said(FORGIVEN, 0.0)
    assert "of 9 kg/min" in message and numbers["named"] == "none" and numbers["cleared"] == f"a at step {FORGIVEN}"
