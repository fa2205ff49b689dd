"""Shares of a resource: their sum never exceeds the capacity, prices clear the market, liars are named."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rmpc_ros.config import load_plant
from rmpc_ros.config.shipped import shipped_plant
from rmpc_ros.errors import ConfigError, PromiseError
from rmpc_ros.network.accusations import FORGIVEN
from rmpc_ros.network.agent import Agent
from rmpc_ros.network.dual_decomposition import share_resource
from rmpc_ros.network.ladder import LadderAgent
from rmpc_ros.network.resource_guard import Guard
from rmpc_ros.network.resource_user import ResourceUser, UseProblem
from rmpc_ros.network.shared_resource import Book, ResourceDesign, Statement, design_resource
from rmpc_ros.network.system import design_agents
from rmpc_ros.studies import shared_steam as study
from rmpc_ros.studies.registry import parse_settings

N = 6
STEAM = ResourceDesign(
    "steam",
    "kg/min",
    10.0,
    ("a", "b", "c"),
    (0, 0, 0),
    np.ones(3),
    np.array([2.0, 2.0, 3.0]),
    np.array([3.0, 3.0, 4.0]),
    np.full(3, 8.0),
    1.0,
    1.0,
)


def said(agent, step, given=None, taken=None, wish=1.0):
    zero = np.zeros((3, N))
    return Statement(
        agent,
        "steam",
        step,
        step,
        np.full(N, wish),
        np.zeros(N),
        zero if given is None else given,
        zero if taken is None else taken,
    )


@pytest.fixture(scope="module")
def plant():
    config = load_plant(shipped_plant("shared_steam"))
    return config, design_agents(config)


# -- the book ---------------------------------------------------------------------------------------------------------
@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**31), loss=st.floats(0, 0.6), delay=st.integers(0, 5))
def test_shares_in_force_never_sum_to_more_than_the_capacity(seed, loss, delay):
    """Honest users that give at random, on a network that loses, delays, repeats and re-orders their statements."""
    generator = np.random.default_rng(seed)
    books = {user: Book(STEAM, N) for user in (*STEAM.users, "header")}
    post = []
    for step in range(25):
        for book in books.values():
            book.advance(step)
        arrived = [m for m in post if m[0] <= step]
        generator.shuffle(arrived)
        post = [m for m in post if m[0] > step]
        for _, receiver, statement in arrived:
            books[receiver].hear(statement)
        for i, user in enumerate(STEAM.users):
            spare = books[user].shares()[i] - STEAM.guaranteed[i]
            gifts = np.zeros((3, N))
            gifts[generator.choice([j for j in range(3) if j != i]), 2:] = generator.uniform(0, 1) * spare[2:]
            books[user].give(user, np.maximum(gifts, 0.0))
            statement = said(user, step, books[user].given[i].copy(), books[user].given[:, i].copy())
            for receiver in books:
                for _ in range(1 + (generator.random() < 0.2)):
                    if receiver != user and generator.random() >= loss:
                        post.append((step + 1 + int(generator.integers(delay + 1)), receiver, statement))
        own = np.array([books[user].shares()[i] for i, user in enumerate(STEAM.users)])
        assert np.all(own.sum(axis=0) <= STEAM.capacity + 1e-9)
        assert np.all(own >= STEAM.guaranteed[:, None] - 1e-9)
        assert np.allclose(books["header"].shares().sum(axis=0), STEAM.capacity)


def test_a_gift_counts_for_the_taker_once_however_often_it_is_heard():
    book = Book(STEAM, N)
    gift = np.zeros((3, N))
    gift[1, 3] = 0.7
    for _ in range(3):
        book.hear(said("a", 1, gift))
    book.advance(2)
    assert book.shares()[1, 2] == pytest.approx(3.7) and book.shares()[0, 2] == pytest.approx(2.3)
    book.advance(20)
    assert np.allclose(book.shares(), STEAM.fair[:, None])


def test_what_rests_on_gifts_that_were_not_heard_waits_for_them():
    book = Book(STEAM, N)
    first, taken, on = np.zeros((3, N)), np.zeros((3, N)), np.zeros((3, N))
    first[1, 4] = taken[0, 4] = 1.0  # a to b
    on[2, 4] = 1.8  # and b on to c, more than b had of its own
    book.hear(said("b", 0, on, taken))
    assert np.allclose(book.shares()[:, 4], STEAM.fair)
    book.hear(said("a", 0, first))
    assert np.allclose(book.shares()[:, 4], [2.0, 2.2, 5.8])
    assert book.unproven == []


@pytest.mark.parametrize(
    ("agent", "make", "word"),
    [
        ("a", lambda: said("a", 1, wish=9.0), "asks for 9"),
        ("a", lambda: said("a", 1, np.array([[0.0] * N, [1.5] * N, [0.0] * N])), "gives more"),
        ("b", lambda: said("b", 1, np.array([[0.0] * N, [0.5] * N, [0.0] * N])), "gives more"),  # to itself
        ("a", lambda: said("a", 1, np.array([[0.0] * N, [-0.5] * N, [0.0] * N])), "gives more"),
        ("c", lambda: said("c", 1), "takes back"),
    ],
)
def test_what_no_honest_user_states_is_refused_and_its_sender_named(agent, make, word):
    guard = Guard(STEAM, N)
    guard.hear(said("c", 0, np.array([[0.0] * N, [0.4] * N, [0.0] * N])))
    before = guard.book.shares()
    with pytest.raises(PromiseError, match=word):
        guard.hear(make())
    assert agent in guard.suspects
    assert np.array_equal(guard.book.shares(), before)


def test_gifts_that_nobody_has_made_are_noticed_in_time():
    guard = Guard(STEAM, N)
    pumped = np.zeros((3, N))
    pumped[1] = 5.0
    for step in range(1, 14):
        for user in STEAM.users:
            guard.hear(said(user, step, taken=pumped if user == "a" else None))
        guard.cut(step, {user: np.zeros(1) for user in STEAM.users})
    assert "nobody has made" in guard.suspects["a"]
    assert guard.book.shares()[0, 0] == STEAM.fair[0]


# -- the guard --------------------------------------------------------------------------------------------------------
def test_who_is_silent_is_a_suspect_until_it_speaks_again():
    guard = Guard(STEAM, N)
    for step in range(1, 12):
        guard.hear(said("a", step))
        guard.hear(said("c", step))
        guard.cut(step, {user: np.zeros(1) for user in STEAM.users})
    assert "has not stated" in guard.suspects["b"] and set(guard.suspects) == {"b"}
    guard.hear(said("b", 11))
    assert guard.suspects == {}


def test_the_guard_cuts_at_the_share_and_names_who_wanted_more():
    guard = Guard(STEAM, N)
    out = guard.cut(0, {"a": np.array([7.0]), "b": np.array([3.0]), "c": np.array([3.5])})
    assert out["a"] == pytest.approx(3.0) and out["b"] == 3.0 and out["c"] == 3.5
    assert guard.use == pytest.approx(9.5) and guard.cuts == {"a": 1, "b": 0, "c": 0}
    assert "'a' commands 7" in guard.suspects["a"] and set(guard.accused.reasons) == {"a"}


def test_who_was_named_once_is_cleared_after_behaving_for_a_stated_time():
    guard = Guard(STEAM, N)

    def step(k, a):
        for agent in STEAM.users:
            guard.hear(said(agent, k))
        guard.cut(k, {"a": np.array([a]), "b": np.array([3.0]), "c": np.array([3.5])})

    step(0, 7.0)
    assert f"named until step {FORGIVEN} unless it happens again" in guard.suspects["a"]
    step(5, 7.0)  # again
    for k in range(6, FORGIVEN + 5):
        step(k, 3.0)
        assert set(guard.suspects) == {"a"}
    step(FORGIVEN + 5, 3.0)
    assert guard.suspects == {} and guard.accused.cleared == {"a": FORGIVEN + 5} and guard.cuts["a"] == 2
    step(FORGIVEN + 6, 7.0)
    assert set(guard.suspects) == {"a"} and guard.accused.cleared == {}


def test_a_user_that_was_named_for_one_damaged_statement_takes_part_again(plant):
    config, designs = plant
    resource = design_resource("steam", config.resources["steam"], designs)
    agent = Agent(designs["vessel1"])
    user = ResourceUser(agent.design, agent.fixed, resource)

    def word(k, other, wish):
        zero = np.zeros((3, user.horizon))
        return Statement(other, "steam", k, k, np.full(user.horizon, wish), np.zeros(user.horizon), zero, zero)

    believed = []
    for k in range(FORGIVEN + 3):
        for other in ("vessel2", "vessel3"):
            try:
                user.hear(word(k, other, 99.0 if k == 1 and other == "vessel2" else 10.0))
            except PromiseError:
                assert k == 1
        user.limit(k)
        believed.append("vessel2" not in user.suspects)
    # Named while the book was at step 0: the statement of step 1 came before the step.
    assert believed == [True] + [False] * (FORGIVEN - 1) + [True] * 3


# -- prices -----------------------------------------------------------------------------------------------------------
def test_prices_clear_the_market(plant):
    """At the prices found, what each agent buys for itself adds up to the capacity where the price is not zero."""
    config, designs = plant
    resource = design_resource("steam", config.resources["steam"], designs)
    generator = np.random.default_rng(2)
    problems, agents = [], []
    for i, (name, design) in enumerate(designs.items()):
        agent = Agent(design)
        agent.start(0)
        state = design.physical_states(0.3 * design.terminal[: design.nx] * generator.uniform(-1, 1, design.nx))
        agent.look(0, state)
        problems.append(UseProblem(design, agent.fixed, resource, i))
        problems[-1].begin(agent.fixed)
        agents.append((name, agent))
    capacity = np.full(config.controller.horizon, resource.capacity)
    found = share_resource(problems, capacity, resource.rho / resource.scale**2, iterations=3000, tolerance=1e-7)
    assert found.converged and np.max(found.prices) > 0.01
    bought = np.zeros_like(capacity)
    for problem, (_, agent) in zip(problems, agents, strict=True):
        agent.fixed.data.toll[:] = problem.toll(found.prices)
        bought += problem.use(agent.fixed.solve().v.ravel())
    assert np.all(bought <= capacity + 1e-3)
    assert np.allclose(bought[found.prices > 1e-3], resource.capacity, atol=1e-3)


def test_a_capacity_below_what_the_backup_laws_need_is_refused(plant):
    config, designs = plant
    section = config.resources["steam"].model_copy(update={"capacity": 31.0})
    with pytest.raises(ConfigError, match=r"resources\.steam\.capacity = 31 kg/min.*vessel2"):
        design_resource("steam", section, designs)


def test_the_share_limits_the_worst_case_of_the_plan_at_every_step(plant):
    """Tube included: with a smaller share for two steps, the plan's largest use stays below it there."""
    config, designs = plant
    resource = design_resource("steam", config.resources["steam"], designs)
    agent = Agent(designs["vessel1"])
    agent.start(0)
    user = ResourceUser(agent.design, agent.fixed, resource)
    gifts = np.zeros((3, config.controller.horizon))
    gifts[1, 3:5] = 0.25
    user.book.give("vessel1", gifts)
    user.apply(0, agent.fixed)
    agent.look(0, agent.design.steady_state)
    plan = agent.fixed.solve()
    user.problem.begin(agent.fixed)
    use = user.problem.use(plan.v.ravel())
    share = user.book.shares()[0]
    assert np.all(use <= share + 1e-6) and use[3] == pytest.approx(share[3], abs=1e-5)


