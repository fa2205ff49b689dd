"""A plant file that is wrong gives one error that names file, line, key, value and what is allowed."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
from ruamel.yaml import YAML

from rmpc_ros.cli import main
from rmpc_ros.config import load_plant, parse_plant, sections
from rmpc_ros.config.units import seconds
from rmpc_ros.errors import ConfigError

ROOT = Path(__file__).resolve().parent.parent
REACTOR = (ROOT / "test" / "data" / "reactor.yaml").read_text(encoding="utf-8")

PAIR = """\
plant:
  name: pair
  model: linear
  period: 1 s
  disturbances:
    w: {unit: "1", nominal: 0, bounds: [-0.1, 0.1]}
agents:
  left:
    neighbours: [right]
    states:
      p: {unit: m, limits: [-1, 1]}
      q: {unit: m/s, limits: [-1, 1]}
    inputs:
      f: {unit: N, limits: [-1, 1]}
    matrices:
      A: [[0.9, 0.1], [0.0, 0.9]]
      B: {right: [[0.01], [0.02]]}
      D: [[0.0], [0.1]]
      E: [[0.0], [0.1]]
    actuators:
      - {topic: force, type: std_msgs/Float64, input: f}
  right:
    states:
      r: {unit: m, limits: [-1, 1], initial: 0.5}
    inputs:
      g: {unit: N, limits: [-1, 1]}
    matrices:
      A: [[0.8]]
      D: [[0.2]]
    actuators:
      - {topic: force, type: std_msgs/Float64, input: g}
