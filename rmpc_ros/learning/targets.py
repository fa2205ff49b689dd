"""Nearest certified target: min_c |D c - w|^2 - e'c  subject to  |c_i| <= (1 - b_i) gamma_i.

With the backup laws closed, u = K x + c, the network rests at x = S c, S = (I - A - B K)^-1 B. The invariant boxes
were designed for every |c| <= gamma (network/invariant.py), so the tube about a constant c lies inside them: a target
x = S c with |c| <= gamma is feasible for the robust controllers for all time. Policies wish for offsets w of
set-points; what they get is the nearest such target, so no wish can make a problem infeasible. D is the part of S that
moves the set-points, in physical units, b the back-off: the share of the authority that is left unused, e the pull of
the economics (`weights`), zero for the tuned controllers.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rmpc_ros.errors import DataError, NumericalError
from rmpc_ros.learning.case import LearningCase
from rmpc_ros.learning.local_reward import LocalReward
from rmpc_ros.learning.weights import LINEAR, Slopes, slopes_at_rest
from rmpc_ros.network.system import NetworkDesign

Array = NDArray[np.float64]

SWEEPS = 200
TOLERANCE = 1e-9


@dataclass(frozen=True)
class Targets:
    """The certified set of targets of a network whose agents have one input each.

    Attributes
    ----------
    S : (n, m) normalised steady state per law deviation
    K : (m, n) backup laws
    D : (m, m) physical set-points per law deviation
    authority : (m,)
    base : (m,) set-points of the plant file as offsets from the steady state, physical
    rows, columns : each agent's states and inputs
    slopes : (a, m) of each agent's own profit per law deviation, by reward term
    """

    S: Array
    K: Array
    D: Array
    authority: Array
    base: Array
    rows: dict[str, slice]
    columns: dict[str, slice]
    slopes: Slopes

    def nearest(self, wanted: Array, back_off: Array, pull: Array | float = 0.0) -> Array:
        """Law deviations (..., m) whose resting point is nearest to wanted offsets of the set-points.

        Parameters
        ----------
        wanted : (..., m) physical, beyond the file's set-points
        back_off : (..., m) share in [0, 1]
        pull : (..., m) of the economics, squared set-points per law deviation

        Raises
        ------
        DataError
            Something is not finite, or a back-off is outside [0, 1].
        NumericalError
            The coordinate descent did not converge.
        """
        if not (np.all(np.isfinite(wanted)) and np.all(np.isfinite(pull))):
            raise DataError("a wanted set-point, or the economics' pull on it, is not finite")
        if not np.all((back_off >= 0) & (back_off <= 1)):
            raise DataError(f"back-off {back_off.min():g} to {back_off.max():g} is outside [0, 1]")
        limit = (1.0 - back_off) * self.authority
        H = self.D.T @ self.D
        g = (wanted + self.base) @ self.D + 0.5 * np.asarray(pull)
        c = np.zeros(np.broadcast_shapes(g.shape, limit.shape))
        for _ in range(SWEEPS):  # exact coordinate minimisation of a strictly convex function over a box
            moved = 0.0
            for i in range(H.shape[0]):
                gradient = c @ H[:, i] - g[..., i]
                new = np.clip(c[..., i] - gradient / H[i, i], -limit[..., i], limit[..., i])
                moved = max(moved, float(np.max(np.abs(new - c[..., i]), initial=0.0)))
                c[..., i] = new
            if moved <= TOLERANCE * float(self.authority.max()):
                return c
        raise NumericalError(f"the target problem did not converge in {SWEEPS} sweeps", "not converged")

    def references(self, deviation: Array) -> dict[str, tuple[Array, Array]]:
        """Each agent's normalised target (x_ref, u_ref) for a law deviation (m,)."""
        x = self.S @ deviation
        u = self.K @ x + deviation
        return {name: (x[self.rows[name]], u[self.columns[name]]) for name in self.rows}


def certified_targets(case: LearningCase, network: NetworkDesign) -> Targets:
    """The set of targets that a network's design certifies.

    Raises
    ------
    DataError
        An agent has more or fewer than one input, so set-points and inputs do not correspond.
    """
    linear = case.config.linear
    m = network.B.shape[1]
    if m != len(case.agents) or any(linear.columns(a).stop - linear.columns(a).start != 1 for a in case.agents):
        raise DataError(f"targets need one input per agent; there are {m} inputs and {len(case.agents)} agents")
    closed = network.A + network.B @ network.boxes.K
    S = np.asarray(np.linalg.solve(np.eye(len(closed)) - closed, network.B), np.float64)
    physical = np.asarray(np.linalg.solve(linear.transform, S * network.x_scale[:, None]), np.float64)
    inputs = (network.boxes.K @ S + np.eye(m)) * network.u_scale[:, None]
    own = [
        slopes_at_rest(LocalReward.of(case.config, a), physical[linear.rows(a)].T, inputs[linear.columns(a)].T)
        for a in case.agents
    ]
    setpoint = np.concatenate([case.config.setpoint(agent) for agent in case.agents])
    return Targets(
        S,
        network.boxes.K,
        physical[case.moved],
        network.authority,
        (setpoint - case.steady)[case.moved],
        {a: linear.rows(a) for a in case.agents},
        {a: linear.columns(a) for a in case.agents},
        {term: np.stack([slopes[term] for slopes in own]) for term in LINEAR},
    )
