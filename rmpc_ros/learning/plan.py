"""An economic plan over days as a file: the learned value at its end, what it plans with, and the baselines.

The same file format as a policy's (`policy.write_document`): format, version, SHA-256 of the content.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rmpc_ros.config.learning import Move
from rmpc_ros.errors import DataError
from rmpc_ros.learning.case import LearningCase
from rmpc_ros.learning.planner import Planner
from rmpc_ros.learning.policy import Policy, check_moves, load_policy, read_document, write_document
from rmpc_ros.learning.surrogate import Surrogate
from rmpc_ros.learning.targets import Targets
from rmpc_ros.learning.terminal_value import TerminalValue

Array = NDArray[np.float64]

KIND = "plan"
LONGER = 4  # times the horizon: what a plan with a value is compared with
MOST_DAYS = 60


@dataclass(frozen=True)
class Plan:
    """An economic plan that can be stored, checked and used.

    Attributes
    ----------
    plant : name of the plant it was trained for
    horizon : days
    value : at its end
    version : counts up over one training's results
    references : parameters of constant baselines by name, as in `Policy`
    surrogate : what is planned with (`Surrogate.to_dict`)
    training : algorithm, seed, iterations, settings
    moves : what each column of the references moves
    """

    plant: str
    horizon: int
    value: TerminalValue
    version: int
    references: dict[str, Array]
    surrogate: dict[str, Any]
    training: dict[str, Any]
    moves: tuple[Move, ...]

    def __post_init__(self) -> None:
        if not 1 <= self.horizon <= MOST_DAYS:
            raise DataError(f"a plan of {self.horizon} days; 1 to {MOST_DAYS} are allowed")

    def planner(
        self, case: LearningCase, targets: Targets, horizon: int | None = None, with_value: bool = True
    ) -> Planner:
        """What plans.

        Parameters
        ----------
        case, targets : the plant and its certified targets
        horizon : days; None: the file's
        with_value : whether the learned value is at the end

        Raises
        ------
        DataError
            The catalyst's range is another than the value's, or the surrogate does not fit.
        """
        catalyst, learned = case.learning.campaign.catalyst, self.value
        if (catalyst.floor, catalyst.fresh) != (learned.floor, learned.fresh):
            raise DataError(
                f"the plan's value is for activities {learned.floor:g} to {learned.fresh:g}; plant "
                f"'{case.config.plant.name}' has {catalyst.floor:g} to {catalyst.fresh:g}"
            )
        surrogate = Surrogate.from_dict(self.surrogate)
        return Planner(case, targets, surrogate, horizon or self.horizon, self.value if with_value else None)

    def save(self, path: Path) -> None:
        """Write the file; it is complete or not there."""
        content = {
            "plant": self.plant,
            "kind": KIND,
            "horizon": self.horizon,
            "value": self.value.to_dict(),
            "references": {name: values.tolist() for name, values in self.references.items()},
            "surrogate": self.surrogate,
            "training": self.training,
            "moves": list(self.moves),
        }
        write_document(path, self.version, content)


def load_plan(path: Path) -> Plan:
    """Read and check a plan's file.

    Raises
    ------
    DataError
        The file is missing, too large, not of this format, incomplete, not finite, or its checksum is wrong.
    """
    content, version = read_document(path)
    try:
        if content["kind"] != KIND:
            raise DataError(f"policy {path}: kind '{content['kind']}'; '{KIND}' is needed (`rmpc train --algo value`)")
        references = {str(name): np.array(values, float) for name, values in content["references"].items()}
        if not all(np.all(np.isfinite(values)) for values in references.values()):
            raise DataError(f"policy {path}: a reference policy is not finite")
        Surrogate.from_dict(content["surrogate"])  # what is wrong with it is said now
        moves = tuple(str(word) for word in content["moves"])
        return Plan(
            str(content["plant"]),
            int(content["horizon"]),
            TerminalValue.from_dict(content["value"]),
            version,
            references,
            dict(content["surrogate"]),
            dict(content["training"]),
            check_moves(moves, len(moves)),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"policy {path} is not complete: {error!r}") from error


def load_learned(path: Path) -> Policy | Plan:
    """Read and check a file that `rmpc train` wrote, whatever it holds.

    Raises
    ------
    DataError
        As `load_policy` and `load_plan` do.
    """
    content, _ = read_document(path)
    return load_plan(path) if content.get("kind") == KIND else load_policy(path)
