import json
from dataclasses import replace

import casadi as ca
import numpy as np
import pytest

from rmpc_ros.errors import ConfigError, DataError
from rmpc_ros.models.features import fit_features
from rmpc_ros.models.hybrid import Transitions, fit_hybrid, untrained
from rmpc_ros.models.logs import read_csv, transitions_from_log
from rmpc_ros.models.model_file import load_model, save_model
from rmpc_ros.models.parameters import ParameterBelief, fit_parameters
from rmpc_ros.models.physics import Physics
from rmpc_ros.models.residual import BayesianLayer, fit_layer
from rmpc_ros.plants import cstr
from rmpc_ros.studies import _worn_cstr as worn


@pytest.fixture(scope="module")
def physics():
    return Physics.from_model(cstr.build({}), worn.PERIOD, ("k0", "UA"))


@pytest.fixture(scope="module")
def log():
    return worn.excited_log(400, 0, {})


@pytest.fixture(scope="module")
def fresh():
    return worn.excited_log(200, 7, {})


@pytest.fixture(scope="module")
def hybrid(physics, log):
    return fit_hybrid(physics, log, "network", count=30)


def error(model, data):
    return np.sqrt(np.mean((data.after - model.predict_many(data.x, data.u, data.d)[0]) ** 2, axis=0))


@pytest.mark.parametrize("kind", ["linear", "inducing", "network"])
def test_features_are_the_same_in_numpy_and_casadi(kind):
    rng = np.random.default_rng(0)
    z, y = rng.normal(size=(80, 3)), rng.normal(size=(80, 2))
    features = fit_features(kind, z, y, count=20)
    symbol = ca.MX.sym("z", 3)
    function = ca.Function("phi", [symbol], [features.casadi(symbol)])
    np.testing.assert_allclose(np.asarray(function(z[:5].T)).T, features(z[:5]), atol=1e-10)
    assert features(z).shape == (80, features.count) and features.count <= 20


def test_recursive_layer_equals_batch_ridge_regression():
    rng = np.random.default_rng(1)
    phi = rng.normal(size=(60, 4))
    y = phi @ rng.normal(size=(4, 2)) + 0.1 * rng.normal(size=(60, 2))
    layer = BayesianLayer.empty(4, np.array([1.0, 1.0]), prior=2.0)
    for row, value in zip(phi, y, strict=True):
        layer = layer.updated(row, value, huber=np.inf, noise_rate=0.0)
    ridge = np.linalg.inv(phi.T @ phi + np.eye(4) / 2.0)
    np.testing.assert_allclose(layer.mean, ridge @ phi.T @ y, atol=1e-9)
    np.testing.assert_allclose(layer.covariance, ridge, atol=1e-9)


def test_forgetting_without_excitation_does_not_blow_up_the_covariance():
    layer = BayesianLayer.empty(3, np.ones(1), prior=1.0)
    for _ in range(5000):
        layer = layer.updated(np.array([1.0, 0.0, 0.0]), np.zeros(1), forgetting=0.99)
    assert np.diag(layer.covariance).max() <= 1.0 + 1e-9
    assert np.linalg.eigvalsh(layer.covariance)[0] > 0


def test_ten_percent_wild_outliers_hardly_move_the_weights():
    rng = np.random.default_rng(2)
    truth = np.array([[1.0], [-2.0]])
    layers = {c: BayesianLayer.empty(2, np.array([0.1]), prior=100.0) for c in (3.0, np.inf)}
    for n in range(600):
        phi = rng.normal(size=2)
        y = phi @ truth + 0.1 * rng.normal(size=1)
        if n % 10 == 9:
            y = y + 50.0
        layers = {c: layer.updated(phi, y, huber=c) for c, layer in layers.items()}
    assert np.abs(layers[3.0].mean - truth).max() < 0.05
    assert np.abs(layers[np.inf].mean - truth).max() > 0.3
    batch_phi = rng.normal(size=(300, 2))
    batch_y = batch_phi @ truth + 0.1 * rng.normal(size=(300, 1))
    batch_y[::10] += 50.0
    assert np.abs(fit_layer(batch_phi, batch_y).mean - truth).max() < 0.05


def test_without_data_the_hybrid_model_is_its_physics(physics, fresh):
    model = untrained(physics, fresh.x, fresh.u, fresh.d, np.array([1e-3, 0.1]))
    direct = physics.advance_many(fresh.x, fresh.u, fresh.d, np.ones(2))
    np.testing.assert_allclose(model.predict_many(fresh.x, fresh.u, fresh.d)[0], direct, atol=1e-12)


