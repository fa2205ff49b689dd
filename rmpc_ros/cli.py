"""`rmpc`: the command line.

Each command imports what it needs when it runs, so that `rmpc --help` is quick. With `--json` standard output carries
one JSON object and nothing else; everything meant for people goes to standard error.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

import typer

from rmpc_ros.errors import RmpcError

app = typer.Typer(
    name="rmpc",
    help="Networked robust MPC: simulate, check, fit, study and measure.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

JsonFlag = Annotated[bool, typer.Option("--json", help="Print one JSON object on standard output.")]
SetWords = Annotated[list[str] | None, typer.Option("--set", help="Settings as key=value words; repeatable.")]
OutFolder = Annotated[Path | None, typer.Option("--out", help="Folder for figures [default: runs/<name>].")]


def _plant_file(word: str) -> Path:
    from rmpc_ros.config.shipped import plant_path

    return plant_path(word)


PlantFile = Annotated[
    Path, typer.Argument(parser=_plant_file, metavar="PLANT", help="Plant file, or the name of one that we ship.")
]


def plain(value: Any) -> Any:
    """Turn numpy values into JSON types; numbers that are not finite become null."""
    if isinstance(value, dict):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple, set)):
        return [plain(v) for v in value]
    if hasattr(value, "tolist"):
        return plain(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Path):
        return str(value)
    return value


def emit(result: dict[str, Any], as_json: bool, lines: Iterable[str] | None = None) -> None:
    """Print a result: one JSON object, or lines for people."""
    if as_json:
        print(json.dumps(plain(result)))
    elif lines is not None:
        for line in lines:
            print(line)
    else:
        print(json.dumps(plain(result), indent=2))


def _run_study(kind: str, name: str | None, words: list[str] | None, as_json: bool, out: Path | None) -> None:
    from rmpc_ros.studies import registry

    if name is None:
        known = registry.names(kind)
        emit(known, as_json, [f"{n:20} {doc}" for n, doc in known.items()])
        return
    study = registry.load(kind, name)
    settings = registry.parse_settings(study, words or [])
    folder = out or Path("runs") / f"{kind}-{name}"
    folder.mkdir(parents=True, exist_ok=True)
    result = study.run(settings, folder)
    (folder / "result.json").write_text(json.dumps(plain(result), indent=2) + "\n", encoding="utf-8")
    emit(result, as_json, study.table(result) if study.table else None)


@app.command()
def study(
    name: Annotated[str | None, typer.Argument(help="Which study; without it, list them.")] = None,
    set_: SetWords = None,
    as_json: JsonFlag = False,
    out: OutFolder = None,
) -> None:
    """Reproduce an experiment of the papers or of ours."""
    _run_study("study", name, set_, as_json, out)


@app.command()
def bench(
    name: Annotated[str | None, typer.Argument(help="Which benchmark; without it, list them.")] = None,
    set_: SetWords = None,
    as_json: JsonFlag = False,
    out: OutFolder = None,
) -> None:
    """Measure, always two things in one run."""
    _run_study("bench", name, set_, as_json, out)


@app.command()
def fit(
    data: Annotated[Path, typer.Argument(help="CSV file with a header.")],
    family: Annotated[str, typer.Option("--family", help="Name of a family, or auto.")] = "auto",
    epsilon: Annotated[float, typer.Option("--epsilon", help="Accepted probability of violation.")] = 0.1,
    confidence: Annotated[float, typer.Option("--confidence", help="Over the data.")] = 0.9,
    param: Annotated[list[str] | None, typer.Option("--param", help="Explicit key=value words; repeatable.")] = None,
    support: Annotated[str | None, typer.Option("--support", help='Directions "a1,a2;..." to evaluate.')] = None,
    columns: Annotated[str | None, typer.Option("--columns", help="Names to take, comma-separated.")] = None,
    seed: Annotated[int, typer.Option("--seed", help="Of everything random in the fit.")] = 0,
    plot: Annotated[Path | None, typer.Option("--plot", help="Picture file to write.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Fit an uncertainty set to data, with its certificate."""
    from rmpc_ros.sets import command

    result, lines = command.run(data, family, epsilon, confidence, param or [], support, columns, seed, plot)
    emit(result, as_json, lines)


