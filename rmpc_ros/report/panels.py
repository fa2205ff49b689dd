"""Stacked plots with a common time axis as plain Plotly JSON.

The page needs traces, lines and bands in rows; written as dictionaries this takes milliseconds where plotly's checked
figure objects take seconds, and the browser's library (bundled with the plotly package) is the same.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from importlib.resources import files
from typing import Any

import numpy as np

GAP = 0.028  # between rows, as a share of the height
ROW = 170  # pixels of a row of height 1


def library() -> str:
    """Plotly's browser library, from the installed package."""
    return files("plotly").joinpath("package_data", "plotly.min.js").read_text(encoding="utf-8")


def axis(name: str, row: int) -> str:
    """Plotly's name of a row's axis: the first has no number."""
    return name if row == 1 else f"{name}{row}"


class Panels:
    """Rows of plots.

    Parameters
    ----------
    titles : one per row
    heights : relative, one per row
    time_title : under the last row
    """

    def __init__(self, titles: Sequence[str], heights: Sequence[float], time_title: str) -> None:
        self.traces: list[dict[str, Any]] = []
        self._shapes: list[dict[str, Any]] = []
        self._pixels = int(ROW * sum(heights)) + 180
        share = (1.0 - GAP * (len(titles) - 1)) / sum(heights)
        top = 1.0
        self.layout: dict[str, Any] = {
            "height": self._pixels,
            "margin": {"l": 80, "r": 20, "t": 30, "b": 110},
            "hovermode": "x unified",
            "showlegend": False,
            "plot_bgcolor": "#fff",
            "paper_bgcolor": "#fff",
            "font": {"family": "system-ui, sans-serif", "size": 12},
            "annotations": [],
            "shapes": self._shapes,
        }
        for row, (title, height) in enumerate(zip(titles, heights, strict=True), start=1):
            bottom = max(0.0, top - height * share)
            last = row == len(titles)
            self.layout[axis("yaxis", row)] = {
                **{"domain": [bottom, top], "anchor": axis("x", row), "gridcolor": "#edf0f3"},
                "zeroline": False,
            }
            self.layout[axis("xaxis", row)] = {
                "anchor": axis("y", row),
                "gridcolor": "#edf0f3",
                "showticklabels": last,
                "title": {"text": time_title if last else ""},
                "zeroline": False,
                **({} if row == 1 else {"matches": "x"}),
            }
            self.layout["annotations"].append(
                {
                    **{"text": title, "x": 0.5, "xref": "paper", "y": top, "yref": "paper"},
                    **{"xanchor": "center", "yanchor": "bottom", "showarrow": False, "font": {"size": 12}},
                }
            )
            top = bottom - GAP

    def line(self, row: int, x: Any, y: Any, **style: Any) -> None:
        """One trace in a row; NaN leaves a gap."""
        axes = {"xaxis": axis("x", row), "yaxis": axis("y", row)}
        self.traces.append({"type": "scatter", "mode": "lines", "x": _list(x), "y": _list(y), **axes, **style})

    def band(self, row: int, x: Any, low: Any, high: Any, colour: str, opacity: float, **style: Any) -> None:
        """A filled band between two lines."""
        r, g, b = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
        edge = {"line": {"width": 0, "color": colour}, "hoverinfo": "skip", **style}
        self.line(row, x, low, **edge)
        self.line(row, x, high, fill="tonexty", fillcolor=f"rgba({r},{g},{b},{opacity})", **edge)

    def level(self, row: int, y: float, colour: str, dash: str = "solid") -> None:
        """A horizontal line across a row; none for a value that is not finite."""
        if math.isfinite(y):
            where = {"xref": "paper", "x0": 0, "x1": 1, "yref": axis("y", row), "y0": y, "y1": y}
            self._shapes.append({"type": "line", **where, "line": {"color": colour, "width": 1.2, "dash": dash}})

    def span(self, begin: float, end: float, colour: str, opacity: float) -> None:
        """A background across all rows."""
        where = {"xref": "x", "x0": begin, "x1": end, "yref": "paper", "y0": 0, "y1": 1}
        self._shapes.append(
            {"type": "rect", **where, "fillcolor": colour, "opacity": opacity, "line": {"width": 0}, "layer": "below"}
        )

    def html(self, name: str) -> str:
        """A div and the call that draws it."""
        parts = [json.dumps(part, allow_nan=False) for part in (self.traces, self.layout, {"responsive": True})]
        data, layout, options = (part.replace("</", "<\\/") for part in parts)
        return (
            f'<div id="{name}" style="height:{self._pixels}px"></div>'
            f'<script>Plotly.newPlot("{name}",{data},{layout},{options})</script>'
        )


def _list(values: Any) -> list[Any]:
    """Plain numbers with seven digits, None where not finite; words stay."""
    array = np.asarray(values)
    if array.dtype.kind not in "fiu":
        return list(values)
    return [float(f"{v:.7g}") if math.isfinite(v) else None for v in array.tolist()]
