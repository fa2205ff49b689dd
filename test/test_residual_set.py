"""A learned set of one-step residuals: certified before use, narrower promises, given up at once when it was wrong."""

from dataclasses import replace

import numpy as np
import pytest

from rmpc_ros.config import load_plant
from rmpc_ros.config.shipped import shipped_plant
from rmpc_ros.errors import DataError, InfeasibleError, SetError
from rmpc_ros.network.agent import Agent
from rmpc_ros.network.closed_loop import run
from rmpc_ros.network.residual_set import design_bounds, law_deviation, one_step_residual
from rmpc_ros.network.system import design_agents
from rmpc_ros.plants import make_plant
from rmpc_ros.sets.box import Box
from rmpc_ros.sets.ellipsoid import Ellipsoid


@pytest.fixture(scope="module")
def config():
    return load_plant(shipped_plant("reactor_separator"))


@pytest.fixture(scope="module")
def designs(config):
    return design_agents(config)


def scaled_box(design, share, shift=0.0):
    low, high = design_bounds(design)
    middle, half = (low + high) / 2, (high - low) / 2
    return Box.around(middle + shift * half, share * half)


def calm(config, seed, share):
    """Disturbances within a share of their bounds, at random."""
    rng, (low, high) = np.random.default_rng(seed), config.disturbance_bounds()
    middle, half = (low + high) / 2, (high - low) / 2
    return lambda step: middle + share * half * rng.uniform(-1, 1, low.size)


def test_residuals_of_the_real_plant_are_inside_what_the_design_reckons_with(config, designs):
    plant, agents = make_plant(config, seed=3), {n: Agent(d) for n, d in designs.items()}
    seen = {}

    def watch(step, decisions):
        measured = plant.measure_again()
        if seen:
            for name, design in designs.items():
                others = {o: seen["x"][o] for o in design.neighbours}
                deviations = {o: law_deviation(designs[o], seen["x"][o], seen["u"][o]) for o in others}
                r = one_step_residual(design, seen["x"][name], seen["u"][name], measured[name], others, deviations)
                assert np.all(np.abs(r) <= design_bounds(design)[1] * (1 + 1e-6))
                sizes.setdefault(name, []).append(np.abs(r) / design_bounds(design)[1])
        seen.update(x=measured, u={n: d.input for n, d in decisions.items()})

    last = {}
    measure = plant.measure

    def remembered():
        last["y"] = measure()
        return last["y"]

    plant.measure, plant.measure_again = remembered, lambda: last["y"]
    sizes = {}
    run(agents, plant, 60, watch=watch)
    assert all(np.max(rows) > 0.1 for rows in sizes.values())  # not trivially small


def test_residual_needs_every_neighbour_and_finite_numbers(designs):
    design = designs["reactor1"]
    x, u = design.steady_state, design.steady_input
    others = {o: designs[o].steady_state for o in design.neighbours}
    rest = {o: np.zeros(1) for o in others}
    assert np.allclose(one_step_residual(design, x, u, x, others, rest), 0)
    with pytest.raises(DataError, match="separator"):
        one_step_residual(design, x, u, x, {"reactor2": others["reactor2"]}, rest)
    with pytest.raises(DataError, match="finite"):
        one_step_residual(design, x, u, x * np.nan, others, rest)


def test_designs_own_set_gives_the_plan_of_the_design(designs):
    design = designs["reactor2"]
    plain, agent = Agent(design), Agent(design)
    for a in (plain, agent):
        a.start(0)
    agent.disturbance.adopt(scaled_box(design, 1.0), None, 1.0, try_it=False)  # its box cut to the design's set
    x = design.physical_states(0.3 * design.terminal[:3])
    first, second = plain.step(0, x), agent.step(0, x)
    assert np.allclose(first.input, second.input)
    assert np.allclose(first.forecast.scale, second.forecast.scale)


@pytest.mark.parametrize("family", ["box", "ellipsoid"])
def test_tube_of_a_set_off_centre_holds_every_trajectory_and_is_reached(designs, family):
    design = replace(designs["reactor1"], horizon=5)
    problem, unit = design.build_fixed(), design.scale[:3]
    half = 0.2 * design_bounds(design)[1]
    center = np.array([0.5, -0.3, 0.4]) * design_bounds(design)[1]
    members = Box.around(center, half) if family == "box" else Ellipsoid(center, np.diag(half))
    agent = Agent(design)
    agent.start(0)
    agent.set_disturbance(members, rate=2.0)
    data = agent.controller.data
    for low, high in ((data.x_lower, data.x_upper), (data.c_lower, data.c_upper)):
        low[:], high[:] = -1.0, 1.0
    plan = agent.controller.solve()
    model, rng = problem.model, np.random.default_rng(0)
    reached = np.zeros((5, 3))
    for _ in range(300):
        away = rng.standard_normal(3)
        e = np.zeros(3)
        for t in range(5):  # worst members for a random final direction, and random ones
            w = members.maximiser((away @ np.linalg.matrix_power(model.A, 4 - t)) / unit) / unit
            e = model.A @ e + model.B @ plan.v[t] + w
            low, high = plan.x[t + 1] - plan.tube_lower[t], plan.x[t + 1] + plan.tube_upper[t]
            assert np.all(e >= low - 1e-9) and np.all(e <= high + 1e-9)
            reached[t] = np.maximum(reached[t], (e - plan.x[t + 1]) / plan.tube_upper[t])
    assert np.max(reached[-1]) > 0.8
    steps = center / unit + model.B @ plan.v[0]
    assert np.allclose(plan.x[1], steps)  # the nominal motion reckons with the mean


