"""What an agent believes of its neighbours: which of their messages it takes in, and the sets that follow from them.

A promise that was believed stands until a newer one may take its place; before the first one a neighbour stands for its
invariant box. Where a neighbour's measured state leaves what it promised, the box is believed of it again.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

import numpy as np

from rmpc_ros.errors import PromiseError
from rmpc_ros.mpc.local import Matrix, Vector
from rmpc_ros.network.agent_design import AgentDesign
from rmpc_ros.network.commitment import TOLERANCE, check_standing
from rmpc_ros.network.forecast import ForecastSet
from rmpc_ros.network.proposal import Held


class Neighbourhood:
    """One agent's beliefs about its neighbours.

    Parameters
    ----------
    design : of the agent

    Attributes
    ----------
    held : what is relied on, by neighbour; empty before `begin`
    """

    def __init__(self, design: AgentDesign) -> None:
        self._design = design
        self.held: dict[str, Held] = {}

    def begin(self, acknowledged: Iterable[ForecastSet], forget: bool) -> None:
        """Begin at a step.

        Parameters
        ----------
        acknowledged : neighbours' proposals that bind still, after a restart
        forget : what the neighbours promised before does not count
        """
        known: dict[str, tuple[ForecastSet, ...]] = {}
        for proposal in acknowledged:
            known[proposal.agent] = (*known.get(proposal.agent, ()), proposal)
        before = {} if forget else self.held
        # Standing sets hold from step 0 on: a neighbour that died before this step is believed in what it said last.
        self.held = {
            name: before.get(name) or Held(neighbour.terminal_promise(0, self._design.period), known.get(name, ()))
            for name, neighbour in self._design.neighbours.items()
        }

    @property
    def newest_epoch(self) -> int:
        """The newest epoch that a neighbour has declared."""
        return max((held.iteration for held in self.held.values()), default=0)

    def all_in(self, epoch: int) -> bool:
        """Whether every neighbour has come to an epoch."""
        return all(held.iteration >= epoch for held in self.held.values())

    def receive(self, forecast: ForecastSet) -> None:
        """Take a commitment into use, or a proposal into consideration.

        Raises
        ------
        PromiseError
            See `Agent.receive`: what was believed before stands.
        """
        design = self._design
        if forecast.agent not in design.neighbours:
            known = ", ".join(design.neighbours) or "none"
            raise PromiseError(f"'{forecast.agent}' is not a neighbour of '{design.name}'; its neighbours are {known}")
        held = self.held[forecast.agent]
        if forecast.kind == "proposal":
            self.held[forecast.agent] = held.offered(forecast)
            return
        new_epoch = forecast.iteration > held.iteration  # within one it lies inside the promise before
        held = held.heard(forecast, TOLERANCE)
        if new_epoch:
            neighbour = design.neighbours[forecast.agent]
            check_standing(forecast, neighbour.center, neighbour.terminal * neighbour.scale, TOLERANCE)
        self.held[forecast.agent] = held

    def outside(self, step: int, states: Mapping[str, Vector]) -> list[str]:
        """Neighbours whose measured state (physical) is not in what they promised; their invariant box counts now."""
        found = []
        for name, neighbour in self._design.neighbours.items():
            measured = states.get(name)
            if measured is None or not np.all(np.isfinite(measured)):
                continue
            promise = self.held[name]
            if not promise.contains(step, neighbour.coordinates(measured), TOLERANCE):
                found.append(name)
                # Still of its old epoch: whatever it declares next is believed.
                standing = neighbour.terminal_promise(step, self._design.period, promise.iteration)
                self.held[name] = replace(promise, newest=standing)
        return found

    def fill(
        self,
        step: int,
        states: Mapping[str, Vector],
        zeta: Matrix,
        radius: Matrix,
        offered: frozenset[str] = frozenset(),
    ) -> None:
        """Fill centres and half-widths (N, ng) of everything that is promised, and `offered` by those named.

        States that were measured for this step (physical) are known exactly.
        """
        for name, neighbour in self._design.neighbours.items():
            center, scale = self.held[name].window(step, self._design.horizon, name in offered)
            neighbour.normalise_into(center, scale, zeta, radius)
            measured = states.get(name)
            if measured is not None and np.all(np.isfinite(measured)):
                values = neighbour.coordinates(measured)
                n = len(values)
                zeta[0, neighbour.columns.start : neighbour.columns.start + n] = neighbour.normalise_states(values)
                radius[0, neighbour.columns.start : neighbour.columns.start + n] = 0.0
