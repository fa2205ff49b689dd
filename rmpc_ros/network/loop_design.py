"""From an agent's design to its PID loops: which input works on which state, and with which gains.

What the plant file does not say is decided here. An input works on the state that it moves most within a period, each
state at most once (assignment problem over the normalised gains of one period). Gains follow SIMC on the first-order
model of that state alone,

    y+ = a y + b u,   closed-loop time tauc = the shortest of a row of multiples of the period with  Ms <= 1.7

where Ms is the peak of the sensitivity of the loop on all the agent's states (neighbours at rest). Source: Skogestad
2003, `mpc.simc`. The PID-MPC sees the limits of that state less what the own disturbance can add within a period: the
jump that comes next cannot be seen, so there must be room for it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from scipy.optimize import linear_sum_assignment
from scipy.signal import ss2tf

from rmpc_ros.config.sections import PidLoop
from rmpc_ros.errors import ConfigError
from rmpc_ros.models.delayed import DelayProcess, SampledProcess
from rmpc_ros.mpc.loop_quality import controller_polynomials
from rmpc_ros.mpc.pid import PidSettings
from rmpc_ros.mpc.pid_bank import LoopDesign, Matrix, Vector, spectral_radius
from rmpc_ros.mpc.pid_mpc import OutputLimits
from rmpc_ros.mpc.simc import simc
from rmpc_ros.network.agent_design import AgentDesign

MS_LIMIT = 1.7
CLOSED_LOOP_TIMES = (1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 16.0, 24.0, 32.0, 64.0)  # periods
FREQUENCIES = 300


def design_loops(design: AgentDesign, given: Mapping[str, PidLoop]) -> tuple[LoopDesign, ...]:
    """Loops of all inputs of an agent, in their order.

    Parameters
    ----------
    design : the agent's
    given : the plant file's section `pid` of this agent, by input; may be empty

    Raises
    ------
    ConfigError
        Two inputs work on one state, there are more inputs than states, a gain has the wrong form, or the loop is not
        stable (given gains), or none of the tunings tried is stable and robust.
    """
    A, B = own_block(design)
    pairs = _pairs(design, B, given)
    loops = tuple(_loop(design, A, B, u, pairs[u], given.get(name)) for u, name in enumerate(design.input_names))
    radius = spectral_radius(A, B, loops)
    if radius >= 1.0:
        raise ConfigError(
            f"agent '{design.name}': its PID loops are not stable (largest pole {radius:.4f}, allowed below 1); "
            f"change agents.{design.name}.pid"
        )
    return loops


def reach(design: AgentDesign) -> Vector:
    """Units (nx,) of the normalised states of the loops: distance to the nearer limit, 1 where there is none."""
    near = np.minimum(design.state_upper - design.steady_state, design.steady_state - design.state_lower)
    return np.where(np.isfinite(near), near, 1.0)


def own_block(design: AgentDesign) -> tuple[Matrix, Matrix]:
    """A (nx, nx), B (nx, nu) of the agent's physical states without its backup law, normalised, neighbours at rest."""
    model, to_states = design.model, _to_states(design)
    A = to_states @ (model.A - model.B @ model.K) @ np.linalg.inv(to_states)
    return A, to_states @ model.B


def _to_states(design: AgentDesign) -> Matrix:
    """States in the loops' units of the normalised coordinates, (nx, nx)."""
    return np.asarray((design.inverse_transform * design.scale[: design.nx]) / reach(design)[:, None])


