"""Rounds of cooperation within one process: exactly what the agents' nodes do on a perfect network."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from rmpc_ros.config.sections import Cooperation as Options
from rmpc_ros.errors import ConfigError
from rmpc_ros.network.agent import Agent
from rmpc_ros.network.agent_design import AgentDesign
from rmpc_ros.network.cooperation import Cooperation, Proposal
from rmpc_ros.network.joint_plan import JointPlan


class Rounds:
    """Makes the agents of a closed loop cooperate: give it to `closed_loop.run`.

    Parameters
    ----------
    designs : of all agents
    options : of the rounds
    members : who cooperates; the others are taken at their promises. Default everybody
    joint : aim at the joint optimum from one desk instead of negotiating; then everybody is a member

    Attributes
    ----------
    agents : the members' sides
    used : rounds of every step so far
    """

    def __init__(
        self,
        designs: Mapping[str, AgentDesign],
        options: Options,
        members: Collection[str] | None = None,
        joint: bool = False,
    ) -> None:
        members = designs if members is None else members
        if joint and len(members) < len(designs):
            raise ConfigError(f"the joint plan is for all agents; {len(members)} of {len(designs)} cooperate")
        self._designs = designs
        followers = followers_of(designs)
        self.agents = {n: Cooperation(d, followers[n], options) for n, d in designs.items() if n in members}
        self._together = joint
        self.joint = JointPlan(self.agents) if joint else None
        self.used: list[int] = []

    def __call__(self, step: int, agents: Mapping[str, Agent]) -> None:
        """Negotiate one step of agents that have looked at it with a valid measurement; sets their aims.

        Raises
        ------
        InfeasibleError, NumericalError
            A member's own rows have no solution.
        """
        sides = {name: side for name, side in self.agents.items() if agents[name].takes_part}
        weights = {name: agents[name].terminal_weight for name in sides}
        if self.joint is not None and any(side.terminal_weight != weights[name] for name, side in sides.items()):
            self.joint = None  # built with other weights
        for name, side in sides.items():
            side.weigh_terminal(weights[name])
            side.begin(step, agents[name].fixed)
        if self._together and self.joint is None:
            self.joint = JointPlan(self.agents)
        if self.joint is not None and len(sides) == len(self.agents):
            self.joint.load()
            plans, _ = self.joint.solve()
            self.used.append(0)
        else:
            away = {n: Proposal(n, step, 0, last=True) for n in self._designs if n not in sides}
            self.used.append(negotiate(sides, away))
            plans = {name: side.plan for name, side in sides.items()}
        for name, plan in plans.items():
            agents[name].aim = plan


def followers_of(designs: Mapping[str, AgentDesign]) -> dict[str, list[str]]:
    """Who has each agent as a neighbour."""
    return {name: [other for other, d in designs.items() if name in d.neighbours] for name in designs}


def negotiate(agents: Mapping[str, Cooperation], away: Mapping[str, Proposal] | None = None) -> int:
    """Rounds of agents that have begun a step; returns how many.

    Parameters
    ----------
    agents : who negotiates
    away : what the others say, who do not
    """
    said = dict(away or {})
    going = list(agents)
    while going:
        for name in going:
            said[name] = agents[name].propose()
        going = [name for name in going if not said[name].last]
        for name in going:
            agents[name].take(said)
    return max((side.round for side in agents.values()), default=0)
