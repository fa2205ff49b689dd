"""Work spread over processes or a ray cluster gives what one process gives."""

from pathlib import Path

import numpy as np
import pytest

from rmpc_ros.config.shipped import shipped_plant
from rmpc_ros.errors import ConfigError
from rmpc_ros.learning.intervals import confidence_interval
from rmpc_ros.learning.rollouts import PlantFile, Workers, spread

WEIGHTS = np.array([1.0, 2.0, 3.0])


def test_shares_come_back_in_their_order_and_progress_is_told() -> None:
    told: list[tuple[int, int]] = []
    shares = [WEIGHTS * k for k in range(3)]
    alone = spread(np.dot, (WEIGHTS,), shares, Workers(), lambda done, wanted: told.append((done, wanted)))
    together = spread(np.dot, (WEIGHTS,), shares, Workers(2))
    assert alone == together == [0.0, 14.0, 28.0]
    assert told == [(1, 3), (2, 3), (3, 3)]


@pytest.mark.processes
def test_a_local_ray_cluster_gives_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    shares = [WEIGHTS * k for k in range(3)]
    assert spread(confidence_interval, (), shares, Workers(1, "local")) == [confidence_interval(s) for s in shares]


def test_a_plant_file_travels_as_text(tmp_path: Path) -> None:
    here = PlantFile.read(shipped_plant("reactor_separator_campaign"))
    elsewhere = PlantFile(str(tmp_path / "not_on_this_machine.yaml"), here.text)
    assert elsewhere.case().agents == here.case().agents
    with pytest.raises(ConfigError, match=r"none\.yaml"):
        PlantFile.read(tmp_path / "none.yaml")
