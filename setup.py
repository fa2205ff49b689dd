"""The ROS-free distribution: sets, models, controllers and studies for people who have no ROS (`pip install .`).

Messages and nodes are built by CMakeLists.txt (colcon, or tools/bring_up.py). Name, version, description and licence
come from package.xml, dependencies from requirements.txt: each fact is written down once.
"""

import xml.etree.ElementTree as ET
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).resolve().parent
package = ET.parse(ROOT / "package.xml").getroot()


def requirements(name: str = "requirements.txt") -> list[str]:
    """Lines of a requirements file without comments."""
    lines = (line.partition("#")[0].strip() for line in (ROOT / name).read_text("utf-8").splitlines())
    return [line for line in lines if line]


setup(
    name=package.findtext("name"),
    version=package.findtext("version"),
    description=package.findtext("description"),
    license=package.findtext("license"),
    maintainer=package.findtext("maintainer"),
    maintainer_email=package.find("maintainer").get("email"),
    python_requires=">=3.11",
    install_requires=requirements(),
    extras_require={extra: requirements(f"requirements-{extra}.txt") for extra in ("train", "tennessee")},
    packages=find_packages(include=["rmpc_ros", "rmpc_ros.*"], exclude=["rmpc_ros.nodes", "rmpc_ros.nodes.*"]),
    package_data={"": ["*.yaml", "*.csv", "*.json", "py.typed"]},
    data_files=[("share/rmpc_ros/config", sorted(str(p.relative_to(ROOT)) for p in ROOT.glob("config/*.[yx]*ml")))],
    entry_points={"console_scripts": ["rmpc = rmpc_ros.cli:entry"]},
    zip_safe=False,
)
