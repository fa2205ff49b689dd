"""Launch files, the files for RViz and rqt, and (where ROS 2's own tools are installed) the real `ros2` on them."""

import ast
import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from rmpc_ros import bringup
from rmpc_ros.config import load_plant
from rmpc_ros.run.domain import Domain

ROOT = Path(__file__).resolve().parent.parent
PLANT_FILE = ROOT / "config" / "reactor_separator.yaml"
BASE = "/reactor_separator"


def launch_is_missing() -> str:
    """Why the tests with the real `ros2 launch` cannot run here; empty where they can."""
    if find_spec("launch_ros") is None:
        return "ROS 2's launch is not installed here (it is not among the wheels)"
    if shutil.which("ros2") is None:
        return "the ros2 command is not installed here"
    folders = os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep)
    if not any((Path(folder) / "share" / "rmpc_ros" / "launch" / "plant.launch.py").is_file() for folder in folders):
        return "rmpc_ros is not in AMENT_PREFIX_PATH: source install/setup.bash after colcon build"
    return ""


needs_launch = pytest.mark.skipif(bool(launch_is_missing()), reason=launch_is_missing() or "-")


# -- on the text: everywhere ------------------------------------------------------------------------------------------
def declared_arguments(file: str) -> dict[str, dict[str, str]]:
    """Name -> literal keywords of every launch argument that a launch file or `nodes.launching` declares for it."""
    found = {}
    shared = {"PLANT", "NAMESPACE"}
    tree = ast.parse((ROOT / "launch" / file).read_text(encoding="utf-8"))
    used = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)} & shared
    assert used == shared, f"{file} takes the plant and a namespace"
    common = ast.parse((ROOT / "rmpc_ros" / "nodes" / "launching.py").read_text(encoding="utf-8"))
    for node in [*ast.walk(tree), *ast.walk(common)]:
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "DeclareLaunchArgument":
            assert isinstance(node.args[0], ast.Constant)
            words = {k.arg: k.value.value for k in node.keywords if k.arg and isinstance(k.value, ast.Constant)}
            found[str(node.args[0].value)] = words
    return found


@pytest.mark.parametrize(
    ("file", "names"),
    [
        ("plant.launch.py", {"plant", "speed", "duration", "record", "rviz", "namespace"}),
        ("agent.launch.py", {"agent", "plant", "namespace", "journals", "learn"}),
        ("learner.launch.py", {"plant", "namespace", "stores", "policy"}),
    ],
)
def test_every_launch_argument_is_explained(file: str, names: set[str]) -> None:
    arguments = declared_arguments(file)
    assert arguments.keys() == names
    for name, words in arguments.items():
        assert len(words.get("description", "")) > 20, f"{file}: {name}"
        assert words["description"].endswith("."), f"{file}: {name}"


def test_rviz_shows_a_topic_that_the_plant_publishes() -> None:
    view = YAML(typ="safe").load(ROOT / "config" / "rmpc.rviz")["Visualization Manager"]
    types = {topic.name: topic.type for topic in bringup.topics(load_plant(PLANT_FILE))}
    shown = [d["Topic"]["Value"] for d in view["Displays"] if d["Class"] == "rviz_default_plugins/MarkerArray"]
    assert [types.get(topic) for topic in shown] == ["visualization_msgs/MarkerArray"]
    assert view["Global Options"]["Fixed Frame"] == "plant"
    assert f'MARKERS = "{shown[0]}"' in (ROOT / "launch" / "plant.launch.py").read_text(encoding="utf-8")


def test_rqt_plots_fields_that_the_plant_publishes() -> None:
    perspective = json.loads((ROOT / "config" / "rmpc.perspective").read_text(encoding="utf-8"))
    manager = perspective["groups"]["pluginmanager"]
    running = ast.literal_eval(manager["keys"]["running-plugins"]["repr"])
    assert set(manager["groups"]) == {f"plugin__rqt_plot__Plot__{n}" for n in running["rqt_plot/Plot"]}
    types = {topic.name: topic.type for topic in bringup.topics(load_plant(PLANT_FILE))}
    plotted = 0
    for group in manager["groups"].values():
        for path in ast.literal_eval(group["groups"]["plugin"]["keys"]["topics"]["repr"]):
            topic, _, field = path.rpartition("/")
            package, _, name = types[topic].partition("/")
            kind = getattr(__import__(f"{package}.msg", fromlist=[name]), name)
            assert field in kind.get_fields_and_field_types(), path
            plotted += 1
    assert plotted >= 6


# -- with the real thing ----------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    with Domain() as domain:
        home = str(tmp_path_factory.mktemp("ros"))
        yield {**os.environ, **domain.environment, "ROS_HOME": home, "ROS_LOG_DIR": home, "PYTHONUNBUFFERED": "1"}


