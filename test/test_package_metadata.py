"""package.xml, setup.py, requirements and what the code really imports say the same."""

import ast
import re
import sys
import xml.etree.ElementTree as ET
from distutils.core import run_setup
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import rmpc_ros

ROOT = Path(__file__).resolve().parent.parent

ROSDEP_KEYS = {
    "numpy": "python3-numpy",
    "scipy": "python3-scipy",
    "casadi": "casadi-pip",
    "cvxpy": "python3-cvxpy-pip",
    "scikit-learn": "python3-sklearn",
    "networkx": "python3-networkx",
    "pydantic": "python3-pydantic",
    "ruamel-yaml": "python3-ruamel.yaml",
    "typer": "python3-typer",
    "matplotlib": "python3-matplotlib",
    "rosbags": "python3-rosbags-pip",
    "torch": "python3-torch",
    "river": "python3-river-pip",
    "pandas": "python3-pandas",
}
"""Distribution -> rosdep key (rosdep/python.yaml of ros/rosdistro)."""

WITHOUT_ROSDEP_KEY = {"clarabel", "highspy", "piqp", "daqp", "plotly", "mcap", "gymnasium", "pettingzoo"}
"""On a ROS machine these come by `pip install -r requirements.txt` (docs/building.md says so)."""

IMPORTED_AS = {
    "scikit-learn": "sklearn",
    "ruamel-yaml": "ruamel",
    "tensorboardx": "tensorboardX",
    "tep-studio": "tep_studio",
}
EXTRAS = ("train", "tennessee")
ROS_MACHINE_ONLY = {"launch", "launch_ros", "ament_index_python"}


def lines(name: str) -> list[str]:
    text = (ROOT / name).read_text(encoding="utf-8")
    return [line for raw in text.splitlines() if (line := raw.partition("#")[0].strip())]


def requirements(name: str) -> dict[str, Requirement]:
    return {canonicalize_name(r.name): r for r in map(Requirement, lines(name))}


@pytest.fixture(scope="module")
def package() -> ET.Element:
    return ET.parse(ROOT / "package.xml").getroot()


@pytest.fixture(scope="module")
def distribution():
    return run_setup(str(ROOT / "setup.py"), script_args=["--quiet"], stop_after="init")


def depends(package: ET.Element) -> set[str]:
    return {child.text for child in package if child.tag in ("depend", "exec_depend", "build_depend") and child.text}


def top_level_imports(*files: Path) -> set[str]:
    found = set()
    for file in files:
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                found |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                found.add(node.module.split(".")[0])
    return found - set(sys.stdlib_module_names) - {"rmpc_ros", "__future__"}


def is_ros(module: str) -> bool:
    return module in ROS_MACHINE_ONLY | {"rclpy"} or module.endswith(("_msgs", "_srvs", "_interfaces"))


def test_setup_and_package_describe_the_same_thing(package: ET.Element, distribution) -> None:
    meta = distribution.metadata
    assert meta.name == package.findtext("name") == "rmpc_ros"
    assert meta.version == package.findtext("version") == rmpc_ros.__version__
    assert meta.description == package.findtext("description")
    assert meta.license == package.findtext("license") == "Apache-2.0"
    assert "Apache License" in (ROOT / "LICENSE").read_text(encoding="utf-8")


def test_setup_needs_what_requirements_list(distribution) -> None:
    assert {Requirement(line) for line in distribution.install_requires} == set(
        requirements("requirements.txt").values()
    )
    assert set(distribution.extras_require) == set(EXTRAS)
    for extra in EXTRAS:
        required = set(requirements(f"requirements-{extra}.txt").values())
        assert {Requirement(line) for line in distribution.extras_require[extra]} == required


def test_setup_ships_the_ros_free_rooms_only(distribution) -> None:
    shipped = set(distribution.packages)
    folders = {
        ".".join(source.parent.relative_to(ROOT).parts)
        for source in (ROOT / "rmpc_ros").rglob("*.py")
        if "nodes" not in source.parts
    }
    assert shipped == folders
    assert distribution.entry_points == {"console_scripts": ["rmpc = rmpc_ros.cli:entry"]}


