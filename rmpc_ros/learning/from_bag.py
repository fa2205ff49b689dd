"""`rmpc train PLANT --from BAG`: learn from a recorded run what the learner would have learned while it ran.

The bag's measurements, applied inputs and promises give every agent's transitions (also where no learner listened).
They go into a store, each agent's residuals give a certified box, and the recorded disturbances train an affine policy
(`replay`), judged on the last third, which it was not trained on. The policy file can be tried on the plant:
`rmpc run PLANT --learn --policy FILE`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rmpc_ros.config import PlantConfig, load_plant
from rmpc_ros.errors import DataError
from rmpc_ros.learning.policy import Policy, write_atomically
from rmpc_ros.learning.recorded import TAKE, Recorded
from rmpc_ros.learning.replay import ITERATIONS, Replay
from rmpc_ros.learning.residual_fit import fit_residuals, rows_needed
from rmpc_ros.learning.series import Series
from rmpc_ros.learning.stepwise import Stepwise
from rmpc_ros.learning.store import TransitionStore
from rmpc_ros.learning.transition import Transition, Versions
from rmpc_ros.network.agent_design import AgentDesign
from rmpc_ros.network.residual_set import design_bounds
from rmpc_ros.network.system import design_agents
from rmpc_ros.record import read_bag, read_summary

Array = NDArray[np.float64]

LEAST_ROWS = 90  # consecutive steps that a policy is trained and judged on


def collect(bag: Path, config: PlantConfig, designs: Mapping[str, AgentDesign]) -> tuple[str, list[Transition]]:
    """Run and transitions of a recorded run, ordered by step.

    Raises
    ------
    DataError
        It is not a bag of ours, or is one of another plant.
    """
    summary = read_summary(bag)
    if summary["plant"] != config.plant.name:
        raise DataError(f"{bag}: a run of plant '{summary['plant']}'; this is '{config.plant.name}'")
    agents = {name: Recorded() for name in designs}
    topics = {f"{summary['base']}/{name}/{kind}": (name, kind) for name in agents for kind in TAKE}
    for entry in read_bag(bag):
        if entry.topic in topics:
            name, kind = topics[entry.topic]
            TAKE[kind](agents[name], entry.message)
    stepwise = {name: Stepwise(config, design) for name, design in designs.items()}
    last = max((max(a.measured, default=-1) for a in agents.values()), default=-1)
    found: list[Transition] = []
    for k in range(last + 1):
        for name, design in designs.items():
            own = agents[name]
            if k not in own.measured or k not in own.applied:
                continue
            neighbours = {n: agents[n].measured[k] for n in design.neighbours if k in agents[n].measured}
            promises = [agents[n].promises[k - 1] for n in design.neighbours if k - 1 in agents[n].promises]
            done = stepwise[name].decided(
                k, own.measured[k], neighbours, promises, own.applied.get(k - 1), own.applied[k], Versions()
            )
            if done is not None:
                found.append(done)
    if not found:
        raise DataError(f"{bag}: no two consecutive steps of any agent were recorded")
    return str(summary["run"]), found


def train_from_bag(plant: Path, bag: Path, out: Path, seed: int = 0) -> tuple[dict[str, Any], Iterator[str]]:
    """Fit sets and a policy to a recorded run; leaves store.db, sets.json and policy.json in `out`.

    Parameters
    ----------
    plant : plant file with a section `learning`
    bag : rosbag2 folder of the run, or the run's folder
    out : folder, made if needed
    seed : of the cross-entropy method

    Raises
    ------
    DataError
        The bag cannot be used, or is too short.
    """
    folder = bag / "bag" if (bag / "bag" / "metadata.yaml").is_file() else bag
    config = load_plant(plant)
    designs = design_agents(config)
    series = Series(config, designs, memory=1_000_000)
    run, transitions = collect(folder, config, designs)
    out.mkdir(parents=True, exist_ok=True)
    with TransitionStore(out / "store.db") as store:
        stored = store.insert(run, transitions)
    series.add(transitions)
    sets = _sets(config, designs, series)
    write_atomically(out / "sets.json", json.dumps(sets, indent=2, allow_nan=False) + "\n")
    stretch = series.stretch()
    if stretch is None or len(stretch.steps) < LEAST_ROWS:
        rows = 0 if stretch is None else len(stretch.steps)
        raise DataError(
            f"{folder}: {rows} consecutive steps of all agents at the end of the run; {LEAST_ROWS} are needed to train "
            f"a policy (sets and store are in {out})"
        )
    replay, cut = Replay(config, series), len(stretch.steps) * 2 // 3
    parameters = replay.improve(None, stretch.x[0], stretch.w[:cut], seed, int(stretch.steps[0]))
    compared = np.stack([np.zeros_like(parameters), parameters])
    held, learned = replay.rewards(compared, stretch.x[cut], stretch.w[cut:], first_step=int(stretch.steps[cut])).mean(
        axis=0
    )
    training = {"algorithm": "cem", "from": run, "seed": seed, "iterations": ITERATIONS, "rows": cut}
    policy = Policy(config.plant.name, replay.actor, parameters, training=training, named=replay.moves)
    policy.save(out / "policy.json")
    result: dict[str, Any] = {
        "plant": config.plant.name,
        "run": run,
        "transitions": len(transitions),
        "stored": stored.stored,
        "known": stored.known,
        "sets": {name: {"share_of_design": s["share_of_design"], "samples": s["samples"]} for name, s in sets.items()},
        "trained_on": cut,
        "judged_on": len(stretch.steps) - cut,
        "expected_gain_per_hour": float(learned - held),
        "store": str(out / "store.db"),
        "policy": str(out / "policy.json"),
    }
    return result, _lines(result, out)


def _sets(config: PlantConfig, designs: Mapping[str, AgentDesign], series: Series) -> dict[str, dict[str, Any]]:
    """Certified boxes of the agents that have enough data."""
    assert config.learning is not None
    options, found = config.learning.online, {}
    for name, design in designs.items():
        rows = series.residuals(name)
        if len(rows) < rows_needed(options.epsilon, options.confidence):
            continue
        lower, upper = design_bounds(design)
        fitted = fit_residuals(
            rows, lower, upper, options.epsilon, options.confidence, options.inflation, design.names[: design.nx]
        )
        content = fitted.set.to_dict()
        half = (np.array(content["upper"]) - np.array(content["lower"])) / 2
        found[name] = {
            "set": content,
            "certificate": fitted.certificate.to_dict(),
            "share_of_design": float(np.mean(half / ((upper - lower) / 2))),
            "samples": len(rows),
        }
    return found


def _lines(result: Mapping[str, Any], out: Path) -> Iterator[str]:
    yield f"{result['transitions']} transitions of run {result['run']}, {result['stored']} new in {result['store']}"
    for name, row in result["sets"].items():
        yield f"{name:14} set of {100 * row['share_of_design']:.0f} % of the design's, {row['samples']} residuals"
    if not result["sets"]:
        yield "too few residuals for a set"
    gain, count = result["expected_gain_per_hour"], result["judged_on"]
    yield f"policy {result['policy']}: {gain:+.2f} per hour on {count} recorded steps it was not trained on"
    yield f"sets: {out / 'sets.json'}"