def _pairs(design: AgentDesign, B: Matrix, given: Mapping[str, PidLoop]) -> list[int]:
    """State of each input."""
    name = design.name
    if design.nu > design.nx:
        raise ConfigError(f"agent '{name}' has {design.nu} inputs and {design.nx} states: a PID needs a state for each")
    gain = np.abs(B.T)
    for u, key in enumerate(design.input_names):
        loop = given.get(key)
        if loop is not None and loop.state is not None:
            only = design.state_names.index(loop.state)
            gain[u, np.arange(design.nx) != only] = -1e6  # a state that the file names is never exchanged
    _, states = linear_sum_assignment(gain, maximize=True)
    for u, key in enumerate(design.input_names):
        if gain[u, states[u]] < 0:
            raise ConfigError(f"agents.{name}.pid.{key}.state: another input works on this state already")
        if gain[u, states[u]] == 0:
            raise ConfigError(f"agents.{name}.pid.{key}: this input moves no state within a period")
    return [int(s) for s in states]


def _loop(design: AgentDesign, A: Matrix, B: Matrix, u: int, state: int, given: PidLoop | None) -> LoopDesign:
    unit = reach(design)
    C = np.eye(design.nx)[state : state + 1]
    top, bottom = ss2tf(A, B[:, u : u + 1], C, np.zeros((1, 1)))
    process = SampledProcess(A, B[:, u : u + 1], C, design.period, top[0], bottom)
    given = given or PidLoop()
    extra = {
        "setpoint_weight": given.setpoint_weight,
        "input_lower": float(design.model.input_lower[u]),
        "input_upper": float(design.model.input_upper[u]),
    }
    where = f"agents.{design.name}.pid.{design.input_names[u]}"
    if given.kp is not None and given.ki is not None:
        gain = unit[state] / design.scale[design.nx + u]
        settings = PidSettings(
            given.kp * gain, given.ki * gain, given.kd * gain, design.period, given.filter_time, **extra
        )
    else:
        settings = _tuned(process, A[state, state], B[state, u], given, extra, where)
    steady, up = design.steady_state[state], _to_states(design)[state : state + 1]
    push = design.model.disturbance_support(np.vstack([up, -up]))
    limits = OutputLimits(
        min(float((design.state_lower[state] - steady) / unit[state] + push[1]), 0.0),
        max(float((design.state_upper[state] - steady) / unit[state] - push[0]), 0.0),
    )
    return LoopDesign(u, state, settings, process, limits, design.horizon, given.blend, float(design.cost.R[u, u]))


def _tuned(
    process: SampledProcess, a: float, b: float, given: PidLoop, extra: Mapping[str, float], where: str
) -> PidSettings:
    """SIMC with the shortest closed-loop time that is robust, or with the given one."""
    period = process.period
    if 0.0 < a < 0.999:
        lag = -period / math.log(a)
        simple = DelayProcess(b / (1 - a), (lag,), 0.0)
    else:  # unstable or integrating: over a few periods it is the slope that counts
        simple = DelayProcess(b / period, (), 0.0, integrating=True)
    chosen = given.closed_loop_time
    times = [n * period for n in CLOSED_LOOP_TIMES] if chosen is None else [chosen]
    for time in times:
        tuned = simc(simple, period, time)
        settings = PidSettings(tuned.kp, tuned.ki, 0.0, period, **extra)
        if chosen is not None or _robust(process, settings):
            return settings
    raise ConfigError(
        f"{where}: no closed-loop time up to {times[-1]:g} s gives a stable loop with Ms <= {MS_LIMIT}; "
        "give kp and ki, or another state"
    )


def _robust(process: SampledProcess, settings: PidSettings) -> bool:
    alone = LoopDesign(0, int(np.argmax(process.C[0])), settings, process, OutputLimits(), 1)
    if spectral_radius(process.A, process.B, [alone]) >= 1.0:
        return False
    omega = np.geomspace(1e-4, math.pi, FREQUENCIES) / process.period
    back = np.exp(-1j * omega * process.period)
    feedback, _, below = controller_polynomials(settings)
    polyval = np.polynomial.polynomial.polyval
    loop = process.response(omega) * polyval(back, feedback) / polyval(back, below)
    return bool(np.max(1.0 / np.abs(1.0 + loop)) <= MS_LIMIT)
