"""Everything one agent knows at configure time: its model, its invariant box, its neighbours, and its units.

Inside, quantities are deviations from the steady state in the agent's coordinates, divided by the distance to the
nearer limit; outside (measurements, promises, inputs) they have the plant file's units. The maps between the two
live here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias, Union

import numpy as np
from numpy.typing import NDArray

from rmpc_ros.mpc.feedback import AffineFeedback
from rmpc_ros.mpc.fixed import FixedFeedback
from rmpc_ros.mpc.local import Cost, LocalModel
from rmpc_ros.network.forecast import ForecastSet

Vector = NDArray[np.float64]
Matrix = NDArray[np.float64]
if TYPE_CHECKING:  # its mixed-integer machinery takes a second to import: only who chooses it pays
    from rmpc_ros.mpc.two_rate import TwoRateController
    from rmpc_ros.mpc.union_feedback import UnionFeedback

Controller: TypeAlias = Union[FixedFeedback, AffineFeedback, "TwoRateController", "UnionFeedback"]


@dataclass(frozen=True)
class NeighbourDesign:
    """A neighbour as far as this agent knows it.

    Attributes
    ----------
    name : of the agent
    names : its promised quantities, (n,) states then input deviations
    transform : (nx, nx) its coordinates, of physical states
    center, scale : (n,) offset and unit of the normalised quantities
    terminal : (n,) normalised half-widths of its invariant box and of its authority
    columns : where its quantities are in zeta
    """

    name: str
    names: tuple[str, ...]
    transform: Matrix
    center: Vector
    scale: Vector
    terminal: Vector
    columns: slice

    def coordinates(self, state: Vector) -> Vector:
        """Coordinates (nx,) of a measured state, the first nx promised quantities."""
        return self.transform @ state

    def normalise_states(self, coordinates: Vector) -> Vector:
        """Normalised deviations (nx,)."""
        n = len(coordinates)
        return (coordinates - self.center[:n]) / self.scale[:n]

    def normalise_into(self, center: Matrix, scale: Matrix, zeta: Matrix, radius: Matrix) -> None:
        """Write normalised centres and half-widths (N, n) into this neighbour's columns."""
        zeta[:, self.columns] = (center - self.center) / self.scale
        radius[:, self.columns] = scale / self.scale

    def terminal_promise(self, step: int, period: float, epoch: int = 0) -> ForecastSet:
        """What it stands for before it has said anything: its invariant box for all time."""
        return _standing(self.name, self.names, step, period, self.center, self.terminal * self.scale, epoch)


