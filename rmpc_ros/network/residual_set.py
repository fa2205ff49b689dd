"""What an agent's one-step prediction leaves unexplained, and the sets of it that may take the design's place.

    r = x+ - (A x + B c + G zeta),      x, x+ measured; c = u - K x applied; zeta the neighbours' true quantities

r holds disturbance, model error and the effect of sensor noise together. The design reckons with r in W (its sum of
disturbances); a learned set S replaces W in the tightening. r lies in both, so per direction a of the tube

    h(a) = min( h_S(a), h_W(a) ),    but no faster than  h(a) >= h_old(a) - rate (h_W(a) + h_W(-a)) / 2

Certified before use: S has the right dimension and finite supports, its coordinate bounds are inside the design's, it
meets W. So a tube is never wider than the design's: the invariant boxes, on which limits and neighbours rely, hold
whatever S is. A wrong S can only break the agent's own promise, which is declared (a new epoch), never a limit.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from rmpc_ros.errors import DataError, SetError
from rmpc_ros.mpc.fixed import FixedFeedback
from rmpc_ros.network.agent_design import AgentDesign
from rmpc_ros.sets.base import UncertaintySet

Vector = NDArray[np.float64]
Matrix = NDArray[np.float64]
ResidualMean = Callable[[Vector, Vector, Vector], Vector]
"""(x (nx,), last input (nu,), zeta (ng,)) -> predicted mean of the residual (nx,), all normalised."""
TOLERANCE = 1e-6  # of the design's half-widths


def one_step_residual(
    design: AgentDesign,
    state: Vector,
    applied: Vector,
    after: Vector,
    neighbour_states: Mapping[str, Vector],
    neighbour_deviations: Mapping[str, Vector],
) -> Vector:
    """Residual r (nx,) of one step in the agent's coordinates, in their physical units.

    Parameters
    ----------
    state, after : (nx,) measured at k and k+1, physical
    applied : (nu,) input in force between them, physical
    neighbour_states : measured at k, physical
    neighbour_deviations : (nu,) of each neighbour's input from its backup law, physical: `law_deviation` where its
        input is known, else the centre of what it promised for k

    Raises
    ------
    DataError
        A neighbour is missing or a value is not finite.
    """
    zeta = neighbour_quantities(design, neighbour_states, neighbour_deviations)
    model, x = design.model, design.normalise(state)
    c = (applied - design.steady_input) / design.scale[design.nx :] - model.K @ x
    residual = design.normalise(after) - (model.A @ x + model.B @ c + model.G @ zeta)
    if not np.all(np.isfinite(residual)):
        raise DataError(f"residual of agent '{design.name}': a measurement or input is not finite")
    return np.asarray(residual * design.scale[: design.nx])


def neighbour_quantities(design: AgentDesign, states: Mapping[str, Vector], deviations: Mapping[str, Vector]) -> Vector:
    """Zeta (ng,), normalised, of the neighbours' measured states and law deviations, physical.

    Raises
    ------
    DataError
        A neighbour is missing.
    """
    zeta = np.empty(design.model.ng)
    for name, neighbour in design.neighbours.items():
        if name not in states or name not in deviations:
            raise DataError(f"residual of agent '{design.name}': nothing is known about its neighbour '{name}'")
        own = neighbour.normalise_states(neighbour.coordinates(states[name]))
        zeta[neighbour.columns] = np.concatenate([own, deviations[name] / neighbour.scale[len(own) :]])
    return zeta


def law_deviation(design: AgentDesign, state: Vector, applied: Vector) -> Vector:
    """Deviation (nu,) of an input from the agent's backup law at a measured state, physical: what it promises of it."""
    law = design.model.K @ design.normalise(state) * design.scale[design.nx :]
    return np.asarray(applied - design.steady_input - law)


def design_bounds(design: AgentDesign) -> tuple[Vector, Vector]:
    """Lower and upper (nx,) of the design's own residuals per coordinate, physical units."""
    eye, unit = np.eye(design.nx), design.scale[: design.nx]
    return -design.model.disturbance_support(-eye) * unit, design.model.disturbance_support(eye) * unit


@dataclass(frozen=True)
class ResidualSet:
    """A set of residuals in force: its support in the directions of the tube, normalised.

    Attributes
    ----------
    upper, lower : (N, nx+nu) support along the tube's directions and against them
    center : (nx,) what the nominal prediction reckons with
    lowest, highest : (nx,) bounds per coordinate, physical units
    version : 0 is the design's own set; grows with every adoption
    """

    upper: Matrix = field(repr=False)
    lower: Matrix = field(repr=False)
    center: Vector
    lowest: Vector
    highest: Vector
    version: int

    @property
    def radius(self) -> Vector:
        """Half-widths (nx,) per coordinate, physical units."""
        return (self.highest - self.lowest) / 2

    def share_of(self, design: ResidualSet) -> Vector:
        """Half-widths (nx,) over the design's."""
        return np.asarray(self.radius / np.maximum(design.radius, 1e-300))

    def pulled_inside(self, directions: Matrix, residual: Vector) -> Vector:
        """The residual (nx,), normalised, pulled towards the centre until no direction of the tube is exceeded.

        Parameters
        ----------
        directions : (N, nx+nu, nx) of the `FixedFeedback` that the supports are from
        """
        away = directions @ (residual - self.center)
        room = np.where(away > 0, self.upper - directions @ self.center, self.lower + directions @ self.center)
        over = np.max(np.abs(away) / np.maximum(room, 1e-300))
        return np.asarray(self.center + (residual - self.center) / max(float(over), 1.0))

    def grows_beyond(self, other: ResidualSet) -> bool:
        """Whether some member of this set may lie outside the other."""
        room = TOLERANCE * (np.abs(other.upper) + np.abs(other.lower))
        return bool(np.any(self.upper > other.upper + room) or np.any(self.lower > other.lower + room))


