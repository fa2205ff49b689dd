"""The learning loop of a running agent: residuals -> calibrated set and learned mean -> the robust controller.

After the command of every step: the step before is complete, its residual r is known.
    r beyond `outlier` times the design's half-widths teaches nothing (a lying sensor); it is counted
    score of a step  s = max over coordinates, and over the horizon under a learned mean g_k, of |r - g_k| / sigma
    radius           q sigma,  q = (1 - a) quantile of the last scores,  a <- a + gamma (epsilon - miss)
The box of half-widths `inflation` q sigma, cut to the design's, is given to `Agent.set_disturbance`: at once where it
grows, every `every` steps where it shrinks. CUSUM on its misses finds drift: the design's set is in force from then on,
older residuals are dropped, the learned mean is given up (`MeanLearner.drifted`); recovery shrinks the set by `rate` a
time.

Guaranteed whatever the data do: limits (the invariant boxes never depend on the set), and the long-run share of misses
of the calibrated radius (Gibbs and Candes 2021). A single step is promised nothing: residuals of real disturbances are
not independent, which is also why the two-sample tests of `sets.drift` are not used here.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from rmpc_ros.config.adapting import Adaptation as Settings
from rmpc_ros.errors import DataError, SetError, SolverError
from rmpc_ros.learning.residual_mean import LearnedMean, MeanLearner
from rmpc_ros.models.hybrid import HybridModel
from rmpc_ros.network.agent import Agent
from rmpc_ros.network.agent_design import NeighbourDesign
from rmpc_ros.network.closed_loop import Plant
from rmpc_ros.network.decision import Decision
from rmpc_ros.network.forecast import ForecastSet
from rmpc_ros.network.residual_set import neighbour_quantities, one_step_residual
from rmpc_ros.sets.box import Box
from rmpc_ros.sets.conformal import AdaptiveConformal
from rmpc_ros.sets.drift import CoverageCusum

Vector = NDArray[np.float64]
Matrix = NDArray[np.float64]

SHAPE = 0.9  # sigma is this quantile of |residual| per coordinate
LEAST_SHARE = 0.02  # of the design's half-width: sigma is never smaller
CHANGE = 0.02  # a smaller set is adopted if some half-width falls by this share of the design's
WORSE = 20.0  # CUSUM looks for so many times the accepted share of misses
RECENT = 20  # steps over which outliers are counted
BLOCK = 30  # residuals that survive a drift


@dataclass(frozen=True)
class Passed:
    """One complete step, normalised."""

    x: Vector
    u: Vector
    zeta: Vector
    residual: Vector


@dataclass(frozen=True)
class AdaptationReport:
    """What /diagnostics says about the loop.

    Attributes
    ----------
    version, share : of the set in force; half-widths (nx,) over the design's
    wanted : (nx,) half-widths that the calibration asks for, over the design's
    model_version : of the learned mean in force, 0 for none
    event : what happened in this step: "adopted", "grown", "drift", "refused: ...", or empty
    covered : share of residuals inside the set in force since the start
    counts : residuals, outliers, skipped steps, drifts, adoptions, refusals
    verdict : why the last learned mean was (not) adopted
    """

    version: int
    share: Vector
    wanted: Vector
    model_version: int
    event: str
    covered: float
    counts: dict[str, int] = field(default_factory=dict)
    verdict: str = ""


class Adaptation:
    """The loop of one agent. Call `step` after every decision.

    Parameters
    ----------
    agent : started
    settings : the plant file's section
    """

    def __init__(self, agent: Agent, settings: Settings) -> None:
        self._agent, self._settings = agent, settings
        design = agent.design
        self._unit = design.scale[: design.nx]
        whole = agent.disturbance.design_set
        self._low, self._high = whole.lowest / self._unit, whole.highest / self._unit
        self._half = (self._high - self._low) / 2
        self._conformal = AdaptiveConformal(1 - settings.coverage, settings.gamma)
        self._cusum = CoverageCusum(1 - settings.coverage, WORSE)
        self._passed: deque[Passed] = deque(maxlen=settings.window)
        self._wild: deque[bool] = deque(maxlen=RECENT)
        self._mean = MeanLearner(design, settings) if settings.model == "linear" else None
        self._before: tuple[int, Vector, Mapping[str, Vector], Vector, Vector] | None = None
        self._wanted = np.full(design.nx, np.inf)
        self._calibrated_once = self._missed = False
        self._centre = np.zeros(design.nx)
        self._inside = 0
        self.counts = dict.fromkeys(("residuals", "outliers", "skipped", "drifts", "adopted", "refused"), 0)

    # -- one step -----------------------------------------------------------------------------------------------------
    def step(
        self,
        step: int,
        state: Vector,
        neighbour_states: Mapping[str, Vector],
        applied: Vector | None,
        deviations: Mapping[str, Vector],
    ) -> AdaptationReport:
        """After the decision of a step.

        Parameters
        ----------
        step, state, neighbour_states : of this step, physical
        applied : (nu,) input in force in the step before, physical; None where it is not known
        deviations : (nu,) of the neighbours' inputs from their laws in the step before, physical
        """
        event, before = "", self._before
        used = self._agent.disturbance.used
        self._before = (step, state, neighbour_states, used.lowest / self._unit, used.highest / self._unit)
        if before is not None and before[0] == step - 1 and applied is not None:
            try:
                event = self._learn(before, state, applied, deviations)
            except DataError:
                self.counts["skipped"] += 1
        elif before is not None:
            self.counts["skipped"] += 1
        return self._report(event or self._act(step))

    def _learn(
        self,
        before: tuple[int, Vector, Mapping[str, Vector], Vector, Vector],
        after: Vector,
        applied: Vector,
        deviations: Mapping[str, Vector],
    ) -> str:
        step, state, neighbours, lowest, highest = before
        design = self._agent.design
        residual = one_step_residual(design, state, applied, after, neighbours, deviations) / self._unit
        wild = bool(np.any(np.abs(residual) > self._settings.outlier * self._half))
        self._wild.append(wild)
        if wild:
            self.counts["outliers"] += 1
            if 4 * sum(self._wild) > 3 * RECENT:
                return self._react("residuals stay beyond what the design reckons with: no promise covers them")
            return ""
        self.counts["residuals"] += 1
        x, u = design.normalise(state), (applied - design.steady_input) / design.scale[design.nx :]
        passed = Passed(x, u, neighbour_quantities(design, neighbours, deviations), residual)
        self._passed.append(passed)
        room = 1e-6 * self._half
        inside = bool(np.all(residual >= lowest - room) and np.all(residual <= highest + room))
        self._inside += inside
        if self._mean is not None:
            self._mean.observe(x, u, passed.zeta, design.normalise(after), (step + 1) * design.period)
        if self._calibrated_once:  # also where the radius is infinite: not missing it is what makes it finite again
            self._missed = bool(np.any(np.abs(residual - self._centre) > self._wanted + room))
            self._conformal.update(self._missed)
            if self._cusum.update(self._missed):
                return self._react("drift: the calibrated set was missed too often")
        return ""

    def _react(self, reason: str) -> str:
        """The design's set at once; what is older than the change counts no more."""
        self.counts["drifts"] += 1
        self._agent.disturbance.give_up(reason)
        recent = list(self._passed)[-BLOCK:]
        self._passed.clear()
        self._passed.extend(recent)
        self._wild.clear()
        self._wanted, self._calibrated_once = np.full(self._half.size, np.inf), False
        self._centre = np.zeros(self._half.size)
        if self._mean is not None:
            self._mean.drifted()
        return reason

    # -- what to reckon with ------------------------------------------------------------------------------------------
    def _act(self, step: int) -> str:
        s, present = self._settings, self._agent.disturbance.present
        if len(self._passed) < s.least:
            return ""
        if self._mean is not None and step % s.certify == 0 and self._mean.judge(self._feasible):
            return self._adopt("learned mean adopted")
        mean = self._learned()
        if mean is not None:
            self._centre = self._predicted()
        if step % s.every and not self._missed:
            return ""
        self._missed = False
        self._wanted, self._calibrated_once = self._calibrated(mean), True
        now = present.radius / self._unit
        target = np.minimum(self._wanted, self._half)
        if np.any(target > now + CHANGE * self._half):
            return self._adopt("grown")
        if np.any(target < now - CHANGE * self._half):
            return self._adopt("adopted")
        return ""

    def _learned(self) -> LearnedMean | None:
        if self._mean is None or self._mean.certified.version == 0 or not np.any(self._mean.certified.layer.mean):
            return None
        return LearnedMean(self._mean.certified)

    def _predicted(self) -> Vector:
        """Mean for the step that was just decided, cut as the controller cuts it."""
        used, present = self._agent.disturbance.used, self._agent.disturbance.present
        return np.asarray((used.lowest - present.lowest) / self._unit)

    def _calibrated(self, mean: LearnedMean | None) -> Vector:
        """Half-widths (nx,), infinite where the calibration says so."""
        rows = list(self._passed)
        residuals = np.array([p.residual for p in rows])
        ahead = self._agent.design.horizon if mean is not None else 1
        if mean is None:
            errors = np.abs(residuals)[:, None, :]
        else:
            means = mean.many(*(np.array([getattr(p, name) for p in rows]) for name in ("x", "u", "zeta")))
            index = np.minimum(np.arange(len(rows))[:, None] + np.arange(ahead), len(rows) - 1)
            errors = np.abs(residuals[index] - means[:, None, :])
        sigma = np.maximum(np.quantile(errors[:, 0], SHAPE, axis=0), LEAST_SHARE * self._half)
        scores = np.max(errors / sigma, axis=(1, 2))
        return np.asarray(self._settings.inflation * self._conformal.radius(scores) * sigma)

    def _box(self, mean: LearnedMean | None) -> Box:
        half = self._calibrated(mean)
        low, high = np.maximum(-half, self._low), np.minimum(half, self._high)
        return Box(low * self._unit, high * self._unit)

    def _adopt(self, event: str) -> str:
        mean, members = self._learned(), self._box(self._learned())
        if event == "grown":  # around the set in force: what its other coordinates hold is still believed
            present = self._agent.disturbance.present
            low, high = self._low * self._unit, self._high * self._unit
            members = Box(
                np.clip(np.minimum(members.lower, present.lowest), low, high),
                np.clip(np.maximum(members.upper, present.highest), low, high),
            )
        try:
            self._agent.set_disturbance(members, mean, self._settings.rate)
        except (SetError, SolverError) as error:
            self.counts["refused"] += 1
            return f"refused: {error}"
        self.counts["adopted"] += 1
        return event

    def _feasible(self, candidate: HybridModel) -> bool:
        """Whether the robust problem has a plan with a learned mean; the agent keeps what it had in any case."""
        mean = LearnedMean(candidate)
        return self._agent.accepts(self._box(mean), mean, self._settings.rate)

    def _report(self, event: str) -> AdaptationReport:
        whole, present = self._agent.disturbance.design_set, self._agent.disturbance.present
        seen = self.counts["residuals"]
        verdict = self._mean.verdict.reason if self._mean is not None and self._mean.verdict is not None else ""
        return AdaptationReport(
            present.version,
            present.share_of(whole),
            self._wanted / self._half,
            0 if self._learned() is None or self._mean is None else self._mean.certified.version,
            event,
            self._inside / seen if seen else float("nan"),
            dict(self.counts),
            verdict,
        )


