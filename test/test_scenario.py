"""Scenario programs and box-then-robust: sample sizes, guarantees, oracles."""

import numpy as np
import pytest
from scipy.stats import binom
from test_ccg import UNIONS, extensive, random_problem

from rmpc_ros.errors import DataError, InfeasibleError
from rmpc_ros.robust.box_robust import box_samples, smallest_box
from rmpc_ros.robust.scenario import ScenarioProgram, helly_dimension, sample_size
from rmpc_ros.robust.schemes import solve_two_stage


@pytest.mark.parametrize(("d", "eps", "beta", "n"), [(10, 0.05, 0.05, 311), (10, 0.05, 0.1, 282), (15, 0.05, 0.1, 400)])
def test_sample_sizes_are_the_published_ones(d, eps, beta, n):
    assert sample_size(d, eps, beta) == n


@pytest.mark.parametrize("d", [1, 3, 40])
@pytest.mark.parametrize("eps", [0.01, 0.3])
def test_sample_size_is_the_smallest_that_keeps_the_promise(d, eps):
    n = sample_size(d, eps, 0.05)
    assert binom.cdf(d - 1, n, eps) <= 0.05 < binom.cdf(d - 1, n - 1, eps)


def test_integers_raise_the_dimension():
    assert helly_dimension(4, 0) == 4
    assert helly_dimension(4, 3) == 39
    assert box_samples(5, 0.05, 0.1) == 282
    with pytest.raises(DataError, match="sample size"):
        sample_size(0, 0.1, 0.1)


def test_scenario_program_equals_the_extensive_form():
    problem = random_problem(np.random.default_rng(1), True)
    samples = UNIONS["polytopes"].sample(60, np.random.default_rng(0))
    found = ScenarioProgram(problem, samples).solve()
    assert found.objective == pytest.approx(extensive(problem, samples), rel=2e-6)
    assert found.extra["support"] < 20  # few samples enter the master


def test_scenario_decision_violates_less_than_promised():
    """Share of new samples whose cost exceeds the promised one, over independent draws of the training samples."""
    problem = random_problem(np.random.default_rng(1), True)
    union, rng = UNIONS["two boxes"], np.random.default_rng(2)
    n, fresh = sample_size(3, 0.2, 0.1), UNIONS["two boxes"].sample(150, rng)
    broken = 0
    for _ in range(10):
        program = ScenarioProgram(problem, union.sample(n, rng))
        found = program.solve()
        costs = ScenarioProgram(problem, fresh).costs(found.x)
        broken += np.mean(problem.c @ found.x + costs > found.objective + 1e-6) > 0.2
    assert broken <= binom.ppf(0.999, 10, 0.1)


def test_smallest_box_holds_its_samples_and_covers_as_promised():
    union, rng = UNIONS["polytopes"], np.random.default_rng(3)
    n = box_samples(2, 0.1, 0.1)
    missed = []
    for _ in range(20):
        samples = union.sample(n, rng)
        box = smallest_box(samples)
        assert all(box.contains(v) for v in samples)
        fresh = union.sample(400, rng)
        missed.append(np.mean([not box.contains(v) for v in fresh]))
    assert np.mean(np.array(missed) > 0.1) <= 0.25
    with pytest.raises(DataError):
        smallest_box(np.zeros((1, 2)))


def test_box_robust_is_robust_on_its_box_and_dearer_than_the_scenarios():
    problem = random_problem(np.random.default_rng(1), True)
    samples = UNIONS["polytopes"].sample(50, np.random.default_rng(0))
    box = solve_two_stage(problem, samples=samples, union=UNIONS["polytopes"], scheme="box_robust")
    assert box.objective == pytest.approx(extensive(problem, smallest_box(samples).vertices()), rel=2e-6)
    assert box.objective >= ScenarioProgram(problem, samples).solve().objective - 1e-6


def test_infeasible_samples_are_named():
    problem = random_problem(np.random.default_rng(1), False)
    with pytest.raises(InfeasibleError, match="scenarios"):
        ScenarioProgram(problem, np.array([[0.0, 0.0], [80.0, -80.0], [-80.0, 80.0]])).solve()