def designs_own(design: AgentDesign, problem: FixedFeedback) -> ResidualSet:
    """The set the design reckons with."""
    upper, lower = problem.supports(design.model.disturbance_support)
    return ResidualSet(upper, lower, np.zeros(design.nx), *design_bounds(design), 0)


def certified(
    design: AgentDesign,
    problem: FixedFeedback,
    members: UncertaintySet,
    whole: ResidualSet,
    present: ResidualSet,
    rate: float,
) -> ResidualSet:
    """The set that takes the place of `present`.

    Parameters
    ----------
    members : of the residual in the agent's coordinates, physical units; need not be centred
    whole : the design's own
    rate : most that a bound may move inwards at once, as a share of the design's half-width; outwards is free

    Raises
    ------
    SetError
        Wrong dimension, not finite, larger than the design's set in some coordinate, or outside it.
    """
    who = f"residual set for agent '{design.name}'"
    nx, unit = design.nx, design.scale[: design.nx]
    if members.dim != nx:
        raise SetError(f"{who} has dimension {members.dim}; its coordinates {', '.join(design.names[:nx])} are {nx}")
    eye = np.eye(nx)
    lowest, highest = -np.asarray(members.support(-eye)), np.asarray(members.support(eye))
    room = TOLERANCE * whole.radius
    for i, name in enumerate(design.names[:nx]):
        if not (np.isfinite(lowest[i]) and np.isfinite(highest[i]) and lowest[i] <= highest[i]):
            raise SetError(f"{who}: bounds of {name} are [{lowest[i]}, {highest[i]}]; finite ones are needed")
        if lowest[i] < whole.lowest[i] - room[i] or highest[i] > whole.highest[i] + room[i]:
            raise SetError(
                f"{who}: {name} in [{lowest[i]:.4g}, {highest[i]:.4g}] is not inside the design's "
                f"[{whole.lowest[i]:.4g}, {whole.highest[i]:.4g}]: promises to neighbours would not cover it"
            )
    upper, lower = problem.supports(lambda rows: np.asarray(members.support(rows / unit)))
    if not (np.all(np.isfinite(upper)) and np.all(np.isfinite(lower))):
        raise SetError(f"{who}: its support is not finite in some direction of the tube")
    upper, lower = np.minimum(upper, whole.upper), np.minimum(lower, whole.lower)
    span = whole.upper + whole.lower
    if np.any(upper + lower < -TOLERANCE * span):
        raise SetError(f"{who} does not meet the design's set: no residual the design reckons with is in it")
    slack = rate * span / 2
    lowest = np.minimum(lowest, present.lowest + rate * whole.radius)
    highest = np.maximum(highest, present.highest - rate * whole.radius)
    return ResidualSet(
        np.maximum(upper, present.upper - slack),
        np.maximum(lower, present.lower - slack),
        (lowest + highest) / 2 / unit,
        lowest,
        highest,
        present.version + 1,
    )


def shifted(
    problem: FixedFeedback, present: ResidualSet, whole: ResidualSet, mean: Vector, unit: Vector
) -> ResidualSet:
    """The set moved by a predicted mean, which is cut so that its coordinate bounds stay inside the design's.

    In an oblique direction the moved set can still lie wholly beside the design's. The two then contradict each other,
    and what they have in common is nothing; there the moved set alone counts, no wider than the design's but beside it.
    A mean that is wrong breaks the own promise then, as any wrong set does.

    Parameters
    ----------
    mean : (nx,) normalised
    unit : (nx,) physical size of 1
    """
    low, high = (whole.lowest - present.lowest) / unit, (whole.highest - present.highest) / unit
    mean = np.clip(mean, np.minimum(low, 0.0), np.maximum(high, 0.0))
    along = problem.directions @ mean
    upper, lower = np.minimum(present.upper + along, whole.upper), np.minimum(present.lower - along, whole.lower)
    apart = upper + lower < 0.0
    return ResidualSet(
        np.where(apart, present.upper + along, upper),
        np.where(apart, present.lower - along, lower),
        present.center + mean,
        present.lowest + mean * unit,
        present.highest + mean * unit,
        present.version,
    )