class AdaptiveNetwork:
    """The loops of several agents in one process; give `watch` to `network.closed_loop.run`.

    Parameters
    ----------
    agents, plant : of the closed loop
    settings : the plant file's section

    Attributes
    ----------
    reports : of the last step, by agent
    """

    def __init__(self, agents: Mapping[str, Agent], plant: Plant, settings: Settings) -> None:
        self._agents, self._plant = agents, plant
        self.loops = {name: Adaptation(agent, settings) for name, agent in agents.items()}
        self.reports: dict[str, AdaptationReport] = {}
        self._last: dict[str, Decision] = {}

    def watch(self, step: int, decisions: dict[str, Decision]) -> None:
        """After the decisions of a step."""
        measured = self._plant.measure()
        for name, loop in self.loops.items():
            others = self._agents[name].design.neighbours
            last = self._last.get(name)
            self.reports[name] = loop.step(
                step,
                measured[name],
                {other: measured[other] for other in others},
                None if last is None else last.input,
                {o: promised_deviation(self._last[o].forecast, step - 1, n) for o, n in others.items()} if last else {},
            )
        self._last = decisions


def promised_deviation(promise: ForecastSet, step: int, neighbour: NeighbourDesign) -> Vector:
    """Centre (nu,) of what a neighbour promised of its input's deviation from its law for a step, physical units."""
    nx = neighbour.transform.shape[0]
    return np.asarray(promise.at(step)[0][nx:])
