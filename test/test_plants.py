"""Plants: published steady states, seeded simulation, bounded disturbances and noise, drifts and faults."""

from pathlib import Path

import numpy as np
import pytest
from scipy.linalg import eigvals

from rmpc_ros.config import PlantConfig, parse_plant
from rmpc_ros.config.derive import model_names
from rmpc_ros.errors import ConfigError, DataError
from rmpc_ros.plants import Plant, building, cstr, make_plant, quadruple_tank, reactor_separator, spring_chain
from rmpc_ros.studies import registry

REACTOR = (Path(__file__).resolve().parent / "data" / "reactor.yaml").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def config() -> PlantConfig:
    return parse_plant(REACTOR)


def steady_inputs(config: PlantConfig) -> dict[str, np.ndarray]:
    return {agent: config.linear.steady_input[config.linear.columns(agent)] for agent in config.agents}


# -- published numbers ------------------------------------------------------------------------------------------------
def test_the_reactor_separator_has_its_benchmark_steady_state() -> None:
    model = reactor_separator.build({})
    steady = model.steady_state(model.nominal_input, model.nominal_disturbance)
    exact = [0.38691, 0.57920, 447.3458, 0.39512, 0.57009, 444.1430, 0.17443, 0.74982, 449.1033]
    np.testing.assert_allclose(steady, exact, atol=5e-5, rtol=1e-7)
    literature = [0.383, 0.581, 447.8, 0.391, 0.572, 444.6, 0.172, 0.748, 449.6]  # rounded, with other flows
    np.testing.assert_allclose(steady, literature, atol=0.5, rtol=0.02)
    eigenvalues = np.sort(np.real(np.linalg.eigvals(model.jacobians(steady, model.nominal_input, [300, 1, 300, 1])[0])))
    np.testing.assert_allclose(eigenvalues[:-4:-1], [-3.0, -6.4, -8.0], atol=0.06)
    assert eigenvalues[0] == pytest.approx(-143, abs=1)


def test_the_separators_volume_changes_its_speed_and_not_the_steady_state() -> None:
    fast, slow = (reactor_separator.build({"V3": v}) for v in (0.012, 1.0))
    point = (slow.nominal_input, slow.nominal_disturbance)
    steady = slow.steady_state(*point)
    np.testing.assert_allclose(fast.steady_state(*point), steady, rtol=1e-9)
    assert np.min(np.real(np.linalg.eigvals(fast.jacobians(steady, *point)[0]))) == pytest.approx(-8080, rel=0.01)


def test_without_reaction_every_vessel_holds_nothing_but_feed() -> None:
    model = reactor_separator.build({"k1": 1e-300, "k2": 1e-300})
    x = model.steady_state(
        model.nominal_input, model.nominal_disturbance, [0.99, 0.001, 447, 0.99, 0.001, 444, 0.99, 0.001, 449]
    )
    np.testing.assert_allclose(x[[0, 3, 6]], 1.0, atol=1e-9)
    np.testing.assert_allclose(x[[1, 4, 7]], 0.0, atol=1e-9)


@pytest.mark.parametrize(
    ("guess", "steady", "stable"),
    [
        ([0.88, 324.0], [0.87725, 324.4754], True),
        ([0.50, 350.0], [0.49992, 350.0055], False),
        ([0.20, 370.0], [0.20876, 369.705], False),
    ],
)
def test_the_cstr_has_its_three_steady_states(guess: list[float], steady: list[float], stable: bool) -> None:
    model = cstr.build({})
    found = model.steady_state([300.0], model.nominal_disturbance, guess)
    np.testing.assert_allclose(found, steady, atol=6e-4, rtol=1e-6)
    eigenvalues = np.linalg.eigvals(model.jacobians(found, [300.0], model.nominal_disturbance)[0])
    assert bool(np.all(np.real(eigenvalues) < 0)) is stable


@pytest.mark.parametrize(
    ("parameters", "volts", "steady"),
    [
        ({}, 3.0, [12.263, 12.783, 1.634, 1.409]),
        ({"k1": 3.14, "k2": 3.29, "gamma1": 0.43, "gamma2": 0.34}, 3.15, [12.442, 13.167, 4.730, 4.986]),
    ],
)
def test_the_quadruple_tank_has_its_published_levels(parameters: dict, volts: float, steady: list[float]) -> None:
    model = quadruple_tank.build(parameters)
    np.testing.assert_allclose(model.steady_state([volts, volts], [0.0, 0.0]), steady, atol=6e-4)


def test_the_tanks_are_minimum_phase_at_one_point_and_not_at_the_other() -> None:
    for parameters, volts, expected in (({}, 3.0, True), ({"gamma1": 0.43, "gamma2": 0.34}, 3.15, False)):
        model = quadruple_tank.build(parameters)
        x = model.steady_state([volts] * 2, [0.0] * 2)
        A, B, _ = model.jacobians(x, [volts] * 2, [0.0] * 2)
        C = np.eye(2, 4)
        pencil = np.block([[A, B], [C, np.zeros((2, 2))]])
        zeros = eigvals(pencil, np.diag([1.0] * 4 + [0.0] * 2))
        zeros = zeros[np.isfinite(zeros) & (np.abs(zeros) < 1e3)]
        assert bool(np.all(np.real(zeros) < 0)) is expected


