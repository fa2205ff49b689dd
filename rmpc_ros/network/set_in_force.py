"""The set of one-step residuals an agent reckons with now: adopted when certified, given up when it broke a promise."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from rmpc_ros.errors import SetError, SolverError
from rmpc_ros.mpc.fixed import FixedFeedback
from rmpc_ros.mpc.local import Matrix, StepData, Vector
from rmpc_ros.network.agent_design import AgentDesign, Controller
from rmpc_ros.network.residual_set import ResidualMean, ResidualSet, certified, designs_own, shifted
from rmpc_ros.sets.base import UncertaintySet


class SetInForce:
    """The residual set of one agent and the tube that follows from it.

    Parameters
    ----------
    design : the agent's
    problem : any `FixedFeedback` of this design; gives the directions of the tube
    controller : gets its tube changed

    Attributes
    ----------
    design_set : what the design reckons with; never exceeded
    present : in force
    used : the same, moved by the learned mean of the last step
    mean : learned mean that moves the set in every step, or None
    grown : whether the set has grown since `grown` was last reset (when a plan was made)
    lost : why the last learned set was given up; empty while one is in force or none ever was
    """

    def __init__(self, design: AgentDesign, problem: FixedFeedback, controller: Controller) -> None:
        self._design, self._problem, self._controller = design, problem, controller
        self._unit = design.scale[: design.nx]
        self.design_set = designs_own(design, problem)
        self.present = self.used = self.design_set
        self.mean: ResidualMean | None = None
        self.grown = False
        self.lost = ""

    @property
    def directions(self) -> Matrix:
        """In which the sets' supports are given, (N, nx+nu, nx)."""
        return self._problem.directions

    @property
    def learned(self) -> bool:
        """Whether another set than the design's is in force."""
        return self.mean is not None or self.design_set.grows_beyond(self.present)

    def adopt(self, members: UncertaintySet, mean: ResidualMean | None, rate: float, try_it: bool) -> None:
        """See `Agent.set_disturbance`; `try_it`: solve the robust problem for the data in force."""
        who = f"residual set for agent '{self._design.name}'"
        if type(self._controller) is not FixedFeedback:
            raise SetError(
                f"{who}: feedback '{self._design.form}' has the design's set compiled in; only 'fixed' takes another"
            )
        before = self.present, self.mean, self.grown, self.used
        self._use(certified(self._design, self._problem, members, self.design_set, self.present, rate), mean)
        if try_it and before[0].grows_beyond(self.present):  # a set around the old one is taken in any case: it is safe
            try:
                self._controller.solve()
            except SolverError as error:
                self._restore(before)
                raise type(error)(f"{who}: no plan with it for the present data ({error})", error.status) from error
        self.lost = ""

    def possible(self, members: UncertaintySet, mean: ResidualMean | None, rate: float, try_it: bool) -> bool:
        """Whether `adopt` would succeed; what is in force stays in force."""
        before = self.present, self.mean, self.grown, self.used
        try:
            self.adopt(members, mean, rate, try_it)
        except (SetError, SolverError):
            return False
        self._restore(before)
        return True

    def take_designs(self) -> None:
        """The design's set from now on."""
        if self.learned:
            self._use(replace(self.design_set, version=self.present.version + 1), None)

    def give_up(self, reason: str) -> None:
        """The design's set from now on, because the learned one was wrong."""
        if self.learned:
            self.lost = reason
            self.take_designs()

    def move(self, data: StepData, last_input: Vector) -> None:
        """Ask the learned mean for this step."""
        if self.mean is None:
            return
        mean = np.asarray(self.mean(data.x, last_input, data.zeta[0]), float)
        if mean.shape != (self._design.nx,) or not np.all(np.isfinite(mean)):
            self.give_up(f"the learned mean of the residual is {mean.tolist()}")
            return
        self._tighten(shifted(self._problem, self.present, self.design_set, mean, self._unit))

    def _restore(self, before: tuple[ResidualSet, ResidualMean | None, bool, ResidualSet]) -> None:
        self.present, self.mean, self.grown, _ = before
        self._tighten(before[3])

    def _use(self, members: ResidualSet, mean: ResidualMean | None) -> None:
        self.grown = self.grown or members.grows_beyond(self.present)
        self.present, self.mean = members, mean
        self._tighten(members)

    def _tighten(self, members: ResidualSet) -> None:
        self.used = members
        if isinstance(self._controller, FixedFeedback):
            self._controller.tighten(members.upper, members.lower, members.center)
