"""A room with its walls and ground: four temperatures, one heater, hourly weather.

The published model is in discrete time with steps of one hour,

    x(k+1) = PHI x(k) + GAMMA (heating, outdoor, ground, outdoor error)(k);

here it is dx/dt = Ac x + Bc u whose exact zero-order hold over one hour is that model, found by the matrix logarithm
of [[PHI, GAMMA], [0, I]]. Only the first temperature, the room's, is constrained; the second one follows the ground.
Rows of [PHI, GAMMA of outdoor and ground] sum to 1, as they must where all temperatures are equal and nothing heats;
the supplement's printed 0.409 for the first row's last entry is a misprint for 0.1409.

Source: case study 1 of the paper on unions of uncertainty sets (public supplement).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy.linalg import logm

from rmpc_ros.errors import ConfigError
from rmpc_ros.models.nonlinear import NonlinearModel, Variable

PHI = np.array(
    [
        [0.0167, 0.0048, 0.1245, 0.1409],
        [0.0005, 0.0002, 0.0039, 0.0044],
        [0.0253, 0.0073, 0.3321, 0.0617],
        [0.0244, 0.0070, 0.0526, 0.3456],
    ]
)
GAMMA = np.array(
    [
        [0.0986, 0.2536, 0.4596, 0.2536],
        [0.0029, 0.0070, 0.9840, 0.0070],
        [0.0288, 0.4450, 0.1287, 0.4450],
        [0.0275, 0.4477, 0.1225, 0.4477],
    ]
)
STATES = tuple(Variable(name, "degC", 20.0) for name in ("room", "ground_node", "wall1", "wall2"))
INPUTS = (Variable("heating", "W/m2", 40.0),)
DISTURBANCES = (Variable("outdoor", "degC", 5.0), Variable("ground", "degC", 10.0), Variable("outdoor_error", "degC"))


def continuous() -> tuple[np.ndarray, np.ndarray]:
    """Ac (4, 4) and Bc (4, 4) per hour of the model whose zero-order hold over one hour is (PHI, GAMMA)."""
    whole = np.zeros((8, 8))
    whole[:4, :4], whole[:4, 4:], whole[4:, 4:] = PHI, GAMMA, np.eye(4)
    logarithm = np.real(logm(whole))
    return logarithm[:4, :4], logarithm[:4, 4:]


def build(parameters: Mapping[str, Any]) -> NonlinearModel:
    """The model; it has no parameters.

    Raises
    ------
    ConfigError
        A parameter is given.
    """
    if parameters:
        raise ConfigError(f"model 'building' has no parameter '{min(parameters)}'; it has none at all")
    Ac, Bc = continuous()

    def flow(x: dict[str, Any], u: dict[str, Any], d: dict[str, Any], p: dict[str, Any]) -> Sequence[Any]:
        own, outer = list(x.values()), [*u.values(), *d.values()]
        return [
            sum(a * v for a, v in zip(A, own, strict=True)) + sum(b * v for b, v in zip(B, outer, strict=True))
            for A, B in zip(Ac.tolist(), Bc.tolist(), strict=True)
        ]

    return NonlinearModel("building", STATES, INPUTS, DISTURBANCES, {}, flow, time_unit=3600.0, elements=12)
