"""Units as written words: which quantity each measures, and durations in seconds."""

from __future__ import annotations

import difflib
import math
import re

UNITS: dict[str, str] = {
    "1": "plain number",
    "mass fraction": "mass fraction",
    "mole fraction": "mole fraction",
    "K": "temperature",
    "degC": "temperature",
    "kJ/h": "heat flow",
    "kW": "heat flow",
    "W": "heat flow",
    "W/m2": "heat flux",
    "kWh": "energy",
    "kWh/h": "electric power",
    "m": "length",
    "cm": "length",
    "m/s": "velocity",
    "m/s2": "acceleration",
    "kg": "mass",
    "kg/min": "mass flow",
    "kg/h": "mass flow",
    "N": "force",
    "V": "voltage",
    "mol/L": "concentration",
    "m3/h": "volume flow",
    "L/min": "volume flow",
    "cm3/s": "volume flow",
    "m3": "volume",
    "Pa": "pressure",
    "bar": "pressure",
    "s": "time",
    "min": "time",
    "h": "time",
    "d": "time",
}
SECONDS = {"s": 1.0, "min": 60.0, "h": 3600.0, "d": 86400.0}

_DURATION = re.compile(r"\s*([-+0-9.eE]+)\s*([A-Za-z0-9/]*)\s*")


def unit_error(unit: str, expected: str = "") -> str | None:
    """Why `unit` may not stand where the model computes in `expected` ("" = any unit); None where it may."""
    if unit not in UNITS:
        near = difflib.get_close_matches(unit, UNITS, 1, 0.5)
        hint = f"did you mean '{near[0]}'? " if near else ""
        return f"is not a unit; {hint}known: {', '.join(UNITS)}"
    if not expected or unit == expected:
        return None
    if UNITS[unit] != UNITS[expected]:
        return f"measures a {UNITS[unit]}, but this is a {UNITS[expected]}; write '{expected}'"
    return (
        f"is a unit of {UNITS[unit]}, but the model computes in '{expected}'; convert the values and write '{expected}'"
    )


def seconds(value: object) -> float:
    """Duration in seconds from a number (seconds) or words like "36 s", "2 h".

    Raises
    ------
    ValueError
        The unit does not measure time or the number is not finite and above 0.
    """
    unit = "s"
    if isinstance(value, str):
        match = _DURATION.fullmatch(value)
        if match is None:
            raise ValueError("give seconds, or a number with a unit of time such as '36 s' or '2 h'")
        try:
            number = float(match[1])
        except ValueError:
            raise ValueError("give seconds, or a number with a unit of time such as '36 s' or '2 h'") from None
        unit = match[2] or "s"
    elif isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ValueError("give seconds, or a number with a unit of time such as '36 s' or '2 h'")
    else:
        number = float(value)
    if unit not in SECONDS:
        raise ValueError(f"'{unit}' does not measure time; allowed: {', '.join(SECONDS)}")
    if not (math.isfinite(number) and number > 0):
        raise ValueError("give a finite duration above 0")
    return number * SECONDS[unit]
