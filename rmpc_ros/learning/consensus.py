"""Actor-critic without a central node: local rewards, linear critics, messages between neighbours only.

Zhang et al. (ICML 2018): every agent keeps a critic of the TEAM's value, V_i(s) = w_i' phi(s), but sees its own reward
r_i only. On a batch of experience each does, with Metropolis weights L of the graph,

    d_i <- a r_i + gamma V_i(s') - V_i(s)
    w_i <- sum_j L_ij (w_j + beta mean[ d_j phi(s) ])              temporal difference, then consensus; several times
    d   <- L^k d                                                   k rounds on the differences
    theta_i <- sum_j L_ij (theta_j + step of Adam along mean[ A_j grad log pi(z_j | o_j) ])

(a: number of agents, so that the mean of a r_i is the team's reward; r_i: the differential reward of `experience.py`,
hence gamma = 1.) Sharing the differences over k rounds instead of
a model of the team's reward is that of Chen et al. (ICML 2022). A_j sums the agent's shared differences of the coming
days with weight (gamma lambda)^k. Actors keep equal parameters up to the same consensus, so the result is one policy
for all; the last consensus runs until they agree. phi: all products up to degree two of what every agent observes
alike (quality, catalyst, delivery, prices). An agent sends its neighbours w_i, d_i and theta_i, nothing else.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rmpc_ros.errors import DataError
from rmpc_ros.learning.curves import GAIN, Row
from rmpc_ros.learning.experience import Experience
from rmpc_ros.learning.policy import HIDDEN, Actor, read_checkpoint, write_atomically

Array = NDArray[np.float64]
Gather = Callable[[Array, Array, np.random.Generator], Experience]
Validate = Callable[[Array], float]

COMMON = slice(1, 6)  # of an observation: what every agent sees alike (campaign.observe)
AGREED = 1e-12


@dataclass(frozen=True)
class ConsensusOptions:
    """Steps of critic and actor, rounds of consensus per batch; `every`: iterations between two validations."""

    critic_steps: int = 20
    critic_rate: float = 0.1
    actor_rate: float = 0.03
    last_actor_rate: float = 0.002
    discount: float = 1.0
    trace: float = 0.6
    rounds: int = 3
    spread: float = 0.5
    last_spread: float = 0.3
    every: int = 5


def metropolis(neighbours: Mapping[str, Sequence[str]]) -> Array:
    """Weights (a, a) of an undirected graph: 1 / (1 + larger degree) per link, symmetric, rows sum to one.

    Raises
    ------
    DataError
        A link goes one way only, or the graph falls apart: the agents could never agree.
    """
    names = list(neighbours)
    L = np.zeros((len(names), len(names)))
    for i, name in enumerate(names):
        for other in neighbours[name]:
            if name not in neighbours.get(other, ()):
                raise DataError(
                    f"consensus needs links both ways: '{name}' hears '{other}', but not the other way round"
                )
            L[i, names.index(other)] = 1.0 / (1 + max(len(neighbours[name]), len(neighbours[other])))
    np.fill_diagonal(L, 1.0 - L.sum(axis=1))
    reached = np.linalg.matrix_power((L > 0).astype(float), max(1, len(names) - 1))
    if not np.all(reached > 0):
        raise DataError("consensus needs a connected graph; some agents have no path to each other")
    return L


def critic_features(observations: Array) -> Array:
    """Features phi (..., f): one, entries and products of the common part of observations (..., o)."""
    z = observations[..., COMMON]
    row, column = np.triu_indices(z.shape[-1])
    return np.concatenate([np.ones((*z.shape[:-1], 1)), z, z[..., row] * z[..., column]], axis=-1)


def score(actor: Actor, parameters: Array, observations: Array, wanted: Array) -> Array:
    """Gradient (size,) of mean[wanted . output(parameters, o)] for observations (N, o), wanted (N, actions)."""
    N = len(observations)
    if actor.kind == "affine":
        return (observations.T @ wanted).ravel() / N
    cut = HIDDEN * actor.observations
    W1, b1 = parameters[:cut].reshape(actor.observations, HIDDEN), parameters[cut : cut + HIDDEN]
    W2 = parameters[cut + HIDDEN :].reshape(HIDDEN, actor.actions)
    hidden = np.tanh(observations @ W1 + b1)
    back = (wanted @ W2.T) * (1 - hidden**2)
    return np.concatenate([(observations.T @ back).ravel(), back.sum(axis=0), (hidden.T @ wanted).ravel()]) / N


class ConsensusTrainer:
    """State of a training; row i of every array is what agent i holds.

    Parameters
    ----------
    actor : shape of the policy, affine or network
    weights : (a, a) of `metropolis`
    iterations, seed, gather, validate : as in `mappo.MappoTrainer`
    options : ConsensusOptions

    Attributes
    ----------
    theta : (a, size) actors
    critics : (a, f)
    first, second : (a, size) Adam's moments, never sent
    iteration, curve, best, best_value, generator : as in `mappo.MappoTrainer`
    """

    def __init__(
        self,
        actor: Actor,
        weights: Array,
        iterations: int,
        seed: int,
        gather: Gather,
        validate: Validate,
        options: ConsensusOptions = ConsensusOptions(),
    ) -> None:
        if actor.kind == "constant":
            raise DataError("consensus trains actors of kind 'affine' or 'network', not 'constant'")
        self.actor, self.weights, self.options, self.iterations = actor, weights, options, iterations
        self.generator = np.random.default_rng([41, seed])
        start = actor.start(np.random.default_rng([19, seed]))
        self.theta = np.tile(start, (actor.agents, 1))
        self.critics = np.zeros((actor.agents, critic_features(np.zeros(actor.observations)).size))
        self.first, self.second = np.zeros_like(self.theta), np.zeros_like(self.theta)
        self._gather, self._validate = gather, validate
        self.iteration = 0
        self.best, self.best_value = start, -np.inf
        self.curve: list[Row] = []

    def agreed(self) -> Array:
        """One parameter vector (size,): consensus rounds until all agents hold the same."""
        theta = self.theta
        while np.ptp(theta, axis=0).max() > AGREED * (1 + np.abs(theta).max()):
            theta = self.weights @ theta
        return np.asarray(theta[0])

    def iterate(self) -> None:
        """One batch: critics, shared differences, actors, each with consensus."""
        options, a = self.options, self.actor.agents
        share = self.iteration / self.iterations
        spread = options.spread + share * (options.last_spread - options.spread)
        rate = options.actor_rate + share * (options.last_actor_rate - options.actor_rate)
        experience = self._gather(self.agreed(), np.full(self.actor.actions, spread), self.generator)
        S, T = experience.rewards.shape[:2]
        phi = critic_features(experience.observations)  # (S, T + 1, a, f), the same for every agent
        for _ in range(options.critic_steps):
            differences = self._differences(phi, experience.differential)
            step = np.einsum("sta,staf->af", differences, phi[:, :-1]) / (S * T)
            self.critics = self.weights @ (self.critics + options.critic_rate * step)
        shared = self._differences(phi, experience.differential)
        for _ in range(options.rounds):
            shared = shared @ self.weights.T
        advantage = np.zeros((S, T, a))
        coming = np.zeros((S, a))
        for t in reversed(range(T)):
            coming = shared[:, t] + options.discount * options.trace * coming
            advantage[:, t] = coming
        advantage = (advantage - advantage.mean(axis=(0, 1))) / (advantage.std(axis=(0, 1)) + 1e-8)
        self.iteration += 1
        for i in range(a):
            wanted = advantage[..., i, None] * experience.noise[:, :, i] / spread
            rows = experience.observations[:, :-1, i].reshape(S * T, -1)
            gradient = score(self.actor, self.theta[i], rows, wanted.reshape(S * T, -1))
            self.first[i] = 0.9 * self.first[i] + 0.1 * gradient
            self.second[i] = 0.999 * self.second[i] + 0.001 * gradient**2
            mean = self.first[i] / (1 - 0.9**self.iteration)
            scale = np.sqrt(self.second[i] / (1 - 0.999**self.iteration)) + 1e-8
            self.theta[i] = self.theta[i] + rate * mean / scale
        self.theta = self.weights @ self.theta
        row = {
            "team_reward": float(experience.rewards.sum(axis=-1).mean()),
            "critic_disagreement": float(np.ptp(self.critics, axis=0).max()),
            "actor_disagreement": float(np.ptp(self.theta, axis=0).max()),
            "difference": float(np.sqrt(np.mean(shared**2))),
        }
        if self.iteration % options.every == 0 or self.iteration == self.iterations:
            parameters = self.agreed()
            row[GAIN] = self._validate(parameters)
            if row[GAIN] > self.best_value:
                self.best, self.best_value = parameters, row[GAIN]
        self.curve.append(row)

    def _differences(self, phi: Array, rewards: Array) -> Array:
        """Temporal differences (S, T, a) of every agent from its own reward and its own critic."""
        values = np.einsum("staf,af->sta", phi, self.critics)
        out: Array = self.actor.agents * rewards + self.options.discount * values[:, 1:] - values[:, :-1]
        return out

    def result(self) -> Array:
        """The parameters that earned most on the validation campaigns."""
        return self.best

    def save(self, path: Path, what: dict[str, Any]) -> None:
        """Write a checkpoint in one step; `what` says which training it belongs to."""
        arrays = ("theta", "critics", "first", "second", "best")
        document = {
            "what": what | {"settings": asdict(self.options)},
            "iteration": self.iteration,
            "curve": self.curve,
            "best_value": self.best_value if np.isfinite(self.best_value) else None,
            "generator": self.generator.bit_generator.state,
        } | {name: getattr(self, name).tolist() for name in arrays}
        write_atomically(path, json.dumps(document))

    def load(self, path: Path, what: dict[str, Any]) -> None:
        """Go on from a checkpoint.

        Raises
        ------
        DataError
            It cannot be read, or belongs to another training.
        """
        try:
            document = read_checkpoint(path, what | {"settings": asdict(self.options)})
            for name in ("theta", "critics", "first", "second", "best"):
                setattr(self, name, np.array(document[name], float))
            value = document["best_value"]
            self.best_value = -np.inf if value is None else float(value)
            self.generator.bit_generator.state = document["generator"]
            self.iteration, self.curve = int(document["iteration"]), list(document["curve"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DataError(f"checkpoint {path} cannot be used: {error!r}") from error
