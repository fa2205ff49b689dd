"""The stirred-tank task of pc-gym, restated, and what plays it: a robust MPC, that MPC under a policy, an oracle.

The plant is `plants.cstr` (the same equations and numbers). 100 samples of 0.25 min; the coolant stays in [295, 302] K;
the tank starts at (0.8 mol/L, 330 K); the set-point of CA is 0.85 for 50 samples, then 0.90. The return is

    sum_{k=1..99}  -1000 (CA_k - r_k)^2            (pc-gym's reward with the scale 1000 of its examples)

What a controller knows of r when it chooses the input of sample k decides most of the return, so it is part of the
task: r_{k - late}. pc-gym 0.1.8's own oracle reads the set-point one sample late (late = 1), which is where the
published -11.83 comes from; 0 is the set-point in force.

Source: Bloor et al., PC-Gym, arXiv 2410.22093, and its public repository MaximilianB2/pc-gym.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any, Protocol

import casadi as ca
import numpy as np
from numpy.typing import NDArray

from rmpc_ros.errors import NumericalError
from rmpc_ros.learning.policy import Actor
from rmpc_ros.models.physics import Physics
from rmpc_ros.mpc.learned import LearnedMpcSettings, Prediction, decide_along
from rmpc_ros.plants import cstr

Vector = NDArray[np.float64]
Matrix = NDArray[np.float64]

PERIOD = 15.0  # s
FEED = np.array([1.0, 350.0])
START = np.array([0.8, 330.0])
FIRST_INPUT = 300.0
COOLANT = (295.0, 302.0)
STATE_LIMITS = np.array([[0.7, 300.0], [1.0, 350.0]])
REWARD_SCALE = 1e3
PUBLISHED = np.repeat([0.85, 0.90], 50)
UNCERTAIN = ("k0", "UA")
"""Parameters a plant may have otherwise than the model, as factors."""

ACTOR = Actor("affine", 1, 5, 2)
"""Observations: 1, set-point error, T, the two model errors seen. Actions: target offset, log of the move weight."""
OFFSET_REACH = 0.01  # mol/L
WEIGHT_REACH = 2.0  # decades
ERROR_FILTER = 0.3
ASIDE = 1.0  # K, of the inputs from the plan in the log that calibrates


class Controller(Protocol):
    """Chooses inputs; knows the measured state and the set-point it is shown."""

    def reset(self) -> None:
        """Begin a new episode."""
        ...

    def step(self, x: Vector, setpoint: float) -> float:
        """Coolant temperature of the next sample, K."""
        ...


def physics() -> Physics:
    """One sample of the tank, with factors on `UNCERTAIN`."""
    return Physics.from_model(cstr.build({}), PERIOD, UNCERTAIN)


@dataclass(frozen=True)
class Played:
    """One episode: return, CPU seconds of each decision (N-1,), states (N, 2) and inputs (N-1,)."""

    reward: float
    cpu_s: Vector
    states: Matrix
    inputs: Vector


@dataclass(frozen=True)
class Task:
    """One episode to play.

    Attributes
    ----------
    plant : what happens to the tank in a sample
    setpoints : r (N,), mol/L
    late : samples by which the shown set-point is late
    factors : of the true plant's `UNCERTAIN`, (2,)
    """

    plant: Physics
    setpoints: Vector = field(default_factory=PUBLISHED.copy)
    late: int = 0
    factors: Vector = field(default_factory=lambda: np.ones(2))

    def shown(self, k: int) -> float:
        """Set-point a controller knows at sample k."""
        return float(self.setpoints[max(k - self.late, 0)])

    def play(self, controller: Controller) -> Played:
        """Let a controller run the tank through the episode."""
        controller.reset()
        x, states, inputs, spent = START.copy(), [START], [], []
        for k in range(len(self.setpoints) - 1):
            began = time.process_time()
            u = controller.step(x, self.shown(k))
            spent.append(time.process_time() - began)
            u = min(max(u, COOLANT[0]), COOLANT[1])
            x = self.plant.advance(x, [u], FEED, self.factors)
            states.append(x)
            inputs.append(u)
        rows = np.array(states)
        gaps = rows[1:, 0] - self.setpoints[1:]
        return Played(-REWARD_SCALE * float(gaps @ gaps), np.array(spent), rows, np.array(inputs))


class Called:
    """A CasADi function of (x, u) with its memory fixed once: a call costs what the arithmetic costs."""

    def __init__(self, function: Any) -> None:
        self._x, self._u = np.zeros(function.numel_in(0)), np.zeros(function.numel_in(1))
        self._out = np.zeros(function.size_out(0)[::-1])  # CasADi writes column by column
        self._function, (self._buffer, self._call) = function, function.buffer()
        for k, given in enumerate((self._x, self._u)):
            self._buffer.set_arg(k, memoryview(given))  # type: ignore[arg-type]
        self._buffer.set_res(0, memoryview(self._out.reshape(-1)))  # type: ignore[arg-type]

    def __call__(self, x: Vector, u: Vector) -> Matrix:
        """Value as a matrix; overwritten by the next call.

        Raises
        ------
        NumericalError
            The evaluation failed.
        """
        self._x[:], self._u[:] = x, u
        self._call()
        if self._buffer.ret() != 0:
            raise NumericalError(f"the tank's model failed at x = {x.tolist()}, u = {u.tolist()}")
        return self._out.T


class Rollout:
    """States (2,) of N samples ahead under planned inputs, and their derivatives by each planned input.

    Parameters
    ----------
    model : of the tank
    horizon : N
    """

    def __init__(self, model: Physics, horizon: int) -> None:
        x, u = ca.SX.sym("x", 2), ca.SX.sym("u")
        end = model.function(x, u, FEED, np.ones(2))
        sample: Any = ca.Function("sample", [x, u], [end, ca.jacobian(end, x), ca.jacobian(end, u)])
        start, error, plan = ca.SX.sym("start", 2), ca.SX.sym("error", 2), ca.SX.sym("plan", horizon)
        held = ca.DM(np.tril(np.ones((horizon, horizon))))  # the moves that each planned input is the sum of
        now, sensitivity, rows = start, ca.SX(2, horizon), []
        for j in range(horizon):
            now, A, B = sample(now, plan[j])
            now += error
            sensitivity = A @ sensitivity
            sensitivity[:, j] = B
            rows.append(ca.horzcat(now + sensitivity @ (u - plan), sensitivity @ held))
        given = [ca.vertcat(start, error, u), plan]
        self._call = Called(ca.Function("rollout", given, [ca.densify(ca.vertcat(*rows))]))
        self._given = np.empty(5)

    def __call__(self, x: Vector, error: Vector, plan: Vector, u: float) -> Prediction:
        """Linearised along `plan` (N,), for moves from the input in force; `error`: added to every sample."""
        self._given[:2], self._given[2:4], self._given[4] = x, error, u
        value = self._call(self._given, plan).reshape(plan.size, 2, -1).copy()
        return Prediction(value[:, :, 0], value[:, :, 1:])


class RobustMpc:
    """MPC of `mpc.learned`, linearised in every sample along its last plan, limits tightened by the calibrated error.

    One step of a sequential quadratic program a sample (the real-time iteration of Diehl, Bock and Schloeder, 2005):
    nonlinear MPC, up to what one step leaves. The mean of the errors seen (first-order filter) is added to the
    prediction: no offset in steady state. With `parameters` of `ACTOR`, a policy moves the target and the move weight
    around this tuned controller; zeros change nothing.
    """

    def __init__(self, model: Physics, radius: Matrix, parameters: Vector | None = None) -> None:
        self._radius, self._parameters = radius, parameters
        x, u = ca.SX.sym("x", 2), ca.SX.sym("u")
        self._next = Called(ca.Function("next", [x, u], [model.function(x, u, FEED, np.ones(2))]))
        self._rollout = Rollout(model, len(radius))
        self._shift = np.minimum(np.arange(len(radius)) + 1, len(radius) - 1)
        self._weight = np.array([1.0, 0.0])
        self._limits = np.array([-np.inf, STATE_LIMITS[0, 1]]), np.array([np.inf, STATE_LIMITS[1, 1]])
        self._inputs = np.array([COOLANT[0]]), np.array([COOLANT[1]])
        self._scale = np.array([0.01, 1.0])
        self.reset()

    def reset(self) -> None:
        """Begin a new episode."""
        self._plan = np.full(len(self._radius), FIRST_INPUT)
        self._u = self._plan[:1]
        self._error = np.zeros(2)
        self._expected: Vector | None = None

    def step(self, x: Vector, setpoint: float) -> float:
        """Coolant temperature, K."""
        if self._expected is not None:
            self._error += ERROR_FILTER * (x - self._expected - self._error)
        target, decades = setpoint, 0.0
        if self._parameters is not None:
            offset, weight = self._act(x, setpoint)
            target, decades = target + OFFSET_REACH * offset, WEIGHT_REACH * weight
        settings = LearnedMpcSettings(
            len(self._radius),
            np.array([min(max(target, STATE_LIMITS[0, 0]), STATE_LIMITS[1, 0]), 0.0]),
            self._weight,
            np.array([1e-3 * 10.0**decades]),
            *self._limits,
            *self._inputs,
            self._scale,
        )
        prediction = self._rollout(x, self._error, self._plan[self._shift], float(self._u[0]))
        self._plan = decide_along(settings, self._u, prediction, self._radius).plan[:, 0]
        self._u = self._plan[:1]
        self._expected = self._next(x, self._u)[:, 0].copy()  # without the correction: the next error is seen whole
        return float(self._u[0])

    def _act(self, x: Vector, setpoint: float) -> Vector:
        seen = [1.0, (setpoint - x[0]) / 0.05, (x[1] - 325.0) / 10.0, self._error[0] / 5e-3, self._error[1] / 0.5]
        assert self._parameters is not None
        actions: Vector = ACTOR.act(self._parameters[None], np.array(seen)[None, None])[0, 0]
        return actions


class Oracle:
    """What pc-gym calls its oracle: nonlinear MPC with the exact model, by Radau collocation, IPOPT and a warm start.

    min sum_{j=1..N} (CA_j - r)^2 with two collocation points a sample, no price on moves: receding, not full-horizon.
    """

    def __init__(self, horizon: int) -> None:
        model, self._N = cstr.build({}), horizon
        x, u, d, p = model.symbols
        minutes = PERIOD / model.time_unit
        rate: Any = ca.Function("rate", [x, u, d, p], [model.rhs])
        nominal = model.parameter_vector()
        along, _, _ = ca.collocation_coeff(ca.collocation_points(2, "radau"))
        start, wanted = ca.SX.sym("start", 2), ca.SX.sym("wanted", horizon)
        variables: list[Any] = []
        equations: list[Any] = []
        cost: Any = 0.0
        now: Any = start
        for j in range(horizon):
            coolant, inner = ca.SX.sym(f"u{j}"), ca.SX.sym(f"x{j}", 2, 2)
            slopes = ca.horzcat(now, inner) @ along
            for point in range(2):
                equations.append(slopes[:, point] - minutes * rate(inner[:, point], coolant, FEED, nominal))
            now = inner[:, 1]  # the last Radau point is the sample's end
            cost += (now[0] - wanted[j]) ** 2
            variables += [coolant, ca.vec(inner)]
        program = {
            "x": ca.vertcat(*variables),
            "f": cost,
            "g": ca.vertcat(*equations),
            "p": ca.vertcat(start, wanted),
        }
        quiet: Any = {"ipopt.print_level": 0, "print_time": 0, "ipopt.sb": "yes"}
        self._solver: Any = ca.nlpsol("oracle", "ipopt", program, quiet)
        self._lower = np.tile([COOLANT[0], 0.0, 0.0, 0.0, 0.0], horizon)
        self._upper = np.tile([COOLANT[1], *[np.inf] * 4], horizon)
        self.reset()

    def reset(self) -> None:
        """Begin a new episode."""
        self._guess = np.tile([FIRST_INPUT, *START, *START], self._N)

    def step(self, x: Vector, setpoint: float) -> float:
        """Coolant temperature, K."""
        return float(self.plan(x, np.full(self._N, setpoint))[0])

    def plan(self, x: Vector, setpoints: Vector) -> Vector:
        """Optimal inputs (N,) for set-points r_1..r_N.

        Raises
        ------
        NumericalError
            IPOPT did not report an optimum.
        """
        found = self._solver(
            x0=self._guess, lbx=self._lower, ubx=self._upper, lbg=0.0, ubg=0.0, p=np.concatenate([x, setpoints])
        )
        status = self._solver.stats()
        if not status["success"]:
            raise NumericalError(f"oracle: IPOPT ended with '{status['return_status']}'", status["return_status"])
        self._guess = found["x"].full().ravel()
        return self._guess[::5].copy()


class Replay:
    """A fixed sequence of inputs."""

    def __init__(self, inputs: Vector) -> None:
        self._inputs = inputs
        self.reset()

    def reset(self) -> None:
        """Begin a new episode."""
        self._k = -1

    def step(self, x: Vector, setpoint: float) -> float:
        """The next one."""
        del x, setpoint
        self._k += 1
        return float(self._inputs[self._k])


def error_radius(plant: Physics, horizon: int, factors: float, coverage: float, seed: int) -> Matrix:
    """Error (N, 2) of the prediction j samples ahead that `coverage` of an excited log stays within.

    The log: 60 tanks whose `UNCERTAIN` lie within 1 +- `factors`, coolant moved at random; predicted along the last
    input held, lived with inputs up to `ASIDE` from it, so that the errors hold those of the linearisation too.
    """
    rng = np.random.default_rng([41, seed])
    errors, rollout = [], Rollout(plant, horizon)
    for _ in range(60):
        theta = rng.uniform(1 - factors, 1 + factors, 2)
        x, u = np.array([rng.uniform(0.8, 0.92), 0.0]), rng.uniform(*COOLANT, 8)
        x[1] = 331.6 - 99.0 * (x[0] - 0.8)  # the steady states of these concentrations lie about this line
        for coolant in u:
            x = plant.advance(x, [coolant], FEED, theta)
        lived = np.clip(u[-1] + rng.uniform(-ASIDE, ASIDE, horizon), *COOLANT)
        predicted = rollout(x, np.zeros(2), np.full(horizon, u[-1]), float(u[-1]))
        linear = predicted.free + predicted.response @ np.diff(lived, prepend=u[-1])
        truth = np.empty((horizon, 2))
        for j, coolant in enumerate(lived):
            x = truth[j] = plant.advance(x, [coolant], FEED, theta)
        errors.append(np.abs(truth - linear))
    return np.asarray(np.quantile(np.array(errors), coverage, axis=0))
