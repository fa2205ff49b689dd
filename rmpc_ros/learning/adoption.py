"""What an agent accepts from a learner: contents of updates checked against the agent's own design.

The checks are the agent's, whoever sent the update and whatever its certificate says. A set still has to pass
`Agent.set_disturbance`, a target `Agent.set_target`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rmpc_ros.config.learning import LEAST_MOVES, MOVES, Move
from rmpc_ros.errors import DataError, SetError
from rmpc_ros.learning.local_observation import LocalObservation
from rmpc_ros.learning.policy import KINDS, Actor, Kind, check_moves
from rmpc_ros.learning.update import Subject, Update
from rmpc_ros.network.agent_design import AgentDesign
from rmpc_ros.network.residual_set import design_bounds
from rmpc_ros.sets.box import Box

Array = NDArray[np.float64]

LARGEST_PARAMETER = 100.0  # of a policy; its observations are about one in size, its actions at most one
ACCEPTED: dict[Subject, tuple[str, ...]] = {"uncertainty": ("box",), "model": ("residual_mean",), "policy": KINDS}


class Adoption:
    """Checks for one agent; each raises DataError or SetError and says why.

    Parameters
    ----------
    design : the agent's
    observation : what it can show a policy
    bounded : what the plant file has bounds for
    """

    def __init__(
        self, design: AgentDesign, observation: LocalObservation, bounded: tuple[Move, ...] = LEAST_MOVES
    ) -> None:
        self._design, self._observation, self._bounded = design, observation, bounded
        self._lower, self._upper = design_bounds(design)

    def members(self, update: Update) -> Box:
        """Box of residuals in the agent's coordinates, physical units, inside the design's bounds."""
        if update.content.get("family") != "box":
            raise DataError(f"family {update.content.get('family')!r} in the content; allowed: 'box'")
        lower, upper = (self._vector(update.content, side, self._design.nx) for side in ("lower", "upper"))
        self._inside("lower", lower)
        self._inside("upper", upper)
        if np.any(lower >= upper):
            raise SetError(f"the box is empty or flat: lower {lower.tolist()}, upper {upper.tolist()}")
        return Box(lower, upper)

    def mean(self, update: Update) -> Array:
        """Mean of the residuals (nx,) in the agent's coordinates, physical units, inside the design's bounds."""
        mean = self._vector(update.content, "mean", self._design.nx)
        self._inside("mean", mean)
        return mean

    def policy(self, update: Update) -> tuple[Actor, Array, tuple[Move, ...]]:
        """Actor, parameters (size,) and moves that fit this plant's agents, observations and bounds."""
        sizes = {}
        for key in ("agents", "observations", "actions"):
            value = update.content.get(key)
            if isinstance(value, bool) or not isinstance(value, int):
                raise DataError(f"{key} = {value!r}; a whole number is needed")
            sizes[key] = value
        wanted = {"agents": len(self._observation.agents), "observations": self._observation.size}
        for key, value in wanted.items():
            if sizes[key] != value:
                raise DataError(f"{key} = {sizes[key]}; this plant has {value}")
        if not len(LEAST_MOVES) <= sizes["actions"] <= len(MOVES):
            raise DataError(f"actions = {sizes['actions']}; set-point and back-off are needed, at most {len(MOVES)}")
        words = update.content.get("moves", list(LEAST_MOVES))
        if not isinstance(words, list):
            raise DataError(f"moves = {words!r}; a list is needed")
        moves = check_moves(words, sizes["actions"])
        for move in moves:
            if move not in self._bounded:
                raise DataError(f"it moves '{move}', for which this plant's file has no bounds (learning.actions)")
        kind: Kind = next(k for k in KINDS if k == update.kind)
        actor = Actor(kind, **sizes)
        parameters = self._vector(update.content, "parameters", actor.size)
        largest = float(np.max(np.abs(parameters)))
        if largest > LARGEST_PARAMETER:
            raise DataError(f"parameters reach {largest:.3g}; allowed: -{LARGEST_PARAMETER:g} to {LARGEST_PARAMETER:g}")
        return actor, parameters, moves

    def check(self, update: Update) -> Any:
        """The content, checked by its subject."""
        checks: dict[Subject, Callable[[Update], Any]] = {
            "uncertainty": self.members,
            "model": self.mean,
            "policy": self.policy,
        }
        return checks[update.subject](update)

    def _vector(self, content: dict[str, Any], key: str, size: int) -> Array:
        values = content.get(key)
        flat = isinstance(values, list) and all(isinstance(v, (int, float)) and not isinstance(v, bool) for v in values)
        if not flat:
            raise DataError(f"{key}: a list of {size} numbers is needed")
        out = np.array(values, float)
        if out.shape != (size,) or not np.all(np.isfinite(out)):
            raise DataError(f"{key}: {out.size} numbers, finite: {bool(np.all(np.isfinite(out)))}; {size} are needed")
        return out

    def _inside(self, what: str, values: Array) -> None:
        room = 1e-6 * (self._upper - self._lower)
        outside = np.flatnonzero((values < self._lower - room) | (values > self._upper + room))
        if outside.size:
            i = int(outside[0])
            raise DataError(
                f"{what} of {self._design.names[i]} = {values[i]:.4g} is outside the design's "
                f"[{self._lower[i]:.4g}, {self._upper[i]:.4g}]"
            )
