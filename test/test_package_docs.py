"""Links in the documentation lead somewhere, and the commands it shows exist."""

import re
from pathlib import Path

import pytest
from typer.main import get_command

from rmpc_ros.cli import app
from rmpc_ros.studies import registry

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
LINK = re.compile(r"\[[^\]]*\]\(([^)#\s]+)(?:#[^)]*)?\)")
COMMAND = re.compile(r"(?:^|[`/\s])rmpc ([a-z]+)(?: +([a-z][a-z0-9-]*))?")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_somewhere(page: Path) -> None:
    targets = LINK.findall(page.read_text(encoding="utf-8"))
    lost = [t for t in targets if "://" not in t and not (page.parent / t).exists()]
    assert not lost, f"{page.name}: {lost}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_study_and_benchmark_that_is_shown_exists(page: Path) -> None:
    known = {kind: registry.names(kind) for kind in ("study", "bench")}
    for command, name in COMMAND.findall(page.read_text(encoding="utf-8")):
        if command in known and name:
            assert name in known[command], f"{page.name}: rmpc {command} {name}"


def test_every_command_has_a_line_of_help() -> None:
    commands = get_command(app).commands
    assert {"run", "check", "study", "bench"} <= commands.keys()
    for name, command in commands.items():
        assert command.help, name