def test_every_requirement_has_a_rosdep_key_or_a_reason(package: ET.Element) -> None:
    names = set(requirements("requirements.txt"))
    assert names <= ROSDEP_KEYS.keys() | WITHOUT_ROSDEP_KEY, "say its rosdep key, or that it has none"
    keys = {key for key in depends(package) if key in ROSDEP_KEYS.values()}
    assert keys == {ROSDEP_KEYS[name] for name in names - WITHOUT_ROSDEP_KEY}
    building = (ROOT / "docs" / "building.md").read_text(encoding="utf-8")
    assert all(name in building for name in names & WITHOUT_ROSDEP_KEY)


@pytest.mark.parametrize("kind", ["", "-ros", "-dev", "-peers", *(f"-{extra}" for extra in EXTRAS)])
def test_constraints_pin_every_requirement_to_an_allowed_version(kind: str) -> None:
    file = f"requirements{kind}.txt"
    pinned = {name: next(iter(r.specifier)) for name, r in requirements("constraints.txt").items()}
    assert all(pin.operator == "==" for pin in pinned.values())
    for name, requirement in requirements(file).items():
        assert name in pinned, f"{file}: {name} is not pinned in constraints.txt"
        assert requirement.specifier.contains(pinned[name].version), f"{file}: {requirement} against {pinned[name]}"


def test_run_time_requirements_have_lower_and_upper_bounds() -> None:
    files = ("requirements.txt", *(f"requirements-{extra}.txt" for extra in EXTRAS))
    for requirement in [r for file in files for r in requirements(file).values()]:
        assert {clause.operator for clause in requirement.specifier} == {">=", "<"}, requirement


def test_what_the_code_imports_is_required_and_the_other_way_round() -> None:
    imported = top_level_imports(*(ROOT / "rmpc_ros").rglob("*.py"))
    files = ("requirements.txt", *(f"requirements-{extra}.txt" for extra in EXTRAS))
    required = {IMPORTED_AS.get(name, name) for file in files for name in requirements(file)}
    compared = set(requirements("requirements-peers.txt")) | {"csnlp"}  # csnlp: what dmpcrl's problems are written in
    imported |= {"plotly"}  # its browser library is read as a file (report/panels.py)
    assert {name for name in imported if not is_ros(name)} - compared == required


def test_ros_imports_are_declared(package: ET.Element) -> None:
    files = [*(ROOT / "rmpc_ros").rglob("*.py"), *(ROOT / "launch").glob("*.py")]
    used = {name for name in top_level_imports(*files) if is_ros(name)}
    assert used <= depends(package)
    wheels = {name.removeprefix("ros-").replace("-", "_") for name in requirements("requirements-ros.txt")}
    assert used - ROS_MACHINE_ONLY <= wheels


FIELD = re.compile(r"^(?P<type>[a-zA-Z_0-9/]+(\[\d*\])?) (?P<name>[a-z][a-z0-9_]*) *(?P<comment>#.*)?$")
INTERFACES = sorted([*(ROOT / "msg").glob("*.msg"), *(ROOT / "srv").glob("*.srv")])


@pytest.mark.parametrize("file", INTERFACES, ids=lambda file: file.name)
def test_every_field_is_commented_with_unit_and_shape(file: Path) -> None:
    text = file.read_text(encoding="utf-8")
    assert text.startswith("# ")
    fields = 0
    for line in text.splitlines():
        if not line or line.startswith("#") or line == "---" or "=" in line.partition("#")[0]:
            continue
        field = FIELD.match(line)
        assert field and field["comment"], f"{file.name}: {line!r} has no comment"
        fields += 1
        if field["type"].endswith("[]"):
            assert "shape" in field["comment"] or "concatenated" in field["comment"], f"{file.name}: shape of {line!r}"
        if field["type"].startswith(("float", "uint64", "uint32")):
            assert "[" in field["comment"], f"{file.name}: unit of {line!r}"
    assert fields > 0


def test_every_program_is_installed_and_executable() -> None:
    cmake = (ROOT / "CMakeLists.txt").read_text(encoding="utf-8")
    programs = sorted((ROOT / "scripts").iterdir())
    assert programs
    for program in programs:
        assert program.stat().st_mode & 0o111, f"{program.name} is not executable"
        assert f"scripts/{program.name}" in cmake, f"{program.name} is not installed"
