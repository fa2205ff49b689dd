"""Parameters of a plant: defaults with the plant file's changes."""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping
from typing import Any

from rmpc_ros.errors import ConfigError


def merged(model: str, defaults: Mapping[str, float], changes: Mapping[str, Any]) -> dict[str, float]:
    """Defaults with changes.

    Raises
    ------
    ConfigError
        A changed parameter does not exist or is not a finite number.
    """
    values = dict(defaults)
    for key, value in changes.items():
        if key not in values:
            near = difflib.get_close_matches(key, values, 1)
            hint = f"; did you mean '{near[0]}'?" if near else ""
            raise ConfigError(f"model '{model}' has no parameter '{key}'{hint} Known: {', '.join(values)}")
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
            raise ConfigError(f"parameter '{key}' of model '{model}' = {value!r}: give a finite number")
        values[key] = float(value)
    return values
