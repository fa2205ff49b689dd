"""Policies judged on the disturbances that a plant has really lived through.

    x(k+1) = (A + B K) x(k) + B c(k) + w(k),     c held between the policy's looks, w the recorded residuals

With the authority that certified targets leave, the controllers do little else than hold c, so the linear network under
constant deviations stands for them. w contains the linear model's error along the recorded trajectory. Rewards are the
economics of the plant file on x and u. Thousands of steps take milliseconds for a whole population of policies.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from rmpc_ros.config import PlantConfig
from rmpc_ros.config.learning import Move
from rmpc_ros.learning.cross_entropy import CemOptions, first_state, iterate
from rmpc_ros.learning.local_observation import LocalObservation
from rmpc_ros.learning.local_target import LocalTarget
from rmpc_ros.learning.policy import Actor
from rmpc_ros.learning.series import LinearLoop, Series
from rmpc_ros.learning.weights import arranged

Array = NDArray[np.float64]

ITERATIONS = 20
RIDGE = 0.2  # money per hour for a weight that changes by one
OPTIONS = CemOptions(population=48, spread=0.7, least_spread=0.05)


class Replay:
    """Recorded disturbances and the targets' way through the network.

    Parameters
    ----------
    config : plant file with a section `learning`
    series : whose designs, network and rewards are used

    Attributes
    ----------
    moves : what `actor` moves, the plant file's
    means : residual mean (nx,) that each agent reckons with in its targets, normalised
    """

    def __init__(self, config: PlantConfig, series: Series) -> None:
        assert config.learning is not None
        self._series = series
        self._decide = config.learning.online.decide
        self._observe = {name: LocalObservation(config, name) for name in series.designs}
        self._target = {name: LocalTarget(config, design) for name, design in series.designs.items()}
        self.means = {name: np.zeros(design.nx) for name, design in series.designs.items()}
        self._ahead, self._moved_by = _prediction(series.loop, config.controller.horizon)
        first = next(iter(self._observe.values()))
        self.moves = config.learning.actions.moves
        self.actor = Actor("affine", len(series.designs), first.size, len(self.moves))
        seen = [move != "terminal_weight" for move in self.moves]  # it changes how a plant moves, not where it rests
        self._free = np.outer(first.learnable(), seen).ravel()
        self._constant = np.repeat(np.arange(first.size) >= first.size - len(series.designs), len(self.moves))

    def rewards(
        self,
        parameters: Array,
        start: Array,
        w: Array,
        actor: Actor | None = None,
        first_step: int = 0,
        moves: tuple[Move, ...] | None = None,
    ) -> Array:
        """Reward per hour (T, P) of policies, step by step.

        Parameters
        ----------
        parameters : (P, size)
        start : (n,) normalised state before the first disturbance
        w : (T, n) normalised residuals
        actor : shape of the policies; `self.actor` by default
        first_step : number of the first disturbance's step; agents decide when `decide` divides theirs
        moves : of these policies; `self.moves` by default
        """
        series, actor, moves = self._series, actor or self.actor, moves or self.moves
        loop, P = series.loop, len(parameters)
        x, c = np.broadcast_to(start, (P, len(start))).copy(), np.zeros((P, loop.B.shape[1]))
        xs, us = np.empty((len(w), P, len(start))), np.empty((len(w), P, c.shape[1]))
        mean, seen = np.zeros_like(x), 0
        for k, disturbance in enumerate(w):
            mean, seen = mean + x, seen + 1
            if (first_step + k) % self._decide == 0:
                c = self._decisions(actor, moves, parameters, mean / seen, x, c)
                mean, seen = np.zeros_like(x), 0
            xs[k], us[k] = x, x @ loop.K.T + c
            x = x @ loop.A.T + c @ loop.B.T + disturbance
        return series.reward(xs, us)

    def _decisions(
        self, actor: Actor, moves: tuple[Move, ...], parameters: Array, mean: Array, x: Array, c: Array
    ) -> Array:
        """Law deviations (P, m) that the agents choose, each for itself, at states x after looking at their mean.

        What an agent expects of a neighbour is the centre of its promise for the end of the horizon: its state then and
        no deviation of its law, since promises end in sets that are symmetric about it.
        """
        series = self._series
        states = {
            name: design.physical_states(mean[:, series.loop.rows[name]]) for name, design in series.designs.items()
        }
        observations = np.stack([self._observe[name].vector(states, {}) for name in series.designs], axis=1)
        actions = arranged(actor.act(parameters, observations), moves)
        chosen, later = np.zeros_like(c), x @ self._ahead.T + c @ self._moved_by.T
        for i, (name, design) in enumerate(series.designs.items()):
            zeta = np.zeros((len(c), design.model.ng))
            for other, neighbour in design.neighbours.items():
                expected = later[:, series.loop.rows[other]]
                zeta[:, neighbour.columns.start : neighbour.columns.start + expected.shape[1]] = expected
            _, deviation = self._target[name].choose(actions[:, i], zeta, self.means[name])
            acts = np.any(actions[:, i] != 0.0, axis=-1)
            chosen[:, series.loop.columns[name]] = np.where(acts, deviation, 0.0)[:, None]
        return chosen

    def improve(self, parameters: Array | None, start: Array, w: Array, seed: int, first_step: int = 0) -> Array:
        """Parameters (size,) of an affine policy that the cross-entropy method finds on recorded disturbances.

        Maximises the mean reward less `RIDGE` times the squared change of the weights on states: what an hour of data
        does not tell stays as it was.

        Parameters
        ----------
        parameters : where it starts; zero actions by default
        start, w, first_step : as for `rewards`
        seed : of its samples
        """
        full = np.zeros(self.actor.size) if parameters is None else parameters.copy()
        weights = ~self._constant[self._free]

        def objective(free: Array, generator: np.random.Generator) -> Array:
            del generator  # the data are what they are
            population = np.broadcast_to(full, (len(free), full.size)).copy()
            population[:, self._free] = free
            changed = RIDGE * np.sum((free - full[self._free])[:, weights] ** 2, axis=1)
            return np.asarray(self.rewards(population, start, w, first_step=first_step).mean(axis=0) - changed)

        state = first_state(full[self._free], OPTIONS, seed)
        for _ in range(ITERATIONS):
            iterate(state, objective, OPTIONS)
        full[self._free] = state.mean
        return full


def _prediction(loop: LinearLoop, steps: int) -> tuple[Array, Array]:
    """x(k + steps) = F x(k) + H c with c held and no disturbance: F (n, n), H (n, m)."""
    F, H = np.eye(len(loop.A)), np.zeros_like(loop.B)
    for _ in range(steps):
        F, H = loop.A @ F, loop.A @ H + loop.B
    return F, H
