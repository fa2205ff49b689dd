"""The sections of a plant file, typed: what may be written, key by key.

Numbers are in the unit written beside them; durations are seconds or words with a unit ("36 s", "2 h"). Checks that
need more than one section are in `checks`.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from rmpc_ros.config.units import seconds, unit_error


def _name(word: str) -> str:
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]*", word):
        raise ValueError("a name holds letters, digits and underscores and begins with a letter")
    return word


def _unit(word: str) -> str:
    wrong = unit_error(word)
    if wrong:
        raise ValueError(wrong)
    return word


def _ordered(pair: tuple[float, float]) -> tuple[float, float]:
    if not pair[0] < pair[1]:
        raise ValueError(f"the lower limit must be below the upper one, here {pair[0]:g} >= {pair[1]:g}")
    return pair


def _around_zero(value: Any) -> Any:
    """A half-width becomes a pair; a pair must hold zero strictly inside."""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        if not value > 0:
            raise ValueError("a half-width is a finite number above 0")
        return (-float(value), float(value))
    if isinstance(value, (list, tuple)) and len(value) == 2 and all(isinstance(v, (int, float)) for v in value):
        if not value[0] < 0 < value[1]:
            raise ValueError("deviations are written [lower, upper] with lower < 0 < upper, or as one half-width")
        return tuple(value)
    raise ValueError("deviations are written [lower, upper] with lower < 0 < upper, or as one half-width")


def _topic(word: str) -> str:
    if not re.fullmatch(r"/?[A-Za-z][A-Za-z0-9_]*(/[A-Za-z][A-Za-z0-9_]*)*", word):
        raise ValueError("a topic is names joined by '/', relative to the agent's namespace unless it begins with '/'")
    return word


def _message_type(word: str) -> str:
    if not re.fullmatch(r"[a-z][a-z0-9_]*/(msg/)?[A-Z][A-Za-z0-9]*", word):
        raise ValueError("a message type is written package/Type, for example std_msgs/Float64")
    return word


def _field(word: str) -> str:
    if not re.fullmatch(r"[a-z][a-z0-9_]*(\.[a-z][a-z0-9_]*)*", word):
        raise ValueError("a field is written as in the message, parts joined by '.', for example 'data'")
    return word


Number = Annotated[float, Field(allow_inf_nan=False)]
Positive = Annotated[float, Field(allow_inf_nan=False, gt=0)]
NonNegative = Annotated[float, Field(allow_inf_nan=False, ge=0)]
Fraction = Annotated[float, Field(allow_inf_nan=False, ge=0, le=1)]
Whole = Annotated[int, Field(ge=0)]
Count = Annotated[int, Field(ge=1)]
Name = Annotated[str, AfterValidator(_name)]
Unit = Annotated[str, AfterValidator(_unit)]
Limits = Annotated[tuple[Number, Number], Field(strict=False), AfterValidator(_ordered)]
Deviation = Annotated[tuple[Number, Number], Field(strict=False), BeforeValidator(_around_zero)]
Seconds = Annotated[Number, BeforeValidator(seconds)]
Topic = Annotated[str, AfterValidator(_topic)]
MessageType = Annotated[str, AfterValidator(_message_type)]
FieldPath = Annotated[str, AfterValidator(_field)]
MatrixRows = list[list[Number]]
Mode = Literal["pid", "pid_mpc", "robust", "cooperative", "learned"]


class Section(BaseModel):
    """Base: no unknown keys, no silent conversion of types, nothing changes after loading."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


# -- plant ------------------------------------------------------------------------------------------------------------
class Disturbance(Section):
    """A disturbance that the design reckons with: it stays within `bounds`."""

    unit: Unit
    nominal: Number
    bounds: Limits

    @model_validator(mode="after")
    def _inside(self) -> Disturbance:
        if not self.bounds[0] <= self.nominal <= self.bounds[1]:
            raise ValueError(
                f"nominal = {self.nominal:g} is outside the bounds [{self.bounds[0]:g}, {self.bounds[1]:g}]"
            )
        return self


class Equations(Section):
    """dx/dt as expressions in the names of states, inputs, disturbances, parameters and earlier definitions."""

    time_unit: Literal["s", "min", "h", "d"] = "s"
    definitions: dict[Name, str] = {}
    derivatives: dict[Name, str]


