"""Studies of the sets, small: guarantees simulated, published results met, times compared."""

import numpy as np
import pytest

from rmpc_ros.sets import edf
from rmpc_ros.sets.bootstrap import resample_counts, upper_value
from rmpc_ros.sets.fit import FITTERS, HYPOTHESIS_TESTS, FittedSet
from rmpc_ros.sets.ordering import ordering_statistics
from rmpc_ros.studies import coverage, portfolio, queueing, registry
from rmpc_ros.studies.bench import sets as bench_sets


def small(study, **changes):
    return {**study.defaults, **changes}


@pytest.mark.parametrize("family", ["m", "fb", "cs", "dy", "i", "chi2", "g", "lcx"])
def test_certificates_hold_in_repeated_fits(family, tmp_path):
    count = 2 if family == "lcx" else 8
    settings = small(coverage.STUDY, families=[family], repetitions=count, samples=120, directions=8)
    result = coverage.run(settings, tmp_path)
    assert result["all_kept"]
    assert {row["family"] for row in result["table"]} == {family}
    assert len(result["table"]) >= 2


def test_coverage_study_notices_a_set_that_breaks_its_promise(monkeypatch, tmp_path):
    coverage.load_families()
    honest = FITTERS["m"]

    def too_small(data, options):
        fitted = honest(data, options)
        return FittedSet(fitted.set.scaled(0.5), fitted.certificate)

    monkeypatch.setitem(FITTERS, "m", too_small)
    result = coverage.run(small(coverage.STUDY, families=["m"], repetitions=10), tmp_path)
    assert not result["all_kept"]


def test_every_hypothesis_family_meets_at_least_two_distributions():
    assert all(len(coverage.sources_for(family)) >= 2 for family in HYPOTHESIS_TESTS)
    assert {"skewed", "correlated"} <= set(coverage.sources_for("lcx"))
    assert "correlated" not in coverage.sources_for("fb")


def test_portfolios_meet_the_published_quantiles(tmp_path):
    result = portfolio.run(small(portfolio.STUDY, repetitions=2), tmp_path)
    rows = {row["family"]: row for row in result["families"]}
    assert rows["m"]["average"] == pytest.approx(-1.095, abs=1e-3)
    assert rows["cs"]["average"] == pytest.approx(-0.397, abs=0.06)
    assert rows["lcx"]["average"] == pytest.approx(-0.411, abs=0.12)
    assert all(row["promise_kept"] == 1.0 for row in rows.values())


def test_portfolio_quantile_is_exact_over_all_outcomes():
    values, probability = portfolio.outcomes()
    assert probability.sum() == pytest.approx(1.0)
    assert probability @ values == pytest.approx(np.zeros(10), abs=1e-12)
    only_first = np.eye(10)[0]
    assert portfolio.true_quantile(only_first, 0.1) == pytest.approx(portfolio.LOSS[0])


def test_waiting_time_bounds_are_near_the_published_ones_and_below_kingman(tmp_path):
    settings = small(queueing.STUDY, repetitions=1, resamples=200)
    result = queueing.run(settings, tmp_path)
    assert result["W1"] == pytest.approx(34.6, rel=0.07)
    assert result["W2"] == pytest.approx(25.8, rel=0.07)
    assert result["simulated_median"] < result["W2"] < result["W1"] < result["kingman"]
    assert result["thresholds"]["joint"]["W1"] <= result["thresholds"]["component"]["W1"]


def test_second_waiting_time_bound_solves_its_equation():
    first, second = queueing.bounds(-0.1, 23.0, 10, 0.5)
    k = np.arange(1, 10)
    assert np.sum(np.exp(-((second + 0.1 * k) ** 2) / (2 * k * 23.0))) == pytest.approx(0.5, abs=1e-8)
    assert second < first


@pytest.mark.parametrize("test", edf.TESTS)
def test_thresholds_of_distribution_tests_reject_at_their_level(test):
    rng = np.random.default_rng(5)
    limit = edf.threshold(test, 40, 0.1)
    rejected = np.mean([edf.statistic(test, np.sort(rng.random(40))) > limit for _ in range(3000)])
    assert rejected == pytest.approx(0.1, abs=0.025)


def test_bootstrap_threshold_is_the_named_order_statistic():
    assert upper_value(np.arange(1, 101), 0.1) == 90
    assert upper_value(np.arange(1, 101), 0.095) == 91
    counts = resample_counts(30, 50, np.random.default_rng(0))
    assert counts.shape == (50, 30) and np.all(counts.sum(axis=1) == 30)


def test_ordering_statistic_reaches_a_dense_search():
    rng = np.random.default_rng(2)
    data = rng.standard_normal((60, 2))
    counts = resample_counts(60, 20, rng)
    got = ordering_statistics(data, counts, np.random.default_rng(0))
    angle = np.linspace(0, 2 * np.pi, 721)
    dense = np.zeros(20)
    for a in np.column_stack([np.cos(angle), np.sin(angle)]):
        y = data @ a
        for b in [*y, 0.0]:
            gain = np.maximum(y - b, 0) @ ((1 - counts) / 60).T / (np.abs(a).sum() + abs(b))
            dense = np.maximum(dense, gain)
    assert np.all(got >= 0.9 * dense)
    assert np.quantile(got, 0.9) == pytest.approx(np.quantile(dense, 0.9), rel=0.02)


def test_resolving_costs_about_as_much_as_the_bare_solver():
    settings = small(bench_sets.STUDY, products=12, changes=6, rsome_changes=0)
    for row in bench_sets.counterpart_times(settings).values():
        assert row["largest_difference"] < 1e-4
        assert row["resolve_over_bare"] < 3  # the bar of 1.2 is for the full size, measured by the benchmark


def test_benchmark_times_every_family_or_gives_its_reason():
    settings = small(bench_sets.STUDY, families=["m", "cs", "chi2", "i"], samples=[200], dimensions=[2])
    rows = bench_sets.family_times(settings)
    assert [row["family"] for row in rows] == ["m", "cs", "chi2", "i"]
    assert all(row["support_ms"] is not None or row["note"] for row in rows)


def test_studies_are_found_by_name():
    assert {"coverage", "portfolio", "queueing", "set-reference"} <= set(registry.names("study"))
    assert "sets" in registry.names("bench")