@dataclass(frozen=True)
class AgentDesign:
    """One agent's complete design.

    Attributes
    ----------
    name, period (s), horizon, form ("fixed", "toeplitz", "full", "two_rate", "union")
    state_names, input_names : physical
    names : promised quantities, (nx + nu,)
    transform : (nx, nx) coordinates of physical states
    steady_state (nx,), steady_input (nu,) : physical
    scale : (nx + nu,) units of the normalised coordinates and inputs
    terminal : (nx + nu,) normalised half-widths of the invariant box and of the authority
    state_lower, state_upper (nx,), input_lower, input_upper (nu,) : physical limits
    model, cost : normalised
    x_ref (nx,), u_ref (nu,) : normalised target
    margin : share of the terminal box that a promise keeps as room beyond its tube
    safe_input : (nu,) physical
    model_error : (nx,) bound per step that the design includes, normalised
    room : factor by which the invariant boxes are larger than the smallest ones
    neighbours : by name
    """

    name: str
    period: float
    horizon: int
    form: str
    state_names: tuple[str, ...]
    input_names: tuple[str, ...]
    names: tuple[str, ...]
    transform: Matrix
    steady_state: Vector
    steady_input: Vector
    scale: Vector
    terminal: Vector
    state_lower: Vector
    state_upper: Vector
    input_lower: Vector
    input_upper: Vector
    model: LocalModel
    cost: Cost
    x_ref: Vector
    u_ref: Vector
    margin: float
    safe_input: Vector
    model_error: Vector
    room: float
    neighbours: dict[str, NeighbourDesign]

    def __post_init__(self) -> None:
        back = np.linalg.inv(self.transform)
        object.__setattr__(self, "_back", back)
        object.__setattr__(self, "_center", np.concatenate([self.transform @ self.steady_state, np.zeros(self.nu)]))

    # -- sizes --------------------------------------------------------------------------------------------------------
    @property
    def nx(self) -> int:
        """Number of states."""
        return self.model.nx

    @property
    def nu(self) -> int:
        """Number of inputs."""
        return self.model.nu

    @property
    def center(self) -> Vector:
        """Offsets (nx+nu,) of the promised quantities: coordinates of the steady state, zero law deviation."""
        center: Vector = self.__dict__["_center"]
        return center

    @property
    def inverse_transform(self) -> Matrix:
        """Physical states of coordinates, (nx, nx)."""
        back: Matrix = self.__dict__["_back"]
        return back

    # -- builders -----------------------------------------------------------------------------------------------------
    def build_fixed(self) -> FixedFeedback:
        """Compile the tightened nominal problem."""
        return FixedFeedback(self.model, self.cost, self.horizon)

    def build_controller(self) -> Controller:
        """Compile the problem of the configured feedback form."""
        if self.form == "fixed":
            return self.build_fixed()
        if self.form == "union":
            from rmpc_ros.mpc.union_feedback import UnionFeedback

            return UnionFeedback(self.model, self.cost, self.horizon)
        if self.form == "two_rate":
            from rmpc_ros.mpc.two_rate import TwoRateController

            return TwoRateController(self.model, self.cost, self.horizon)
        return AffineFeedback(self.model, self.cost, self.horizon, toeplitz=self.form == "toeplitz")

    # -- units --------------------------------------------------------------------------------------------------------
    def coordinates(self, state: Vector) -> Vector:
        """Coordinates (nx,) of a physical state."""
        return self.transform @ state

    def normalise(self, state: Vector) -> Vector:
        """Normalised deviation (nx,) of a physical state."""
        return (self.transform @ (state - self.steady_state)) / self.scale[: self.nx]

    def physical_states(self, x: Matrix) -> Matrix:
        """Inverse of `normalise`, (..., nx)."""
        return (x * self.scale[: self.nx]) @ self.inverse_transform.T + self.steady_state

    def physical_inputs(self, u: Matrix) -> Matrix:
        """Physical inputs (..., nu) of normalised deviations."""
        return u * self.scale[self.nx :] + self.steady_input

    def physical_gain(self, gain: Matrix) -> Matrix:
        """A gain (..., nu, nx) from normalised to physical units."""
        scaled = gain * self.scale[self.nx :, None] / self.scale[: self.nx]
        return scaled @ self.transform

    def normalise_box(self, center: Matrix, scale: Matrix) -> tuple[Matrix, Matrix]:
        """Bounds (N, n), (N, n), normalised, of boxes in promised quantities."""
        middle, half = (center - self.center) / self.scale, scale / self.scale
        return middle - half, middle + half

    def promise_width(self, scale: Matrix) -> Matrix:
        """Promised half-widths (N, nx) of the coordinates, over the distance from the steady state to their limits."""
        return np.asarray(scale[:, : self.nx] / self.scale[: self.nx])

    # -- promises -----------------------------------------------------------------------------------------------------
    def terminal_promise(self, step: int, epoch: int = 0) -> ForecastSet:
        """The invariant box for all time."""
        return _standing(self.name, self.names, step, self.period, self.center, self.terminal * self.scale, epoch)

    def forecast(self, step: int, lower: Matrix, upper: Matrix, epoch: int) -> ForecastSet:
        """A promise (in physical units) from normalised bounds (T+1, n)."""
        middle, half = (lower + upper) / 2, np.maximum(upper - lower, 0.0) / 2
        return ForecastSet(
            self.name,
            step,
            self.period,
            self.names,
            middle * self.scale + self.center,
            half * self.scale,
            self.center,
            self.terminal * self.scale,
            iteration=epoch,
        )

    def in_invariant_box(self, x: Vector) -> bool:
        """Whether a normalised state lies in the own invariant box."""
        return bool(np.all(np.abs(x) <= self.terminal[: self.nx] * (1 + 1e-6)))

    # -- figures ------------------------------------------------------------------------------------------------------
    def stage_cost(self, x: Vector, u: Vector) -> float:
        """Cost of one step at a normalised state and a physical input."""
        ex = x - self.x_ref
        eu = (u - self.steady_input) / self.scale[self.nx :] - self.u_ref
        return float(ex @ self.cost.Q @ ex + eu @ self.cost.R @ eu)

    def margins(self, state: Vector, u: Vector) -> dict[str, float]:
        """Distance of every limited state and input to its nearer limit, over half the range."""
        values = np.concatenate([state, u])
        lower = np.concatenate([self.state_lower, self.input_lower])
        upper = np.concatenate([self.state_upper, self.input_upper])
        limited = np.isfinite(lower) & np.isfinite(upper)
        values, lower, upper = values[limited], lower[limited], upper[limited]
        margin = np.minimum(upper - values, values - lower) / ((upper - lower) / 2)
        names = [name for name, has in zip((*self.state_names, *self.input_names), limited, strict=True) if has]
        return dict(zip(names, margin.tolist(), strict=True))


def _standing(
    agent: str, names: tuple[str, ...], step: int, period: float, center: Vector, scale: Vector, epoch: int
) -> ForecastSet:
    return ForecastSet(agent, step, period, names, center[None], scale[None], center, scale, iteration=epoch)
