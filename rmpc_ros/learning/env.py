"""PettingZoo's ParallelEnv over a campaign: one decision a day by every agent, the robust controllers in the loop.

Every agent's reward is the team's profit per hour; `infos` carries its terms by name and the catalyst's activity.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium.spaces import Box
from numpy.typing import NDArray
from pettingzoo import ParallelEnv

from rmpc_ros.errors import DataError
from rmpc_ros.learning.campaign import Campaigns, observation_size
from rmpc_ros.learning.case import LearningCase
from rmpc_ros.learning.day import DayModel, RobustDays
from rmpc_ros.learning.economics import total
from rmpc_ros.learning.scenario import draw_scenarios
from rmpc_ros.learning.targets import Targets
from rmpc_ros.learning.weights import arranged

LARGEST = 100.0  # observations are about one in size; beyond this they are cut


class CampaignEnv(ParallelEnv):
    """A campaign as a multi-agent environment.

    Parameters
    ----------
    case : LearningCase
    model, targets : a surrogate and its certified targets; by default the real robust controllers
    harsh : whether the catalyst decays harshly
    """

    metadata = {"name": "rmpc_campaign_v0", "render_modes": []}  # noqa: RUF012 - the API's class attribute

    def __init__(
        self,
        case: LearningCase,
        model: DayModel | None = None,
        targets: Targets | None = None,
        harsh: bool = False,
    ) -> None:
        if (model is None) != (targets is None):
            raise DataError("give a day model and its targets together, or neither")
        if model is None or targets is None:
            robust = RobustDays(case)
            model, targets = robust, robust.targets
        self.case, self.model, self.targets, self.harsh = case, model, targets, harsh
        self.possible_agents = list(case.agents)
        self.agents: list[str] = []
        self.render_mode = None
        size = observation_size(case)
        self._observation_spaces = {a: Box(-LARGEST, LARGEST, (size,), np.float64) for a in case.agents}
        self._action_spaces = {a: Box(-1.0, 1.0, (len(case.moves),), np.float64) for a in case.agents}
        self._seed = 0

    def observation_space(self, agent: str) -> Box:
        """The same object at every call."""
        return self._observation_spaces[agent]

    def action_space(self, agent: str) -> Box:
        """The same object at every call."""
        return self._action_spaces[agent]

    def reset(
        self, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, NDArray[np.float64]], dict[str, dict[str, Any]]]:
        """Begin the campaign of a seed; without one, the next."""
        del options
        self._seed = self._seed + 1 if seed is None else int(seed)
        scenarios = draw_scenarios(self.case, [self._seed], self.harsh)
        self._campaign = Campaigns(self.case, self.targets, self.model, scenarios)
        self.agents = list(self.possible_agents)
        return self._split(self._campaign.reset()), {a: {} for a in self.agents}

    def step(
        self, actions: dict[str, NDArray[np.float64]]
    ) -> tuple[
        dict[str, NDArray[np.float64]], dict[str, float], dict[str, bool], dict[str, bool], dict[str, dict[str, Any]]
    ]:
        """Live a day.

        Raises
        ------
        DataError
            An agent's action is missing, of the wrong shape or not finite.
        """
        acted, size = self.agents, len(self.case.moves)
        rows = []
        for agent in acted:
            action = np.asarray(actions.get(agent, np.nan), float)
            if action.shape != (size,) or not np.all(np.isfinite(action)):
                raise DataError(f"action of agent '{agent}' = {action.tolist()}; {size} finite numbers are needed")
            rows.append(action)
        observations, terms = self._campaign.step(arranged(np.array(rows)[None], self.case.moves))
        reward = float(total(terms)[0])
        over = self._campaign.done
        info = {name: float(values[0]) for name, values in terms.items()}
        info["activity"] = float(self._campaign.activity[0])
        self.agents = [] if over else list(acted)
        return (
            self._split(observations),
            dict.fromkeys(acted, reward),
            dict.fromkeys(acted, False),
            dict.fromkeys(acted, over),
            {a: dict(info) for a in acted},
        )

    def render(self) -> None:
        """Nothing to draw: `rmpc evaluate` prints the figures."""

    def close(self) -> None:
        """Nothing to release."""

    def _split(self, observations: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
        rows = np.clip(observations[0], -LARGEST, LARGEST)
        return {agent: rows[i] for i, agent in enumerate(self.case.agents)}
