"""Consensus actor-critic: weights of the graph, local critics that agree, gradients, resumption, against the centre."""

from pathlib import Path

import numpy as np
import pytest

from rmpc_ros.errors import DataError
from rmpc_ros.learning.consensus import ConsensusTrainer, critic_features, metropolis, score
from rmpc_ros.learning.experience import Experience
from rmpc_ros.learning.policy import Actor

LINE = {"a": ["b"], "b": ["a", "c"], "c": ["b"]}
OBSERVATIONS, DAYS = 9, 8


def test_metropolis_weights_average_over_any_connected_graph() -> None:
    L = metropolis(LINE)
    assert np.array_equal(L, L.T)
    assert L.sum(axis=1) == pytest.approx(1.0)
    assert L[0, 2] == 0  # no message between those who are not neighbours
    assert np.linalg.matrix_power(L, 200) == pytest.approx(np.full((3, 3), 1 / 3))
    with pytest.raises(DataError, match="both ways"):
        metropolis({"a": ["b"], "b": []})
    with pytest.raises(DataError, match="connected"):
        metropolis({"a": ["b"], "b": ["a"], "c": []})


@pytest.mark.parametrize("kind", ["affine", "network"])
def test_scores_are_gradients(kind: str) -> None:
    generator = np.random.default_rng(0)
    actor = Actor(kind, 1, OBSERVATIONS, 2)
    parameters, observations = generator.standard_normal(actor.size), generator.standard_normal((30, OBSERVATIONS))
    wanted = generator.standard_normal((30, 2))

    def value(p: np.ndarray) -> float:
        return float(np.mean(np.sum(wanted * actor.output(p[None], observations[None, :, None])[0, :, 0], axis=1)))

    steps = 1e-6 * np.eye(actor.size)
    numeric = [(value(parameters + e) - value(parameters - e)) / 2e-6 for e in steps]
    assert score(actor, parameters, observations, wanted) == pytest.approx(np.array(numeric), abs=1e-7)


class Market:
    """A made-up team: what agent i should do depends on a common price; only agent 2 is paid for anybody's action."""

    def __init__(self, actor: Actor) -> None:
        self.actor = actor

    def rewards(self, observations: np.ndarray, actions: np.ndarray) -> np.ndarray:
        goal = np.clip(0.5 * observations[..., 2] + np.array([0.3, -0.3, 0.0]), -1, 1)
        out = np.zeros(actions.shape[:-1])
        out[..., 2] = -np.sum((actions[..., 0] - goal) ** 2, axis=-1)
        return out

    def observe(self, S: int, days: int, generator: np.random.Generator) -> np.ndarray:
        observations = np.zeros((S, days, 3, OBSERVATIONS))
        observations[..., 1:6] = generator.uniform(-1, 1, (S, days, 1, 5))
        observations[..., 6:] = np.eye(3)
        return observations

    def gather(self, parameters: np.ndarray, spread: np.ndarray, generator: np.random.Generator) -> Experience:
        observations = self.observe(100, DAYS + 1, generator)
        noise = generator.standard_normal((100, DAYS, 3, 2))
        outputs = self.actor.output(parameters[None], observations[None, :, :-1])[0] + spread * noise
        rewards = self.rewards(observations[:, :-1], self.actor.bound(outputs))
        return Experience(observations, outputs, noise, rewards)

    def earned(self, parameters: np.ndarray) -> float:
        observations = self.observe(200, 1, np.random.default_rng(9))
        actions = self.actor.act(parameters[None], observations[None])[0]
        return float(self.rewards(observations, actions).sum(axis=-1).mean())


@pytest.fixture
def market() -> Market:
    return Market(Actor("affine", 3, OBSERVATIONS, 2))


def trainer(market: Market, seed: int, iterations: int, graph: dict[str, list[str]] = LINE) -> ConsensusTrainer:
    return ConsensusTrainer(market.actor, metropolis(graph), iterations, seed, market.gather, market.earned)


def test_agents_learn_from_rewards_that_only_a_neighbours_neighbour_sees(market: Market) -> None:
    learner = trainer(market, 0, 80)
    nothing = market.earned(np.zeros(market.actor.size))
    for _ in range(80):
        learner.iterate()
    assert nothing < -0.4
    assert learner.best_value > 0.1 * nothing
    assert np.ptp(learner.theta, axis=0).max() < 0.1  # the line has not agreed exactly while it learns
    agreed = learner.agreed()
    assert agreed == pytest.approx(learner.theta.mean(axis=0), abs=1e-9)  # consensus keeps the mean


def test_without_messages_the_unpaid_agents_learn_nothing(market: Market) -> None:
    learner = trainer(market, 0, 20)
    learner.weights = np.eye(3)
    before = learner.theta[0].copy()
    learner.agreed = lambda: learner.theta[2]  # type: ignore[method-assign]
    for _ in range(20):
        learner.iterate()
    assert np.array_equal(learner.theta[0], before)  # reward and differences of agent a are zero throughout
    assert not np.array_equal(learner.theta[2], before)


def test_critics_of_all_agents_approach_the_teams_value(market: Market) -> None:
    learner = trainer(market, 1, 15)
    for _ in range(15):
        learner.iterate()
    phi = critic_features(market.observe(50, 1, np.random.default_rng(3))[:, 0])
    values = np.einsum("saf,af->sa", phi, learner.critics)
    assert np.corrcoef(values.T).min() > 0.95  # though only one of them is paid


def test_resumed_training_ends_at_the_same_numbers(market: Market, tmp_path: Path) -> None:
    straight, stopped, resumed = (trainer(market, 2, 10) for _ in range(3))
    for _ in range(10):
        straight.iterate()
    for _ in range(4):
        stopped.iterate()
    stopped.save(tmp_path / "c.json", {"seed": 2})
    resumed.load(tmp_path / "c.json", {"seed": 2})
    for _ in range(6):
        resumed.iterate()
    assert np.array_equal(resumed.result(), straight.result())
    assert resumed.curve == straight.curve
    with pytest.raises(DataError, match="another training"):
        trainer(market, 2, 10).load(tmp_path / "c.json", {"seed": 3})
    with pytest.raises(DataError, match="cannot be used"):
        trainer(market, 2, 10).load(tmp_path / "none.json", {"seed": 2})
