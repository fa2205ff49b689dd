"""The plant for RViz: vessels, levels, labels, links and tubes as one MarkerArray.

Fixed frame `plant`, fixed ids, action MODIFY; the lifetime is two publications, so that stale markers vanish. A
namespace per agent and kind, so that each is a tick box in RViz.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from builtin_interfaces.msg import Duration, Time
from geometry_msgs.msg import Point, Pose, Quaternion, Vector3
from numpy.typing import NDArray
from std_msgs.msg import ColorRGBA
from visualization_msgs.msg import Marker

from rmpc_ros.nodes.convert import FRAME, header

LIFETIME = Duration(sec=3)
RADIUS, HEIGHT = 0.5, 1.2  # of a vessel [m]
TUBE_LENGTH, TUBE_HEIGHT = 1.2, 0.6  # of the strip that shows a promise [m]

GREEN, AMBER, RED = (0.20, 0.63, 0.29), (0.93, 0.62, 0.12), (0.84, 0.15, 0.16)
GREY, GLASS, BLUE = (0.55, 0.55, 0.55), (0.75, 0.80, 0.85), (0.22, 0.46, 0.75)


@dataclass(frozen=True)
class AgentView:
    """What is drawn of one agent.

    Attributes
    ----------
    level : its last state between its limits, 0 to 1
    margin : smallest normalised margin (1 centre, 0 at a limit)
    stale : has not been heard for a while
    behind : how many steps old its newest promise is
    tube : (T+1, 3) centre and half-width of the promise for its last state, on the same 0 to 1, and the step
    """

    name: str
    level: float
    margin: float
    stale: bool
    behind: int
    tube: NDArray[np.float64]


def traffic_light(margin: float, stale: bool) -> tuple[float, float, float]:
    """Green from 20 % of the half-range, amber below, red outside, grey when stale or unknown."""
    if stale or math.isnan(margin):
        return GREY
    return GREEN if margin >= 0.2 else AMBER if margin >= 0 else RED


class Scene:
    """Places for the agents on a ring, and the markers of one moment."""

    def __init__(self, agents: Sequence[str], links: Sequence[tuple[str, str]]) -> None:
        around = max(1.5, 0.6 * len(agents))
        angles = [math.pi / 2 - 2 * math.pi * n / max(len(agents), 1) for n in range(len(agents))]
        self._places = {a: (around * math.cos(t), around * math.sin(t)) for a, t in zip(agents, angles, strict=True)}
        self._links = list(links)

    def markers(self, views: Sequence[AgentView], stamp: Time) -> list[Marker]:
        """All markers now."""
        by_name = {view.name: view for view in views}
        out = [marker for view in views for marker in self._agent(view, stamp)]
        for sender, receiver in self._links:
            if sender in by_name:
                out.append(self._link(by_name[sender], receiver, stamp))
        return out

    def _agent(self, view: AgentView, stamp: Time) -> list[Marker]:
        x, y = self._places[view.name]
        color = traffic_light(view.margin, view.stale)
        filled = max(0.02, view.level) * HEIGHT
        vessel = _marker(view.name, "vessel", Marker.CYLINDER, stamp, GLASS, 0.25)
        vessel.pose = _pose(x, y, HEIGHT / 2)
        vessel.scale = Vector3(x=2 * RADIUS, y=2 * RADIUS, z=HEIGHT)
        level = _marker(view.name, "level", Marker.CYLINDER, stamp, color, 0.9)
        level.pose = _pose(x, y, filled / 2)
        level.scale = Vector3(x=1.9 * RADIUS, y=1.9 * RADIUS, z=filled)
        label = _marker(view.name, "label", Marker.TEXT_VIEW_FACING, stamp, (0.1, 0.1, 0.1), 1.0)
        label.pose = _pose(x, y, HEIGHT + 0.25)
        label.scale = Vector3(z=0.22)
        margin = "" if math.isnan(view.margin) else f" {100 * view.margin:.0f} %"
        label.text = f"{view.name}{' (silent)' if view.stale else margin}"
        out = [vessel, level, label]
        if len(view.tube):
            out.append(self._tube(view, stamp, x, y))
        return out

    def _tube(self, view: AgentView, stamp: Time, x: float, y: float) -> Marker:
        """Strip of two triangles per step: the promise ahead, beside the vessel."""
        strip = _marker(view.name, "tube", Marker.TRIANGLE_LIST, stamp, BLUE, 0.5)
        strip.pose = _pose(0.0, 0.0, 0.0)
        strip.scale = Vector3(x=1.0, y=1.0, z=1.0)
        steps = max(len(view.tube) - 1, 1)
        across = x + RADIUS + 0.1 + view.tube[:, 2] / steps * TUBE_LENGTH
        low = (view.tube[:, 0] - view.tube[:, 1]) * TUBE_HEIGHT
        high = (view.tube[:, 0] + view.tube[:, 1]) * TUBE_HEIGHT
        for n in range(len(view.tube) - 1):
            a, b = (float(across[n]), float(low[n])), (float(across[n]), float(high[n]))
            c, d = (float(across[n + 1]), float(low[n + 1])), (float(across[n + 1]), float(high[n + 1]))
            strip.points += [Point(x=p, y=y, z=z) for p, z in (a, b, c, c, b, d)]
        return strip

    def _link(self, sender: AgentView, receiver: str, stamp: Time) -> Marker:
        """Arrow along which a promise flows; it fades with the promise's age."""
        arrow = _marker(sender.name, f"to {receiver}", Marker.ARROW, stamp, BLUE, max(0.1, 0.8 - 0.02 * sender.behind))
        arrow.pose = _pose(0.0, 0.0, 0.0)
        (x0, y0), (x1, y1) = self._places[sender.name], self._places[receiver]
        length = math.hypot(x1 - x0, y1 - y0) or 1.0
        dx, dy = (x1 - x0) / length, (y1 - y0) / length
        side = 0.08  # both directions of a pair side by side
        start = (x0 + RADIUS * dx - side * dy, y0 + RADIUS * dy + side * dx)
        end = (x1 - RADIUS * dx - side * dy, y1 - RADIUS * dy + side * dx)
        arrow.points = [Point(x=p, y=q, z=0.1) for p, q in (start, end)]
        arrow.scale = Vector3(x=0.04, y=0.12, z=0.15)
        return arrow


def _marker(agent: str, kind: str, shape: int, stamp: Time, color: Sequence[float], alpha: float) -> Marker:
    r, g, b = color
    return Marker(
        header=header(stamp, FRAME),
        ns=f"{agent}/{kind}",
        id=0,
        type=shape,
        action=Marker.MODIFY,
        color=ColorRGBA(r=r, g=g, b=b, a=alpha),
        lifetime=LIFETIME,
    )


def _pose(x: float, y: float, z: float) -> Any:
    return Pose(position=Point(x=x, y=y, z=z), orientation=Quaternion(w=1.0))