def test_the_buildings_hourly_map_is_the_published_one() -> None:
    model = building.build({})
    generator = np.random.default_rng(3)
    x, u, d = generator.uniform(5, 25, 4), generator.uniform(0, 80, 1), generator.uniform(-5, 15, 3)
    published = building.PHI @ x + building.GAMMA @ np.concatenate([u, d])
    np.testing.assert_allclose(model.stepper(3600.0).advance(x, u, d), published, atol=1e-4)
    weights = np.hstack([building.PHI, building.GAMMA[:, 1:3]]).sum(axis=1)
    np.testing.assert_allclose(weights, 1.0, atol=2e-4)


@pytest.mark.parametrize("count", [1, 2, 5])
def test_a_spring_chain_without_forces_keeps_its_momentum(count: int) -> None:
    masses = [5.0 + n for n in range(count)]
    model = spring_chain.build({"m": masses, "k": [1.1] * (count - 1), "d": [0.9] * (count - 1)})
    x = np.random.default_rng(1).normal(size=2 * count)
    after = model.stepper(0.5).advance(x, np.zeros(count), np.zeros(2 * count))
    assert np.dot(masses, after[1::2]) == pytest.approx(np.dot(masses, x[1::2]))
    with pytest.raises(ConfigError, match=r"'k' of model 'spring_chain'"):
        spring_chain.build({"m": masses, "k": [1.0] * count})


def test_every_model_is_built_by_name() -> None:
    assert {"linear", "equations", "reactor_separator", "cstr", "quadruple_tank", "spring_chain", "building"} <= set(
        model_names()
    )


def chain_file(count: int) -> str:
    agents = ""
    for n in range(1, count + 1):
        others = [f"mass{j}" for j in (n - 1, n + 1) if 1 <= j <= count]
        agents += f"""\
  mass{n}:
    neighbours: [{", ".join(others)}]
    states: {{p{n}: {{unit: m, limits: [-6, 6]}}, v{n}: {{unit: m/s, limits: [-6, 6]}}}}
    inputs: {{f{n}: {{unit: N, limits: [-4, 4]}}}}
"""
    return f"""\
plant:
  name: chain
  model: spring_chain
  period: 0.1 s
  discretisation: euler
  parameters: {{m: {[5.0] * count}}}
agents:
{agents}"""


def test_a_chain_of_any_length_is_a_plant_file() -> None:
    config = parse_plant(chain_file(6))
    assert config.linear.A.shape == (12, 12)
    assert config.linear.neighbours("mass3") == ("mass2", "mass4")
    with pytest.raises(ConfigError, match="'mass3' is missing"):  # the exact map couples everybody
        parse_plant(chain_file(6).replace("euler", "exact"))


# -- simulation -------------------------------------------------------------------------------------------------------
def run(plant: Plant, steps: int) -> tuple[np.ndarray, np.ndarray]:
    inputs = steady_inputs(plant.config)
    states, disturbances = [], []
    for _ in range(steps):
        plant.step(inputs)
        states.append(plant.state)
        disturbances.append(plant.disturbances)
    return np.array(states), np.array(disturbances)


def test_a_seed_is_a_run(config: PlantConfig) -> None:
    first, again, other = (run(make_plant(config, seed=s), 30)[0] for s in (4, 4, 5))
    np.testing.assert_array_equal(first, again)
    assert np.max(np.abs(first - other)) > 1e-3
    plant = make_plant(config, seed=4)
    run(plant, 7)
    plant.reset(4)
    np.testing.assert_array_equal(run(plant, 30)[0], first)


def test_the_linear_and_the_nonlinear_plant_draw_the_same_disturbances_and_stay_close(config: PlantConfig) -> None:
    (x, d), (z, e) = (run(Plant(config, model, 3), 100) for model in ("nonlinear", "linear"))
    np.testing.assert_array_equal(d, e)
    moved = np.max(np.abs(x - config.linear.steady_state), axis=0)
    assert np.all(np.max(np.abs(x - z), axis=0) < 0.2 * moved)
    assert np.max(np.abs(x - z)) > 1e-6


def test_the_plant_without_disturbances_rests() -> None:
    head = REACTOR[: REACTOR.index("  disturbances:\n    T10: {kind")]
    states, disturbances = run(make_plant(parse_plant(head)), 20)
    np.testing.assert_allclose(states, np.tile(states[0], (20, 1)), rtol=1e-9)
    np.testing.assert_array_equal(disturbances, np.tile([300.0, 0.98, 300.0], (20, 1)))


