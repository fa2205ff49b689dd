"""Models: steady states, Jacobians, the stiff one-step map, exact discretisation, the bound on the model error."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import solve_ivp

from rmpc_ros.config import PlantConfig, load_plant, parse_plant
from rmpc_ros.errors import ConfigError, DataError, NumericalError
from rmpc_ros.models.error_bound import model_error_bound, one_step_error
from rmpc_ros.models.linear import AgentVariables, discretise, network_from_model
from rmpc_ros.models.nonlinear import NonlinearModel, Variable
from rmpc_ros.plants.reactor_separator import build

DATA = Path(__file__).resolve().parent / "data"


@pytest.fixture(scope="module")
def config() -> PlantConfig:
    return load_plant(DATA / "reactor.yaml")


@pytest.fixture(scope="module")
def reactor() -> NonlinearModel:
    return build({})


def numerical_jacobian(function, point, step):  # type: ignore[no-untyped-def]
    columns = [(function(point + e) - function(point - e)) / (2 * np.max(e)) for e in np.diag(step)]
    return np.column_stack(columns)


def test_jacobians_are_those_of_finite_differences(reactor: NonlinearModel) -> None:
    x, u, d = reactor.nominal_state, reactor.nominal_input, reactor.nominal_disturbance
    by_x = numerical_jacobian(lambda v: reactor.derivative(v, u, d), x, np.array([1e-4, 1e-4, 1e-2] * 3))
    by_u = numerical_jacobian(lambda v: reactor.derivative(x, v, d), u, np.full(3, 10.0))
    by_d = numerical_jacobian(lambda v: reactor.derivative(x, u, v), d, np.full(4, 0.01))
    A, B, E = reactor.jacobians(x, u, d)
    np.testing.assert_allclose(A, by_x, rtol=1e-5, atol=1e-4)
    np.testing.assert_allclose(B, by_u, atol=1e-8)
    np.testing.assert_allclose(E, by_d, atol=1e-7)


@pytest.mark.parametrize(("separator", "tolerance"), [(1.0, 1e-6), (0.012, 3e-4)])
def test_the_one_step_map_agrees_with_an_adaptive_stiff_integrator(separator: float, tolerance: float) -> None:
    """The literature's separator has a mode that dies in a hundredth of a period: the map must be stable there too."""
    model = build({"V3": separator})
    u, d = model.nominal_input, model.nominal_disturbance + np.array([5.0, -0.04, -5.0, 0.0])
    x = model.steady_state(u, model.nominal_disturbance) + np.array([0.01, -0.01, 2.0] * 3)
    run = solve_ivp(lambda _, y: model.derivative(y, u, d), (0, 0.01), x, method="Radau", rtol=1e-10, atol=1e-12)
    error = np.abs(model.stepper(36.0).advance(x, u, d) - run.y[:, -1])
    assert np.all(error < tolerance * np.array([1, 1, 100] * 3)), error


def test_jacobians_of_the_map_are_the_exact_discretisation_at_a_steady_state(config: PlantConfig) -> None:
    model, linear = config.nonlinear, config.linear
    assert model is not None
    x, u, d = linear.steady_state, linear.steady_input, np.array([300.0, 0.98, 300.0, 1.0])
    A, B, E = model.stepper(36.0).jacobians(x, u, d)
    T = linear.transform
    unit = np.array([1.0, 1.0, 100.0] * 3)  # mass fractions against kelvins
    assert np.max(np.abs(T @ A @ np.linalg.inv(T) - linear.A) / unit[:, None] * unit) < 1e-5
    np.testing.assert_allclose(T @ B, linear.B, atol=1e-11)
    np.testing.assert_allclose(T @ E[:, :3], linear.E, atol=1e-5, rtol=1e-5)


def test_many_steps_at_once_are_the_single_steps(reactor: NonlinearModel) -> None:
    generator = np.random.default_rng(0)
    x = reactor.nominal_state + generator.uniform(-1, 1, (40, 9)) * np.array([0.02, 0.02, 2.0] * 3)
    u = reactor.nominal_input + generator.uniform(-1e5, 1e5, (40, 3))
    d = reactor.nominal_disturbance + generator.uniform(-1, 0, (40, 4)) * [5.0, 0.04, 5.0, 0.0]
    stepper = reactor.stepper(36.0)
    single = np.array([stepper.advance(*row) for row in zip(x, u, d, strict=True)])
    assert np.all(np.abs(stepper.advance_many(x, u, d) - single) < np.array([2e-6, 2e-6, 5e-5] * 3))
    with pytest.raises(DataError, match="are needed"):
        stepper.advance_many(x, u[:3], d)


def scalar(name: str, derivative) -> NonlinearModel:  # type: ignore[no-untyped-def]
    """dy/dt = derivative(y, q, w)."""
    variables = [[Variable(word, "", value)] for word, value in (("y", 1.0), ("q", 0.0), ("w", 0.0))]
    return NonlinearModel(name, *variables, {}, lambda x, u, d, p: [derivative(x["y"], u["q"], d["w"])])


def test_no_steady_state_is_an_error_that_names_the_state() -> None:
    model = scalar("runaway", lambda y, q, w: y**2 + 1 + q**2)
    with pytest.raises(NumericalError, match="no steady state found"):
        model.steady_state([0.0], [0.0])
    with pytest.raises(ConfigError, match="no parameter 'k9'"):
        model.parameter_vector({"k9": 1.0})


def test_a_model_that_escapes_is_an_error_not_a_number() -> None:
    model = scalar("escape", lambda y, q, w: y**2 + q)
    with pytest.raises(NumericalError, match=r"could not be integrated|left the finite"):
        model.stepper(50.0).advance([1.0], [0.0], [0.0])


