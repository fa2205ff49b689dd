"""Messages of the rounds of cooperation to objects and back; the conventions are those of `convert`."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from builtin_interfaces.msg import Time

import rmpc_ros.msg as msg
from rmpc_ros.network.cooperation import Proposal
from rmpc_ros.nodes.checks import ANY_TIME, Check, Peers, Window, packed
from rmpc_ros.nodes.convert import header

MOST_ROUNDS = 200  # of a step, as in a plant file


def proposal_message(said: Proposal, stamp: Time, run: str) -> msg.Negotiation:
    """Message of a round."""
    blocks = [(said.agent, partner, values) for partner, values in said.own.items()]
    blocks += [(about, about, values) for about, values in said.copies.items()]
    out = msg.Negotiation(header=header(stamp), run=run, agent=said.agent, step=said.step, round=said.round)
    out.last = said.last
    out.residual = float(said.residual)
    out.horizon = len(blocks[0][2]) if blocks else 0
    out.about = [about for about, _, _ in blocks]
    out.partner = [partner for _, partner, _ in blocks]
    out.values = packed(np.concatenate([values.ravel() for _, _, values in blocks]) if blocks else np.zeros(0))
    return out


def proposal_from(
    message: msg.Negotiation, peers: Peers, sizes: Mapping[str, int], horizon: int, window: Window = ANY_TIME
) -> Proposal:
    """Checked round of a message.

    Parameters
    ----------
    peers : the sender alone, and whom it may speak about
    sizes : number of promised quantities of every agent
    horizon : of the receiver, who speaks with nobody else

    Raises
    ------
    MessageError
        The message does not fit these.
    """
    check = Check(message)
    check.origin(peers)
    step, number = check.time(window), int(message.round)
    if number > MOST_ROUNDS:
        raise check.refuse("wrong value", "round", f"{number}; at most {MOST_ROUNDS}")
    about, partners = list(message.about), list(message.partner)
    if len(about) != len(partners) or len(set(zip(about, partners, strict=False))) != len(about):
        raise check.refuse("wrong length", "partner", f"{len(partners)} for {len(about)} blocks, each pair once")
    for field, names in (("about", about), ("partner", partners)):
        unknown = [name for name in names if name not in sizes]
        if unknown:
            raise check.refuse("unknown agent", field, f"'{unknown[0]}'; known: {', '.join(sizes)}")
    if about and int(message.horizon) != horizon:
        raise check.refuse("wrong value", "horizon", f"{message.horizon}; expected {horizon}")
    values = check.floats("values", (sum(horizon * sizes[name] for name in about),))
    own, copies = {}, {}
    at = 0
    for name, partner in zip(about, partners, strict=True):
        block = values[at : at + horizon * sizes[name]].reshape(horizon, -1)
        at += block.size
        if name == message.agent:
            own[partner] = block
        elif name == partner:
            copies[name] = block
        else:
            raise check.refuse("wrong value", "about", f"'{name}' with '{partner}': not its own, and no copy")
    residual = check.number("residual", low=0.0, nan=True) if not np.isposinf(message.residual) else np.inf
    return Proposal(str(message.agent), step, number, own, copies, residual, bool(message.last))