@pytest.mark.parametrize(
    ("members", "word"),
    [
        (Box([-1e-9], [1e-9]), "dimension 1"),
        (Box([-1e-9, -1e-9, -1e3], [1e-9, 1e-9, 1e3]), "T1 in .* not inside the design's"),
        (Box([1.0, 0, 0], [1.1, 0, 0]), "not inside the design's"),
    ],
)
def test_a_set_that_is_not_inside_the_designs_is_refused_and_the_old_one_stays(designs, members, word):
    agent = Agent(designs["reactor1"])
    agent.start(0)
    kept = agent.set_disturbance(scaled_box(agent.design, 0.9))
    with pytest.raises(SetError, match=word):
        agent.set_disturbance(members)
    assert agent.disturbance.present is kept


def test_a_half_width_shrinks_by_the_rate_at_most_and_grows_at_once(designs):
    agent = Agent(designs["separator"])
    agent.start(0)
    whole = agent.disturbance.design_set
    for expected in (0.75, 0.5, 0.3, 0.3):
        present = agent.set_disturbance(scaled_box(agent.design, 0.3), rate=0.25)
        assert np.allclose(present.share_of(whole), expected)
    assert np.allclose(agent.set_disturbance(scaled_box(agent.design, 0.9), rate=0.25).share_of(whole), 0.9)
    agent.set_disturbance(None)
    assert not agent.disturbance.learned


def test_feedback_with_the_set_compiled_in_refuses_another_one(designs):
    agent = Agent(replace(designs["reactor1"], form="toeplitz", horizon=3))
    agent.start(0)
    with pytest.raises(SetError, match="toeplitz"):
        agent.set_disturbance(scaled_box(agent.design, 0.5))


def test_a_set_without_a_plan_for_the_present_data_is_refused(designs):
    design = designs["reactor1"]
    agent = Agent(design)
    agent.start(0)
    agent.set_disturbance(scaled_box(design, 0.1), rate=1.0)
    agent.step(
        0, design.steady_state, {o: n.center[:3] * 0 + designs[o].steady_state for o, n in design.neighbours.items()}
    )
    agent.step(1, design.steady_state, {o: designs[o].steady_state for o in design.neighbours})
    kept = agent.disturbance.present
    with pytest.raises(InfeasibleError, match="no plan with it"):
        agent.set_disturbance(scaled_box(design, 0.1, shift=0.85), rate=2.0)
    assert agent.disturbance.present is kept
    assert agent.step(2, design.steady_state).mode == "optimal"


def test_a_true_set_narrows_promises_and_breaks_none(config, designs):
    linear = config.model_copy(update={"simulation": config.simulation.model_copy(update={"model": "linear"})})
    results = {}
    for share in (1.0, 0.45):
        agents = {n: Agent(d) for n, d in designs.items()}
        if share < 1:
            for agent in agents.values():
                agent.set_disturbance(scaled_box(agent.design, share), rate=1.0)
        results[share] = run(agents, make_plant(linear, seed=5), 60, calm(config, 5, 0.3))
        assert results[share].violations == results[share].promises_broken == 0
    assert np.median(results[0.45].promise_width) < 0.7 * np.median(results[1.0].promise_width)


def test_a_set_that_is_too_small_breaks_promises_that_are_declared_but_no_limit(config, designs):
    agents = {n: Agent(d) for n, d in designs.items()}
    agents["reactor1"].set_disturbance(scaled_box(designs["reactor1"], 0.02), rate=1.0)
    result = run(agents, make_plant(config, seed=1), 40, calm(config, 1, 1.0))
    assert result.promises_broken >= 1 and result.violations == 0
    assert agents["reactor1"].epoch >= 1 and agents["separator"].epoch >= 1
    assert not agents["reactor1"].disturbance.learned
    assert "was broken" in agents["reactor1"].disturbance.lost


def test_growing_again_keeps_promises_that_were_made_with_the_small_set_or_withdraws_them(config, designs):
    agents = {n: Agent(d) for n, d in designs.items()}
    for agent in agents.values():
        agent.set_disturbance(scaled_box(agent.design, 0.3), rate=1.0)

    def drift(step):
        return quiet(step) if step < 20 else wild(step)

    quiet, wild = calm(config, 2, 0.1), calm(config, 3, 1.0)

    def watch(step, _):
        if step == 20:
            for agent in agents.values():
                agent.set_disturbance(None)

    result = run(agents, make_plant(config, seed=2), 60, drift, watch=watch)
    assert result.violations == 0
    assert result.promises_broken <= 3  # at most the promises for the first step after the change
    assert agents["reactor1"].epoch >= 1  # withdrawn, since they could not be kept with the larger set


def test_a_learned_mean_moves_the_set_and_a_wild_one_is_given_up(designs):
    design = designs["reactor1"]
    agent = Agent(design)
    agent.start(0)
    mean = 0.4 * design_bounds(design)[1] / design.scale[:3]
    answers = iter([mean, 100 * mean, np.full(3, np.nan), mean])
    agent.set_disturbance(scaled_box(design, 0.5), mean=lambda x, u, zeta: next(answers), rate=1.0)
    neighbours = {o: designs[o].steady_state for o in design.neighbours}
    first = agent.step(0, design.steady_state, neighbours)
    predicted = design.normalise(first.plan.nominal_states[1])
    assert np.allclose(predicted, mean + design.model.B @ (first.input - design.steady_input) / design.scale[3:])
    second = agent.step(1, first.plan.nominal_states[1], neighbours)  # cut to the room between set and design
    assert second.mode in ("optimal", "certified") and agent.disturbance.learned
    agent.step(2, second.plan.nominal_states[1], neighbours)
    assert not agent.disturbance.learned and "nan" in agent.disturbance.lost
