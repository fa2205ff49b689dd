"""Agents that exchange predicted tubes without commitments: usual distributed MPC, for comparison.

Each trusts the newest tube it heard of, and plans afresh inside its limits without keeping to the tube it announced
before. On a perfect network the sets it relies on are at most one step old; on a lossy one they are stale and untrue.
"""

from __future__ import annotations

import numpy as np

from rmpc_ros.mpc.local import LocalPlan, Matrix
from rmpc_ros.network.agent import Agent
from rmpc_ros.network.decision import Mode
from rmpc_ros.network.forecast import ForecastSet
from rmpc_ros.network.nominal import WIDE, coordinate_limits


class UnprotectedAgent(Agent):
    """An agent that announces but does not promise."""

    def receive(self, forecast: ForecastSet) -> None:
        """Believe the newest announcement."""
        held = self._neighbours[forecast.agent]
        if forecast.step >= held.step:
            self._neighbours[forecast.agent] = forecast

    def _own_promise(self, step: int) -> tuple[Matrix, Matrix]:
        low, high = coordinate_limits(self.design)
        wide = np.full(self.design.nu, WIDE)
        rows = self.design.horizon + 1
        return np.tile(np.concatenate([low, -wide]), (rows, 1)), np.tile(np.concatenate([high, wide]), (rows, 1))

    def _announce(self, step: int, plan: LocalPlan, lower: Matrix, upper: Matrix, mode: Mode) -> ForecastSet:
        nx = self.design.nx
        own_lower, own_upper = lower.copy(), upper.copy()
        own_lower[0, :nx] = own_upper[0, :nx] = plan.x[0]
        own_lower[1:, :nx], own_upper[1:, :nx] = plan.x[1:] - plan.tube_lower, plan.x[1:] + plan.tube_upper
        own_lower[:-1, nx:], own_upper[:-1, nx:] = plan.v - plan.c_width, plan.v + plan.c_width
        own_lower[-1, nx:], own_upper[-1, nx:] = -self.design.terminal[nx:], self.design.terminal[nx:]
        return self.design.forecast(step, own_lower, own_upper, self.epoch)

    def _start_afresh(self, epoch: int, reason: str) -> None:
        """Without promises there is nothing to break."""
