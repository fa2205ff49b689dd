"""The optimum of an uncertain program: values, expressions and policies."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from rmpc_ros.errors import ConfigError
from rmpc_ros.robust.affine import Affine, Vector
from rmpc_ros.robust.policy import AffinePolicy
from rmpc_ros.robust.uncertain_program import UncertainProgram
from rmpc_ros.sets.lifting import Saturation


class Solution(NamedTuple):
    """A checked optimum: values (n,) of the decisions, objective, solver's name, seconds of the whole solve."""

    program: UncertainProgram
    values: Vector
    parameters: Vector
    objective: float
    solver: str
    seconds: float

    def value(self, expression: Affine) -> Vector:
        """An expression at its nominal part (column 0), (rows,)."""
        return self.coefficients(expression)[:, 0]

    def coefficients(self, expression: Affine) -> NDArray[np.float64]:
        """e(w) = C [1; w]: the matrix C (rows, 1 + d)."""
        return expression.evaluate(self.values, self.parameters, self.program.columns)

    def policy(self, name: str, saturation: Saturation | None = None) -> AffinePolicy:
        """The affine policy of a decision.

        With `saturation` the program's only uncertain vector is the lifted (w, phi(w)): the policy keeps its gain on
        the second half and applies phi itself.
        """
        coefficients = self.coefficients(self.program.decisions[name])
        gain = coefficients[:, 1:]
        if saturation is not None:
            plain, gain = np.split(gain, 2, axis=1)
            if np.any(plain):
                raise ConfigError(f"decision '{name}' acts on w itself, not only on phi(w)")
        return AffinePolicy(coefficients[:, 0], gain, name, saturation)
