"""The agent without robustness, for comparison: the same model, cost and solver, no disturbance in mind.

It plans with its limits as constraints on the nominal trajectory, holds its neighbours at their measured states, and
promises nothing. Where even that is infeasible it softens its constraints. What it gets wrong is what robustness buys.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from rmpc_ros.errors import SolverError
from rmpc_ros.mpc.fixed import FixedFeedback
from rmpc_ros.mpc.local import Matrix, Vector
from rmpc_ros.mpc.soft import SoftBackup
from rmpc_ros.network.agent_design import AgentDesign

WIDE = 1e6  # normalised: no bound


class NominalAgent:
    """Certainty-equivalent MPC of one agent."""

    def __init__(self, design: AgentDesign) -> None:
        self.design = design
        model = replace(design.model, disturbances=())
        self._hard = FixedFeedback(model, design.cost, design.horizon)
        self._soft = SoftBackup(self._hard)
        self._lower, self._upper = coordinate_limits(design)

    def input(self, state: Vector, neighbour_states: Mapping[str, Vector]) -> Vector:
        """Input (nu,) for measured states, physical units."""
        design, data = self.design, self._hard.data
        data.x[:] = design.normalise(state)
        data.zeta[:], data.radius[:] = 0.0, 0.0
        for name, neighbour in design.neighbours.items():
            values = neighbour.normalise_states(neighbour.coordinates(neighbour_states[name]))
            data.zeta[:, neighbour.columns.start : neighbour.columns.start + len(values)] = values
        data.x_lower[:], data.x_upper[:] = self._lower, self._upper
        data.c_lower[:], data.c_upper[:] = -WIDE, WIDE
        data.x_ref[:], data.u_ref[:] = design.x_ref, design.u_ref
        try:
            plan = self._hard.solve()
        except SolverError:
            plan = self._soft.solve()
        u = design.physical_inputs(design.model.K @ data.x + plan.v[0])
        return np.clip(u, design.input_lower, design.input_upper)


def coordinate_limits(design: AgentDesign) -> tuple[Matrix, Matrix]:
    """Smallest box around the physical limits in normalised coordinates, (nx,), (nx,)."""
    T = design.transform
    low, high = design.state_lower - design.steady_state, design.state_upper - design.steady_state
    products = np.stack([T * low, T * high])
    scale = design.scale[: design.nx]
    return products.min(axis=0).sum(axis=1) / scale, products.max(axis=0).sum(axis=1) / scale
