"""The plant, the disturbances, the agents and the policy of the study `ladder`.

The reactor-separator plant with temperature limits just outside the invariant boxes, feeds that jump between their
bounds three times in four periods, and a product set-point above what can be certified: more B than there is to be had.
The cost weighs the product. The scenario was chosen on the seeds 100 to 105.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from rmpc_ros.config import PlantConfig, load_plant
from rmpc_ros.config.sections import Cost, Realisation
from rmpc_ros.config.shipped import shipped_plant
from rmpc_ros.learning.cross_entropy import CemOptions, first_state, iterate
from rmpc_ros.learning.policy import Actor, Policy
from rmpc_ros.mpc.local import Vector
from rmpc_ros.network.agent import Seen
from rmpc_ros.network.agent_design import AgentDesign
from rmpc_ros.network.closed_loop import LoopResult, run
from rmpc_ros.network.decision import Decision
from rmpc_ros.network.ladder import LadderAgent, Transfer
from rmpc_ros.network.rounds import Rounds
from rmpc_ros.network.system import design_agents
from rmpc_ros.plants import make_plant

POLICY = Path(__file__).with_name("ladder_policy.json")
LIMITS = {"T1": 0.43, "T2": 0.70, "T3": 0.34}  # K about the steady state
WEIGHTS = {"T1": 0.2, "T2": 0.2, "T3": 0.2, "xB3": 20.0}  # of the stage cost; the other states have 1
INPUT_WEIGHT = 0.05
MORE_PRODUCT = 0.005  # of xB3 above its steady state
HOLD = 48.0  # s; a period is 36 s
AUTHORITY = 0.08
TRAINING_SEEDS, TRAINING_STEPS = (100, 101), 150
GRID = (-1.0, -0.5, 0.0, 0.5, 1.0)  # actions that the training compares first, the same for all agents


@dataclass(frozen=True)
class Case:
    """A plant with its agents' designs."""

    config: PlantConfig
    designs: dict[str, AgentDesign]


def tight_case() -> Case:
    """The study's scenario."""
    base = load_plant(shipped_plant("reactor_separator_tight"))
    agents = {}
    for name, agent in base.agents.items():
        states = {
            s: v.model_copy(update={"deviation": (-LIMITS[s], LIMITS[s])}) if s in LIMITS else v
            for s, v in agent.states.items()
        }
        agents[name] = agent.model_copy(update={"states": states})
    feeds = {name: Realisation(kind="vertices", hold=HOLD) for name in base.plant.disturbances}
    names = [s for agent in base.agents.values() for s in agent.states]
    product = float(base.linear.steady_state[names.index("xB3")]) + MORE_PRODUCT
    controller = base.controller.model_copy(
        update={
            "margins": base.controller.margins.model_copy(update={"authority": AUTHORITY}),
            "cost": Cost(state=1.0, input=INPUT_WEIGHT, states=WEIGHTS),
            "setpoint": {"xB3": product},
        }
    )
    simulation = base.simulation.model_copy(update={"disturbances": feeds})
    config = base.model_copy(update={"agents": agents, "controller": controller, "simulation": simulation})
    return Case(config, design_agents(config))


def shipped_case() -> Case:
    """The plant of the demo as it is."""
    config = load_plant(shipped_plant("reactor_separator"))
    return Case(config, design_agents(config))


def actor(case: Case) -> Actor:
    """Shape of the policy, asked agent by agent: own normalised state and which agent it is, one action."""
    return Actor("affine", 1, next(iter(case.designs.values())).nx + len(case.designs), 1)


