"""Online sets: recalibration, change tests, the conformal recursion, Bayesian bounds, a study on a real series."""

import numpy as np
import pytest
from scipy import stats

from rmpc_ros.errors import DataError
from rmpc_ros.sets import online
from rmpc_ros.sets.calibrate import calibrate
from rmpc_ros.sets.certificate import FittedSet
from rmpc_ros.sets.conformal import AdaptiveConformal
from rmpc_ros.sets.drift import CoverageCusum, change_tests, distribution_test, mean_test, variance_test
from rmpc_ros.sets.online import OnlineOptions, OnlineSet
from rmpc_ros.sets.parametric import BayesianBounds
from rmpc_ros.studies import registry


def stream(count, seed, scale=1.0, dim=2):
    return scale * np.random.default_rng(seed).standard_normal((count, dim))


def feed(tracker, samples):
    return [tracker.update(u) for u in samples]


def test_tests_agree_with_scipy():
    a, b = stream(200, 0, dim=1), stream(40, 1, 1.3, dim=1) + 0.2
    assert mean_test(a, b).p_value == pytest.approx(stats.ttest_ind(a, b).pvalue[0], rel=1e-6)
    assert variance_test(a, b).p_value == pytest.approx(stats.levene(a[:, 0], b[:, 0]).pvalue, rel=1e-6)
    assert distribution_test(a, b).statistic == pytest.approx(stats.ks_2samp(a[:, 0], b[:, 0]).statistic)


def test_false_alarms_stay_at_their_level():
    rng = np.random.default_rng(2)
    hits = np.zeros(3)
    for _ in range(300):
        results = change_tests(rng.standard_normal((150, 3)), rng.standard_normal((40, 3)))
        hits += [r.p_value <= 0.05 for r in results]
    assert np.all(hits / 300 <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / 300))


def test_each_test_sees_its_kind_of_change():
    rng = np.random.default_rng(3)
    old = rng.standard_normal((300, 2))
    assert mean_test(old, rng.standard_normal((40, 2)) + 1).p_value < 1e-4
    assert variance_test(old, 3 * rng.standard_normal((40, 2))).p_value < 1e-4
    skewed = rng.choice([-1.0, 1.0], (60, 2))
    assert distribution_test(old, skewed).p_value < 1e-2


def test_cusum_hears_many_misses_and_no_few():
    rng = np.random.default_rng(4)
    quiet = CoverageCusum(0.05, level=1e-4)
    assert sum(quiet.update(bool(m)) for m in rng.random(3000) < 0.05) <= 2
    loud = CoverageCusum(0.05, level=1e-4)
    assert any(loud.update(bool(m)) for m in rng.random(60) < 0.5)


def test_radius_is_the_exact_order_statistic_of_the_calibration_samples():
    options = OnlineOptions(epsilon=0.1, confidence=0.9, window=200, every=10, refresh=1000, shrink=0.0)
    tracker = OnlineSet(stream(200, 5), options)
    feed(tracker, stream(40, 6))
    rows = np.vstack([stream(200, 5), stream(40, 6)])[40:]
    scores = tracker.current.set.norms(rows)[1::2]
    assert tracker.radius == pytest.approx(calibrate(scores, 0.1, 0.9).level)


def test_certified_set_keeps_its_promise_on_a_steady_stream():
    truth = stream(4000, 99)
    beyond = []
    for seed in range(40):
        tracker = OnlineSet(stream(150, seed), OnlineOptions(epsilon=0.1, confidence=0.9, window=150, refresh=50))
        feed(tracker, stream(100, 1000 + seed))
        beyond.append(1 - tracker.current.set.contains(truth).mean() > 0.1)
    assert np.mean(beyond) <= 0.1 + 3 * np.sqrt(0.09 / 40)


def test_set_grows_at_once_when_a_test_rejects_and_shrinks_when_evidence_allows():
    tracker = OnlineSet(stream(300, 7), OnlineOptions(epsilon=0.1, confidence=0.9, window=300))
    calm = tracker.current.set.size()
    feed(tracker, stream(40, 8, 4.0))
    assert tracker.rejections and tracker.rejections[0][0] <= 330
    first = tracker.rejections[0][0]
    assert tracker.current.set.size() > 1.9 * calm
    assert tracker.current.certificate.confidence is None or tracker.current.certificate.samples < 300
    feed(tracker, stream(900, 9))
    assert first < 340
    assert tracker.current.certificate.confidence == 0.9
    assert tracker.current.set.size() < 1.3 * calm


def test_every_change_is_a_new_version_with_a_certificate():
    tracker = OnlineSet(stream(300, 10), OnlineOptions(epsilon=0.1, confidence=0.9, window=300))
    seen = {tracker.current.certificate.version: tracker.current.to_dict()["set"]}
    for u in stream(400, 11, 1.5):
        before = tracker.current
        changed = tracker.update(u)
        assert changed == (tracker.current.certificate.version > before.certificate.version)
        assert changed or tracker.current is before
        seen[tracker.current.certificate.version] = tracker.current.to_dict()["set"]
    assert len(seen) == tracker.current.certificate.version > 5
    assert FittedSet.from_message(tracker.current.to_message()).certificate == tracker.current.certificate


