import json
from dataclasses import replace

import numpy as np
import pytest

from rmpc_ros.cli import main
from rmpc_ros.config.shipped import shipped_plant
from rmpc_ros.errors import DataError
from rmpc_ros.models.certification import AdoptionRule, consider
from rmpc_ros.models.hybrid import fit_hybrid, untrained
from rmpc_ros.models.model_file import load_model
from rmpc_ros.models.physics import Physics
from rmpc_ros.plants import cstr, reactor_separator
from rmpc_ros.studies import _worn_cstr as worn
from rmpc_ros.studies import _worn_reactor

RULE = AdoptionRule(0.9, 3.0, np.array([0.02, 2.0]))


@pytest.fixture(scope="module")
def models():
    physics = Physics.from_model(cstr.build({}), worn.PERIOD)
    log, held_out = worn.excited_log(300, 0, {}), worn.excited_log(100, 5, {})
    old = untrained(physics, log.x, log.u, log.d, np.array([1e-3, 0.1]))
    return old, fit_hybrid(physics, log, "linear"), held_out


def test_a_better_model_is_adopted_only_while_the_robust_problem_is_feasible(models):
    old, new, held_out = models
    assert consider(old, new, held_out, RULE, lambda m: True).adopted
    assert "infeasible" in consider(old, new, held_out, RULE, lambda m: False).reason


def test_worse_overconfident_hasty_or_broken_candidates_are_refused(models):
    old, new, held_out = models
    assert "times the present ones" in consider(new, old, held_out, RULE).reason
    sure = replace(new, layer=replace(new.layer, noise=new.layer.noise * 1e-3, covariance=new.layer.covariance * 1e-9))
    assert "overconfident" in consider(old, sure, held_out, RULE).reason
    assert "at once" in consider(old, new, held_out, replace(RULE, change=np.array([1e-4, 0.01]))).reason
    broken = replace(new, layer=replace(new.layer, mean=new.layer.mean * np.nan))
    assert not consider(old, broken, held_out, RULE).adopted
    assert "are needed" in consider(old, new, held_out.rows(slice(0, 5)), RULE).reason


def test_a_poisoned_stream_neither_ruins_the_model_nor_the_verdict(models):
    old, new, held_out = models
    rng = np.random.default_rng(0)
    poisoned, stream = new, worn.excited_log(300, 8, {})
    wild = rng.random(300) < 0.1
    after = stream.after + wild[:, None] * rng.normal(size=(300, 2)) * [0.5, 50.0]
    for n in range(300):
        poisoned = poisoned.updated(stream.x[n], stream.u[n], stream.d[n], after[n], 0.0)
    clean = np.abs(held_out.after - new.predict_many(held_out.x, held_out.u, held_out.d)[0])
    spoiled = np.abs(held_out.after - poisoned.predict_many(held_out.x, held_out.u, held_out.d)[0])
    assert np.all(np.median(spoiled, axis=0) < 3 * np.median(clean, axis=0))
    wild_rows = replace(held_out, after=np.where(rng.random((100, 1)) < 0.1, 1e6, held_out.after))
    assert consider(old, new, wild_rows, RULE).adopted


def test_fit_model_writes_a_model_that_predicts_better_than_the_physics(tmp_path, capsys):
    log = _worn_reactor.excited_log(320, 0, {})
    names = ["time", *log_names()]
    rows = np.column_stack([log.time, log.x, log.u])
    path, out = tmp_path / "log.csv", tmp_path / "model.npz"
    path.write_text(",".join(names) + "\n" + "\n".join(",".join(repr(float(v)) for v in row) for row in rows))
    plant = str(shipped_plant("reactor_separator"))
    words = ["fit-model", str(path), plant, "--kind", "linear", "--parameters", "k1", "--out", str(out), "--json"]
    assert main(words) == 0
    result = json.loads(capsys.readouterr().out)
    held_out = result["held_out"]
    assert all(held_out[n]["hybrid_rmse"] < 0.5 * held_out[n]["physics_rmse"] for n in ("xA1", "xA2"))
    physics = Physics.from_model(reactor_separator.build({}), _worn_reactor.PERIOD, ("k1",))
    assert load_model(out, physics).window.samples == 319 * 4 // 5
    rows[:, 3] -= 273.15
    path.write_text(",".join(names) + "\n" + "\n".join(",".join(repr(float(v)) for v in row) for row in rows))
    assert main(words) == 1
    assert "wrong units" in capsys.readouterr().err
    with pytest.raises(DataError, match="does not exist"):
        load_model(tmp_path / "none.npz", physics)


def log_names():
    return [v.name for v in (*reactor_separator.STATES, *reactor_separator.INPUTS)]