@app.command("fit-model")
def fit_model(
    log: Annotated[Path, typer.Argument(help="CSV log (time in seconds, a column per state and input) or a bag.")],
    plant: PlantFile,
    kind: Annotated[str, typer.Option("--kind", help="Residual: network, inducing or linear.")] = "network",
    parameters: Annotated[str, typer.Option("--parameters", help="Physical parameters to fit, comma-separated.")] = "",
    out: Annotated[Path, typer.Option("--out", help="Model file to write.")] = Path("model.npz"),
    seed: Annotated[int, typer.Option("--seed", help="Of everything random in the fit.")] = 0,
    as_json: JsonFlag = False,
) -> None:
    """Fit a hybrid model (physics and a learned residual) to a log of the plant."""
    from rmpc_ros.learning import fit_model as command

    names = [name for name in parameters.split(",") if name]
    result, lines = command.run(log, plant, kind, names, out, seed)
    emit(result, as_json, lines)


@app.command()
def check(
    plant: PlantFile,
    as_json: JsonFlag = False,
) -> None:
    """Say what a plant file means and whether its guarantee exists, or the one thing that is wrong."""
    from rmpc_ros.config import load_plant
    from rmpc_ros.config.summary import lines, summarise
    from rmpc_ros.network.summary import design_lines, summarise_design

    config = load_plant(plant)
    result = {**summarise(config), "design": summarise_design(config)}
    emit(result, as_json, [*lines(result), *design_lines(result["design"])])


@app.command("plant-file")
def plant_file(
    name: Annotated[str | None, typer.Argument(help="Which plant; without it, list them.")] = None,
    set_: SetWords = None,
) -> None:
    """Write a plant file for a network of any size on standard output."""
    from rmpc_ros.plants import generate
    from rmpc_ros.studies.registry import parse_settings

    if name is None:
        for known, entry in generate.generators().items():
            print(f"{known:20} {' '.join(f'{k}={v}' for k, v in entry.defaults.items())}")
        return
    print(generate.plant_file(name, parse_settings(generate.generator(name), set_ or [])), end="")


