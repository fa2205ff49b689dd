"""MAPPO (Yu et al., NeurIPS 2022) with TorchRL's loss and advantage estimator, on the vectorised surrogate.

One critic sees the observations of all agents while training; every agent acts on its own observation only, with the
parameters that all share. Campaigns are lived in numpy (`experience.py`), the losses and their gradients are TorchRL's
and torch's. Everything random comes from one numpy generator whose state is in the checkpoint, so a training that was
stopped and resumed ends at the same numbers. The policy that is handed back is the one that earned most, without
exploration, on validation campaigns.
"""

from __future__ import annotations

import io
import os
import pickle
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tensordict import TensorDict
from tensordict.nn import TensorDictModule
from torch import nn
from torchrl.modules import IndependentNormal, MultiAgentMLP, ProbabilisticActor
from torchrl.objectives.multiagent import MAPPOLoss
from torchrl.objectives.value import MultiAgentGAE

from rmpc_ros.errors import DataError
from rmpc_ros.learning.curves import GAIN, Row
from rmpc_ros.learning.experience import Experience
from rmpc_ros.learning.policy import HIDDEN, Actor

Array = NDArray[np.float64]
Gather = Callable[[Array, Array, np.random.Generator], Experience]
"""Parameters, spread (actions,) and generator in, fresh experience out."""
Validate = Callable[[Array], float]
"""Parameters in, profit per hour over the best constant on the validation campaigns out."""


@dataclass(frozen=True)
class MappoOptions:
    """Settings of the loss and its descent; `every`: iterations between two validations."""

    epochs: int = 4
    minibatches: int = 4
    learning_rate: float = 3e-3
    last_learning_rate: float = 3e-4
    clip: float = 0.2
    discount: float = 0.97
    trace: float = 0.8
    entropy: float = 1e-3
    spread: float = 0.5
    critic_width: int = 64
    every: int = 5


