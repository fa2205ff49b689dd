"""Shared resources: prices agree with the joint program, and no wish can break the capacity."""

from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import brentq

from rmpc_ros.errors import ConfigError
from rmpc_ros.network.consensus import average_consensus, metropolis_weights, rounds_for
from rmpc_ros.network.dual_decomposition import safe_shares, share_resource
from rmpc_ros.network.graph import Graph, topology

RHO = 0.5


@dataclass
class User:
    """Would like to use `wanted` (T,), and pays weight/2 for the square of what it does not get."""

    weight: float
    wanted: np.ndarray

    def solve(self, targets: np.ndarray) -> np.ndarray:
        return np.maximum((self.weight * self.wanted + RHO * targets) / (self.weight + RHO), 0.0)

    def buys(self, prices: np.ndarray) -> np.ndarray:
        return np.maximum(self.wanted - prices / self.weight, 0.0)


def users() -> list[User]:
    wanted = np.array([[1.0, 2.0, 0.4, 1.5], [2.0, 2.0, 0.3, 0.0], [1.5, 1.0, 0.2, 3.0]])
    return [User(1.0 + n, wanted[n]) for n in range(3)]


def market_prices(everybody: list[User], capacity: np.ndarray) -> np.ndarray:
    """Where what all buy is the capacity, and 0 where there is enough: optimality of the joint problem."""

    def beyond(price: float, t: int) -> float:
        return float(sum(user.buys(np.full(capacity.size, price))[t] for user in everybody) - capacity[t])

    return np.array([brentq(beyond, 0, 20, (t,)) if beyond(0, t) > 0 else 0.0 for t in range(capacity.size)])


@pytest.mark.parametrize("centre", [True, False])
def test_prices_and_shares_reach_the_joint_optimum(centre: bool) -> None:
    everybody, capacity = users(), np.array([2.5, 2.5, 2.0, 2.0])
    prices = market_prices(everybody, capacity)
    assert np.any(prices > 0.5) and np.any(prices == 0)
    graph = None if centre else topology("chain", 3)
    result = share_resource(everybody, capacity, RHO, graph=graph, iterations=500, tolerance=1e-6)
    assert result.converged
    assert result.prices == pytest.approx(prices, abs=1e-3)
    for user, share in zip(everybody, result.shares, strict=True):
        assert share == pytest.approx(user.buys(prices), abs=1e-3)
    assert np.all(result.shares.sum(axis=0) <= capacity + 1e-9)


def test_without_a_centre_it_takes_the_rounds_that_the_graph_needs() -> None:
    """Too few rounds of consensus find no common price on a long chain."""
    everybody, capacity = [User(1.0, np.full(2, 1.0 + n)) for n in range(8)], np.full(2, 20.0)
    prices = market_prices(everybody, capacity)
    found = share_resource(everybody, capacity, RHO, graph=topology("chain", 8), iterations=500, tolerance=1e-6)
    assert found.converged and found.prices == pytest.approx(prices, abs=1e-3)


wish = st.one_of(st.floats(-5, 1e6), st.just(float("nan")))


@settings(max_examples=60, deadline=None)
@given(st.lists(wish, min_size=4, max_size=4), st.floats(0.1, 50))
def test_no_wish_breaks_the_capacity_or_another_agents_guarantee(wishes: list[float], capacity: float) -> None:
    asked = np.array(wishes)[:, None]
    guaranteed = np.full((4, 1), 0.2 * capacity)
    shares = safe_shares(asked, np.array([capacity]), guaranteed)
    assert shares.sum() <= capacity * (1 + 1e-9)
    entitled = np.where(np.isnan(asked), guaranteed, np.minimum(np.maximum(asked, 0), guaranteed))
    assert np.all(shares >= entitled - 1e-9 * capacity)


def test_guarantees_beyond_the_capacity_are_refused() -> None:
    with pytest.raises(ConfigError, match="exceeds the capacity"):
        safe_shares(np.zeros((2, 1)), np.array([1.0]), np.full((2, 1), 0.6))


def test_neighbours_only_come_to_know_the_mean() -> None:
    weights = metropolis_weights(topology("ring", 7))
    values = np.random.default_rng(0).normal(size=(7, 2))
    rounds = rounds_for(weights, 1e-6)
    error = np.abs(average_consensus(weights, values, rounds) - values.mean(axis=0)).max()
    assert error <= 1e-6 * np.abs(values - values.mean(axis=0)).max() * 7
    assert average_consensus(weights, values, 3).mean(axis=0) == pytest.approx(values.mean(axis=0))
    with pytest.raises(ConfigError, match="cannot be reached"):
        metropolis_weights(Graph(3, ((0, 1),)))
