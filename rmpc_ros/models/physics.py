"""The physical part of a hybrid model:  x+ = F(x, u, d, theta), a CasADi function of named quantities.

theta are the parameters worth estimating (rate constants, heat-transfer coefficients), relative to their nominal
values.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import casadi as ca
import numpy as np
from numpy.typing import ArrayLike, NDArray

from rmpc_ros.errors import ConfigError, NumericalError
from rmpc_ros.models.nonlinear import NonlinearModel

_LOG = logging.getLogger(__name__)
Vector = NDArray[np.float64]
Matrix = NDArray[np.float64]


@dataclass(frozen=True)
class Physics:
    """A one-step map with the names of what goes in and out.

    Attributes
    ----------
    name : of the plant
    states, inputs, disturbances, parameters : names in the order of x, u, d, theta
    period : seconds
    function : CasADi function F(x, u, d, theta) -> x+
    """

    name: str
    states: tuple[str, ...]
    inputs: tuple[str, ...]
    disturbances: tuple[str, ...]
    parameters: tuple[str, ...]
    period: float
    function: Any = field(repr=False)

    @staticmethod
    def from_model(model: NonlinearModel, period: float, parameters: Sequence[str] = ()) -> Physics:
        """Discretise a model; each of `parameters` is multiplied by its entry of theta (nominal 1).

        Raises
        ------
        ConfigError
            A parameter does not exist.
        """
        nominal = model.parameter_vector()
        names = list(model.parameters)
        for name in parameters:
            if name not in names:
                raise ConfigError(f"model '{model.name}' has no parameter '{name}'; it has {', '.join(names)}")
        sizes = (len(model.states), len(model.inputs), len(model.disturbances), len(parameters))
        x, u, d, theta = (ca.MX.sym(n, s) for n, s in zip(("x", "u", "d", "theta"), sizes, strict=True))
        entries = [nominal[k] * (theta[parameters.index(n)] if n in parameters else 1.0) for k, n in enumerate(names)]
        end = model.stepper(period).symbolic(x, u, d, ca.vertcat(*entries))
        function = ca.Function("F", [x, u, d, theta], [end])
        try:
            function = function.expand()  # scalar operations: several times faster, Jacobians included
        except RuntimeError as error:
            _LOG.debug("the one-step map of %s holds an implicit solve and stays as it is: %s", model.name, error)
        return Physics(
            model.name,
            model.state_names,
            model.input_names,
            model.disturbance_names,
            tuple(parameters),
            period,
            function,
        )

    @staticmethod
    def persistence(name: str, states: Sequence[str], inputs: Sequence[str], period: float) -> Physics:
        """No physics: x+ = x, so that the residual has to learn all of it."""
        sizes = (len(states), len(inputs), 0, 0)
        x, u, d, theta = (ca.MX.sym(n, s) for n, s in zip(("x", "u", "d", "theta"), sizes, strict=True))
        return Physics(name, tuple(states), tuple(inputs), (), (), period, ca.Function("F", [x, u, d, theta], [x]))

    @property
    def sizes(self) -> tuple[int, int, int, int]:
        """(n, m, q, k): lengths of x, u, d, theta."""
        return len(self.states), len(self.inputs), len(self.disturbances), len(self.parameters)

    @cached_property
    def _with_derivative(self) -> Any:
        symbols = [ca.MX.sym(s, size) for s, size in zip(("x", "u", "d", "theta"), self.sizes, strict=True)]
        end = self.function(*symbols)
        return ca.Function("FJ", symbols, [end, ca.densify(ca.jacobian(end, symbols[3]))])

    def with_sensitivity(self, x: ArrayLike, u: ArrayLike, d: ArrayLike, theta: ArrayLike) -> tuple[Vector, Matrix]:
        """x+ (n,) and J = dF/dtheta (n, k) at a point, both exact, in one call.

        Raises
        ------
        NumericalError
            As in `advance`.
        """
        try:
            end, J = self._with_derivative(x, u, d, theta)
        except RuntimeError as error:
            raise NumericalError(f"physics '{self.name}' failed at x = {np.asarray(x).tolist()}: {error}") from error
        values = np.asarray(end).ravel()
        if not np.all(np.isfinite(values)):
            raise NumericalError(f"physics '{self.name}' left the finite numbers at x = {np.asarray(x).tolist()}")
        return values, np.asarray(J).reshape(values.size, -1)

    def advance(self, x: ArrayLike, u: ArrayLike, d: ArrayLike, theta: ArrayLike) -> Vector:
        """x+, (n,).

        Raises
        ------
        NumericalError
            The step could not be computed.
        """
        try:
            end = np.asarray(self.function(x, u, d, theta)).ravel()
        except RuntimeError as error:
            raise NumericalError(f"physics '{self.name}' failed at x = {np.asarray(x).tolist()}: {error}") from error
        if not np.all(np.isfinite(end)):
            raise NumericalError(f"physics '{self.name}' left the finite numbers at x = {np.asarray(x).tolist()}")
        return end

    def advance_many(self, x: Matrix, u: Matrix, d: Matrix, theta: Vector) -> Matrix:
        """x+ of each row, (N, n)."""
        mapped = self.function.map(len(x))
        tiled = np.tile(np.reshape(theta, (-1, 1)), (1, len(x)))
        try:
            ends = np.asarray(mapped(x.T, u.T, d.T, tiled)).reshape(len(self.states), len(x)).T
        except RuntimeError as error:
            raise NumericalError(f"physics '{self.name}' failed on some of {len(x)} rows: {error}") from error
        if not np.all(np.isfinite(ends)):
            raise NumericalError(f"physics '{self.name}' left the finite numbers on some of {len(x)} rows")
        return np.ascontiguousarray(ends)
