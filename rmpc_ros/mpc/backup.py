"""What the actuator side runs while its agent is silent.

    u(t) = ubar(t) + K (x(t) - xbar(t)) + sum_{s<=t} L(t,s) (x(s) - xbar(s))      within the plan,
    u(t) = u_s + K (x(t) - x_s)                                                   beyond it, for ever

This is the committed policy itself, written as feedback on the own measured state, so a silent agent's promise is kept
(math.md 3.2, "the actuator side"). It also serves the agent as the candidate when a new problem is not solved.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float64]


@dataclass(frozen=True)
class BackupPlan:
    """A committed policy in physical units.

    Attributes
    ----------
    step : first step of the plan
    nominal_inputs : (N, nu)
    nominal_states : (N+1, nx); the first is the measured state at `step`
    gain : (nu, nx) backup law K
    memory_gain : (N, N, nu, nx) L(t, s), or (0, 0, nu, nx) for fixed feedback
    terminal_state, terminal_input : (nx,), (nu,) point about which the backup law works beyond the plan
    input_lower, input_upper : (nu,) limits of the actuator
    """

    step: int
    nominal_inputs: Vector
    nominal_states: Vector
    gain: Vector
    memory_gain: Vector
    terminal_state: Vector
    terminal_input: Vector
    input_lower: Vector
    input_upper: Vector

    @property
    def horizon(self) -> int:
        """N, number of inputs in the plan."""
        return int(self.nominal_inputs.shape[0])


class PlanFollower:
    """Evaluates a plan on measurements as they come.

    A plan with memory wants every measurement of its horizon in turn; where one is missing, its term is left out and
    the backup law alone acts on that deviation.
    """

    def __init__(self, plan: BackupPlan) -> None:
        self.plan = plan
        self._deviations: dict[int, Vector] = {}

    def input(self, step: int, state: Vector) -> Vector:
        """Input (nu,) for the measured state (nx,) at an absolute step, cut at the actuator's limits.

        Raises
        ------
        ValueError
            The step lies before the plan, or the state is not finite.
        """
        plan, t = self.plan, step - self.plan.step
        if t < 0:
            raise ValueError(f"step {step} lies before the plan, which starts at {plan.step}")
        if not np.all(np.isfinite(state)):
            raise ValueError(f"the measured state {state} at step {step} is not finite")
        if t >= plan.horizon:
            u = plan.terminal_input + plan.gain @ (state - plan.terminal_state)
        else:
            deviation = state - plan.nominal_states[t]
            u = plan.nominal_inputs[t] + plan.gain @ deviation
            if plan.memory_gain.shape[0]:
                self._deviations[t] = deviation
                for s, past in self._deviations.items():
                    u = u + plan.memory_gain[t, s] @ past
        return np.clip(u, plan.input_lower, plan.input_upper)


def memory_as_state_feedback(M: Vector, A: Vector, B: Vector) -> Vector:
    """Rewrite disturbance feedback as feedback on past state deviations.

    With e(s) = x(s) - xbar(s), c(t) - v(t) = delta(t) = sum_{s<t} M(t,s) w(s) and w(s) = e(s+1) - A e(s) - B delta(s),
    the recursion over t gives delta(t) = sum_{s<=t} L(t,s) e(s).

    Parameters
    ----------
    M : (N, N, nu, nx) strictly lower triangular in (t, s)
    A : (nx, nx) own closed loop, B : (nx, nu)

    Returns
    -------
    (N, N, nu, nx)
    """
    N, _, nu, nx = M.shape
    L = np.zeros((N, N, nu, nx))
    for t in range(1, N):
        for s in range(t):
            m = M[t, s]
            if not m.any():
                continue
            L[t, s + 1] += m
            L[t, s] -= m @ A
            L[t] -= np.einsum("ij,sjk->sik", m @ B, L[s])
    return L