def test_who_comes_back_lives_on_its_guaranteed_part_until_the_horizon_has_passed(plant):
    config, designs = plant
    resource = design_resource("steam", config.resources["steam"], designs)
    agent = Agent(designs["vessel1"])
    user = ResourceUser(agent.design, agent.fixed, resource)
    user.rejoin(50)
    assert np.allclose(user.limit(50), resource.guaranteed[0])
    assert np.allclose(user.limit(60), resource.fair[0])


# -- the closed loop --------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("lie", ["", "greedy", "silent", "overdraw", "counterfeit"])
def test_the_capacity_holds_and_a_liar_is_named(plant, lie):
    config, _ = plant
    liars = {"vessel2": lie} if lie else {}
    run = study.simulate(config, 60, 3, liars)
    capacity = config.resources["steam"].capacity
    assert run["largest_total_use"] <= capacity + 1e-9
    assert max(run["rows"]["use"]) > 0.95 * capacity  # it is scarce
    assert sum(n for agent, n in run["violations"].items() if agent not in liars) == 0
    named = {agent for names in run["named"].values() for agent in names}
    assert named == set(liars)


@pytest.mark.parametrize("mode", ["pid", "pid_mpc"])
def test_a_pid_takes_no_more_than_its_share_and_is_not_named(plant, mode):
    config, _ = plant
    run = study.simulate(config, 60, 3, {}, make=lambda design: LadderAgent(design, {}, mode))
    use = np.array(run["rows"]["use"])
    assert np.max(use) <= config.resources["steam"].capacity + 1e-9
    assert set(run["cuts"].values()) == {0} and not any(run["named"].values())