# -- discretisation ---------------------------------------------------------------------------------------------------
@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000))
def test_exact_discretisation_composes_over_half_steps(seed: int) -> None:
    generator = np.random.default_rng(seed)
    Ac, Bc, Ec = generator.normal(size=(4, 4)), generator.normal(size=(4, 2)), generator.normal(size=(4, 1))
    A, B, E = discretise(Ac, Bc, Ec, 0.2)
    half_A, half_B, half_E = discretise(Ac, Bc, Ec, 0.1)
    np.testing.assert_allclose(half_A @ half_A, A, atol=1e-12)
    np.testing.assert_allclose(half_A @ half_B + half_B, B, atol=1e-12)
    np.testing.assert_allclose(half_A @ half_E + half_E, E, atol=1e-12)


def test_holding_neighbours_keeps_the_sparsity_that_the_exact_map_loses() -> None:
    Ac = np.array([[-1.0, 0.5, 0.0], [0.0, -1.0, 0.5], [0.0, 0.0, -1.0]])
    args = (Ac, np.eye(3), np.ones((3, 1)), 0.1)
    exact, held, euler = (discretise(*args, method, [1, 1, 1])[0] for method in ("exact", "held", "euler"))
    assert exact[0, 2] > 0
    assert held[0, 2] == euler[0, 2] == 0
    np.testing.assert_allclose(np.diag(held), np.exp(-0.1))
    np.testing.assert_allclose(euler, np.eye(3) + 0.1 * Ac)
    np.testing.assert_allclose(held[0, 1], 0.5 * (1 - np.exp(-0.1)))


def test_holding_neighbours_on_the_reactor_costs_more_than_the_disturbances() -> None:
    """Why the demo discretises exactly: the held map's one-step error dwarfs the exact map's."""
    text = (DATA / "reactor.yaml").read_text(encoding="utf-8")

    held = parse_plant(text.replace("  period: 36 s", "  period: 36 s\n  discretisation: held"))
    exact = parse_plant(text)
    z = np.tile([0.01, 0.01, 0.4], 3)[None]
    nominal = [300.0, 0.98, 300.0, 1.0]
    zero = np.zeros((1, 3))
    errors = [np.abs(one_step_error(c.nonlinear, c.linear, z, zero, zero, nominal)) for c in (held, exact)]
    assert np.max(errors[0] / errors[1]) > 10


def test_coordinates_there_and_back(config: PlantConfig) -> None:
    linear = config.linear
    state = linear.steady_state[3:6] + np.array([0.01, 0.02, -3.0])
    z = linear.to_coordinates("reactor2", state)
    np.testing.assert_allclose(z, [0.01, 0.03, -3.0])
    np.testing.assert_allclose(linear.from_coordinates("reactor2", z), state)


# -- model error ------------------------------------------------------------------------------------------------------
HALF = np.array([0.014, 0.015, 0.4] * 3)


def bound_over(config: PlantConfig, half: np.ndarray, **options: float):  # type: ignore[no-untyped-def]
    lower, upper = config.disturbance_bounds()
    steady = config.linear.steady_disturbance
    heat = np.full(3, 1.5e5)
    boxes = ((-half, half), (-heat, heat), (lower - steady, upper - steady))
    return model_error_bound(config.nonlinear, config.linear, *boxes, [300.0, 0.98, 300.0, 1.0], **options)


def test_the_model_error_is_small_over_invariant_boxes_and_grows_like_a_square(config: PlantConfig) -> None:
    near, far = bound_over(config, HALF, factor=1.0), bound_over(config, 2 * HALF, factor=1.0)
    assert np.all(near.worst.reshape(3, 3)[:, :2] < 2e-4)
    assert np.all(near.worst.reshape(3, 3)[:, 2] < 4e-3)
    assert 1.5 < np.max(far.worst / near.worst) < 4.5
    assert not near.complete


def test_the_bound_covers_fresh_random_points(config: PlantConfig) -> None:
    bound = bound_over(config, HALF, factor=1.2, seed=1)
    np.testing.assert_allclose(bound.bound, 1.2 * bound.worst)
    generator = np.random.default_rng(2)
    z = HALF * generator.choice([-1.0, 1.0], (3000, 9)) * generator.uniform(0.8, 1.0, (3000, 9))
    v = generator.uniform(-1.5e5, 1.5e5, (3000, 3))
    w = generator.uniform(-1, 1, (3000, 3)) * [5.0, 0.02, 5.0]
    fresh = np.abs(one_step_error(config.nonlinear, config.linear, z, v, w, [300.0, 0.98, 300.0, 1.0]))
    assert np.all(fresh <= bound.bound)


def test_error_boxes_must_be_finite_and_ordered(config: PlantConfig) -> None:
    with pytest.raises(DataError, match="box of states"):
        bound_over(config, np.full(9, np.inf))
    with pytest.raises(DataError, match="box of states"):
        bound_over(config, -HALF)


def test_a_linear_model_has_no_model_error() -> None:
    model = scalar("line", lambda y, q, w: -y + q + w)
    agents = {"a": AgentVariables(("y",), ("q",), ("y",), np.eye(1))}
    network = network_from_model(model, [0.0], [0.0], [0.0], agents, ["w"], 0.1)
    bound = model_error_bound(model, network, ([-1.0], [1.0]), ([-1.0], [1.0]), ([-1.0], [1.0]), [0.0])
    assert bound.complete
    assert np.all(bound.worst < 1e-6)
