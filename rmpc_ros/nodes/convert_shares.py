"""Messages about shares of a resource to objects and back; the conventions are those of `convert`."""

from __future__ import annotations

from builtin_interfaces.msg import Time

import rmpc_ros.msg as msg
from rmpc_ros.network.shared_resource import ResourceDesign, Statement
from rmpc_ros.nodes.checks import ANY_TIME, Check, Peers, Window, packed
from rmpc_ros.nodes.convert import header


def share_message(said: Statement, users: tuple[str, ...], stamp: Time, run: str) -> msg.Share:
    """Message of a statement."""
    out = msg.Share(header=header(stamp), run=run, agent=said.agent, step=said.step, resource=said.resource)
    out.users = list(users)
    out.first_step = said.first
    out.horizon = len(said.wish)
    out.wish, out.price = packed(said.wish), packed(said.price)
    out.given, out.taken = packed(said.given), packed(said.taken)
    return out


def share_from(
    message: msg.Share, peers: Peers, resource: ResourceDesign, horizon: int, window: Window = ANY_TIME
) -> Statement:
    """Checked statement of a message about `resource`, with a horizon that all its users have in common.

    Raises
    ------
    MessageError
        The message does not fit these.
    """
    check = Check(message)
    check.origin(peers)
    step = check.time(window)
    if message.resource != resource.name:
        raise check.refuse("wrong value", "resource", f"'{message.resource}'; expected '{resource.name}'")
    if message.agent not in resource.users:
        raise check.refuse("unknown agent", "agent", f"'{message.agent}' does not use {resource.name}")
    check.names("users", resource.users)
    if int(message.horizon) != horizon or int(message.first_step) != step:
        raise check.refuse(
            "wrong value",
            "horizon",
            f"{message.horizon} steps from {message.first_step}; expected {horizon} from its step {step}",
        )
    m = len(resource.users)
    return Statement(
        str(message.agent),
        resource.name,
        step,
        step,
        check.floats("wish", (horizon,), low=0.0),
        check.floats("price", (horizon,)),
        check.floats("given", (m, horizon), low=0.0),
        check.floats("taken", (m, horizon), low=0.0),
    )