"""


def test_the_demo_plant_loads_and_is_centred_in_its_limits() -> None:
    config = load_plant(ROOT / "config" / "reactor_separator.yaml")
    lower, upper = config.state_limits("reactor1")
    np.testing.assert_allclose((lower + upper) / 2, config.linear.steady_state[:3])
    np.testing.assert_allclose(upper - lower, [0.1, 0.1, 20.0])
    H, h = config.limit_rows("reactor1")
    corner = config.linear.to_coordinates("reactor1", config.linear.steady_state[:3] + np.array([0.05, 0.05, 10]))
    assert np.max((H @ corner) / h) == pytest.approx(2.0)  # xA + xB is limited to 0.05, not to 0.1


CASES = {
    "unknown key": ("horizon: 12", "horizn: 12", "controller.horizn = 12: unknown key; did you mean 'horizon'"),
    "unknown key deep": ("T1: {unit: K,", "T1: {unti: K,", "agents.reactor1.states.T1.unti = 'K': unknown key"),
    "wrong type": ("horizon: 12", "horizon: twelve", "controller.horizon = 'twelve': give a whole number"),
    "number as words": ("seed: 1", "seed: '1'", "simulation.seed = '1': give a whole number"),
    "boolean for a number": ("state: 1.0", "state: true", "controller.cost.state = True: give a number"),
    "wrong unit of time": ("period: 36 s", "period: 36 K", "plant.period = '36 K': 'K' does not measure time"),
    "period below zero": ("period: 36 s", "period: -36 s", "plant.period = '-36 s': give a finite duration above 0"),
    "wrong quantity": (
        "T1: {unit: K,",
        "T1: {unit: kJ/h,",
        "agents.reactor1.states.T1.unit = 'kJ/h': 'kJ/h' measures a heat",
    ),
    "other unit": ("T10: {unit: K,", "T10: {unit: degC,", "plant.disturbances.T10.unit = 'degC'"),
    "no unit": ("T1: {unit: K,", "T1: {unit: Kelvn,", "agents.reactor1.states.T1.unit = 'Kelvn': is not a unit"),
    "limits crossed": ("bounds: [0.96, 1.0]", "bounds: [1.0, 0.96]", "plant.disturbances.xA10.bounds"),
    "deviation crossed": (
        "Q1: {unit: kJ/h, deviation: 5.0e5}",
        "Q1: {unit: kJ/h, deviation: [1, 2]}",
        "lower < 0 < upper",
    ),
    "nominal outside": ("nominal: 0.98", "nominal: 0.9", "plant.disturbances.xA10: nominal = 0.9 is outside"),
    "not finite": ("nominal: 0.98", "nominal: .nan", "plant.disturbances.xA10.nominal = nan: give a finite number"),
    "infinite": ("deviation: 10, noise: 0.0}", "deviation: 10, noise: .inf}", "noise = inf: give a finite number"),
    "not YAML": ("plant:\n", "plant: [\n", "not valid YAML"),
    "repeated key": ("  seed: 1\n", "  seed: 1\n  seed: 2\n", "not valid YAML"),
    "unknown model": ("model: reactor_separator", "model: reactor_seperator", "did you mean 'reactor_separator'"),
    "unknown mode": ("mode: cooperative", "mode: cooperativ", "did you mean 'cooperative'"),
    "missing neighbour": ("neighbours: [reactor2, separator]", "neighbours: [reactor2]", "agents.reactor1.neighbours"),
    "unknown neighbour": ("[reactor2, separator]", "[reactor2, seperator]", "did you mean 'separator'"),
    "own neighbour": ("[reactor2, separator]", "[reactor1, separator]", "an agent is not its own neighbour"),
    "actuator claimed twice": (
        "heat, type: std_msgs/Float64, input: Q1",
        "/reactor_separator/reactor2/heat, type: std_msgs/Float64, input: Q1",
        "is already claimed by agent 'reactor1'",
    ),
    "unknown parameter": ("  period: 36 s", "  period: 36 s\n  parameters: {V4: 1.0}", "no parameter 'V4'"),
    "no such sensor state": ("field: temperature, state: T1", "field: temperature, state: T2", "it has xA1, xB1, T1"),
    "bad topic": ("{topic: temperature,", "{topic: 'tempe rature',", "a topic is names joined by '/'"),
    "initial outside": (
        "T1: {unit: K, deviation: 10,",
        "T1: {unit: K, deviation: 10, initial: 470,",
        "outside its limits",
    ),
    "limits off centre": (
        "T1: {unit: K, deviation: 10,",
        "T1: {unit: K, limits: [450, 460],",
        "the steady state 446.286",
    ),
    "dependent coordinates": ("xA1_xB1: {weights: {xA1: 1, xB1: 1}", "xA1_xB1: {weights: {xA1: 1}", "not independent"),
    "missing section": ("controller:", "controler:", "did you mean 'controller'"),
    "missing key": ("  period: 36 s\n", "", "plant.period: is missing"),
    "unknown disturbance": ("T20: {kind", "T21: {kind", "simulation.disturbances.T21: no such disturbance"),
    "an unknown mode": ("mode: cooperative", "mode: fuzzy", "controller.mode = 'fuzzy'"),
    "a PID of nobody's input": (
        "neighbours: [reactor2, separator]   #",
        "pid: {Q2: {state: T1}}\n    neighbours: [reactor2, separator]   #",
        "no such input of this agent",
    ),
    "half a PID": (
        "neighbours: [reactor2, separator]   #",
        "pid: {Q1: {kp: 2.0}}\n    neighbours: [reactor2, separator]   #",
        "give kp and ki, or neither",
    ),
    "set point outside": ("  horizon: 12\n", "  horizon: 12\n  setpoint: {T1: 600}\n", "outside the state's limits"),
    "safe input outside": (
        "  horizon: 12\n",
        "  horizon: 12\n  safe_inputs: {Q1: 1.0e9}\n",
        "outside the input's limits",
    ),
    "shorter than a period": ("duration: 2 h", "duration: 10 s", "at least one period"),
    "a list, not a mapping": ("disturbances:\n    T10: {kind", "disturbances: []\n    #T10: {kind", ""),
}


@pytest.mark.parametrize("case", CASES, ids=lambda name: name.replace(" ", "_"))
def test_a_wrong_plant_file_gives_one_error_with_its_line(
    case: str, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    old, new, message = CASES[case]
    assert old in REACTOR
    file = tmp_path / "plant.yaml"
    file.write_text(REACTOR.replace(old, new, 1), encoding="utf-8")
    assert main(["check", str(file)]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1, err
    assert err.startswith(f"rmpc: {file}:"), err
    assert "Traceback" not in err
    assert message in err


@pytest.mark.parametrize(
    ("case", "marker"),
    [
        ("unknown key", "horizn"),
        ("wrong type", "twelve"),
        ("not finite", ".nan"),
        ("limits crossed", "[1.0, 0.96]"),
        ("wrong quantity", "T1: {unit: kJ/h"),
        ("unknown neighbour", "seperator"),
        ("actuator claimed twice", "- {topic: heat, type: std_msgs/Float64, input: Q2"),
        ("initial outside", "initial: 470"),
        ("repeated key", "seed: 2"),
    ],
)
def test_the_line_is_the_line(case: str, marker: str) -> None:
    old, new, _ = CASES[case]
    text = REACTOR.replace(old, new, 1)
    line = next(n for n, row in enumerate(text.splitlines(), 1) if marker in row)
    with pytest.raises(ConfigError, match=rf"^demo\.yaml:{line}: "):
        parse_plant(text, "demo.yaml")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("A: [[0.8]]", "A: [[0.8, 0.1]]", "agents.right.matrices.A = [[0.8, 0.1]]: it is 1 x 2; needed 1 x 1"),
        ("A: [[0.8]]", "A: [[0.8], [0.1]]", "it is 2 x 1; needed 1 x 1"),
        ("[[0.9, 0.1], [0.0, 0.9]]", "[[0.9, 0.1], [0.0]]", "its rows have different lengths [1, 2]; needed 2 x 2"),
        (
            "B: {right: [[0.01], [0.02]]}",
            "B: {right: [[0.01, 0.02]]}",
            "it is 1 x 2; needed 2 x 1 (states x states of right)",
        ),
        ("B: {right:", "B: {rigth:", "agents.left.matrices.B.rigth"),
        ("D: [[0.0], [0.1]]", "D: []", "it is 0 x 0; needed 2 x 1"),
        ("E: [[0.0], [0.1]]", "E: [[0.0, 1.0], [0.1, 1.0]]", "needed 2 x 1 (states x disturbances)"),
        ("neighbours: [right]", "neighbours: []", "'right' is missing"),
        ("initial: 0.5", "initial: 1.5", "the initial state 1.5 is outside its limits [-1, 1]"),
        ("[[0.8]]", "[[.inf]]", "give a finite number"),
        ("      g: {", "      f: {", "this actuator is already claimed by agent 'left'"),
        ("      r: {", "      p: {", "this state is already claimed by agent 'left'"),
    ],
)
def test_matrices_of_the_wrong_shape_are_refused(old: str, new: str, message: str) -> None:
    assert old in PAIR
    with pytest.raises(ConfigError) as error:
        parse_plant(PAIR.replace(old, new, 1))
    assert message in str(error.value)


def test_matrices_of_the_agents_become_the_network() -> None:
    linear = parse_plant(PAIR).linear
    np.testing.assert_allclose(linear.A, [[0.9, 0.1, 0.01], [0.0, 0.9, 0.02], [0.0, 0.0, 0.8]])
    np.testing.assert_allclose(linear.B, [[0.0, 0.0], [0.1, 0.0], [0.0, 0.2]])
    np.testing.assert_allclose(linear.E, [[0.0], [0.1], [0.0]])
    assert linear.neighbours("left") == ("right",)
    assert linear.neighbours("right") == ()


def test_a_state_that_nobody_owns_is_named() -> None:
    text = "\n".join(line for line in REACTOR.splitlines() if "T3" not in line)
    with pytest.raises(ConfigError, match="no agent owns the model's state 'T3'"):
        parse_plant(text)


def test_several_problems_are_counted_and_the_first_is_shown() -> None:
    text = (
        REACTOR.replace("horizon: 12", "horizon: x").replace("seed: 1", "seed: y").replace("period: 36 s", "period: z")
    )
    with pytest.raises(ConfigError, match=r"plant\.period = 'z'.*\(and 2 more\)"):
        parse_plant(text)


def test_a_start_outside_the_invariant_set_is_infeasible(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    file = tmp_path / "plant.yaml"
    text = REACTOR.replace("T1: {unit: K, deviation: 10,", "T1: {unit: K, deviation: 10, initial: 455,", 1)
    file.write_text(text, encoding="utf-8")
    assert main(["check", str(file)]) == 1
    assert "agents.reactor1.states.T1.initial = 455: the initial state is infeasible" in capsys.readouterr().err


def test_check_prints_the_design(capsys: pytest.CaptureFixture) -> None:
    assert main(["check", str(ROOT / "config" / "reactor_separator.yaml")]) == 0
    out = capsys.readouterr().out
    assert "the guarantee exists" in out
    assert "446.286" in out


PLANTS = ("reactor_separator", "reactor_separator_tight", "quadruple_tank", "cstr", "spring_chain", "building")


@pytest.mark.parametrize("plant", PLANTS)
def test_the_plant_files_of_the_package_have_a_guarantee(plant: str, capsys: pytest.CaptureFixture) -> None:
    file = ROOT / "config" / f"{plant}.yaml"
    assert main(["check", str(file), "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    for name, agent in result["design"]["agents"].items():
        for coordinate in agent.values():
            assert coordinate["initial_share"] <= 1
            assert coordinate["share"] <= 1
        wired = {s.state for s in load_plant(file).agents[name].sensors}
        assert wired == set(result["agents"][name]["states"])


def test_a_file_that_is_not_there_is_one_line(capsys: pytest.CaptureFixture) -> None:
    assert main(["check", "nowhere.yaml"]) == 1
    assert capsys.readouterr().err == "rmpc: plant file 'nowhere.yaml': no such file\n"


@pytest.mark.parametrize(
    ("written", "value"), [("36 s", 36.0), ("0.6 min", 36.0), ("2h", 7200.0), (5, 5.0), ("1e2 s", 100.0)]
)
def test_durations_are_read_in_words(written: object, value: float) -> None:
    assert seconds(written) == pytest.approx(value)


EQUATIONS = """\
plant:
  name: tank
  model: equations
  period: 10 s
  parameters: {area: 2.0, outlet: 0.1}
  equations:
    time_unit: s
    definitions: {out: "outlet*sqrt(level)"}
    derivatives: {level: "(flow + leak - out)/area"}
  operating_point: {inputs: {flow: 0.2}, states: {level: 3.0}}
  disturbances:
    leak: {unit: m3/h, nominal: 0, bounds: [-0.01, 0.01]}