class OperatingPoint(Section):
    """Inputs at the steady state, and where the search for its states starts."""

    inputs: dict[Name, Number] = {}
    states: dict[Name, Number] = {}


class Plant(Section):
    """What is controlled: a model by name, equations, or (model: linear) matrices given by the agents."""

    name: Name
    model: Name
    period: Seconds
    parameters: dict[Name, Number | list[Number]] = {}
    equations: Equations | None = None
    time: Literal["discrete", "continuous"] = "discrete"
    discretisation: Literal["exact", "held", "euler"] = "exact"
    operating_point: OperatingPoint = OperatingPoint()
    disturbances: dict[Name, Disturbance] = {}


# -- agents -----------------------------------------------------------------------------------------------------------
class _Limited(Section):
    unit: Unit
    limits: Limits | None = None
    deviation: Deviation | None = None

    @model_validator(mode="after")
    def _one_way(self) -> _Limited:
        if self.limits is not None and self.deviation is not None:
            raise ValueError("give limits (absolute) or deviation (about the steady state), not both")
        return self


class State(_Limited):
    """A measured state: its limits, where it starts, and the bound of its sensor's noise."""

    initial: Number | None = None
    noise: NonNegative = 0.0


class Input(_Limited):
    """An input and its limits."""

    @model_validator(mode="after")
    def _limited(self) -> Input:
        if self.limits is None and self.deviation is None:
            raise ValueError("an input needs limits (absolute) or deviation (about the steady state)")
        return self


class Coordinate(Section):
    """A weighted sum of the agent's states in which sets are boxes; it may have limits of its own."""

    weights: dict[Name, Number]
    deviation: Deviation | None = None


class Sensor(Section):
    """state = scale * message field + offset."""

    topic: Topic
    type: MessageType
    field: FieldPath = "data"
    state: Name
    scale: Number = 1.0
    offset: Number = 0.0


class Actuator(Section):
    """message field = (input - offset) / scale, the inverse of a sensor's mapping."""

    topic: Topic
    type: MessageType
    field: FieldPath = "data"
    input: Name
    scale: Number = 1.0
    offset: Number = 0.0


class Matrices(Section):
    """x_i+ = A x_i + sum_j B_j x_j + D u_i + sum_j F_j u_j + E w, w the named disturbances (by default all)."""

    A: MatrixRows
    B: dict[Name, MatrixRows] = {}
    D: MatrixRows
    F: dict[Name, MatrixRows] = {}
    E: MatrixRows | None = None
    disturbances: list[Name] | None = None


class PidLoop(Section):
    """The PID of one input; what is not given is tuned from the linear model (`rmpc_ros.network.loop_design`)."""

    state: Name | None = None
    kp: Number | None = None
    ki: Number | None = None  # per second
    kd: Number = 0.0  # seconds
    filter_time: Annotated[Number, BeforeValidator(lambda v: 0.0 if v == 0 else seconds(v))] = 0.0
    setpoint_weight: Fraction = 1.0
    closed_loop_time: Seconds | None = None
    blend: Fraction = 1.0  # of the PID-MPC's cost: 1 the PID's own moves where no limit acts, 0 tracking alone

    @model_validator(mode="after")
    def _one_tuning(self) -> PidLoop:
        if (self.kp is None) != (self.ki is None):
            raise ValueError("give kp and ki, or neither of them (they are tuned then)")
        if self.kp is not None and self.closed_loop_time is not None:
            raise ValueError("give kp and ki, or closed_loop_time, not both")
        if self.kp is None and self.kd:
            raise ValueError("kd goes with kp and ki")
        return self


class Agent(Section):
    """One unit of the plant with its own controller."""

    states: dict[Name, State]
    inputs: dict[Name, Input]
    neighbours: list[Name] = []
    coordinates: dict[Name, Coordinate] = {}
    sensors: list[Sensor] = []
    actuators: list[Actuator] = []
    matrices: Matrices | None = None
    period: Seconds | None = None
    mode: Mode | None = None
    pid: dict[Name, PidLoop] = {}


