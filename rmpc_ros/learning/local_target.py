"""One agent turns the wish of a policy into a target that is certified for it alone.

While the neighbours rest at the centres zeta of what they promise for the end of the horizon, the agent's own law with
a constant deviation c rests at

    x = (I - A)^-1 (B c + G zeta + mu),     u = K x + c        (mu: learned mean of the residual)

so  min_c |set-point(c) - wish|^2 - e c  over  |c| <= (1 - back-off) gamma  is solved in closed form, with e the pull of
the agent's own economics at the file's prices (`weights`; zero for the tuned controllers). gamma is the authority the
invariant boxes were designed for, so the target cannot make a problem infeasible; `Agent.set_target` checks it again.
Where neighbours or the mean push x out of the own invariant box, (x, c) is drawn back towards zero as a whole.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from rmpc_ros.config import PlantConfig
from rmpc_ros.errors import ConfigError
from rmpc_ros.learning.local_reward import LocalReward
from rmpc_ros.learning.weights import economic_pull, slopes_at_rest
from rmpc_ros.network.agent_design import AgentDesign

Array = NDArray[np.float64]


class LocalTarget:
    """The certified targets of one agent.

    Parameters
    ----------
    config : plant file with a section `learning`
    design : the agent's

    Raises
    ------
    ConfigError
        The section does not say which set-point of this agent moves, or the agent has more than one input.
    """

    def __init__(self, config: PlantConfig, design: AgentDesign) -> None:
        learning = config.learning
        if learning is None:
            raise ConfigError(f"plant '{config.plant.name}' has no section 'learning': no policy can move a target")
        self._actions = learning.actions
        name = self._actions.setpoints.get(design.name)
        if name not in design.state_names:
            raise config.error(
                ("learning", "actions", "setpoints"),
                f"agent '{design.name}' moves {name!r}; its states are {', '.join(design.state_names)}",
            )
        if design.nu != 1:
            raise ConfigError(f"agent '{design.name}' has {design.nu} inputs; targets need one input per agent")
        model, nx = design.model, design.nx
        self.design = design
        self.moved = design.state_names.index(name)
        inverse = np.linalg.inv(np.eye(nx) - model.A)
        self._from_c, self._from_zeta, self._from_mean = inverse @ model.B[:, 0], inverse @ model.G, inverse
        self._row = design.inverse_transform[self.moved] * design.scale[:nx]  # set-point of normalised coordinates
        inputs = (model.K @ self._from_c + 1.0) * design.scale[nx:]
        states = design.inverse_transform @ (design.scale[:nx] * self._from_c)
        self._slopes = {
            term: np.reshape(slope, (1, 1))
            for term, slope in slopes_at_rest(LocalReward.of(config, design.name), states, inputs).items()
        }
        self._base = float(config.setpoint(design.name)[self.moved] - design.steady_state[self.moved])

    def choose(self, action: Array, zeta: Array, mean: Array) -> tuple[Array, Array]:
        """Resting states (..., nx) and law deviations (...,), normalised.

        Parameters
        ----------
        action : (..., 2 to 4) in [-1, 1]: offset of the set-point; back-off: none, the file's, the largest; economic
            weight, terminal weight (of no effect here)
        zeta : (..., ng) promised centres of the neighbours, normalised
        mean : (..., nx) of the residual, normalised
        """
        chosen, bounded = self._actions, np.clip(action, -1.0, 1.0)
        second = bounded[..., 1]
        span = np.where(second >= 0, chosen.most_back_off - chosen.back_off, chosen.back_off)
        limit = (1.0 - chosen.back_off - span * second) * self.design.terminal[-1]
        moved = zeta @ self._from_zeta.T + mean @ self._from_mean.T
        missing = self._base + chosen.span * bounded[..., 0] - moved @ self._row
        reach = self._row @ self._from_c
        pull = economic_pull(chosen, self._slopes, bounded[..., None, :])[..., 0]
        c = np.clip(missing / reach + 0.5 * pull / reach**2, -limit, limit)
        x = moved + c[..., None] * self._from_c
        over = np.max(np.abs(x) / self.design.terminal[: self.design.nx], axis=-1)
        shrink = 1.0 / np.maximum(over, 1.0)
        return x * shrink[..., None], c * shrink

    def references(self, action: Array, zeta: Array, mean: Array) -> tuple[Array, Array]:
        """Target (x_ref (nx,), u_ref (1,)) for `Agent.set_target`; zero action gives the plant file's own target."""
        if not np.any(action):
            return self.design.x_ref, self.design.u_ref
        x, c = self.choose(action, zeta, mean)
        return x, self.design.model.K @ x + np.atleast_1d(c)