def test_a_pid_without_a_measurement_holds_no_more_than_its_share(plant):
    _, designs = plant
    agent, user = shared(plant, "pid")
    agent.actuated(designs["vessel1"].steady_input + 0.9)
    user.apply(0, agent.fixed)
    assert agent.step(0, None).input == pytest.approx(10.9)  # of 10.94
    gifts = np.zeros((3, user.horizon))
    gifts[1, 2:] = 0.2
    user.book.give("vessel1", gifts)
    user.apply(2, agent.fixed)
    assert agent.step(2, None).input == pytest.approx(user.book.shares()[0, 0])


def test_a_glide_takes_no_more_than_the_share(plant):
    _, designs = plant
    agent, user = shared(plant, "pid")
    design = designs["vessel1"]
    agent.step(0, design.steady_state)
    agent.actuated(design.steady_input + 3.0)  # the authority is 2
    agent.set_mode("robust")
    user.apply(1, agent.fixed)
    neighbours = {name: n.center[: len(n.transform)] for name, n in design.neighbours.items()}
    decision = agent.step(1, design.steady_state, neighbours)
    assert "glides" in decision.report.reason
    assert decision.input == pytest.approx(user.book.shares()[0, 0])


def shared(plant, mode):
    """Vessel 1 on a rung, and its dealings with the header."""
    config, designs = plant
    agent = LadderAgent(designs["vessel1"], {}, mode)
    agent.start(0)
    return agent, ResourceUser(agent.design, agent.fixed, design_resource("steam", config.resources["steam"], designs))