@pytest.mark.parametrize("kind", ["linear", "inducing"])
def test_offline_fit_halves_the_error_of_the_physics(physics, log, fresh, kind):
    plain = np.sqrt(np.mean((fresh.after - physics.advance_many(fresh.x, fresh.u, fresh.d, np.ones(2))) ** 2, axis=0))
    assert np.all(error(fit_hybrid(physics, log, kind, count=30), fresh) < 0.5 * plain)


def test_predicted_deviation_fits_the_errors(hybrid, fresh):
    mean, variance = hybrid.predict_many(fresh.x, fresh.u, fresh.d)
    score = np.abs(fresh.after - mean) / np.sqrt(variance)
    assert np.all((np.mean(score < 1.96, axis=0) > 0.85) & (np.mean(score < 0.5, axis=0) < 0.6))


def test_casadi_export_equals_prediction_and_its_jacobian_the_differences(hybrid, log):
    x, u, d = log.x[3], log.u[3], log.d[3]
    mean, A, B, E = hybrid.linearised(x, u, d)
    np.testing.assert_allclose(mean, hybrid.predict(x, u, d).mean, atol=1e-9)
    step = 1e-4
    for k in range(2):
        nudge = step * np.eye(2)[k]
        slope = (hybrid.predict(x + nudge, u, d).mean - hybrid.predict(x - nudge, u, d).mean) / (2 * step)
        np.testing.assert_allclose(A[:, k], slope, rtol=1e-4, atol=1e-6)
    assert B.shape == (2, 1) and E.shape == (2, 2)
    roll = hybrid.rollout(x, log.u[3:6], log.d[3:6])
    np.testing.assert_allclose(roll.mean[0], mean, atol=1e-9)
    assert np.all(np.diff(roll.deviation[:, 1]) > 0)


def test_online_updates_follow_a_decayed_catalyst(hybrid):
    decayed = worn.excited_log(500, 3, {"activity": 0.8, "transfer": 0.9})
    model = hybrid
    for n in range(300):
        model = model.updated(decayed.x[n], decayed.u[n], decayed.d[n], decayed.after[n], decayed.time[n], 0.995)
    rest = decayed.rows(slice(300, None))
    assert np.all(error(model, rest) < 0.5 * error(hybrid, rest))
    assert model.window.samples == hybrid.window.samples + 300
    assert hybrid.layer.samples == 400  # the old model is untouched: a controller may still be using it


def test_parameters_are_found_with_bounds_that_hold_the_truth(physics):
    clean = worn.excited_log(400, 4, {"side": 0.0, "activity": 0.9, "transfer": 0.85})
    belief = fit_parameters(physics, clean, np.array([3e-4, 0.04]))
    assert np.all(np.abs(belief.mean - [0.9, 0.85]) < 0.01)
    wide = belief.bounds(0.999)
    assert np.all((wide[:, 0] < belief.mean) & (belief.mean < wide[:, 1])) and np.all(np.diff(wide) < 0.05)
    assert not belief.plausible([1.0, 1.0]) and belief.plausible(belief.mean)
    online = ParameterBelief.nominal(2)
    for n in range(300):
        base, J = physics.with_sensitivity(clean.x[n], clean.u[n], clean.d[n], online.mean)
        online = online.updated(J, clean.after[n] - base, np.array([3e-4, 0.04]))
    assert np.all(np.abs(online.mean - [0.9, 0.85]) < 0.02)


def test_coverage_of_parameter_bounds_is_what_they_promise():
    linear = Physics("ramp", ("x",), ("u",), (), ("g",), 1.0, _ramp())
    hits = 0
    for seed in range(60):
        rng = np.random.default_rng(seed)
        x, u = rng.normal(size=(30, 1)), rng.normal(size=(30, 1))
        after = x + 1.2 * u + 0.3 * rng.normal(size=(30, 1))
        data = Transitions(x, u, np.zeros((30, 0)), after, np.arange(30.0))
        low, high = fit_parameters(linear, data, np.array([0.3]), prior=10.0).bounds(0.9)[0]
        hits += low <= 1.2 <= high
    assert 44 <= hits <= 60  # 90 % of 60 is 54; robust scale estimates widen the spread


def _ramp():
    x, u, d, g = (ca.MX.sym(s, n) for s, n in (("x", 1), ("u", 1), ("d", 0), ("g", 1)))
    return ca.Function("F", [x, u, d, g], [x + g * u])


def test_a_saved_model_comes_back_the_same(hybrid, physics, fresh, tmp_path):
    path = tmp_path / "model.npz"
    checksum = save_model(replace(hybrid, version=3), path)
    back = load_model(path, physics)
    assert back.version == 3 and back.window == hybrid.window and len(checksum) == 64
    np.testing.assert_array_equal(back.layer.mean, hybrid.layer.mean)
    np.testing.assert_array_equal(back.layer.covariance, hybrid.layer.covariance)
    again = back.predict_many(fresh.x, fresh.u, fresh.d)[0]
    np.testing.assert_allclose(again, hybrid.predict_many(fresh.x, fresh.u, fresh.d)[0], rtol=1e-13)


