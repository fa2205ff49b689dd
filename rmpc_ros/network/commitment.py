"""The rules of commitments: what may follow what (math.md 3.1, 3.2).

A promise may shrink at any time without asking. It may start afresh with larger sets only in a new epoch, which its
sender declares when the truth has left its promise; everybody who relied on it then starts afresh too. What it promises
for all time stays inside what its design allows, in every epoch: everybody's invariant box was made to bear that.
"""

from __future__ import annotations

import numpy as np

from rmpc_ros.errors import PromiseError
from rmpc_ros.network.forecast import ForecastSet

TOLERANCE = 1e-6  # of a promise between agents, relative to the terminal half-width
LARGEST_JUMP = 2**20  # of an epoch at once: everybody follows the newest one, so a damaged number must not become it


def check_successor(old: ForecastSet, new: ForecastSet, tolerance: float = 1e-7) -> None:
    """Check that `new` may replace `old`: the same sender and quantities, later, and inside it unless the epoch is new.

    A new epoch is at most `LARGEST_JUMP` ahead. The measured state that `new` begins with is not checked here: whether
    it keeps the promise is the receiver's question to the measurement.

    Raises
    ------
    PromiseError
        Names the quantity, the step and by how much the promise was enlarged, or the epoch that cannot be.
    """
    if new.agent != old.agent or new.names != old.names:
        raise PromiseError(
            f"a promise of '{new.agent}' about {', '.join(new.names)} cannot follow one of '{old.agent}' "
            f"about {', '.join(old.names)}"
        )
    if new.iteration < old.iteration:
        raise PromiseError(f"'{new.agent}' sent a promise of epoch {new.iteration}; epoch {old.iteration} is in force")
    if new.iteration > old.iteration + LARGEST_JUMP:
        raise PromiseError(
            f"'{new.agent}' sent a promise of epoch {new.iteration}; epoch {old.iteration} is in force, and one of at "
            f"most {LARGEST_JUMP} more can follow"
        )
    if new.iteration > old.iteration:
        return
    if new.step < old.step:
        raise PromiseError(f"'{new.agent}' sent a promise of step {new.step}; one of step {old.step} is in force")
    # A shorter new promise means its terminal box where the old one still has rows: compare those too.
    count = max(new.horizon, old.step + old.horizon - new.step) + 1
    center, scale = old.window(new.step, count)
    new_center, new_scale = new.window(new.step, count)
    excess = np.abs(new_center - center) + new_scale - scale
    excess = np.vstack([excess[1:], _terminal_excess(old, new)])
    relative = excess / np.maximum(old.terminal_scale, 1e-300)
    worst = np.unravel_index(int(np.argmax(relative)), relative.shape)
    if relative[worst] > tolerance:
        raise PromiseError(
            f"'{new.agent}' enlarged its promise for {new.names[int(worst[1])]} at step {new.step + 1 + int(worst[0])} "
            f"by {excess[worst]:.3g} without a new epoch"
        )


def check_standing(new: ForecastSet, center: np.ndarray, scale: np.ndarray, tolerance: float = 1e-7) -> None:
    """Check that the terminal box of a promise lies inside what its sender's design allows, whatever the epoch.

    Parameters
    ----------
    new : the promise
    center, scale : (n,) of the sender's invariant box and authority, in the promise's units
    tolerance : relative to `scale`

    Raises
    ------
    PromiseError
        Names the quantity, and what it promises for all time against what it may.
    """
    inside = np.abs(new.terminal_center - center) + new.terminal_scale <= scale * (1 + tolerance)
    if not np.all(inside):  # also refuses NaN
        n = int(np.argmin(inside))
        raise PromiseError(
            f"'{new.agent}' promises {new.names[n]} in {new.terminal_center[n]:.6g} +- {new.terminal_scale[n]:.6g} for "
            f"all time; its design allows {center[n]:.6g} +- {scale[n]:.6g}"
        )


def _terminal_excess(old: ForecastSet, new: ForecastSet) -> np.ndarray:
    moved = np.abs(new.terminal_center - old.terminal_center)
    return np.asarray(moved + new.terminal_scale - old.terminal_scale)[None, :]
