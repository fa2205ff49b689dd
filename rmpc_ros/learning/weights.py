"""Actions that weigh: the economics in an agent's target, and the terminal cost of its MPC.

    factor f(a) = high^a  (a >= 0),  low^-a  (a < 0),   a in [-1, 1];   zero action is 1, the tuned controller

Economic weight. Targets solve  min_c |D c - w|^2 - sum_i (f_i - 1) p_i'c / money  over the certified c (`targets`),
with p_i the slopes of agent i's own profit at rest (product, steam and emissions at today's prices; penalties are steps
and have no slope). The file's set-points are taken for the balance at factor 1: a larger one pulls towards today's
profit, a smaller one away from it, to what today's prices leave out, such as the catalyst.

Terminal weight. P of the agent's robust MPC becomes f P (`Agent.set_terminal_weight`).

Actions have one column per move, in the order of `config.learning.MOVES`; columns that are not there are zero.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rmpc_ros.config.learning import MOVES, Actions, Move
from rmpc_ros.errors import DataError
from rmpc_ros.learning.local_reward import LocalReward

Array = NDArray[np.float64]
Slopes = Mapping[str, Array]
"""Money per hour that a unit of law deviation brings, by reward term, (..., m)."""

LINEAR = ("product", "steam", "emissions")  # terms of the reward that have a slope


def arranged(actions: Array, moves: Sequence[str]) -> Array:
    """Columns (..., k) of `moves` in the order of `MOVES`, zero for what is not moved.

    Raises
    ------
    DataError
        Their numbers differ, or a move is unknown.
    """
    if actions.shape[-1] != len(moves):
        raise DataError(f"{actions.shape[-1]} actions per agent for the {len(moves)} moves {', '.join(moves)}")
    columns = [MOVES.index(known_move(move)) for move in moves]
    if columns == list(range(len(columns))):
        return actions
    out = np.zeros((*actions.shape[:-1], max(columns) + 1))
    out[..., columns] = actions
    return out


def known_move(word: str) -> Move:
    """The move of a name.

    Raises
    ------
    DataError
        There is none.
    """
    for move in MOVES:
        if move == word:
            return move
    raise DataError(f"move '{word}' is unknown; known: {', '.join(MOVES)}")


def weight_factors(chosen: Actions, move: Move, actions: Array) -> Array | None:
    """Factors (...,) of actions (..., k); None where the actions have no such column.

    Raises
    ------
    DataError
        The plant file has no bounds for it.
    """
    column = MOVES.index(move)
    if actions.shape[-1] <= column:
        return None
    section = chosen.economic_weight if move == "economic_weight" else chosen.terminal_weight
    action = np.clip(actions[..., column], -1.0, 1.0)
    if section is None:
        if np.any(action):
            raise DataError(
                f"a policy moves '{move}', for which the plant file has no bounds (learning.actions.{move})"
            )
        return None
    low, high = section.factors
    power = np.where(action >= 0, action * np.log(high), -action * np.log(low))
    return np.asarray(np.clip(np.exp(power), low, high))  # exp(0) is 1 exactly


def slopes_at_rest(reward: LocalReward, states: Array, inputs: Array) -> Slopes:
    """Of an agent's own profit, (...,) per term, where a unit moves its states (..., nx) and inputs (..., nu)."""
    terms = reward.terms(states, inputs)
    return {term: terms.get(term, np.zeros(states.shape[:-1])) for term in LINEAR}


def economic_pull(
    chosen: Actions, slopes: Slopes, actions: Array, product: ArrayLike = 1.0, steam: ArrayLike = 1.0
) -> Array:
    """What the targets' economics add to the gradient, (..., m), for actions (..., a, k); zero without that action.

    Parameters
    ----------
    slopes : (a, m) per term, of each agent's own profit
    product, steam : (...,) today's factors on the prices
    """
    factors = weight_factors(chosen, "economic_weight", actions)
    if factors is None or chosen.economic_weight is None:
        return np.zeros(1)
    beyond = (factors - 1.0) / chosen.economic_weight.money
    markets = {"product": np.asarray(product), "steam": np.asarray(steam), "emissions": np.ones(())}
    return np.asarray(sum(markets[term][..., None] * (beyond @ slopes[term]) for term in LINEAR))