class SharedActor(nn.Module):
    """The network of `policy.Actor` in torch: o -> mean W2 tanh(W1 o + b1) and standard deviation of the output."""

    def __init__(self, actor: Actor, start: Array, spread: float) -> None:
        super().__init__()
        self.first = nn.Linear(actor.observations, HIDDEN)
        self.second = nn.Linear(HIDDEN, actor.actions, bias=False)
        self.log_spread = nn.Parameter(torch.full((actor.actions,), float(np.log(spread))))
        cut = HIDDEN * actor.observations
        weights = torch.as_tensor(start, dtype=torch.float32)
        with torch.no_grad():
            self.first.weight.copy_(weights[:cut].reshape(actor.observations, HIDDEN).T)
            self.first.bias.copy_(weights[cut : cut + HIDDEN])
            self.second.weight.copy_(weights[cut + HIDDEN :].reshape(HIDDEN, actor.actions).T)

    def forward(self, observation: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean and standard deviation (..., actions) for observations (..., o)."""
        mean = self.second(torch.tanh(self.first(observation)))
        return mean, self.log_spread.exp().expand_as(mean)

    def parameters_of_policy(self) -> Array:
        """As `policy.Actor` orders them."""
        parts = (self.first.weight.T, self.first.bias, self.second.weight.T)
        return np.concatenate([p.detach().cpu().double().numpy().ravel() for p in parts])

    def spread(self) -> Array:
        """Standard deviation of the exploration now, (actions,)."""
        return np.asarray(self.log_spread.detach().exp().cpu().double().numpy())


class MappoTrainer:
    """State of a training: networks, optimiser, generator, curve.

    Parameters
    ----------
    actor : shape of the policy, of kind network
    iterations : after which the learning rate has fallen to its last value
    seed : of everything random
    gather, validate : how experience and the validation campaigns' profit are had
    options : MappoOptions

    Attributes
    ----------
    iteration : completed ones
    best, best_value : parameters that earned most on the validation campaigns, and what
    curve : one row of named figures per iteration

    Raises
    ------
    DataError
        The actor is not a network.
    """

    def __init__(
        self,
        actor: Actor,
        iterations: int,
        seed: int,
        gather: Gather,
        validate: Validate,
        options: MappoOptions = MappoOptions(),
    ) -> None:
        if actor.kind != "network":
            raise DataError(f"MAPPO trains actors of kind 'network', not '{actor.kind}'")
        torch.set_num_threads(1)  # networks this small are slower on several; and the sums keep their order
        self.options, self.iterations = options, iterations
        self.generator = np.random.default_rng([37, seed])
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.net = SharedActor(actor, actor.start(np.random.default_rng([19, seed])), options.spread)
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            critic = MultiAgentMLP(
                actor.observations,
                1,
                actor.agents,
                centralized=True,
                share_params=True,
                depth=2,
                num_cells=options.critic_width,
                activation_class=nn.Tanh,
            )
        policy = ProbabilisticActor(
            TensorDictModule(
                self.net, in_keys=[("agents", "observation")], out_keys=[("agents", "loc"), ("agents", "scale")]
            ),
            in_keys=[("agents", "loc"), ("agents", "scale")],
            out_keys=[("agents", "action")],
            distribution_class=IndependentNormal,
            distribution_kwargs={"tanh_loc": False},
            return_log_prob=True,
            log_prob_key=("agents", "action_log_prob"),
        )
        self.critic = TensorDictModule(
            critic, in_keys=[("agents", "observation")], out_keys=[("agents", "state_value")]
        ).to(self.device)
        self.policy = policy.to(self.device)
        self.loss = MAPPOLoss(
            self.policy,
            self.critic,
            clip_epsilon=options.clip,
            entropy_coeff=options.entropy,
            critic_coeff=0.5,
        )
        keys: dict[str, Any] = {name: ("agents", name) for name in ("advantage", "value_target")}
        keys |= {"value": ("agents", "state_value"), "action": ("agents", "action")}
        self.loss.set_keys(**keys, sample_log_prob=("agents", "action_log_prob"))
        self.advantages = MultiAgentGAE(gamma=options.discount, lmbda=options.trace, value_network=self.critic)
        self.advantages.set_keys(value=keys["value"], advantage=keys["advantage"], value_target=keys["value_target"])
        self.optimiser = torch.optim.Adam(self.loss.parameters(), lr=options.learning_rate)
        self._gather, self._validate = gather, validate
        self.iteration = 0
        self.best, self.best_value = self.net.parameters_of_policy(), -np.inf
        self.curve: list[Row] = []

    def iterate(self) -> None:
        """Live fresh campaigns, descend the loss, look at the validation campaigns every so often."""
        options = self.options
        experience = self._gather(self.net.parameters_of_policy(), self.net.spread(), self.generator)
        rows = self._advantages(experience).reshape(-1)
        share = self.iteration / self.iterations
        rate = options.learning_rate + share * (options.last_learning_rate - options.learning_rate)
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        sums: dict[str, float] = {}
        for _ in range(options.epochs):
            order = torch.as_tensor(self.generator.permutation(len(rows)), device=self.device)
            for chosen in order.chunk(options.minibatches):
                losses = self.loss(rows[chosen])
                step = losses["loss_objective"] + losses["loss_critic"] + losses["loss_entropy"]
                self.optimiser.zero_grad()
                step.backward()
                nn.utils.clip_grad_norm_(self.loss.parameters(), 1.0)
                self.optimiser.step()
                for name in ("loss_objective", "loss_critic", "kl_approx", "clip_fraction"):
                    sums[name] = sums.get(name, 0.0) + float(losses[name].detach())
        self.iteration += 1
        updates = options.epochs * options.minibatches
        row = {name: value / updates for name, value in sums.items()}
        row["team_reward"] = float(experience.rewards.sum(axis=-1).mean())
        row["exploration"] = float(self.net.spread().mean())
        if self.iteration % options.every == 0 or self.iteration == self.iterations:
            parameters = self.net.parameters_of_policy()
            row[GAIN] = self._validate(parameters)
            if row[GAIN] > self.best_value:
                self.best, self.best_value = parameters, row[GAIN]
        self.curve.append(row)

    def _advantages(self, experience: Experience) -> TensorDict:
        """Experience as TorchRL lays it out, (S, T), with advantages and value targets.

        A campaign's end is a truncation: the plant runs on, and the critic does not know the day's number.
        """

        def tensor(values: Array) -> torch.Tensor:
            return torch.as_tensor(values, dtype=torch.float32, device=self.device)

        S, T = experience.rewards.shape[:2]
        end = torch.zeros((S, T, 1), dtype=torch.bool, device=self.device)
        truncated = end.clone()
        truncated[:, -1] = True
        data = TensorDict(
            {
                "agents": {
                    "observation": tensor(experience.observations[:, :-1]),
                    "action": tensor(experience.outputs),
                    "action_log_prob": self._log_probability(tensor(experience.noise)),
                },
                "next": {
                    "agents": {"observation": tensor(experience.observations[:, 1:])},
                    "reward": tensor(experience.differential.sum(axis=-1, keepdims=True)),
                    "done": truncated,
                    "terminated": end,
                },
            },
            batch_size=[S, T],
            device=self.device,
        )
        with torch.no_grad():
            return self.advantages(data)

    def _log_probability(self, noise: torch.Tensor) -> torch.Tensor:
        """Of outputs mean + spread * noise, summed over an agent's actions, (S, T, a)."""
        log_spread = self.net.log_spread.detach()
        return (-0.5 * noise.square() - log_spread - 0.5 * float(np.log(2 * np.pi))).sum(dim=-1)

    def result(self) -> Array:
        """The parameters that earned most on the validation campaigns."""
        return self.best

    def save(self, path: Path, what: dict[str, Any]) -> None:
        """Write a checkpoint in one step; `what` says which training it belongs to."""
        document = {
            "what": what,
            "iteration": self.iteration,
            "curve": self.curve,
            "best": self.best.tolist(),
            "best_value": self.best_value,
            "generator": self.generator.bit_generator.state,
            "options": asdict(self.options),
            "loss": self.loss.state_dict(),
            "optimiser": self.optimiser.state_dict(),
        }
        buffer = io.BytesIO()
        torch.save(document, buffer)
        temporary = path.with_name(path.name + ".part")
        with temporary.open("wb") as file:
            file.write(buffer.getvalue())
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)

    def load(self, path: Path, what: dict[str, Any]) -> None:
        """Go on from a checkpoint.

        Raises
        ------
        DataError
            It cannot be read, or belongs to another training.
        """
        try:
            document = torch.load(path, map_location=self.device, weights_only=True)
            if document["what"] != what or document["options"] != asdict(self.options):
                raise DataError(
                    f"checkpoint {path} belongs to another training; leave --resume out, or use another --out"
                )
            self.loss.load_state_dict(document["loss"])
            self.optimiser.load_state_dict(document["optimiser"])
            self.generator.bit_generator.state = document["generator"]
            self.iteration, self.curve = int(document["iteration"]), list(document["curve"])
            self.best, self.best_value = np.array(document["best"], float), float(document["best_value"])
        except (OSError, KeyError, ValueError, TypeError, RuntimeError, pickle.UnpicklingError) as error:
            raise DataError(f"checkpoint {path} cannot be used: {error!r}") from error