def ros2(environment: dict[str, str], *words: str, status: int = 0, timeout: float = 60) -> str:
    done = subprocess.run(["ros2", *words], env=environment, capture_output=True, text=True, timeout=timeout)
    assert done.returncode == status, f"ros2 {' '.join(words)}: {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout + done.stderr


def look(environment: dict[str, str], *words: str, status: int | None = 0) -> str:
    """A `ros2` command that talks to running nodes, without leaving a daemon behind."""
    command = ["ros2", *words, "--no-daemon", "--spin-time", "3"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert status is None or done.returncode == status, f"{' '.join(command)}: {done.stdout}\n{done.stderr}"
    return done.stdout


def state(environment: dict[str, str], node: str) -> str:
    """Lifecycle state of a node; empty until it is there."""
    return look(environment, "lifecycle", "get", node, status=None).partition(" ")[0].strip()


class Launched:
    """`ros2 launch` running in the background, its output in a file."""

    def __init__(self, environment: dict[str, str], log: Path, *words: str) -> None:
        self.log = log
        with log.open("w", encoding="utf-8") as out:
            self.process = subprocess.Popen(
                ["ros2", "launch", "rmpc_ros", *words], env=environment, stdout=out, stderr=subprocess.STDOUT
            )

    def end(self) -> str:
        """Interrupt as Ctrl-C does; returns everything that was said."""
        self.process.send_signal(signal.SIGINT)
        assert self.process.wait(timeout=60) == 0
        return self.log.read_text(encoding="utf-8")


def assert_clean(text: str, processes: int) -> None:
    for word in ("Traceback", "has died", "failed to terminate"):
        assert word not in text, text
    assert text.count("process has finished cleanly") == processes, text


def until(condition, timeout: float) -> None:
    limit = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < limit, "waited too long"
        time.sleep(0.5)


@needs_launch
@pytest.mark.processes
@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("plant.launch.py", "plant:=nowhere"), "known: "),
        (("plant.launch.py", "plant:=no/such.yaml"), "no such file"),
        (("plant.launch.py", "speed:=-1"), "give max"),
        (("plant.launch.py", "duration:=abc"), "give seconds"),
        (("agent.launch.py", "agent:=reactor9"), "there are reactor1, reactor2, separator"),
        (("agent.launch.py",), "agent"),
    ],
)
def test_a_wrong_argument_gives_one_clear_line(environment: dict[str, str], words: tuple[str, ...], told: str) -> None:
    said = ros2(environment, "launch", "rmpc_ros", *words, status=1)
    assert told in said
    assert "Traceback" not in said


@needs_launch
@pytest.mark.processes
def test_the_whole_plant_runs_to_its_end_and_records(environment: dict[str, str], tmp_path: Path) -> None:
    bag = tmp_path / "bag"
    words = ("speed:=max", "duration:=720", f"record:={bag}", "namespace:=site_a")
    said = ros2(environment, "launch", "rmpc_ros", "plant.launch.py", *words, timeout=200)
    assert_clean(said, processes=6)
    from rmpc_ros.report import write_report

    figures = write_report(bag, tmp_path / "report", {})
    assert figures["steps"] == 20
    assert figures["violations"] == 0


@needs_launch
@pytest.mark.processes
def test_ros_tools_see_the_running_plant_and_ctrl_c_ends_it(environment: dict[str, str], tmp_path: Path) -> None:
    node = f"{BASE}/reactor1/agent"
    launched = Launched(environment, tmp_path / "log", "plant.launch.py", "speed:=36", "duration:=36000")
    try:
        until(lambda: state(environment, node) == "active", 90)
        assert "Transitioning successful" in look(environment, "lifecycle", "set", node, "deactivate")
        assert state(environment, node) == "inactive"
        assert "Transitioning successful" in look(environment, "lifecycle", "set", node, "activate")
        told = look(environment, "param", "describe", node, "neighbour_wait")
        assert "Max value" in told
        assert "most to wait for neighbours" in told
        assert "temperature:" in look(environment, "topic", "echo", "--once", f"{BASE}/reactor1/temperature")
    finally:
        said = launched.end()
    assert_clean(said, processes=5)


@needs_launch
@pytest.mark.processes
def test_one_agent_runs_alone_and_ctrl_c_ends_it(environment: dict[str, str], tmp_path: Path) -> None:
    launched = Launched(environment, tmp_path / "log", "agent.launch.py", "agent:=reactor1", f"journals:={tmp_path}")
    node = f"{BASE}/reactor1/agent"
    try:
        until(lambda: state(environment, node) == "active", 90)
    finally:
        said = launched.end()
    assert_clean(said, processes=1)


@needs_launch
def test_an_interface_explains_every_field(environment: dict[str, str]) -> None:
    told = ros2(environment, "interface", "show", "rmpc_ros/msg/ForecastSet")
    assert "half-widths, shape (T+1, n)" in told
    assert {"agent", "plant", "monitor", "recorder"} <= set(ros2(environment, "pkg", "executables", "rmpc_ros").split())