def test_bad_model_files_are_refused_with_the_reason(hybrid, physics, tmp_path):
    path = tmp_path / "model.npz"
    save_model(hybrid, path)
    whole = path.read_bytes()
    cases = {"does not exist": None, "truncated": whole[: len(whole) // 2], "truncated or no model": b"hello"}
    for text, content in cases.items():
        bad = tmp_path / "bad.npz"
        bad.unlink(missing_ok=True)
        if content is not None:
            bad.write_bytes(content)
        with pytest.raises(DataError, match=text):
            load_model(bad, physics)
    with np.load(path) as archive:
        arrays = {k: archive[k] for k in archive.files}
    header = json.loads(bytes(arrays["header"]))
    for change, text in (({"format": 99}, "format 99"), ({"checksum": "0"}, "checksum")):
        arrays["header"] = np.frombuffer(json.dumps({**header, **change}).encode(), np.uint8)
        np.savez(tmp_path / "other.npz", **arrays)
        with pytest.raises(DataError, match=text):
            load_model(tmp_path / "other.npz", physics)
    with pytest.raises(DataError, match="this plant has name = tank"):
        load_model(path, replace(physics, name="tank"))


RANGES = {"CA": (0.0, 1.0), "T": (280.0, 400.0), "Tc": (250.0, 350.0)}


def _rows(log):
    return np.column_stack([log.time, log.x, log.u])


def test_a_log_becomes_transitions_and_a_report(physics, log, tmp_path):
    rows = _rows(log)
    rows[40, 1], rows[80, 2] = np.nan, 900.0
    rows[100:, 0] += 60.0
    path = tmp_path / "log.csv"
    path.write_text(
        "time,CA,T,Tc\n" + "\n".join(",".join("" if np.isnan(v) else repr(float(v)) for v in r) for r in rows)
    )
    names, values = read_csv(path)
    data, report = transitions_from_log(names, values, physics, RANGES, {"Caf": 1.0, "Tf": 350.0})
    assert (report.rows, report.gaps, report.missing, report.outliers) == (400, 1, 1, 1)
    assert len(data) == report.transitions == 399 - 1 - 2 - 2
    np.testing.assert_allclose(data.after[0], log.after[0])


@pytest.mark.parametrize(
    ("spoil", "text"),
    [
        (lambda r: r.__setitem__((slice(None), 2), r[:, 2] - 273.15), "wrong units"),
        (lambda r: r.__setitem__((slice(None), 3), 300.0), "Tc is constant"),
        (lambda r: r.__setitem__((slice(None), 1), np.nan), "CA holds 0 numbers"),
        (lambda r: r.__setitem__((slice(None), 0), r[::-1, 0].copy()), "must increase"),
        (lambda r: r.__setitem__((slice(None), 0), r[:, 0] * 7), "399 gaps"),
    ],
)
def test_bad_logs_are_refused_with_the_reason(physics, log, spoil, text):
    rows = _rows(log)
    spoil(rows)
    with pytest.raises(DataError, match=text):
        transitions_from_log(("time", "CA", "T", "Tc"), rows, physics, RANGES, {"Caf": 1.0, "Tf": 350.0})


def test_short_logs_missing_columns_and_bad_cells_are_refused(physics, log, tmp_path):
    rows = _rows(log)
    with pytest.raises(DataError, match="at least 50"):
        transitions_from_log(("time", "CA", "T", "Tc"), rows[:20], physics, RANGES, {"Caf": 1.0, "Tf": 350.0})
    with pytest.raises(DataError, match="no column Tc"):
        transitions_from_log(("time", "CA", "T", "u"), rows, physics, RANGES)
    with pytest.raises(DataError, match="disturbance Caf"):
        transitions_from_log(("time", "CA", "T", "Tc"), rows, physics, RANGES)
    bad = tmp_path / "bad.csv"
    bad.write_text("time,CA\n1,2\n3,x\n")
    with pytest.raises(DataError, match=r"bad.csv:3: CA = 'x'"):
        read_csv(bad)
    with pytest.raises(DataError, match="finite"):
        worn_model = untrained(physics, log.x, log.u, log.d, np.array([1e-3, 0.1]))
        worn_model.updated(log.x[0], log.u[0], log.d[0], [np.nan, 1.0], 0.0)
    with pytest.raises(ConfigError, match="forgetting"):
        untrained(physics, log.x, log.u, log.d, np.array([1e-3, 0.1])).layer.updated(np.zeros(6), np.zeros(2), 2.0)