class PolicyAgent(LadderAgent):
    """A ladder agent whose target on the rung `learned` is moved by a policy in every step.

    The action in [-1, 1] is the share of the authority for which the own block rests at the target: certified whatever
    the policy wishes.
    """

    def __init__(self, case: Case, name: str, controller: str, policy: Policy | None) -> None:
        design = case.designs[name]
        super().__init__(design, case.config.agents[name].pid, controller)
        self._policy = policy
        self._who = np.eye(len(case.designs))[list(case.designs).index(name)]
        model = design.model
        self._rest = np.linalg.solve(np.eye(model.nx) - model.A, model.B)

    def look(
        self, step: int, state: Vector | None, neighbour_states: Mapping[str, Vector] | None = None
    ) -> Seen | None:
        """Ask the policy first."""
        if self._policy is not None and self.learns and state is not None and np.all(np.isfinite(state)):
            seen = np.concatenate([self.design.normalise(state), self._who])
            c = self._policy.act(seen[None])[0] * self.design.terminal[self.design.nx :]
            x_ref = self._rest @ c
            self.set_target(x_ref, self.design.model.K @ x_ref + c)
        return super().look(step, state, neighbour_states)


@dataclass
class Outcome:
    """One run: mean cost per step about the plant file's set-points, the loop's figures, every transfer by agent."""

    cost: float
    loop: LoopResult
    transfers: list[tuple[str, Transfer]] = field(default_factory=list)


def simulate(
    case: Case,
    mode: str,
    seed: int,
    steps: int,
    policy: Policy | None,
    changes: Mapping[int, Mapping[str, str]] | None = None,
    joint: bool = False,
) -> Outcome:
    """Run all agents on one rung.

    Parameters
    ----------
    case, mode, seed, steps : what is run
    policy : for the rung `learned`; None leaves the plant file's targets
    changes : modes by step and agent, to be in force from that step on
    joint : cooperation from one desk instead of rounds (training)
    """
    designs = case.designs
    agents = {name: PolicyAgent(case, name, mode, policy) for name in designs}
    plant = make_plant(case.config, seed=seed)
    cost, transfers = 0.0, []

    def watch(k: int, decisions: dict[str, Decision]) -> None:
        nonlocal cost
        truth = plant.true_state()
        for name, decision in decisions.items():
            design, transfer = designs[name], agents[name].transfer
            cost += design.stage_cost(design.normalise(truth[name]), decision.input)
            if transfer is not None and transfer.step == k:
                transfers.append((name, transfer))
        for name, word in (changes or {}).get(k + 1, {}).items():
            agents[name].set_mode(word)

    together = changes is not None or mode in ("cooperative", "learned")
    rounds = Rounds(designs, case.config.network.cooperation, joint=joint) if together else None
    loop = run(agents, plant, steps, watch=watch, cooperation=rounds)
    return Outcome(cost / steps, loop, transfers)


def train(case: Case, iterations: int, population: int, seed: int) -> Policy:
    """Best constant of a grid, then the cross-entropy method from there; the closed loop itself is the objective."""
    shape, plant = actor(case), case.config.plant.name

    def objective(samples: Vector, _: np.random.Generator) -> Vector:
        return np.array([-_mean_cost(case, Policy(plant, shape, parameters)) for parameters in samples])

    options = CemOptions(population=population, elite=0.3, spread=0.2)
    agents = len(case.designs)
    constants = np.array([np.concatenate([np.zeros(shape.observations - agents), np.full(agents, b)]) for b in GRID])
    values = objective(constants, np.random.default_rng(seed))
    state = first_state(constants[int(np.argmax(values))], options, seed)
    for _ in range(iterations):
        iterate(state, objective, options)
    facts: dict[str, Any] = {
        "algorithm": "grid, then cem",
        "iterations": iterations,
        "population": population,
        "seed": seed,
    }
    facts |= {
        "seeds": list(TRAINING_SEEDS),
        "steps": TRAINING_STEPS,
        "grid": dict(zip(map(str, GRID), (-values).tolist(), strict=True)),
    }
    return Policy(plant, shape, state.mean, training=facts)


def _mean_cost(case: Case, policy: Policy) -> float:
    runs = [simulate(case, "learned", seed, TRAINING_STEPS, policy, joint=True) for seed in TRAINING_SEEDS]
    return float(np.mean([run.cost for run in runs]))
