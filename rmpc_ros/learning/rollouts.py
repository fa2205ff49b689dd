"""Work on real controllers in several processes, or on several machines: one seam, the same results from each.

Shares of work never depend on how many workers there are, so neither do the figures. Processes are spawned, not
threads: the simulation holds the interpreter. With ray a cluster needs rmpc_ros installed on its machines; the plant
file's text travels with the work (files it refers to must be there).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

from rmpc_ros.config import load_plant
from rmpc_ros.errors import ConfigError
from rmpc_ros.learning.case import LearningCase, learning_case

Result = TypeVar("Result")
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Workers:
    """Who does the work.

    Attributes
    ----------
    count : processes; 1 is this one
    ray : address of a ray cluster, or "local" to start one here with `count` processes; empty: without ray
    """

    count: int = 1
    ray: str = ""


@dataclass(frozen=True)
class PlantFile:
    """A plant file that can be sent to another machine."""

    name: str
    text: str

    @staticmethod
    def read(path: Path) -> PlantFile:
        """From this machine.

        Raises
        ------
        ConfigError
            It cannot be read.
        """
        try:
            return PlantFile(str(path.resolve()), path.read_text(encoding="utf-8"))
        except OSError as error:
            raise ConfigError(f"plant file {path}: {error}") from error

    def case(self) -> LearningCase:
        """The learning case, from the file where it is the same here, else from the text."""
        path = Path(self.name)
        if path.is_file() and path.read_text(encoding="utf-8") == self.text:
            return learning_case(load_plant(path))
        with TemporaryDirectory() as folder:
            copy = Path(folder) / path.name
            copy.write_text(self.text, encoding="utf-8")
            return learning_case(load_plant(copy))


def spread(
    work: Callable[..., Result],
    common: tuple[Any, ...],
    shares: Sequence[Any],
    workers: Workers,
    progress: Progress | None = None,
) -> list[Result]:
    """`work(*common, share)` for every share, in the order of the shares.

    Raises
    ------
    ConfigError
        ray is wanted and not installed, or its cluster cannot be reached.
    """
    tell = progress or (lambda done, wanted: None)
    if workers.ray:
        return _with_ray(work, common, shares, workers, tell)
    if workers.count == 1:
        out = []
        for n, share in enumerate(shares):
            out.append(work(*common, share))
            tell(n + 1, len(shares))
        return out
    with ProcessPoolExecutor(workers.count, mp_context=get_context("spawn")) as pool:
        pending = [pool.submit(work, *common, share) for share in shares]
        out = []
        for n, answer in enumerate(pending):
            out.append(answer.result())
            tell(n + 1, len(shares))
        return out


def _with_ray(
    work: Callable[..., Result], common: tuple[Any, ...], shares: Sequence[Any], workers: Workers, tell: Progress
) -> list[Result]:
    try:
        import ray
    except ImportError as error:
        raise ConfigError("--ray needs the package ray: pip install -r requirements-train.txt") from error
    local = workers.ray == "local"
    try:
        ray.init(
            address=workers.ray,
            num_cpus=workers.count if local else None,
            include_dashboard=False if local else None,
            log_to_driver=False,
            logging_level="ERROR",
        )
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise ConfigError(f"--ray {workers.ray}: no cluster there: {error}") from error
    try:
        remote = ray.remote(max_retries=2)(work)
        sent = [ray.put(value) for value in common]
        pending = [remote.remote(*sent, share) for share in shares]
        out = []
        for n, answer in enumerate(pending):
            out.append(ray.get(answer))
            tell(n + 1, len(shares))
        return out
    finally:
        ray.shutdown()
