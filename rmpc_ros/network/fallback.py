"""What an agent does in a step whose robust problem was not solved, best first.

certified  the candidate: last step's policy, where it was certified; else the backup law, where its tube keeps the own
           promise from inside the invariant box
backup     the softened problem
safe       the backup law, although it is not known to keep anything
"""

from __future__ import annotations

import numpy as np

from rmpc_ros.errors import SolverError
from rmpc_ros.mpc.local import LocalPlan, Matrix, StepData, Vector
from rmpc_ros.mpc.soft import SoftBackup
from rmpc_ros.network.agent_design import AgentDesign
from rmpc_ros.network.announcement import exceeds
from rmpc_ros.network.decision import Mode


class Fallback:
    """One agent's ways out.

    Parameters
    ----------
    design : of the agent

    Attributes
    ----------
    hard : the agent's problem with fixed feedback, for tubes; its data are those of the last use
    """

    def __init__(self, design: AgentDesign) -> None:
        self._design = design
        self._soft = SoftBackup(design.build_fixed())
        self.hard = self._soft.hard

    def law(self, data: StepData) -> LocalPlan:
        """The backup law alone (c = 0), with the data in force."""
        self.hard.data.copy_from(data)
        self.hard.sides()
        return self.hard.plan(np.zeros(self._design.horizon * self._design.nu))

    def without_solution(
        self, data: StepData, x: Vector, lower: Matrix, upper: Matrix, error: SolverError, candidate: bool
    ) -> tuple[LocalPlan | None, Mode, str, str]:
        """Plan, mode, solver status and reason; no plan: the candidate is to be followed.

        Parameters
        ----------
        data : in force
        x : (nx,) measured, normalised
        lower, upper : (N+1, nx+nu) of the own promise, normalised
        error : why there is no solution
        candidate : last step's policy is certified
        """
        why = f"{error} ({error.status})"
        if candidate:
            return None, "certified", error.status, why
        law, box = self.law(data), self._design.terminal
        inside = self._design.in_invariant_box(x)  # there the law keeps the input limits
        if inside and not exceeds(self._design, law, np.maximum(lower, -box), np.minimum(upper, box)):
            return law, "certified", error.status, f"{why}; following the backup law"
        try:
            return self._soft.solve(), "backup", error.status, why
        except SolverError as second:
            return law, "safe", second.status, f"{why}; backup controller: {second}"
