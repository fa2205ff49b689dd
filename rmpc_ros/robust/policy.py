"""Policies: how a decision may depend on what is uncertain.

    u(w) = v + M w        static: M = 0;   full: every entry of M that causality allows;   memory m: the last m steps;
                          Toeplitz: M(t, s) depends on t - s only (one block per lag);
                          fixed feedback: u = K x + c with static c (write u that way, or Toeplitz c for more);
    u(w) = v + M phi(w)   saturated: phi bounded, the set is on the lifted vector (w, phi(w))

A structure only says which entries of M are free and which are the same variable: an integer matrix. Sources: Goulart,
Kerrigan, Maciejowski (2006), eq. 12, for full feedback; Hokayem, Chatterjee, Lygeros (2009) for saturated feedback;
Shang, Huang, You (seed 003), eq. 12 and 39, for the lifting.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rmpc_ros.errors import ConfigError, DataError
from rmpc_ros.sets.lifting import Saturation

Vector = NDArray[np.float64]
Matrix = NDArray[np.float64]
Form = Literal["static", "memory", "toeplitz", "full"]
FORMS: tuple[Form, ...] = ("static", "memory", "toeplitz", "full")


def structure(form: Form, horizon: int, nu: int, nw: int, memory: int = 1, delay: int = 1) -> NDArray[np.int64]:
    """Which variable each entry of M is: (N nu, N nw), -1 where M is zero, equal numbers where entries are equal.

    Parameters
    ----------
    form : "static", "memory" (the last `memory` steps), "toeplitz", "full"
    horizon, nu, nw : steps N, inputs and uncertain entries per step
    delay : u(t) sees w(s) for s <= t - delay; 1 for disturbance feedback, 0 for signals known when u is chosen

    Examples
    --------
    >>> structure("toeplitz", 3, 1, 1).tolist()
    [[-1, -1, -1], [0, -1, -1], [1, 0, -1]]
    """
    if form not in FORMS:
        raise ConfigError(f"policy form {form!r} is unknown; known: {', '.join(FORMS)}")
    out = np.full((horizon, nu, horizon, nw), -1, np.int64)
    block = np.arange(nu * nw).reshape(nu, nw)
    number: dict[tuple[int, int], int] = {}
    for t in range(horizon):
        for s in range(t - delay + 1):
            if form == "static" or (form == "memory" and t - delay - s >= memory):
                continue
            key = (t - s, 0) if form == "toeplitz" else (t, s)
            out[t, :, s, :] = number.setdefault(key, len(number)) * nu * nw + block
    return out.reshape(horizon * nu, horizon * nw)


@dataclass(frozen=True)
class AffinePolicy:
    """u(w) = offset + gain @ seen(w): what a solved program leaves behind.

    Attributes
    ----------
    offset : (k,)
    gain : (k, d) over the whole uncertain vector (for saturated policies: over phi(w))
    name : of the decision
    saturation : phi, or None
    """

    offset: Vector
    gain: Matrix
    name: str = ""
    saturation: Saturation | None = None

    def __call__(self, w: ArrayLike) -> Matrix:
        """The decision for one realisation (d,) -> (k,), or for many (m, d) -> (m, k)."""
        seen: Callable[[ArrayLike], Matrix] = self.saturation or (lambda v: np.asarray(v, float))
        return np.asarray(self.offset + seen(w) @ self.gain.T)

    def to_json(self) -> str:
        """JSON text; numbers keep all digits."""
        out: dict[str, Any] = {"name": self.name, "offset": self.offset.tolist(), "gain": self.gain.tolist()}
        if self.saturation is not None:
            out["saturation"] = {"kind": self.saturation.kind, "limit": self.saturation.limit}
        return json.dumps(out)

    @staticmethod
    def from_json(text: str) -> AffinePolicy:
        """Inverse of `to_json`.

        Raises
        ------
        ConfigError
        """
        try:
            data = json.loads(text)
            offset, gain = np.array(data["offset"], float), np.array(data["gain"], float)
            saturation = Saturation(**data["saturation"]) if "saturation" in data else None
        except (ValueError, KeyError, TypeError, DataError) as error:
            raise ConfigError(f"not a policy: {error}") from error
        if gain.shape[:1] != offset.shape or gain.ndim != 2:
            raise ConfigError(f"not a policy: offset {offset.shape} and gain {gain.shape} do not fit")
        return AffinePolicy(offset, gain, data.get("name", ""), saturation)