# -- controller, network, learning ------------------------------------------------------------------------------------
class Cost(Section):
    """Stage cost on states and inputs as shares of the distance from the steady state to their limits."""

    norm: Literal["quadratic"] = "quadratic"
    state: NonNegative = 1.0
    input: Positive = 0.1
    states: dict[Name, NonNegative] = {}
    inputs: dict[Name, Positive] = {}


class DisturbanceSet(Section):
    """Which set the disturbances are reckoned to lie in; without parameters the box of their bounds."""

    family: Name = "box"
    parameters: dict[str, Any] = {}


class Margins(Section):
    """What is added to the disturbance for the error of the linear model, per step."""

    model_error: Literal["sampled"] | dict[Name, NonNegative] = "sampled"
    factor: Annotated[float, Field(allow_inf_nan=False, ge=1)] = 1.5
    samples: Count = 2000
    promise: NonNegative = 0.02  # room a promise keeps beyond its tube, as a share of the invariant box
    room: Annotated[float, Field(allow_inf_nan=False, ge=1)] = 1.15  # invariant boxes over the smallest ones, at most
    authority: Fraction = 0.05  # share of an input's range that the optimiser may use beside the backup law


class Controller(Section):
    """How each agent decides."""

    mode: Mode = "robust"
    horizon: Count = 12
    feedback: Literal["fixed", "toeplitz", "full", "two_rate", "union"] = "fixed"
    cost: Cost = Cost()
    setpoint: dict[Name, Number] = {}
    set: DisturbanceSet = DisturbanceSet()
    margins: Margins = Margins()
    safe_inputs: dict[Name, Number] = {}


class Cooperation(Section):
    """Rounds of consensus ADMM in mode `cooperative` (see `rmpc_ros.network.cooperation`)."""

    rounds: Annotated[int, Field(ge=1, le=200)] = 30  # at most, per step
    rho: Positive = 2.0
    tolerance: Positive = 1e-3  # disagreement at which to stop, as a share of the limits
    over_relaxation: Annotated[float, Field(gt=0, lt=2)] = 1.8
    deadline: Fraction = 0.5  # share of the agent's own deadline that the rounds may take


class Join(Section):
    """An agent that the file describes apart, coupled to nobody, and that may join: the plant's parameters then."""

    agent: Name
    parameters: dict[Name, Number | list[Number]]


class Network(Section):
    """What agents agree on and how long they wait (wall time)."""

    protocol: Literal["commitment"] = "commitment"
    shape: Literal["box"] = "box"
    deadline: Seconds = 5.0
    wait: Seconds = 1.0
    cooperation: Cooperation = Cooperation()
    join: Join | None = None


class Resource(Section):
    """What several agents draw from one header: the sum of weight x input over its users never exceeds the capacity."""

    unit: Unit
    capacity: Positive
    users: dict[Name, dict[Name, Positive]]  # agent -> its one input and the resource that a unit of it takes
    rho: Positive = 10.0  # of the exchange of wishes, see `rmpc_ros.network.resource_user`


# -- simulation -------------------------------------------------------------------------------------------------------
class Realisation(Section):
    """How a disturbance behaves in simulation; always inside its bounds."""

    kind: Literal["autoregressive", "vertices", "bimodal", "uniform", "constant"]
    time_constant: Seconds = 3600.0
    hold: Seconds = 1800.0
    spread: Positive = 0.5
    value: Number | None = None
    bounds: Limits | None = None


class Fault(Section):
    """A sensor fault from `begin` to `end` (plant time): `stuck` repeats, `bias` adds `value`, `dropout` gives NaN."""

    kind: Literal["stuck", "bias", "dropout"]
    state: Name
    begin: Annotated[Number, BeforeValidator(lambda v: 0.0 if v == 0 else seconds(v))] = 0.0
    end: Seconds
    value: Number = 0.0
    probability: Fraction = 1.0


class Simulation(Section):
    """The simulated world."""

    model: Literal["nonlinear", "linear"] = "nonlinear"
    timing: Literal["lockstep", "free"] = "lockstep"
    speed: Literal["max"] | Positive = "max"
    duration: Seconds = 7200.0
    seed: Whole = 0
    noise: bool = True
    disturbances: dict[Name, Realisation] = {}
    drifts: dict[Name, Number] = {}
    faults: list[Fault] = []
    liars: dict[Name, Literal["greedy", "silent", "overdraw", "counterfeit"]] = {}  # about resources
