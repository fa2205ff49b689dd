"""Promises on a network that loses, delays, re-orders and duplicates."""

import itertools
from pathlib import Path

import numpy as np
import pytest

from rmpc_ros.config import load_plant
from rmpc_ros.config.shipped import shipped_plant
from rmpc_ros.errors import ConfigError
from rmpc_ros.network.channel import Channel, Faults
from rmpc_ros.network.forecast import ForecastSet
from rmpc_ros.network.system import design_agents
from rmpc_ros.network.unprotected import UnprotectedAgent
from rmpc_ros.studies.lossy_network import STUDY


def test_the_faults_alone_make_agents_without_commitments_violate_and_never_those_with_them(tmp_path: Path):
    result = STUDY.run({**STUDY.defaults, "seeds": 2, "steps": 300}, tmp_path)
    for kind in ("perfect", "lossy", "unprotected_perfect"):
        assert result[kind]["violations"] == 0
        assert result[kind]["promises_broken"] == 0
    assert result["messages_lost"] > 0.2 * result["messages_sent"]
    assert result["unprotected_lossy"]["violations"] > 0
    assert result["unprotected_lossy"]["promises_broken"] > 0
    assert (tmp_path / "lossy_network.png").exists()


def test_agents_without_commitments_are_refused_where_inputs_act_on_neighbours_at_once():
    designs = design_agents(load_plant(shipped_plant("reactor_separator")))
    with pytest.raises(ConfigError, match="feels the inputs of"):
        UnprotectedAgent(designs["reactor1"])


def promise(step):
    return ForecastSet("a", step, 1.0, ("x",), np.zeros((2, 1)), np.ones((2, 1)), np.zeros(1), np.ones(1))


def test_channel_loses_delays_duplicates_and_silences_as_told():
    channel = Channel(Faults(loss=0.3, delay=2, duplicate=0.2, silent=(("a", 50, 59),)), 0)
    arrivals = []
    for k in range(2000):
        arrivals += [(k, p.step) for p in channel.receive(k, "b")]
        channel.send(k, "b", promise(k))
    waits = [k - made for k, made in arrivals]
    assert min(waits) == 1 and max(waits) == 3
    assert 0.8 * 1.2 * 0.7 * 2000 < len(arrivals) < 1.2 * 1.2 * 0.7 * 2000
    assert not any(50 <= made <= 59 for _, made in arrivals)
    assert len(arrivals) > len({made for _, made in arrivals})
    assert any(later[1] < earlier[1] for earlier, later in itertools.pairwise(arrivals))


def test_channel_refuses_impossible_faults():
    with pytest.raises(ConfigError, match="probability"):
        Faults(loss=1.2)
    with pytest.raises(ConfigError, match="delay"):
        Faults(delay=-1)