def test_too_short_a_history_gives_a_set_without_promise():
    tracker = OnlineSet(stream(20, 12), OnlineOptions(epsilon=0.05, confidence=0.95, window=300))
    assert tracker.current.certificate.confidence is None
    assert tracker.current.certificate.statement.startswith("No promise")
    feed(tracker, stream(120, 13))
    assert tracker.current.certificate.confidence == 0.95


def test_conformal_coverage_holds_for_an_adversary():
    conformal = AdaptiveConformal(0.1, 0.05)
    rng = np.random.default_rng(14)
    scores = list(rng.random(50))
    for t in range(600):
        radius = conformal.radius(scores[-200:])
        score = 1.5 * min(radius, 1e3) * (rng.random() < 0.7) + rng.random() * (1 + t / 100)
        conformal.update(bool(score > radius))
        scores.append(min(score, 1e6))
    assert abs(conformal.misses / conformal.steps - 0.1) <= conformal.bound()


def test_infinite_conformal_radius_falls_back_to_the_physical_bounds():
    options = OnlineOptions(guarantee="conformal", gamma=0.2, epsilon=0.1, window=100, lower=(-9.0,), upper=(9.0,))
    tracker = OnlineSet(stream(60, 15, dim=1), options)
    feed(tracker, 2.0 ** np.arange(8)[:, None])
    assert tracker.current.certificate.family == "box"
    assert "physical bounds" in tracker.current.certificate.notes[0]
    with pytest.raises(DataError, match="physical bounds"):
        OnlineOptions(guarantee="conformal")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"window": 100}, "118 samples are needed"),
        ({"epsilon": 1.0}, "epsilon"),
        ({"forgetting": 0.0}, "forgetting"),
        ({"inflation": 1.0}, "inflation"),
        ({"block": 1}, "block"),
    ],
)
def test_impossible_options_are_refused(options, words):
    with pytest.raises(DataError, match=words):
        OnlineOptions(**options)


def test_a_bad_sample_leaves_the_state_as_it_was():
    tracker = OnlineSet(stream(300, 16))
    before = tracker.current
    for bad in ([np.nan, 0.0], [1.0], [np.inf, 0.0]):
        with pytest.raises(DataError, match="sample 301"):
            tracker.update(bad)
    assert tracker.current is before and tracker._count == 300


def test_bench_counts_both_guarantees():
    result = online.bench(30, 0, window=150, dim=2)
    assert result["certified_median_ms"] > 0 and result["conformal_median_ms"] > 0


def test_posterior_with_a_flat_prior_is_least_squares_and_its_f_region():
    rng = np.random.default_rng(17)
    phi = rng.standard_normal((80, 2))
    y = phi @ [1.0, -2.0] + 0.3 * rng.standard_normal(80)
    bounds = BayesianBounds(np.zeros(2), 1e8 * np.eye(2), weight=1e-9)
    for f, v in zip(phi, y, strict=True):
        bounds.update(f, v)
    estimate = np.linalg.lstsq(phi, y, rcond=None)[0]
    assert bounds.mean == pytest.approx(estimate, abs=1e-6)
    assert bounds.noise_variance * 80 == pytest.approx(np.sum((y - phi @ estimate) ** 2), rel=1e-4)
    assert bounds.ellipsoid(0.99).set.contains([1.0, -2.0])
    assert bounds.box(0.99).set.contains([1.0, -2.0])


def test_credible_box_holds_the_parameters_as_often_as_it_says():
    hits = 0
    for seed in range(150):
        rng = np.random.default_rng(seed)
        bounds = BayesianBounds(np.zeros(2), np.eye(2) * 100, weight=0.01)
        theta = rng.standard_normal(2)
        for f in rng.standard_normal((25, 2)):
            bounds.update(f, float(f @ theta) + 0.5 * rng.standard_normal())
        hits += bool(bounds.box(0.8).set.contains(theta))
    assert hits / 150 >= 0.8 - 3 * np.sqrt(0.16 / 150)


def test_forgetting_follows_a_parameter_that_moved():
    rng = np.random.default_rng(18)
    keep, forget = (BayesianBounds([0.0], [[10.0]], forgetting=lam) for lam in (1.0, 0.95))
    for t in range(300):
        f = rng.standard_normal(1)
        y = float(f[0] * (1.0 if t < 200 else 3.0) + 0.1 * rng.standard_normal())
        keep.update(f, y)
        forget.update(f, y)
    assert abs(forget.mean[0] - 3) < 0.1 < abs(keep.mean[0] - 3)


def test_real_series_is_covered_before_and_after_the_change(tmp_path):
    study = registry.load("study", "online-drift")
    result = study.run(dict(study.defaults), tmp_path)
    assert abs(result["coverage_before"] - result["target"]) <= 0.01
    assert abs(result["coverage_after"] - result["target"]) <= 0.01
    assert result["radius_ratio_calm"] <= 0.8
    assert result["recovery_steps"] is not None
    assert abs(result["coverage_overall"] - result["target"]) <= result["coverage_bound"]
    assert len(list(study.table(result))) == 7
