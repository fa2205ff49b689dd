"""A plant as differential equations:  dx/dt = f(x, u, d, p).

x are states, u inputs, d disturbances, p parameters. Everything else follows from the expression f: steady states,
exact Jacobians, and a compiled one-step integrator that is stable for stiff plants.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import casadi as ca
import numpy as np
from numpy.typing import ArrayLike, NDArray

from rmpc_ros.errors import ConfigError, DataError, NumericalError

Vector = NDArray[np.float64]
Matrix = NDArray[np.float64]
Equations = Callable[[dict[str, Any], dict[str, Any], dict[str, Any], dict[str, Any]], Sequence[Any]]

SHORT = 0.2
"""Longest Runge-Kutta step of `Stepper.advance_many`, as a share of the fastest mode's time."""
MOST_STEPS = 50
"""More of them than this in a period: the implicit map is used instead."""


@dataclass(frozen=True)
class Variable:
    """A named physical quantity of a model.

    Attributes
    ----------
    name : as the plant file writes it
    unit : the unit the model computes in, as a written word ("K", "kJ/h"); "" where the model does not say
    nominal : value used where the plant file gives none
    """

    name: str
    unit: str = ""
    nominal: float = 0.0


class NonlinearModel:
    """dx/dt = f(x, u, d, p), with time in units of `time_unit` seconds.

    Parameters
    ----------
    name : str
    states, inputs, disturbances : sequences of Variable, in the order of the vectors
    parameters : default value of every parameter
    equations : called once with dictionaries of CasADi symbols (states, inputs, disturbances, parameters); returns the
        derivatives in the order of the states
    time_unit : seconds per unit of the model's time (3600 where rates are per hour)
    elements : finite elements of the integrator in one step; more for longer steps

    Attributes
    ----------
    symbols, rhs : CasADi vectors (x, u, d, p) and f(x, u, d, p), for optimisers and other integrators
    """

    def __init__(
        self,
        name: str,
        states: Sequence[Variable],
        inputs: Sequence[Variable],
        disturbances: Sequence[Variable],
        parameters: Mapping[str, float],
        equations: Equations,
        time_unit: float = 1.0,
        elements: int = 1,
    ) -> None:
        self.name = name
        self.states, self.inputs, self.disturbances = tuple(states), tuple(inputs), tuple(disturbances)
        self.parameters = dict(parameters)
        self.time_unit = time_unit
        self.elements = elements
        self._steppers: dict[float, Stepper] = {}
        symbols = [
            {v: ca.SX.sym(v) for v in names}
            for names in (self.state_names, self.input_names, self.disturbance_names, tuple(self.parameters))
        ]
        x, u, d, p = (ca.vertcat(*s.values()) if s else ca.SX(0, 1) for s in symbols)
        derivatives = list(equations(*symbols))
        if len(derivatives) != len(self.states):
            raise ConfigError(
                f"model '{name}' gives {len(derivatives)} derivatives for {len(self.states)} states; one each is needed"
            )
        self.symbols = (x, u, d, p)
        self.rhs = ca.vertcat(*derivatives)
        self._f: Any = ca.Function("f", [x, u, d, p], [self.rhs])
        jacobians = [ca.densify(ca.jacobian(self.rhs, v)) for v in (x, u, d)]
        self._jacobians: Any = ca.Function("jacobians", [x, u, d, p], jacobians)

    # -- names and numbers --------------------------------------------------------------------------------------------
    @property
    def state_names(self) -> tuple[str, ...]:
        """Names in the order of x."""
        return tuple(v.name for v in self.states)

    @property
    def input_names(self) -> tuple[str, ...]:
        """Names in the order of u."""
        return tuple(v.name for v in self.inputs)

    @property
    def disturbance_names(self) -> tuple[str, ...]:
        """Names in the order of d."""
        return tuple(v.name for v in self.disturbances)

    @property
    def nominal_state(self) -> Vector:
        """Where a search for the steady state starts, (n,)."""
        return np.array([v.nominal for v in self.states])

    @property
    def nominal_input(self) -> Vector:
        """Nominal inputs, (m,)."""
        return np.array([v.nominal for v in self.inputs])

    @property
    def nominal_disturbance(self) -> Vector:
        """Nominal disturbances, (q,)."""
        return np.array([v.nominal for v in self.disturbances])

    def parameter_vector(self, changes: Mapping[str, float] | None = None) -> Vector:
        """Parameters in the order of `parameters`, with `changes` applied.

        Raises
        ------
        ConfigError
            A changed parameter does not exist.
        """
        unknown = set(changes or {}) - set(self.parameters)
        if unknown:
            raise ConfigError(
                f"model '{self.name}' has no parameter '{min(unknown)}'; it has {', '.join(self.parameters)}"
            )
        return np.array([(changes or {}).get(k, v) for k, v in self.parameters.items()], float)

    # -- what follows from f ------------------------------------------------------------------------------------------
    def derivative(self, x: ArrayLike, u: ArrayLike, d: ArrayLike, p: ArrayLike | None = None) -> Vector:
        """f(x, u, d, p) per unit of model time, (n,)."""
        return np.asarray(self._f(x, u, d, self._p(p))).ravel()

    def jacobians(
        self, x: ArrayLike, u: ArrayLike, d: ArrayLike, p: ArrayLike | None = None
    ) -> tuple[Matrix, Matrix, Matrix]:
        """Exact derivatives of f with respect to x (n, n), u (n, m) and d (n, q), per unit of model time."""
        a, b, e = self._jacobians(x, u, d, self._p(p))
        n = len(self.states)
        return np.asarray(a), np.asarray(b).reshape(n, -1), np.asarray(e).reshape(n, -1)

    def steady_state(
        self, u: ArrayLike, d: ArrayLike, guess: ArrayLike | None = None, p: ArrayLike | None = None
    ) -> Vector:
        """Solve f(x, u, d, p) = 0 for x by Newton's method from `guess` (default: the nominal state).

        Where there are several steady states the guess chooses.

        Raises
        ------
        NumericalError
            Newton's method does not converge from this guess.
        """
        x, u_, d_, p_ = self.symbols
        finder = ca.rootfinder(
            "steady", "newton", {"x": x, "p": ca.vertcat(u_, d_, p_), "g": self.rhs}, {"error_on_fail": False}
        )
        given = np.concatenate([np.atleast_1d(np.asarray(v, float)) for v in (u, d, self._p(p))])
        start = self.nominal_state if guess is None else np.asarray(guess, float)
        # A guess that is steady already is taken: a plant with integrators has a singular Jacobian everywhere.
        found: Vector = start.copy()
        if np.max(np.abs(self.derivative(start, u, d, p)), initial=0.0) > 1e-12:
            found = np.asarray(finder(x0=start, p=given)["x"]).ravel()
        rest = self.derivative(found, u, d, p) if np.all(np.isfinite(found)) else np.full(len(self.states), np.inf)
        scale = 1e-9 + 1e-7 * np.maximum(np.abs(found), 1e-3)
        worst = int(np.argmax(np.abs(rest) / scale))
        if not abs(rest[worst]) <= scale[worst]:
            raise NumericalError(
                f"model '{self.name}': no steady state found from the guess {start.tolist()}; "
                f"d{self.state_names[worst]}/dt is still {rest[worst]:.3g}",
                "not converged",
            )
        return found

    def stepper(self, period: float) -> Stepper:
        """One-step map over `period` seconds with inputs, disturbances and parameters held; built once per period."""
        if period not in self._steppers:
            self._steppers[period] = Stepper(self, period)
        return self._steppers[period]

    def _p(self, p: ArrayLike | None) -> Vector:
        return self.parameter_vector() if p is None else np.asarray(p, float)