def test_on_a_bad_network_nobody_is_accused_and_the_capacity_holds(plant):
    config, _ = plant
    run = study.simulate(config, 60, 1, {}, loss=0.3, delay=3)
    assert np.max(run["rows"]["worst"]) <= config.resources["steam"].capacity + 1e-9
    assert run["largest_total_use"] <= config.resources["steam"].capacity + 1e-9
    assert sum(run["violations"].values()) == sum(run["promises_broken"].values()) == 0
    assert not any(run["named"].values())


def test_shares_go_where_they_are_worth_most(plant):
    """Vessel 2's temperature counts three times: it ends with more than its fair share, given by the others."""
    config, _ = plant
    run = study.simulate(config, 60, 0, {}, disturbed=False)
    resource = run["resource"]
    assert run["rows"]["shares"][-1][1] > resource.fair[1] + 0.1
    assert np.allclose(sum(run["rows"]["shares"][-1]), resource.capacity)


def test_study_shared_steam(tmp_path):
    result = study.STUDY.run(parse_settings(study.STUDY, ["seeds=1", "steps=40"]), tmp_path)
    assert result["contained"] and result["named"]
    assert result["largest_total_use"] <= result["capacity"] + 1e-9
    assert len(result["price_history"]) == 40 and result["price_final"] > 0
    assert (tmp_path / result["figure"]).is_file()
    assert any("vessel" in line for line in study.table(result))


def test_fair_shares_are_guaranteed_parts_and_equal_rests(plant):
    config, designs = plant
    resource = design_resource("steam", config.resources["steam"], designs)
    assert resource.fair.sum() == pytest.approx(resource.capacity)
    rest = resource.fair - resource.guaranteed
    assert np.ptp(rest) < 1e-9 and rest[0] > 0
    wider = replace(designs["vessel1"], terminal=2 * designs["vessel1"].terminal)
    more = design_resource(
        "steam", config.resources["steam"].model_copy(update={"capacity": 40.0}), {**designs, "vessel1": wider}
    )
    assert more.guaranteed[0] > resource.guaranteed[0]