@app.command()
def run(
    plant: PlantFile,
    duration: Annotated[float | None, typer.Option("--duration", help="Seconds of plant time.")] = None,
    speed: Annotated[str | None, typer.Option("--speed", help="Plant time over wall time, or max.")] = None,
    timing: Annotated[str | None, typer.Option("--timing", help="lockstep or free.")] = None,
    record: Annotated[Path | None, typer.Option("--record", help="Folder of the bag [default: OUT/bag].")] = None,
    processes: Annotated[int | None, typer.Option("--processes", min=1, help="For all agents together.")] = None,
    only: Annotated[list[str] | None, typer.Option("--only", help="Run this agent alone; repeatable.")] = None,
    kill: Annotated[list[str] | None, typer.Option("--kill", help="Fault AGENT@STEP:STEPS; repeatable.")] = None,
    restart_after: Annotated[
        float, typer.Option("--restart-after", min=0.0, help="Seconds a dead node is away.")
    ] = 0.0,
    learn: Annotated[
        bool, typer.Option("--learn", help="With the learner: sets and policies improve while it runs.")
    ] = False,
    policy: Annotated[Path | None, typer.Option("--policy", help="With --learn: a policy file to try first.")] = None,
    mode: Annotated[str | None, typer.Option("--mode", help="Controller to start with, instead of the file's.")] = None,
    seed: Annotated[
        int | None, typer.Option("--seed", min=0, help="Of disturbances and noise, not the file's.")
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", help="Folder of the run [default: runs/<plant>-<time>].")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Run a plant: its nodes as processes, supervised, until its end; leaves a folder with bag and report."""
    from rmpc_ros.run import command

    result, lines = command.run(
        plant, duration, speed, timing, record, processes, only, kill, restart_after, out, learn, policy, mode, seed
    )
    emit(result, as_json, lines)


@app.command()
def mode(
    agent: Annotated[str, typer.Argument(help="Agent of a running plant.")],
    word: Annotated[
        str, typer.Argument(metavar="[MODE]", help="pid, pid_mpc, robust, cooperative or learned; without it, ask.")
    ] = "",
    run: Annotated[Path | None, typer.Option("--run", help="Folder of the run [default: the newest].")] = None,
    plant: Annotated[
        Path | None, typer.Option("--plant", help="Plant file, where something else runs the plant.")
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Change the controller of an agent while the plant runs, without a bump."""
    from rmpc_ros.run import mode as command

    result, lines = command.change(agent, word, run, plant)
    emit(result, as_json, lines)


@app.command()
def setpoint(
    agent: Annotated[str, typer.Argument(help="Agent of a running plant.")],
    values: Annotated[
        list[str] | None, typer.Argument(metavar="[STATE=VALUE]...", help="In the plant file's units; without, ask.")
    ] = None,
    run: Annotated[Path | None, typer.Option("--run", help="Folder of the run [default: the newest].")] = None,
    plant: Annotated[
        Path | None, typer.Option("--plant", help="Plant file, where something else runs the plant.")
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Move the set-points of an agent while the plant runs."""
    from rmpc_ros.run import setpoint as command

    result, lines = command.move(agent, values or [], run, plant)
    emit(result, as_json, lines)


@app.command()
def report(
    bag: Annotated[Path, typer.Argument(help="Folder of a recorded run, or of its bag.")],
    out: Annotated[Path | None, typer.Option("--out", help="Where the files go [default: beside the bag].")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Write run.json, report.html and plant.png from a bag."""
    from rmpc_ros.run import command

    result, lines = command.report(bag, out)
    emit(result, as_json, lines)


@app.command()
def train(
    plant: PlantFile,
    algo: Annotated[
        str,
        typer.Option(
            "--algo",
            help="cem: cross-entropy; mappo: TorchRL; consensus: without a central critic; value: a plan's end.",
        ),
    ] = "cem",
    actor: Annotated[
        str | None, typer.Option("--actor", help="affine, network or constant [default: the algorithm's].")
    ] = None,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of everything random.")] = 0,
    iterations: Annotated[int | None, typer.Option("--iterations", help="[default: the algorithm's]")] = None,
    windows: Annotated[int, typer.Option("--windows", help="Simulated days the surrogate is fitted to.")] = 120,
    moves: Annotated[
        str | None, typer.Option("--moves", help="What the policy moves, comma-separated [default: the plant file's].")
    ] = None,
    days: Annotated[int | None, typer.Option("--days", help="Horizon of the plan (value) [default: 3].")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the checkpoint in OUT.")] = False,
    workers: Annotated[int, typer.Option("--workers", min=1, help="Processes for the real controllers.")] = 1,
    ray: Annotated[str, typer.Option("--ray", help="Address of a ray cluster, or local.")] = "",
    bag: Annotated[
        Path | None, typer.Option("--from", help="Learn sets and a policy from a recorded run (its folder or bag).")
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", help="Folder [default: runs/train-<plant>-<algo>-<actor>].")
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Learn a policy, or a plan's end, that moves the controllers' targets; leaves policy.json and its curves."""
    if bag is not None:
        from rmpc_ros.learning.from_bag import train_from_bag

        result, told = train_from_bag(plant, bag, out or Path("runs") / f"train-{plant.stem}-bag", seed)
        emit(result, as_json, told)
        return
    from rmpc_ros.learning import command
    from rmpc_ros.learning.rollouts import Workers

    who = Workers(workers, ray)
    result, lines = command.run_train(plant, algo, actor, seed, iterations, windows, resume, out, who, moves, days)
    emit(result, as_json, lines)


@app.command()
def evaluate(
    plant: PlantFile,
    policy: Annotated[
        list[Path], typer.Option("--policy", help="Policy file; repeatable, also for several training seeds.")
    ],
    seeds: Annotated[int, typer.Option("--seeds", help="Held-out campaigns, each mild and harsh.")] = 20,
    first_seed: Annotated[int, typer.Option("--first-seed", help="Of the held-out campaigns.")] = 1000,
    workers: Annotated[int, typer.Option("--workers", min=1, help="Processes.")] = 1,
    ray: Annotated[str, typer.Option("--ray", help="Address of a ray cluster, or local.")] = "",
    as_json: JsonFlag = False,
) -> None:
    """Compare policies with the baselines, paired, the real robust controllers in the loop."""
    from rmpc_ros.learning import command
    from rmpc_ros.learning.rollouts import Workers

    result, lines = command.run_evaluate(plant, policy, seeds, first_seed, Workers(workers, ray))
    emit(result, as_json, lines)


def spread_words(arguments: list[str], flags: tuple[str, ...] = ("--set", "--param")) -> list[str]:
    """Let one flag take several key=value words: `--set a=1 b=2` becomes `--set a=1 --set b=2`."""
    out: list[str] = []
    flag: str | None = None
    for n, word in enumerate(arguments):
        if flag and "=" in word and not word.startswith("-"):
            if arguments[n - 1] != flag:
                out.append(flag)
            out.append(word)
            continue
        flag = word if word in flags else None
        out.append(word)
    return out


def main(arguments: list[str] | None = None) -> int:
    """Run `rmpc`; returns the exit status (0 only on success)."""
    words = spread_words(sys.argv[1:] if arguments is None else arguments)
    try:
        app(args=words, prog_name="rmpc", standalone_mode=True)
    except RmpcError as error:
        print(f"rmpc: {error}", file=sys.stderr)
        return 1
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else 1
    return 0


def entry() -> None:
    """Console script."""
    sys.exit(main())


if __name__ == "__main__":
    entry()