class Stepper:
    """x(t + period) = F(x(t), u, d, p) by Radau collocation of order 7 (4 points, L-stable).

    The implicit equations are solved by Newton's method with the exact Jacobian to 1e-10; fixed cost, no step control:
    `NonlinearModel.elements` says how many elements one period takes.
    """

    def __init__(self, model: NonlinearModel, period: float) -> None:
        if not period > 0:
            raise ConfigError(f"period = {period} s: give a number above 0")
        self.model = model
        self.period = period
        x, u, d, p = model.symbols
        self._sizes = tuple(v.shape[0] for v in (x, u, d, p))
        options: Any = {
            "number_of_finite_elements": model.elements,
            "interpolation_order": 4,
            "collocation_scheme": "radau",
            "rootfinder": "fast_newton",
            "simplify": True,
            "rootfinder_options": {"abstol": 1e-10, "max_iter": 30},
        }
        dae = {"x": x, "p": ca.vertcat(u, d, p), "ode": model.rhs}
        integrator = ca.integrator("step", "collocation", dae, 0.0, period / model.time_unit, options)
        symbols = [ca.MX.sym(name, size) for name, size in zip("xudp", self._sizes, strict=True)]
        end = integrator(x0=symbols[0], p=ca.vertcat(*symbols[1:]))["xf"]
        self._step: Any = ca.Function("F", symbols, [end])
        self._derivatives: Any = None
        self._bulk: Any = None
        self._maps: dict[int, Any] = {}
        self._nominal_parameters = model.parameter_vector()

    def advance(self, x: ArrayLike, u: ArrayLike, d: ArrayLike, p: ArrayLike | None = None) -> Vector:
        """State one period later, (n,).

        Raises
        ------
        NumericalError
            The implicit equations could not be solved or the state left the finite numbers.
        """
        try:
            end = np.asarray(self._step(x, u, d, self._nominal_parameters if p is None else p)).ravel()
        except RuntimeError as error:
            raise NumericalError(
                f"model '{self.model.name}' could not be integrated over {self.period} s from {np.asarray(x).tolist()}",
                "failed",
                {"solver": str(error)},
            ) from error
        if not np.all(np.isfinite(end)):
            raise NumericalError(
                f"model '{self.model.name}' left the finite numbers in {self.period} s from {np.asarray(x).tolist()}",
                "not finite",
            )
        return end

    def symbolic(self, x: Any, u: Any, d: Any, p: Any) -> Any:
        """x(t + period) as a CasADi expression of the given symbols, for models that build on this one.

        Explicit Runge-Kutta steps where the plant is not stiff (ten times faster to evaluate), else the collocation.
        """
        explicit = self._explicit()
        return (self._step if explicit is None else explicit)(x, u, d, p)

    def advance_many(self, x: ArrayLike, u: ArrayLike, d: ArrayLike, p: ArrayLike | None = None) -> Matrix:
        """`advance` for every row: x (N, n), u (N, m), d (N, q), one parameter vector p for all -> (N, n).

        Where the model is not stiff over one period, many rows are advanced by Runge-Kutta steps of order 4 that are
        short against the fastest mode (`SHORT`): some 50 times faster than `advance` and equal to it to about 1e-6.

        Raises
        ------
        DataError
            The numbers of rows differ.
        NumericalError
            As in `advance`.
        """
        rows = [np.atleast_2d(np.asarray(v, float)) for v in (x, u, d)]
        count = rows[0].shape[0]
        if any(r.shape != (count, size) for r, size in zip(rows, self._sizes[:3], strict=True)):
            wanted = ", ".join(f"{name} ({count}, {size})" for name, size in zip("xud", self._sizes[:3], strict=True))
            raise DataError(f"rows of shapes {[r.shape for r in rows]} where {wanted} are needed")
        if self._bulk is None:
            self._bulk = self._explicit() or self._step
        if count not in self._maps:
            self._maps = {count: self._bulk.map(count)}
        parameters = self._nominal_parameters if p is None else np.asarray(p, float)
        tiled = np.tile(parameters[:, None], (1, count))
        try:
            ends = (
                np.asarray(self._maps[count](rows[0].T, rows[1].T, rows[2].T, tiled)).reshape(self._sizes[0], count).T
            )
        except RuntimeError as error:
            raise NumericalError(
                f"model '{self.model.name}' could not be integrated over {self.period} s from some of {count} states",
                "failed",
                {"solver": str(error)},
            ) from error
        if not np.all(np.isfinite(ends)):
            raise NumericalError(f"model '{self.model.name}' left the finite numbers in {self.period} s", "not finite")
        return ends

    def _explicit(self) -> Any:
        """One period by short Runge-Kutta steps; None where the fastest mode would need too many of them."""
        model = self.model
        h = self.period / model.time_unit
        fastest = np.linalg.eigvals(
            model.jacobians(model.nominal_state, model.nominal_input, model.nominal_disturbance)[0]
        )
        needed = np.max(np.abs(fastest), initial=0.0) * h / SHORT
        if not needed <= MOST_STEPS:
            return None
        steps = max(4, int(np.ceil(needed)))
        x, u, d, p = model.symbols
        now, dt = x, h / steps
        for _ in range(steps):
            k1 = model._f(now, u, d, p)
            k2 = model._f(now + dt / 2 * k1, u, d, p)
            k3 = model._f(now + dt / 2 * k2, u, d, p)
            k4 = model._f(now + dt * k3, u, d, p)
            now = now + dt / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
        return ca.Function("F", [x, u, d, p], [now])

    def jacobians(
        self, x: ArrayLike, u: ArrayLike, d: ArrayLike, p: ArrayLike | None = None
    ) -> tuple[Matrix, Matrix, Matrix]:
        """Exact derivatives of F with respect to x (n, n), u (n, m) and d (n, q)."""
        if self._derivatives is None:
            symbols = [ca.MX.sym(name, size) for name, size in zip("xudp", self._sizes, strict=True)]
            end = self._step(*symbols)
            self._derivatives = ca.Function("dF", symbols, [ca.jacobian(end, s) for s in symbols[:3]])
        parts = self._derivatives(x, u, d, self._nominal_parameters if p is None else p)
        n = self._sizes[0]
        return tuple(np.asarray(ca.densify(part)).reshape(n, -1) for part in parts)  # type: ignore[return-value]
