"""The report judges for itself: what it counts is what is in the bag."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from rmpc_ros.errors import DataError
from rmpc_ros.record import BagWriter, offered, typestore_for
from rmpc_ros.report import write_report
from rmpc_ros.report.data import _published, read_run
from rmpc_ros.report.events import happenings, silent_spans
from rmpc_ros.report.figures import total_count
from rmpc_ros.report.html import agent_panels
from rmpc_ros.report.write import lines

OURS = ("Measurement", "ForecastSet", "AgentReport")
DIAGNOSTICS = "diagnostic_msgs/msg/DiagnosticArray"
T, STEPS = 4, 20
SUMMARY = {
    "plant": "tank",
    "base": "/tank",
    "run": "r",
    "period": 36.0,
    "seed": 3,
    "agents": {
        "a": {
            "states": [
                {"name": "x", "unit": "m", "lower": -1.0, "upper": 1.0},
                {"name": "y", "unit": "m", "lower": -2.0, "upper": 2.0},
            ],
            "inputs": [{"name": "u", "unit": "V", "lower": -3.0, "upper": 3.0}],
            "noise": [0.0, 0.0],
            "transform": [[1.0, 0.0], [1.0, 1.0]],
            "neighbours": [],
        }
    },
}


class Story:
    """Writes a bag of one agent whose state rests at 0, changed as a test wants it."""

    def __init__(self, folder: Path) -> None:
        self.store = typestore_for([f"rmpc_ros/msg/{name}" for name in OURS] + [DIAGNOSTICS])
        reliable = offered(True, 1, False)
        topics = {kind: f"/tank/a/{kind}" for kind in ("measurement", "truth", "applied", "forecast", "report")}
        types = {"forecast": "ForecastSet", "report": "AgentReport"}
        rows = [(name, f"rmpc_ros/msg/{types.get(kind, 'Measurement')}", reliable) for kind, name in topics.items()]
        self.bag = BagWriter(folder, SUMMARY, [*rows, ("/diagnostics", DIAGNOSTICS, reliable)])

    def write(self, topic: str, kind: str, stamp: float, /, **fields: Any) -> None:
        if "/" not in kind:
            kind = f"rmpc_ros/msg/{kind}"
            fields["header"] = self.header()
            fields |= {"run": "r", "agent": "a"}
        message = self.store.types[kind](**fields)
        self.bag.write(topic, int(stamp * 1e9), bytes(self.store.serialize_cdr(message, kind)))

    def header(self) -> Any:
        stamp = self.store.types["builtin_interfaces/msg/Time"](sec=0, nanosec=0)
        return self.store.types["std_msgs/msg/Header"](stamp=stamp, frame_id="plant")

    def step(self, k: int, state: tuple[float, float] = (0.0, 0.0), u: float = 0.0, silent: bool = False) -> None:
        for kind in ("measurement", "truth"):
            self.write(f"/tank/a/{kind}", "Measurement", 36 * k, step=k, names=["x", "y"], values=np.array(state))
        self.write("/tank/a/applied", "Measurement", 36 * k, step=k, names=["u"], values=np.array([u]))
        if silent:
            return
        n, half = 3, np.array([0.1, 0.1, 0.5])
        self.write(
            *("/tank/a/forecast", "ForecastSet", 36 * k),
            **{"step": k, "iteration": 0, "kind": 1, "period": 36.0, "horizon": T, "shape": "box"},
            **{"names": ["x", "x_y", "u_law_deviation"], "center": np.zeros((T + 1) * n)},
            **{"scale": np.tile(half, T + 1), "transform": np.zeros(0), "terminal_center": np.zeros(n)},
            **{"terminal_scale": 2 * half, "acknowledged_agent": "", "adopted": 0, "settled": 0},
        )
        self.write(
            *("/tank/a/report", "AgentReport", 36 * k),
            **{"step": k, "mode": 0 if k % 10 else 1, "solver_status": "optimal", "solve_ms": 0.1 * k, "step_ms": 1.0},
            **{"cost": 0.5, "margin_names": ["x", "y", "u"], "margins": np.array([0.9, 0.8, 0.7])},
            **{"promise_width": np.tile([0.1, 0.1], T), "promise_kept": True, "reason": ""},
            **{"controller": "robust", "mode_counts": np.zeros(5, np.uint64), "rejected_messages": 0},
        )

    def diagnose(self, k: int, name: str, level: int, message: str, **values: object) -> None:
        pair, status = (self.store.types[f"diagnostic_msgs/msg/{x}"] for x in ("KeyValue", "DiagnosticStatus"))
        pairs = [pair(key=key, value=str(value)) for key, value in values.items()]
        one = status(level=level, name=name, message=message, hardware_id="", values=pairs)
        self.write("/diagnostics", DIAGNOSTICS, 36 * k, header=self.header(), status=[one])


@pytest.fixture
def story(tmp_path: Path) -> Story:
    return Story(tmp_path / "bag")


def told(story: Story, tmp_path: Path) -> dict[str, Any]:
    story.bag.close()
    return write_report(tmp_path / "bag", tmp_path / "out")


def test_a_quiet_run_has_nothing_to_complain_about(story: Story, tmp_path: Path) -> None:
    for k in range(STEPS):
        story.step(k)
    result = told(story, tmp_path)
    agent = result["agents"]["a"]
    assert (result["steps"], result["violations"], result["promises_broken"]) == (STEPS, 0, 0)
    assert agent["promises_checked"] == STEPS - 1
    assert agent["mode_counts"] == {"optimal": 18, "certified": 2, "backup": 0, "safe": 0, "uncertified": 0}
    assert agent["controller_counts"]["robust"] == STEPS
    assert result["optimal_share"] == 0.9
    assert agent["cost"] == pytest.approx(0.5 * STEPS)
    assert agent["solve_ms_p50"] == pytest.approx(0.95)
    # coordinate half-widths (0.2, 0.2) beyond the horizon: x within 0.2 of 1, y = x_y - x within 0.4 of 2
    assert agent["promise_width"]["invariant_median"] == pytest.approx(0.2)
    assert agent["promise_width"]["next5_over_invariant"] == pytest.approx(0.5)
    assert json.loads((tmp_path / "out" / "run.json").read_text())["steps"] == STEPS
    assert (tmp_path / "out" / "plant.png").stat().st_size > 5000
    assert "20 steps, 0 violations, 0 promises broken" in "\n".join(lines(result))


def test_violations_are_counted_on_the_true_state_and_the_applied_input(story: Story, tmp_path: Path) -> None:
    for k in range(STEPS):
        story.step(k, u=3.5 if k == 4 else 0.0)
    story.write("/tank/a/truth", "Measurement", 36 * 7 + 1, step=7, names=["x", "y"], values=np.array([1.001, 0.0]))
    assert told(story, tmp_path)["violations"] == 2


def test_a_broken_promise_is_found_in_the_agents_coordinates(story: Story, tmp_path: Path) -> None:
    for k in range(STEPS):
        story.step(k, state=(0.09, 0.05) if k == 6 else (0.09, -0.09) if k == 8 else (0.0, 0.0))
    result = told(story, tmp_path)  # x + y = 0.14 > 0.1 is broken; x + y = 0 is kept although y alone is far out
    assert result["promises_broken"] == 1
    assert result["promises_kept_percent"] == pytest.approx(100 * 18 / 19)


def test_a_silent_agent_is_held_to_its_last_promise(story: Story, tmp_path: Path) -> None:
    for k in range(STEPS):
        # beyond the horizon of the promise of step 4 its terminal box holds, which is twice as wide
        story.step(k, state=(0.15, 0.0) if k >= 4 + T + 1 else (0.0, 0.0), silent=5 <= k < 18)
    result = told(story, tmp_path)
    run = read_run(tmp_path / "bag")
    assert silent_spans(run, "a") == [(5, 17)]
    assert result["agents"]["a"]["promises_broken"] == 1  # only step 19, after the new, narrower promise of step 18


def test_missing_steps_are_admitted(story: Story, tmp_path: Path) -> None:
    for k in range(STEPS):
        if k != 9:
            story.step(k)
    assert told(story, tmp_path)["not_recorded"] == 1


def test_diagnostics_become_counts_and_a_table(story: Story, tmp_path: Path) -> None:
    for k in range(STEPS):
        story.step(k)
        rejected = k if k < 10 else k - 10  # the node restarted at step 10
        story.diagnose(k, "/tank/a/agent: messages", 1, "refused", rejected=rejected)
        story.diagnose(k, "/tank/a/agent", 0, "optimal", restarts=int(k >= 10), deadlines_missed=0)
        story.diagnose(k, "/tank/plant", 0, "runs", deadlines_missed_a=k // 7, steps_without_a=k // 5)
        story.diagnose(k, "/tank/plant: agent a", 2 if k == 7 else 0, "silent" if k == 7 else "is back")
    result = told(story, tmp_path)
    agent = result["agents"]["a"]
    assert result["rejected_messages"] == agent["rejected_messages"] == 9 + 9
    assert (agent["restarts"], agent["deadlines_missed"], agent["steps_on_the_actuators_plan"]) == (1, 2, 3)
    events = happenings(
        read_run(tmp_path / "bag"), [{"event": "died", "process": "a", "how": "signal SIGKILL", "step": 7}]
    )
    words = [(h.level, h.what) for h in events]
    assert ("ERROR", "silent") in words and ("ERROR", "died (signal SIGKILL)") in words
    assert [h.time for h in events] == sorted(h.time for h in events)


def test_a_counter_that_starts_again_is_added_up() -> None:
    assert total_count([1, 2, 5, 0, 3, 3, 4]) == 9
    assert total_count([]) == 0


def test_every_plot_is_valid_plotly_and_the_page_needs_nothing_else(story: Story, tmp_path: Path) -> None:
    import plotly.graph_objects as go

    for k in range(STEPS):
        story.step(k, silent=k in (5, 6))
    told(story, tmp_path)
    panels = agent_panels(read_run(tmp_path / "bag"), "a")
    figure = go.Figure({"data": panels.traces, "layout": panels.layout})  # raises on any unknown property
    assert len(figure.layout.sliders[0].steps) > 2
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert "<script src" not in page and "<link" not in page and "@import" not in page
    assert page.count("Plotly.newPlot(") >= 1


@pytest.mark.parametrize(
    ("subject", "certificate", "kept"),
    [
        ("policy", '{"made_at": 3, "stage": "canary"}', True),
        ("policy", '{"made_at": 3, "stage": "elsewhere"}', False),
        ("policy", '{"made_at": 3}', False),
        ("uncertainty", '{"made_at": 3, "epsilon": 0.1}', False),
        ("model", "[]", False),
        ("model", "{", False),
    ],
)
def test_updates_that_are_not_our_learners_are_left_out(subject: str, certificate: str, kept: bool) -> None:
    message = SimpleNamespace(certificate_json=certificate, version=1)
    assert (_published(0.0, subject, "a", message) is not None) == kept


def test_an_empty_bag_is_one_clear_error(story: Story, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no measurement was recorded"):
        told(story, tmp_path)
