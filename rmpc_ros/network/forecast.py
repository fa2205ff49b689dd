"""A forecast set: what one agent promises its neighbours.

    x(t) in { center(t) + diag(scale(t)) s : |s|_inf <= 1 },  t = step .. step + T,  and the terminal box for ever after

(seeds 002 and 004 with box primitive sets). The promised quantities are the agent's states in its own coordinates,
followed by the deviations of its inputs from its backup law, because within one sampling period a neighbour feels both.
A promise never expires: beyond its horizon it means the terminal box (math.md 3.2).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float64]
Matrix = NDArray[np.float64]
Kind = Literal["proposal", "commitment", "acknowledgement"]


@dataclass(frozen=True)
class ForecastSet:
    """A box for each step of a horizon and one for all time after it.

    Attributes
    ----------
    agent : who promises
    step : step k of the first row
    period : seconds between rows
    names : the n promised quantities
    center, scale : (T+1, n) centres and half-widths for steps k .. k+T, in physical units
    terminal_center, terminal_scale : (n,)
    kind : what the message is for
    iteration : of a commitment: how often its sender has started afresh after a broken promise (its epoch); of a
        proposal and its acknowledgement: the proposal's number, which is the step it was made at
    shape : of the primitive set; "box"
    transform : (n, n) or None
    acknowledged_agent : whose proposal an acknowledgement answers
    adopted : number of the sender's newest adopted proposal; 0: none
    settled : the sender's proposals up to this number are adopted or withdrawn
    """

    agent: str
    step: int
    period: float
    names: tuple[str, ...]
    center: Matrix
    scale: Matrix
    terminal_center: Vector
    terminal_scale: Vector
    kind: Kind = "commitment"
    iteration: int = 0
    shape: str = "box"
    transform: Matrix | None = None
    acknowledged_agent: str = ""
    adopted: int = 0
    settled: int = 0

    @property
    def horizon(self) -> int:
        """T, steps covered after the first."""
        return int(self.center.shape[0]) - 1

    def at(self, step: int) -> tuple[Vector, Vector]:
        """Centre and half-width (n,) promised for an absolute step.

        Raises
        ------
        ValueError
            The step lies before the promise.
        """
        t = step - self.step
        if t < 0:
            raise ValueError(f"step {step} lies before the promise of '{self.agent}', which starts at {self.step}")
        if t > self.horizon:
            return self.terminal_center, self.terminal_scale
        return self.center[t], self.scale[t]

    def window(self, step: int, count: int) -> tuple[Matrix, Matrix]:
        """Centres and half-widths (count, n) for `count` steps from an absolute step on."""
        start = step - self.step
        if start < 0:
            raise ValueError(f"step {step} lies before the promise of '{self.agent}', which starts at {self.step}")
        inside = max(0, min(count, self.horizon + 1 - start))
        center = np.empty((count, self.terminal_center.size))
        scale = np.empty_like(center)
        center[:inside] = self.center[start : start + inside]
        scale[:inside] = self.scale[start : start + inside]
        center[inside:] = self.terminal_center
        scale[inside:] = self.terminal_scale
        return center, scale

    def contains(self, step: int, values: Vector, tolerance: float = 1e-7) -> bool:
        """Whether the first `len(values)` promised quantities lie in the box of a step.

        `tolerance` is relative to the terminal half-width of each quantity.
        """
        center, scale = self.at(step)
        n = len(values)
        room = scale[:n] + tolerance * self.terminal_scale[:n]
        return bool(np.all(np.abs(values - center[:n]) <= room))
