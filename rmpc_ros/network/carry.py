"""The same promise, told from a later step on: it says nothing new, so it may be told whatever has happened since.

An agent that cannot know whether its command is in force (it has just come back, or the actuator side has gone on
without it) may not renew its promise, because a new promise describes the plan of that command. It repeats the old one.
"""

from __future__ import annotations

from dataclasses import replace

from rmpc_ros.network.forecast import ForecastSet


def carried(promise: ForecastSet, step: int) -> ForecastSet:
    """`promise` from an absolute step on, with the rows that are left, at least one.

    Examples
    --------
    >>> import numpy as np
    >>> box = np.arange(1.0, 4.0)[:, None]
    >>> old = ForecastSet("a", 5, 36.0, ("x",), 0 * box, box, np.zeros(1), np.array([9.0]))
    >>> carried(old, 6).scale.ravel(), carried(old, 6).step
    (array([2., 3.]), 6)
    >>> carried(old, 50).scale.ravel()
    array([9.])
    """
    rows = max(promise.step + promise.horizon - step, 0) + 1
    center, scale = promise.window(step, rows)
    return replace(promise, step=step, center=center, scale=scale)
