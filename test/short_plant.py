"""The shipped campaign plant with short campaigns and windows, as a file."""

from __future__ import annotations

from pathlib import Path

from rmpc_ros.config.shipped import shipped_plant


def short_plant(folder: Path, days: int, window: int, average: int) -> Path:
    """Write the plant file: campaigns of `days`, surrogate windows of `window` steps, means of `average`."""
    text = shipped_plant("reactor_separator_campaign").read_text(encoding="utf-8")
    for old, new in (
        ("days: 21", f"days: {days}"),
        ("window: 24", f"window: {window}"),
        ("average: 12", f"average: {average}"),
    ):
        assert old in text
        text = text.replace(old, new)
    path = folder / "short.yaml"
    path.write_text(text, encoding="utf-8")
    return path