@pytest.mark.parametrize("kind", ["autoregressive", "vertices", "bimodal", "uniform", "constant, value: 301"])
def test_disturbances_stay_inside_their_bounds_and_use_them(kind: str) -> None:
    text = REACTOR.replace("T10: {kind: autoregressive, time_constant: 30 min, spread: 0.5}", f"T10: {{kind: {kind}}}")
    values = run(Plant(parse_plant(text), "linear", 2), 2000)[1][:, 0]
    assert values.min() >= 295 and values.max() <= 305
    match kind:
        case "vertices":
            assert set(values) == {295.0, 305.0}
            assert 10 < np.sum(np.diff(values) != 0) < 60  # about 2000/50/2 changes
        case "bimodal":
            assert np.all(np.abs(values - 300) >= 5 / 3)
            assert values.min() < 296 and values.max() > 304
        case "constant, value: 301":
            assert set(values) == {301.0}
        case _:
            assert values.max() - values.min() > 5


def test_autoregressive_disturbances_have_the_written_time_constant() -> None:
    text = REACTOR.replace(
        "T10: {kind: autoregressive, time_constant: 30 min, spread: 0.5}",
        "T10: {kind: autoregressive, time_constant: 6 min, spread: 0.25}",
    )
    values = run(Plant(parse_plant(text), "linear", 2), 8000)[1][:, 0] - 300
    assert np.corrcoef(values[:-1], values[1:])[0, 1] == pytest.approx(np.exp(-0.1), abs=0.02)
    assert values.std() == pytest.approx(1.25, rel=0.1)


def test_sensor_noise_is_bounded_and_leaves_the_state_alone(config: PlantConfig) -> None:
    noisy = parse_plant(
        REACTOR.replace("T1: {unit: K, deviation: 10, noise: 0.0}", "T1: {unit: K, deviation: 10, noise: 0.1}")
    )
    plant, quiet = Plant(noisy, seed=1), Plant(config, seed=1)
    errors = []
    for _ in range(200):
        plant.step(steady_inputs(noisy))
        quiet.step(steady_inputs(config))
        measured = plant.measure()
        np.testing.assert_array_equal(measured["reactor1"], plant.measure()["reactor1"])
        errors.append(measured["reactor1"] - plant.true_state()["reactor1"])
    np.testing.assert_array_equal(plant.state, quiet.state)
    errors = np.array(errors)
    assert np.all(errors[:, :2] == 0)
    assert np.max(np.abs(errors[:, 2])) <= 0.1
    assert np.max(np.abs(errors[:, 2])) > 0.09


def test_faults_do_what_they_are_called() -> None:
    faults = """
  faults:
    - {kind: stuck, state: T1, begin: 72 s, end: 180 s}
    - {kind: bias, state: T2, begin: 72 s, end: 180 s, value: 0.5}
    - {kind: dropout, state: T3, begin: 72 s, end: 180 s}
"""
    plant = make_plant(parse_plant(REACTOR + faults))
    readings = []
    for _ in range(8):
        plant.step(steady_inputs(plant.config))
        readings.append((plant.time, plant.measure(), plant.true_state()))
    before = readings[0][1]["reactor1"][2]
    for time, measured, true in readings:
        during = 72 <= time < 180
        assert bool(measured["reactor1"][2] == before) is (during or time == 36)
        assert measured["reactor2"][2] - true["reactor2"][2] == pytest.approx(0.5 if during else 0.0)
        assert bool(np.isnan(measured["separator"][2])) is during
    with pytest.raises(ConfigError, match=r"simulation\.faults\.0\.state.*did you mean 'T1'"):
        parse_plant(REACTOR + faults.replace("state: T1", "state: T11"))


def test_a_decaying_catalyst_leaves_more_feed_unconverted() -> None:
    head = REACTOR[: REACTOR.index("  disturbances:\n    T10: {kind")]
    fresh = run(make_plant(parse_plant(head)), 100)[0][-1]
    aged = run(make_plant(parse_plant(head + "  drifts: {activity: -1.0}\n")), 100)[0][-1]
    assert aged[0] > fresh[0] + 1e-3  # more A in reactor 1
    fouled = run(make_plant(parse_plant(head + "  drifts: {transfer: -0.1}\n")), 100)[0][-1]
    assert fouled[2] < fresh[2] - 0.1  # colder
    with pytest.raises(ConfigError, match=r"simulation\.drifts\.activty.*did you mean 'activity'"):
        parse_plant(head + "  drifts: {activty: -1.0}\n")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"reactor1": [np.nan]}, "reactor1"),
        ({"reactor2": [1.0, 2.0]}, "give 1 finite numbers: Q2"),
        ({"mixer": [1.0]}, "unknown agent 'mixer'"),
    ],
)
def test_inputs_that_are_not_numbers_are_refused(config: PlantConfig, change: dict, message: str) -> None:
    plant = make_plant(config)
    before = plant.state.copy()
    with pytest.raises(DataError, match=message):
        plant.step({**steady_inputs(config), **change})
    with pytest.raises(DataError, match="has no inputs"):
        plant.step({})
    np.testing.assert_array_equal(plant.state, before)
    assert plant.steps == 0


def test_simulation_is_far_faster_than_real_time(tmp_path: Path) -> None:
    study = registry.load("bench", "plant")
    result = study.run({**study.defaults, "steps": 60, "batch": 200}, tmp_path)
    assert result["real_time_ratio"] > 1000
    assert result["error_mass_fraction"] < 1e-6
    assert result["error_K"] < 1e-4