agents:
  tank:
    states: {level: {unit: m, limits: [2, 6]}}
    inputs: {flow: {unit: m3/h, limits: [0, 1]}}
"""


def test_equations_in_the_file_are_a_model() -> None:
    config = parse_plant(EQUATIONS)
    assert config.linear.steady_state == pytest.approx([4.0])
    slope = -0.1 / (2 * np.sqrt(4.0)) / 2.0
    np.testing.assert_allclose(config.linear.A, [[np.exp(10 * slope)]])


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ("(flow + leek)/area", "the name 'leek' is unknown; did you mean 'leak'"),
        ("flow +", "not an expression"),
        ("__import__('os').system('true')", "is not allowed"),
        ("flow.real", "is not allowed"),
        ("sqrt(level, 2)", "does not take 2 arguments"),
    ],
)
def test_expressions_are_arithmetic_only(expression: str, message: str) -> None:
    with pytest.raises(ConfigError) as error:
        parse_plant(EQUATIONS.replace("(flow + leak - out)/area", expression))
    assert message in str(error.value)
    assert "level" in str(error.value)


def test_every_key_of_the_plant_file_is_documented() -> None:
    page = (ROOT / "docs" / "plant_file.md").read_text(encoding="utf-8")
    kinds = [kind for kind in vars(sections).values() if isinstance(kind, type) and issubclass(kind, sections.Section)]
    realisation = (ROOT / "docs" / "plants.md").read_text(encoding="utf-8")
    for kind in kinds:
        for key in kind.model_fields:
            where = realisation if kind is sections.Realisation else page
            assert f"`{key}`" in where or f"`{key}:" in where, f"{kind.__name__}.{key}"


JUNK = [
    None,
    [],
    {},
    "x",
    "",
    -1,
    0,
    1e300,
    float("nan"),
    True,
    [2, 1],
    [1, 2, 3],
    {"a": 1},
    10**400,
    "1 s",
    [[1.0]],
    "~/",
]


def keys_of(node: object, path: tuple = ()) -> list[tuple]:
    items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    return [p for key, value in items for p in [(*path, key), *keys_of(value, (*path, key))]]


@pytest.mark.parametrize("seed", range(60))
def test_a_mangled_file_is_read_or_refused_in_one_line(seed: int) -> None:
    """One random key is removed, replaced by junk, or joined by junk."""
    generator = np.random.default_rng(seed)
    yaml = YAML(typ="safe")
    data = yaml.load(REACTOR)
    *path, last = (paths := keys_of(data))[generator.integers(len(paths))]
    junk = JUNK[generator.integers(len(JUNK))]
    here = data
    for key in path:
        here = here[key]
    match generator.integers(3), here:
        case 0, _:
            del here[last]
        case 1, dict():
            here[str(generator.choice(["new", "T1", "1x"]))] = junk
        case _:
            here[last] = junk
    text = io.StringIO()
    yaml.dump(data, text)
    try:
        parse_plant(text.getvalue(), "mangled.yaml")
    except ConfigError as error:
        assert str(error).startswith("mangled.yaml:")
        assert "\n" not in str(error)


def test_a_set_that_cannot_be_made_is_said_to_be_the_controllers(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    file = tmp_path / "plant.yaml"
    text = REACTOR.replace("set: {family: box}", "set: {family: nosuch, parameters: {a: 1}}")
    assert text != REACTOR
    file.write_text(text, encoding="utf-8")
    assert main(["check", str(file)]) == 1
    assert "controller.set: set family 'nosuch' is unknown" in capsys.readouterr().err
