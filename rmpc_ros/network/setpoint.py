"""An agent's target from set-points of its states, and how far a set-point may go.

A target is certified where it lies in the agent's invariant box and the input that holds it there, with the neighbours
at rest, deviates from the backup law by no more than the authority: then the tube about it stays inside the box.
"""

from __future__ import annotations

import numpy as np

from rmpc_ros.errors import DataError
from rmpc_ros.network.agent_design import AgentDesign, Vector
from rmpc_ros.network.commitment import TOLERANCE


def check_target(design: AgentDesign, x_ref: Vector, u_ref: Vector) -> Vector:
    """A target's quantities (nx+nu,), states and law deviations, normalised.

    Raises
    ------
    DataError
        Wrong shape, not finite, or outside the invariant box or the authority.
    """
    if x_ref.shape != (design.nx,) or u_ref.shape != (design.nu,):
        raise DataError(
            f"target of agent '{design.name}' has shapes {x_ref.shape} and {u_ref.shape}; "
            f"({design.nx},) and ({design.nu},) are needed"
        )
    values = np.concatenate([x_ref, u_ref - design.model.K @ x_ref])
    if not np.all(np.abs(values) <= design.terminal * (1 + TOLERANCE)):  # also refuses NaN
        raise DataError(
            f"target of agent '{design.name}' = {shown(values)} (states, law deviations; normalised) is outside "
            f"the certified +-{shown(design.terminal)}"
        )
    return values


def shown(values: Vector) -> str:
    """Numbers in a message."""
    return "(" + ", ".join(f"{v:.5g}" for v in values) + ")"


def target_of(design: AgentDesign, states: Vector) -> tuple[Vector, Vector]:
    """Normalised (x_ref, u_ref) that hold physical set-points (nx,) as nearly as the inputs can (least squares)."""
    model, x_ref = design.model, design.normalise(states)
    own = model.A - model.B @ model.K
    u_ref = np.linalg.lstsq(model.B, x_ref - own @ x_ref, rcond=None)[0]
    return x_ref, np.asarray(u_ref, np.float64)


def certified_target(design: AgentDesign, states: Vector, from_states: Vector) -> tuple[Vector, Vector]:
    """The same, where it is certified.

    Parameters
    ----------
    design : of the agent
    states : (nx,) wanted set-points, physical
    from_states : (nx,) set-points that are certified, for the message

    Raises
    ------
    DataError
        It is not; the message says how far towards it one may go.
    """
    if not np.all(np.isfinite(states)):
        raise DataError(f"set-points of agent '{design.name}' = {states.tolist()}: give finite numbers")
    if not _inside(design, states):
        share = 0.0
        for n in range(1, 21):  # bisection: the certified targets are convex
            more = share + 2.0**-n
            share = more if _inside(design, from_states + more * (states - from_states)) else share
        allowed = from_states + share * (states - from_states)
        moved = np.flatnonzero(states != from_states)
        raise DataError(
            f"set-point of agent '{design.name}' "
            + ", ".join(f"{design.state_names[n]} = {states[n]:.8g}" for n in moved)
            + " is beyond what the invariant box and the authority certify; in this direction at most "
            + ", ".join(f"{design.state_names[n]} = {allowed[n]:.8g}" for n in moved)
        )
    return target_of(design, states)


def _inside(design: AgentDesign, states: Vector) -> bool:
    x_ref, u_ref = target_of(design, states)
    values = np.concatenate([x_ref, u_ref - design.model.K @ x_ref])
    return bool(np.all(np.abs(values) <= design.terminal))
