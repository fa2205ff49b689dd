"""Shared resources: prices agree with the joint program, and no wish can break the capacity."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from rmpc_ros.errors import ConfigError
from rmpc_ros.network.consensus import average_consensus, metropolis_weights, rounds_for
from rmpc_ros.network.dual_decomposition import resource_participant, resource_program, safe_shares, share_resource
from rmpc_ros.network.graph import Graph, topology
from rmpc_ros.network.model import Agent, Constraint, Cost, Disturbance, Network
from rmpc_ros.solvers.lp import LinearProgram


def heaters(T: int = 4) -> Network:
    """Three vessels that cool down and are heated by steam from one header; cost: too cold is dear, steam is cheap."""
    agents = []
    for n in range(3):
        agents.append(
            Agent(
                f"vessel{n}",
                A=np.array([[0.9]]),
                D=np.array([[1.0 + 0.2 * n]]),
                E=np.array([[0.1]]),
                x0=np.array([-2.0 - n]),
                disturbance=Disturbance.box([-1], [1]),
                constraints=(Constraint(None, np.eye(1), np.array([3.0]), np.zeros(1)),),
                costs=(Cost("abs", Mx=(1.0 + n) * np.eye(1), first=1), Cost("abs", Mu=0.1 * np.eye(1))),
            )
        )
    return Network(tuple(agents), T)


def joint_optimum(network: Network, capacity: np.ndarray) -> tuple[float, np.ndarray]:
    """All agents and the capacity in one linear program: objective and prices."""
    programs = [resource_program(network, i, np.ones(1)) for i in range(3)]
    blocks = sparse.block_diag([p.data.matrix for p in programs], format="csr")
    start = np.cumsum([0] + [p.data.cost.size for p in programs])
    rows = np.zeros((capacity.size, start[-1]))
    for i, p in enumerate(programs):
        rows[np.arange(capacity.size), start[i] + np.concatenate(p.shared[i, "share"])] = 1.0
    answer = LinearProgram(
        np.concatenate([p.data.cost for p in programs]),
        sparse.vstack([blocks, sparse.csr_array(rows)]),
        np.concatenate([*[p.data.row_lower for p in programs], np.full(capacity.size, -np.inf)]),
        np.concatenate([*[p.data.row_upper for p in programs], capacity]),
        np.concatenate([p.data.lower for p in programs]),
        np.concatenate([p.data.upper for p in programs]),
    ).solve()
    return answer.objective, -answer.row_dual[-capacity.size :]


@pytest.mark.parametrize("centre", [True, False])
def test_prices_and_shares_reach_the_joint_optimum(centre: bool) -> None:
    network, capacity = heaters(), np.array([2.5, 2.5, 2.0, 2.0])
    best, prices = joint_optimum(network, capacity)
    participants = [resource_participant(network, i, np.ones(1), 0.5) for i in range(3)]
    graph = None if centre else topology("chain", 3)
    result = share_resource(participants, capacity, 0.5, graph=graph, iterations=300)
    assert result.converged
    assert sum(p.cost for p in participants) == pytest.approx(best, rel=1e-3)
    assert np.all(result.shares.sum(axis=0) <= capacity + 1e-9)
    scarce = prices > 0.05
    assert np.any(scarce)
    assert result.prices[scarce] == pytest.approx(prices[scarce], abs=0.1)


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
