"""The arrows between the rooms, checked on the source text: nothing imports upward, only nodes know ROS."""

import ast
import graphlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "rmpc_ros"

CORE = {"errors", "config", "record", "solvers", "sets", "models", "robust", "mpc", "network", "plants", "learning"}
MAY_USE = {
    "errors": set(),
    "config": {"errors", "models"},
    "record": {"errors"},
    "usage": set(),
    "solvers": {"errors"},
    "sets": {"errors", "solvers"},
    "models": {"errors", "solvers", "sets"},
    "robust": {"errors", "solvers", "sets", "models"},
    "mpc": {"errors", "solvers", "sets", "models", "robust"},
    "plants": {"errors", "config", "solvers", "sets", "models"},
    "network": CORE - {"learning"},
    "learning": CORE,
    "report": CORE,
    "simulate": CORE,
    "studies": CORE | {"simulate", "report"},
    "bringup": CORE,
    "nodes": CORE | {"bringup", "usage"},
    "run": CORE | {"bringup", "report", "usage"},
    "cli": CORE | {"studies", "simulate", "bringup", "run", "report"},
}
"""For each room (folder or module of rmpc_ros): the rooms it may import besides itself."""

MAY_KNOW_ROS = {"nodes", "bringup"}
ROS = {
    "rclpy",
    "launch",
    "launch_ros",
    "rosidl_runtime_py",
    "rosidl_parser",
    "ament_index_python",
    "builtin_interfaces",
}
GENERATED = {"msg", "srv"}


def sources() -> list[Path]:
    return [path for path in sorted(PACKAGE.rglob("*.py")) if "__pycache__" not in path.parts]


def imports(path: Path) -> Iterator[tuple[int, str]]:
    """Line and full name of everything a file imports, also inside functions."""
    package = ["rmpc_ros", *path.relative_to(PACKAGE).parent.parts]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            for alias in node.names:
                yield node.lineno, f"{module}.{alias.name}"


def room(path: Path) -> str:
    first = path.relative_to(PACKAGE).parts[0]
    return first.removesuffix(".py")


def knows_ros(name: str) -> bool:
    first, *rest = name.split(".")
    return (
        first in ROS
        or first.endswith(("_msgs", "_srvs", "_interfaces"))
        or (first == "rmpc_ros" and rest[:1] == ["msg"])
    )


def test_every_room_has_its_place_in_the_order() -> None:
    rooms = {room(path) for path in sources()} - {"__init__", "__main__"}
    assert rooms <= MAY_USE.keys(), f"add to MAY_USE: {sorted(rooms - MAY_USE.keys())}"


@pytest.mark.parametrize("path", sources(), ids=lambda path: str(path.relative_to(ROOT)))
def test_nothing_imports_upward(path: Path) -> None:
    here = room(path)
    if here in ("__init__", "__main__"):
        return
    wrong = [
        f"{path.relative_to(ROOT)}:{line}: {here} may not import {name}"
        for line, name in imports(path)
        if name.startswith("rmpc_ros.")
        and (used := name.split(".")[1]) not in MAY_USE[here] | {here, "__version__"}
        and not (used in GENERATED and here in MAY_KNOW_ROS)
    ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("path", sources(), ids=lambda path: str(path.relative_to(ROOT)))
def test_only_nodes_and_the_bring_up_know_ros(path: Path) -> None:
    if room(path) in MAY_KNOW_ROS:
        return
    wrong = [f"{path.relative_to(ROOT)}:{line}: imports {name}" for line, name in imports(path) if knows_ros(name)]
    assert not wrong, "\n".join(wrong)


def test_no_import_goes_round_in_a_circle() -> None:
    """Only imports that run when a module is loaded count."""
    modules = {".".join(p.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): p for p in sources()}
    graph = {}
    for module, path in modules.items():
        tree = ast.parse(path.read_text(encoding="utf-8"))
        loaded = set()
        for node in tree.body:
            if isinstance(node, ast.Import):
                loaded |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                names = {f"{node.module}.{alias.name}" for alias in node.names}
                loaded |= {name if name in modules else node.module for name in names}
        graph[module] = (loaded & modules.keys()) - {module}
    try:
        tuple(graphlib.TopologicalSorter(graph).static_order())
    except graphlib.CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


@pytest.mark.parametrize("folder", ["checkout", "elsewhere"])
def test_messages_and_sources_are_one_package_from_any_folder(folder: str, tmp_path: Path) -> None:
    code = "from rmpc_ros.msg import ForecastSet; import rmpc_ros.errors as e; print(ForecastSet.__name__, e.__file__)"
    where = ROOT if folder == "checkout" else tmp_path
    done = subprocess.run([sys.executable, "-c", code], cwd=where, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    name, file = done.stdout.split()
    assert name == "ForecastSet"
    assert Path(file).resolve() == PACKAGE / "errors.py"


def test_the_command_finds_messages_without_set_up(tmp_path: Path) -> None:
    """Nothing sourced, an empty environment, another folder."""
    command = Path(sys.prefix) / "bin" / "rmpc"
    done = subprocess.run([command, "--help"], cwd=tmp_path, capture_output=True, text=True, timeout=60, env={})
    assert done.returncode == 0, done.stderr
    assert "study" in done.stdout
    assert command.read_text(encoding="utf-8").splitlines()[0] == f"#!{Path(sys.prefix) / 'bin' / 'python'}"


def test_the_core_is_imported_without_ros(tmp_path: Path) -> None:
    """A finder that refuses ROS stands in for a machine that has none."""
    code = f"""
import sys, importlib, pkgutil
class Refuse:
    def find_spec(self, name, path=None, target=None):
        first = name.split('.')[0]
        generated = name in ('rmpc_ros.msg', 'rmpc_ros.srv')
        if generated or first in {ROS!r} or first.endswith(('_msgs', '_srvs', '_interfaces')):
            raise ImportError('no ROS here: ' + name)
sys.meta_path.insert(0, Refuse())
import rmpc_ros
for folder in {sorted(CORE - {"learning"})!r}:
    module = importlib.import_module('rmpc_ros.' + folder)
    for info in pkgutil.walk_packages(getattr(module, '__path__', []), module.__name__ + '.'):
        importlib.import_module(info.name)
print('imported', len([m for m in sys.modules if m.startswith('rmpc_ros')]))
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
    assert int(done.stdout.split()[1]) > 10
