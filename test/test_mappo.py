"""MAPPO: TorchRL's advantages and loss on our campaigns, the actor in numpy and in torch, exact resumption."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from rmpc_ros.config import load_plant
from rmpc_ros.config.learning import LEAST_MOVES, MOVES
from rmpc_ros.config.shipped import shipped_plant
from rmpc_ros.errors import DataError
from rmpc_ros.learning.campaign import Campaigns, observation_size
from rmpc_ros.learning.case import LearningCase, learning_case
from rmpc_ros.learning.curves import GAIN, EventLog, write_curves
from rmpc_ros.learning.day import RobustDays
from rmpc_ros.learning.economics import total
from rmpc_ros.learning.experience import Experience, gather, local_rewards, training_scenarios
from rmpc_ros.learning.mappo import MappoTrainer, SharedActor
from rmpc_ros.learning.objectives import campaign_objective
from rmpc_ros.learning.policy import Actor
from rmpc_ros.learning.surrogate import Surrogate, draw_shares, features, fit_surrogate
from rmpc_ros.learning.train import TrainOptions, train
from rmpc_ros.network.system import design_network


@pytest.fixture(scope="module")
def case() -> LearningCase:
    return learning_case(load_plant(shipped_plant("reactor_separator_campaign")))


@pytest.fixture(scope="module")
def world(case: LearningCase) -> tuple[RobustDays, Surrogate]:
    """Controllers, and a surrogate from a made-up response instead of simulated days: hot pays today and wears."""
    days = RobustDays(case)
    z = np.concatenate([part for _, part in draw_shares(3, 0, 60)])
    n = len(case.steady)
    y = np.zeros((len(z), n + 9))
    y[:, :n] = case.steady
    y[:, case.moved] += 0.5 * z[:, :3]
    y[:, case.product] += 0.004 * z[:, :3].mean(axis=1) + 0.004 * z[:, 3]
    y[:, case.quality] = case.learning.prices.quality.limit - 0.001 - 0.003 * z[:, :3].mean(axis=1) * (1 + z[:, 4])
    y[:, n : n + 3] = case.config.linear.steady_input
    return days, fit_surrogate(case, days.targets.authority, 0, y)


@pytest.fixture(scope="module")
def actor(case: LearningCase) -> Actor:
    return Actor("network", len(case.agents), observation_size(case), len(LEAST_MOVES))


Make = Callable[[int], MappoTrainer]


@pytest.fixture(scope="module")
def make(case: LearningCase, world: tuple[RobustDays, Surrogate], actor: Actor) -> Make:
    days, surrogate = world
    objective = campaign_objective(case, days.targets, surrogate, actor, 16)

    def trainer(seed: int) -> MappoTrainer:
        return MappoTrainer(
            actor,
            12,
            seed,
            lambda p, s, g: gather(case, days.targets, surrogate, actor, p, s, 48, g),
            lambda p: float(objective(p[None], np.random.default_rng(5))[0]),
        )

    return trainer


def test_the_actor_is_the_same_in_numpy_and_in_torch(actor: Actor) -> None:
    generator = np.random.default_rng(0)
    parameters = generator.standard_normal(actor.size).astype(np.float32).astype(float)
    net = SharedActor(actor, parameters, 0.5)
    assert np.array_equal(net.parameters_of_policy(), parameters)
    observations = generator.standard_normal((7, actor.agents, actor.observations))
    mean, spread = net(torch.as_tensor(observations, dtype=torch.float32))
    assert mean.detach().numpy() == pytest.approx(actor.output(parameters[None], observations[None])[0], abs=1e-4)
    assert spread.detach().numpy() == pytest.approx(0.5)


def test_local_rewards_add_up_to_the_teams_but_for_what_no_action_changes(
    case: LearningCase, world: tuple[RobustDays, Surrogate]
) -> None:
    days, surrogate = world
    generator = np.random.default_rng(1)
    campaigns = Campaigns(case, days.targets, surrogate, training_scenarios(case, 6, generator))
    campaigns.reset()
    income = campaigns.outlook().product
    _, terms = campaigns.step(generator.uniform(-1, 1, (6, 3, len(LEAST_MOVES))))
    price = case.learning.prices.product
    fixed = price.price * price.flow * case.steady[case.product] * income
    shares = local_rewards(case, campaigns.yesterday, terms, income)
    assert shares.sum(axis=1) + fixed == pytest.approx(total(terms))
    assert np.all(shares[:, 0] < 0)  # reactor1 sells nothing, pays steam and catalyst


def test_advantages_are_generalised_advantage_estimates_of_the_team(make: Make, actor: Actor) -> None:
    trainer, generator = make(0), np.random.default_rng(2)
    S, T, a = 3, 5, actor.agents
    experience = Experience(
        generator.standard_normal((S, T + 1, a, actor.observations)),
        np.zeros((S, T, a, len(LEAST_MOVES))),
        np.zeros((S, T, a, len(LEAST_MOVES))),
        generator.standard_normal((S, T, a)),
    )
    data = trainer._advantages(experience)
    seen = torch.as_tensor(experience.observations, dtype=torch.float32)
    with torch.no_grad():
        values = trainer.critic.module(seen).numpy()[..., 0]
    reward = experience.rewards.sum(axis=-1)
    reward = reward - reward.mean(axis=1, keepdims=True)
    expected, coming = np.zeros((S, T, a)), np.zeros((S, a))
    g, lam = trainer.options.discount, trainer.options.trace
    for t in reversed(range(T)):  # the last day is a truncation: the critic's value goes on
        coming = reward[:, t, None] + g * values[:, t + 1] - values[:, t] + g * lam * coming
        expected[:, t] = coming
    assert data["agents", "advantage"][..., 0].numpy() == pytest.approx(expected, abs=1e-4)
    other = experience.observations.copy()
    other[:, :, 2] += 1.0  # the central critic looks at all agents: another's observation changes this one's value
    with torch.no_grad():
        changed = trainer.critic.module(torch.as_tensor(other, dtype=torch.float32)).numpy()[..., 0]
    assert np.all(np.abs(changed[..., 0] - values[..., 0]) > 0)


def test_the_stated_probability_of_explored_outputs_is_the_policys(make: Make) -> None:
    trainer = make(0)
    experience = trainer._gather(trainer.net.parameters_of_policy(), trainer.net.spread(), np.random.default_rng(3))
    data = trainer._advantages(experience)
    with torch.no_grad():
        again = trainer.policy.get_dist(data.clone()).log_prob(data["agents", "action"])
    assert again.numpy() == pytest.approx(data["agents", "action_log_prob"].numpy(), abs=1e-3)


def test_mappo_earns_more_than_the_tuned_controllers_and_resumes_to_the_same_numbers(
    make: Make, case: LearningCase, tmp_path: Path
) -> None:
    what = {"seed": 4, "learning": case.learning.model_dump(mode="json")}
    straight = make(4)
    before = straight._validate(straight.best)
    for _ in range(12):
        straight.iterate()
    assert straight.best_value > before + 1.0
    stopped = make(4)
    for _ in range(5):
        stopped.iterate()
    stopped.save(tmp_path / "c.pt", what)
    resumed = make(4)
    resumed.load(tmp_path / "c.pt", what)
    assert resumed.iteration == 5
    for _ in range(7):
        resumed.iterate()
    assert np.array_equal(resumed.result(), straight.result())
    assert resumed.curve == straight.curve
    with pytest.raises(DataError, match="another training"):
        make(4).load(tmp_path / "c.pt", what | {"seed": 5})
    (tmp_path / "c.pt").write_bytes(b"not a checkpoint")
    with pytest.raises(DataError, match="cannot be used"):
        make(4).load(tmp_path / "c.pt", {"seed": 4})


def test_only_networks_are_trained(actor: Actor) -> None:
    with pytest.raises(DataError, match="network"):
        MappoTrainer(Actor("affine", 3, actor.observations, len(LEAST_MOVES)), 1, 0, lambda *_: None, lambda _: 0.0)  # type: ignore[arg-type, return-value]


def test_event_files_hold_the_curve_for_tensorboard(tmp_path: Path) -> None:
    from tensorboardX.proto.event_pb2 import Event

    rows = [{"a": 1.5}, {"a": 2.5, GAIN: -3.0}]
    log = EventLog(tmp_path, 0)
    for k, row in enumerate(rows):
        log.write(k + 1, row)
    log.close()
    write_curves(tmp_path, rows, "t")
    (file,) = (tmp_path / "events").iterdir()
    data, seen = file.read_bytes(), []
    while data:  # records: length, its checksum, event, its checksum
        size = int.from_bytes(data[:8], "little")
        event = Event.FromString(data[12 : 12 + size])
        seen += [(event.step, v.tag, v.simple_value) for v in event.summary.value]
        data = data[16 + size :]
    assert seen == [(1, "a", 1.5), (2, "a", 2.5), (2, GAIN, -3.0)]
    assert (tmp_path / "curve.csv").read_text().splitlines() == [f"iteration,a,{GAIN}", "1,1.5,", "2,2.5,-3.0"]
    assert (tmp_path / "curve.png").read_bytes().startswith(b"\x89PNG")


def test_a_policy_is_used_and_a_plant_controlled_without_torch() -> None:
    code = """
import sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split('.')[0] in ('torch', 'torchrl', 'tensordict', 'ray', 'tensorboardX'):
            raise ImportError('no ' + name + ' on an edge controller')
sys.meta_path.insert(0, Refuse())
import rmpc_ros.network.agent, rmpc_ros.learning.policy, rmpc_ros.learning.env, rmpc_ros.learning.evaluate
import rmpc_ros.learning.learner, rmpc_ros.nodes.agent, rmpc_ros.nodes.learner
print('ok')
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.stdout.strip() == "ok", done.stderr[-1500:]


def test_shares_of_the_surrogates_days_do_not_depend_on_the_workers(case: LearningCase) -> None:
    shares = draw_shares(3, 7, 41)
    assert sum(len(z) for _, z in shares) == 41 and len({seed for seed, _ in shares}) == len(shares)
    z = np.concatenate([z for _, z in shares])
    authority = design_network(case.config).authority
    y = np.tile(features(z)[:, :1], (1, 9 + 3 + 6)) + features(z)[:, 3:4]
    fitted = fit_surrogate(case, authority, 7, y)
    assert np.all(fitted.error < 1e-9)


def test_what_a_policy_moves_decides_how_many_actions_are_trained(
    case: LearningCase, world: tuple[RobustDays, Surrogate], tmp_path: Path
) -> None:
    options = TrainOptions(
        "network",
        iterations=2,
        campaigns=8,
        algorithm="mappo",
        reference_iterations=1,
        reference_campaigns=2,
        population=8,
    )
    policy = train(case.moving(MOVES), options, tmp_path, identify=lambda: world[1]).policy
    assert (policy.moves, policy.actor.actions) == (MOVES, 4)
    actions = policy.act(np.random.default_rng(0).standard_normal((20, 3, policy.actor.observations)))
    assert np.all(actions[..., 3] == 0.0)  # the surrogate is blind to the terminal weight
    assert np.abs(actions[..., 2]).max() > 0
