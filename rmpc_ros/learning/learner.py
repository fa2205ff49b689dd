"""What the learner does with transitions: when to fit what, when to publish, canary and roll-back. Knows no ROS.

Sets and means, every `every` steps: each agent's residuals give a certified box (`residual_fit`) and their mean. An
agent whose newest residual is at the rim of its box gets a larger one at once.

Policies go through three stages, each a new version in the ledger:

    canary      trained on recorded disturbances (`replay`), better than what is in force on the newest third, which was
                not trained on; one agent runs it alone
    everybody   the reward did not fall in the mean over `trial` steps after `settle`, or `LATER` times as many
    roll-back   it fell (`canary.fault`), a limit came near, or nobody adopted it: the content before, or none; also
                any time later

With an economic plan (`day_plan`) policies are its targets instead: "planned", and taken back by its own rule.

Before and after are compared by what the plant earned beyond a replay of the policy before on the same disturbances:
these cancel in the difference, the linear network's error and what a policy changes do not.

Everything published is in the ledger first, and all state is found again from ledger and store: a learner may be killed
at any moment.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rmpc_ros.config import PlantConfig
from rmpc_ros.config.learning import LEAST_MOVES, Move
from rmpc_ros.errors import ConfigError, DataError
from rmpc_ros.learning.canary import Standing, fault, standing
from rmpc_ros.learning.day_plan import DayPlan
from rmpc_ros.learning.ledger import Ledger
from rmpc_ros.learning.policy import KINDS, Actor, Policy, check_moves
from rmpc_ros.learning.replay import Replay
from rmpc_ros.learning.residual_fit import fit_residuals, rows_needed
from rmpc_ros.learning.series import Series, Stretch
from rmpc_ros.learning.transition import Transition, Versions
from rmpc_ros.learning.update import SUBJECTS, Subject, Update
from rmpc_ros.network.agent_design import AgentDesign
from rmpc_ros.network.residual_set import design_bounds

Array = NDArray[np.float64]

MEMORY = 1500  # steps learned from
LOOK = 5  # steps between two looks at a trial
BURN = 100  # steps after which a replay has forgotten where it began
LATER = 4  # trials that a judgement looks back on at most
LEAST_ROWS = 60  # to train a policy on
RIM = 0.9  # of a set's half-width: a residual beyond makes it larger
WORTH = 0.1  # a set is published when one of its bounds differs by this share of its half-width


@dataclass(frozen=True)
class Status:
    """One line for people, and numbers beside it."""

    sentence: str
    figures: dict[str, Any]


class Learner:
    """The learner of one run.

    Parameters
    ----------
    config : plant file with a section `learning`
    designs : of its agents
    ledger : what was published before
    seed : of training
    first : a policy to try before any is trained here
    subjects : what is learned
    day_plan : gives the targets instead of policies that are trained and tried here

    Raises
    ------
    ConfigError
        The section is missing, or `first` is of another plant or shape.
    """

    memory = MEMORY

    def __init__(
        self,
        config: PlantConfig,
        designs: Mapping[str, AgentDesign],
        ledger: Ledger,
        seed: int = 0,
        first: Policy | None = None,
        subjects: tuple[Subject, ...] = SUBJECTS,
        day_plan: DayPlan | None = None,
    ) -> None:
        if config.learning is None:
            raise ConfigError(f"plant '{config.plant.name}' has no section 'learning': nothing to learn for")
        self.options = config.learning.online
        self.plant, self.designs, self.ledger, self.seed = config.plant.name, dict(designs), ledger, seed
        self.series = Series(config, designs, MEMORY)
        self.replay = Replay(config, self.series)
        self._agents, self._subjects, self._day_plan = tuple(designs), subjects, day_plan
        self._bounded = config.learning.actions.bounded()
        self._first = first if not ledger.entries("policy") else None
        if first is not None:
            self._check_first(first)
        self._bounds = {name: design_bounds(design) for name, design in designs.items()}
        self._heard = self._looked = self._improved = self._postponed = -1
        self._note = "collects transitions"
        self._reckon_with_means(self._agents)
        self.rollbacks = sum(u.certificate["stage"] == "roll-back" for u in ledger.entries("policy"))
        self._standing: Standing | None = None

    def _check_first(self, first: Policy) -> None:
        actor, wanted = first.actor, self.replay.actor
        if first.plant != self.plant or (actor.agents, actor.observations) != (wanted.agents, wanted.observations):
            raise ConfigError(
                f"the policy to try first is for plant '{first.plant}' with {actor.agents} agents and "
                f"{actor.observations} observations; this is '{self.plant}' with {wanted.agents} and "
                f"{wanted.observations}"
            )
        unbounded = set(first.moves) - set(self._bounded)
        if unbounded:
            raise ConfigError(
                f"the policy to try first moves {', '.join(sorted(unbounded))}, for which plant '{self.plant}' has no "
                "bounds (learning.actions)"
            )

    # -- what the node calls ------------------------------------------------------------------------------------------
    def add(self, transitions: Iterable[Transition]) -> None:
        """Take what is on disk."""
        self.series.add(transitions)

    def think(self) -> list[Update]:
        """Updates to publish now; they are in the ledger already."""
        newest = self.series.newest
        if newest <= self._heard:
            return []
        self._heard, found = newest, []
        if newest >= self._looked + LOOK:
            self._looked = newest
            if "policy" in self._subjects:
                found = self._policies() if self._day_plan is None else self._today(self._day_plan)
        if "uncertainty" not in self._subjects:
            return found
        if newest >= self._improved + self.options.every:
            self._improved = newest
            found += self._residuals(self._agents)
        else:
            found += self._residuals([name for name in self._agents if self._tight(name)])
        return found

    def status(self) -> Status:
        """How it goes."""
        policy = next(reversed(self.ledger.entries("policy")), None)
        row = self.series.row(self.series.newest)
        figures: dict[str, Any] = {
            "step": self.series.newest,
            "policy_version": policy.version if policy else 0,
            "policy_stage": policy.certificate["stage"] if policy else "none",
            "roll_backs": self.rollbacks,
            "set_version": self.ledger.newest_version("uncertainty"),
            "model_version": self.ledger.newest_version("model"),
        }
        if self._standing is not None:
            figures |= {
                "beyond_the_files_targets_per_hour": self._standing.mean,
                "smallest_margin": self._standing.margin,
            }
        if row is not None:
            figures |= {f"{name} runs policy": v.policy for name, v in row.versions.items()}
            figures |= {f"{name} runs set": v.uncertainty for name, v in row.versions.items()}
        return Status(self._note, figures)

    # -- sets and means -----------------------------------------------------------------------------------------------
    def _tight(self, agent: str) -> bool:
        """Whether the newest residual is at the rim of the agent's learned set, or outside."""
        in_force, row = self.ledger.in_force("uncertainty", agent), self.series.row(self.series.newest)
        if in_force is None or row is None or row.w is None:
            return False
        design = self.designs[agent]
        residual = row.w[self.series.loop.rows[agent]] * design.scale[: design.nx]
        low, high = (np.array(in_force.content[side]) for side in ("lower", "upper"))
        lowest, highest = self._bounds[agent]  # the design's: beyond them no set needs to go
        middle, half = (low + high) / 2, (high - low) / 2
        below = (low > lowest) & (residual < middle - RIM * half)
        above = (high < highest) & (residual > middle + RIM * half)
        return bool(np.any(below | above))

    def _residuals(self, agents: Iterable[str]) -> list[Update]:
        """New sets and means for agents that have enough data and something worth saying."""
        found: list[Update] = []
        options = self.options
        for agent in agents:
            rows = self.series.residuals(agent)
            if len(rows) < rows_needed(options.epsilon, options.confidence):
                continue
            design, (lower, upper) = self.designs[agent], self._bounds[agent]
            names = design.names[: design.nx]
            try:
                fitted = fit_residuals(
                    rows, lower, upper, options.epsilon, options.confidence, options.inflation, names
                )
            except DataError as error:
                self._note = f"no new set for {agent}: {error}"
                continue
            content = fitted.set.to_dict()
            new = (np.array(content["upper"]) - np.array(content["lower"])) / 2
            share = float(np.mean(new / ((upper - lower) / 2)))
            held = self.ledger.in_force("uncertainty", agent)
            if held is not None and not self._differs(held.content, content):
                continue
            certificate = fitted.certificate.to_dict() | {"share_of_design": share, "made_at": self.series.newest}
            found.append(self._enter("uncertainty", (agent,), "box", content, certificate))
            mean, error_of_mean = rows.mean(axis=0), rows.std(axis=0) / np.sqrt(len(rows))
            evidence = {"samples": len(rows), "standard_error": error_of_mean.tolist(), "made_at": self.series.newest}
            found.append(self._enter("model", (agent,), "residual_mean", {"mean": mean.tolist()}, evidence))
            self._note = f"set {found[-2].version} for {agent}: {100 * share:.0f} % of the design's"
        return found

    @staticmethod
    def _differs(held: Mapping[str, Any], new: Mapping[str, Any]) -> bool:
        ends = [np.array([values["lower"], values["upper"]], float) for values in (held, new)]
        half = (ends[0][1] - ends[0][0]) / 2
        return bool(np.any(np.abs(ends[1] - ends[0]) > WORTH * half))

    # -- policies -----------------------------------------------------------------------------------------------------
    def _today(self, day_plan: DayPlan) -> list[Update]:
        """What an economic plan says, where it has something to say."""
        made = day_plan.think(self.series, next(reversed(self.ledger.entries("policy")), None))
        if made is None:
            return []
        self.rollbacks += made.stage == "roll-back"
        self._note = made.note
        actor = Actor("constant", len(self._agents), self.replay.actor.observations, len(LEAST_MOVES))
        content = _content(actor, made.actions.ravel(), LEAST_MOVES)
        evidence = self._evidence(made.stage, {}) | made.evidence
        return [self._enter("policy", self._agents, actor.kind, content, evidence)]

    def _policies(self) -> list[Update]:
        """Judge what is on trial, or train something new."""
        stretch = self.series.stretch()
        if stretch is None:
            return []
        latest = next(reversed(self.ledger.entries("policy")), None)
        beyond = self._beyond(None, stretch, self.options.trial)
        self._standing = standing(beyond, stretch.last(len(beyond)).margin)
        if latest is not None and latest.certificate["stage"] in ("canary", "everybody"):
            update = self._judge(latest, stretch)
            if update is not None:
                return [update]
            if latest.certificate["stage"] == "canary" or not _runs(latest, stretch.versions[-1]):
                return []
        return self._candidate(latest, stretch)

    def _judge(self, latest: Update, stretch: Stretch) -> Update | None:
        """The next stage of a policy that is in force somewhere; None where it stays as it is."""
        options, stage = self.options, latest.certificate["stage"]
        running = np.array([_runs(latest, versions) for versions in stretch.versions])
        since = self.series.newest - int(latest.certificate["made_at"])
        if not running[-1]:
            since = min(since, int(np.argmax(running[::-1])) if running.any() else len(running))  # or came back
            if since > 3 * options.decide + 2 * options.settle:
                return self._roll_back(latest, f"not adopted by {', '.join(latest.agents)} within {since} steps")
            return None
        adopted = len(running) - int(np.argmin(running[::-1])) if not running.all() else 0
        before = Standing.from_dict(latest.certificate["reference"])
        margin = float(stretch.margin[adopted:].min())
        counted = len(running) - adopted - options.settle
        if counted < options.trial // 4:
            after = Standing(before.mean, np.inf, np.inf, margin, max(counted, 0))
        else:
            window = options.trial * LATER
            lived = self._lived(self._before(latest), latest, stretch)
            beyond = self._beyond(self._before(latest), lived, min(counted, window))
            after = replace(standing(beyond, stretch.last(len(beyond)).margin), margin=margin)
        complete = counted >= options.trial
        why = fault(before, after, options.sigma * (1 if complete else 2), options.least_margin)
        if why:
            return self._roll_back(latest, why)
        if stage != "canary" or not complete:
            return None
        if after.mean < before.mean:  # no proof of harm, but none of use either: longer, not for ever
            lasting = counted >= LATER * options.trial
            return self._roll_back(latest, f"it earned nothing in {counted} steps") if lasting else None
        self._note = f"policy {latest.version} passed its trial in {', '.join(latest.agents)}"
        return self._enter(
            "policy",
            self._agents,
            latest.kind,
            latest.content,
            self._evidence("everybody", latest.certificate["reference"])
            | {"trial": after.to_dict(), "canary_version": latest.version},
        )

    def _roll_back(self, latest: Update, why: str) -> Update:
        """A new version with the content that was in force everywhere before."""
        kind, content = self._content_of(self._before(latest))
        self.rollbacks += 1
        self._note = f"policy {latest.version} rolled back: {why}"
        evidence = self._evidence("roll-back", latest.certificate["reference"])
        return self._enter("policy", self._agents, kind, content, evidence | {"of": latest.version, "reason": why})

    def _before(self, latest: Update | None) -> Update | None:
        """What was in force everywhere before a policy came on trial; with None: what is now. None: nothing."""
        trial = np.inf if latest is None else latest.certificate.get("canary_version", latest.version)
        stood = (
            u
            for u in reversed(self.ledger.entries("policy"))
            if u.version < trial and u.certificate["stage"] in ("everybody", "planned", "roll-back")
        )
        return next(stood, None)

    @staticmethod
    def _lived(before: Update | None, latest: Update | None, stretch: Stretch) -> Stretch:
        """The newest steps in which nobody ran anything else: a replay of `before` begins where the plant ran it.

        Begun earlier, it would be ahead of a plant that is still settling to `before`.
        """
        known = {0 if before is None else before.version}
        if latest is not None:
            known |= {latest.version, int(latest.certificate.get("canary_version", latest.version))}
        count = 0
        for versions in reversed(stretch.versions):
            if not {v.policy for v in versions.values()} <= known:
                break
            count += 1
        return stretch.last(max(count, 1))

    def _beyond(self, before: Update | None, stretch: Stretch, count: int) -> Array:
        """Reward (count,) beyond what a policy would have earned on the same disturbances, in the newest steps.

        The replay starts `BURN` steps earlier, where it can, so that it has forgotten its first state.
        """
        stretch = stretch.last(count + BURN)
        return (stretch.reward - self._replayed(self._content_of(before), stretch))[-count:]

    def _replayed(self, policy: tuple[str, Mapping[str, Any]], stretch: Stretch) -> Array:
        """Reward (T,) that a policy would have earned on the disturbances of a stretch."""
        kind, content = policy
        actor = Actor(
            next(k for k in KINDS if k == kind), content["agents"], content["observations"], content["actions"]
        )
        parameters, first = np.array([content["parameters"]], float), int(stretch.steps[0])
        moves = check_moves(content.get("moves", LEAST_MOVES), actor.actions)
        return np.asarray(self.replay.rewards(parameters, stretch.x[0], stretch.w, actor, first, moves)[:, 0])

    def _content_of(self, policy: Update | None) -> tuple[str, dict[str, Any]]:
        """Kind and content; of nothing, those of the policy whose action is zero: the plant file's own targets."""
        if policy is not None:
            return policy.kind, policy.content
        actor = self.replay.actor
        return "constant", _content(actor, np.zeros(actor.agents * actor.actions), self.replay.moves)

    def _candidate(self, latest: Update | None, stretch: Stretch) -> list[Update]:
        """A canary, where there is one that is worth it."""
        if self._first is not None and len(stretch.steps) >= self.options.settle + 2 * LOOK:
            policy, self._first = self._first, None
            content = _content(policy.actor, policy.parameters, policy.moves)
            return [self._canary(policy.actor.kind, content, stretch, {"origin": "given"})]
        since = self.series.newest - (int(latest.certificate["made_at"]) if latest is not None else 0)
        wait = self.options.every * (1 + 2 * self.rollbacks)  # after roll-backs more data is wanted before the next
        if self.series.newest < self._postponed:
            return []
        if len(stretch.steps) < LEAST_ROWS or (latest is not None and since < wait + self.options.settle):
            return []
        cut = len(stretch.steps) * 2 // 3
        in_force, inside, start = self._content_of(self._before(None)), self.replay.actor, None
        if in_force[0] == "affine" and len(in_force[1]["parameters"]) == inside.size:
            start = np.array(in_force[1]["parameters"], float)
        seed, first = self.seed + self.series.newest, int(stretch.steps[0])
        trained = self.replay.improve(start, stretch.x[0], stretch.w[:cut], seed, first)
        content = _content(inside, trained, self.replay.moves)
        unseen = stretch.last(len(stretch.steps) - cut)
        held, new = (float(self._replayed(p, unseen).mean()) for p in (in_force, (inside.kind, content)))
        if new - held < self.options.least_gain:
            self._note = f"a trained policy is worth {new - held:.2f} per hour on unseen disturbances: not tried"
            self._postponed = self.series.newest + self.options.every
            return []
        evidence = {"origin": "trained", "rows": len(stretch.steps), "expected_gain": new - held}
        return [self._canary(inside.kind, content, stretch, evidence)]

    def _canary(self, kind: str, content: dict[str, Any], stretch: Stretch, more: Mapping[str, Any]) -> Update:
        """First agent first; the reference is the time before, with one policy in force throughout."""
        before = self._before(None)
        lived = self._lived(before, None, stretch)
        same = len(lived.steps)
        settled = max(same - (self.options.settle if same < len(stretch.steps) else 0), 2 * LOOK)
        count = min(settled, 4 * self.options.trial)
        reference = standing(self._beyond(before, lived, count), lived.last(count).margin)
        agent = self._agents[0]
        update = self._enter(
            "policy", (agent,), kind, content, self._evidence("canary", reference.to_dict()) | dict(more)
        )
        self._note = f"policy {update.version} on trial in {agent}"
        return update

    # -- the ledger ---------------------------------------------------------------------------------------------------
    def _evidence(self, stage: str, reference: Mapping[str, Any]) -> dict[str, Any]:
        return {"stage": stage, "reference": dict(reference), "made_at": self.series.newest}

    def _enter(
        self,
        subject: Subject,
        agents: tuple[str, ...],
        kind: str,
        content: dict[str, Any],
        certificate: dict[str, Any],
    ) -> Update:
        version = max(self.ledger.newest_version(subject), self._seen(subject)) + 1
        if "version" in certificate:
            certificate = certificate | {"version": version}
        update = Update(subject, self.plant, agents, version, kind, content, certificate)
        self.ledger.enter(update)
        if subject == "model":
            self._reckon_with_means(agents)
        return update

    def _reckon_with_means(self, agents: Iterable[str]) -> None:
        """The replay's agents choose targets as the plant's do."""
        for agent in agents:
            model, design = self.ledger.in_force("model", agent), self.designs[agent]
            if model is not None:
                self.replay.means[agent] = np.array(model.content["mean"], float) / design.scale[: design.nx]

    def _seen(self, subject: Subject) -> int:
        """Newest version that an agent says it runs: of an earlier learner whose ledger is gone."""
        row = self.series.row(self.series.newest)
        return max((getattr(v, subject) for v in row.versions.values()), default=0) if row is not None else 0


def _runs(policy: Update, versions: Mapping[str, Versions]) -> bool:
    """Whether all whom a policy is for use it."""
    return all(versions[agent].policy == policy.version for agent in policy.agents)


def _content(actor: Actor, parameters: Array, moves: tuple[Move, ...]) -> dict[str, Any]:
    """Of an update with a policy."""
    sizes = {"agents": actor.agents, "observations": actor.observations, "actions": actor.actions}
    named = {} if moves == LEAST_MOVES else {"moves": list(moves)}
    return sizes | named | {"parameters": parameters.tolist()}
