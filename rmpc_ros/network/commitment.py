"""The rules of commitments: what may follow what (math.md 3.1, 3.2).

A promise may shrink at any time without asking. It may start afresh with larger sets only in a new epoch, which its
sender declares when the truth has left its promise; everybody who relied on it then starts afresh too.
"""

from __future__ import annotations

import numpy as np

from rmpc_ros.errors import PromiseError
from rmpc_ros.network.forecast import ForecastSet

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


def _terminal_excess(old: ForecastSet, new: ForecastSet) -> np.ndarray:
    moved = np.abs(new.terminal_center - old.terminal_center)
    return np.asarray(moved + new.terminal_scale - old.terminal_scale)[None, :]
