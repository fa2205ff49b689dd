"""Joint design: the papers' values, the order of information structures, promises kept in simulation, and an oracle."""

from dataclasses import replace
from itertools import pairwise, product

import cvxpy as cp
import numpy as np
import pytest

from rmpc_ros.errors import ConfigError, InfeasibleError
from rmpc_ros.network import primitive
from rmpc_ros.network.cases import toy
from rmpc_ros.network.cases.spring_chain import spring_network
from rmpc_ros.network.design import design_network
from rmpc_ros.network.design_flexible import design_flexible
from rmpc_ros.network.graph import Graph, topology
from rmpc_ros.network.model import Agent, Coupling, Disturbance, Network, box_constraints, norm_cost, state_signal
from rmpc_ros.network.report import conservatism_report, privacy_report
from rmpc_ros.network.simulate import check_by_simulation
from rmpc_ros.studies.network_toy import shape_named

CORNERS = np.array(list(product([-1.0, 1.0], repeat=2)))


# -- the two-agent example --------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("design", "shape", "degrees", "value"),
    [
        ("centralised", "box", 0.0, -1.6333333),
        ("nested", "box", 0.0, -1.24),
        ("local", "box", 0.0, 7.1333333),
        ("local", "rhombus", 0.0, 11.10),
        ("local", "rectangle", 0.0, 5.30),
        ("local", "rectangle", -15.0, 0.795919),
        ("local", "circle", 0.0, 8.650426),
    ],
)
def test_two_agent_example_has_the_exact_values(design: str, shape: str, degrees: float, value: float) -> None:
    chosen = shape_named(shape, degrees, 1.5)
    assert design_network(toy.toy_network(), design, chosen).objective == pytest.approx(value, abs=2e-6)


def test_flexible_set_reaches_the_nested_value_on_a_depth_one_network() -> None:
    network = toy.toy_network()
    assert network.graph.is_bipartite_of_depth_one()
    flexible = design_flexible(network)
    assert flexible.design.objective == pytest.approx(design_network(network, "nested").objective, abs=1e-7)
    assert all(b <= a + 1e-7 for a, b in pairwise(flexible.objectives))


def oracle_local_toy(shape: str, degrees: float, ratio: float) -> float:
    """The same problem through cvxpy, with all constraints written out at the corners of xi1, xi2 and of the set."""
    c = np.array([1.0, -1.0])
    turn = primitive.rotation(degrees)
    v1, V1, v2, V2, W2 = cp.Variable(1), cp.Variable((1, 2)), cp.Variable(1), cp.Variable((1, 2)), cp.Variable((1, 2))
    z, J1, J2 = cp.Variable(2), cp.Variable(), cp.Variable()
    constraints: list[cp.Constraint] = []
    scales = cp.Variable(2, nonneg=True) if shape == "rectangle" else cp.Variable(1, nonneg=True)
    y = cp.hstack([scales[0], scales[-1]])
    stretch = np.diag([ratio, 1.0]) if shape == "ellipse" else np.eye(2)
    for xi in CORNERS:
        u = v1 + V1 @ xi
        x = toy.B @ u + toy.E @ xi
        inner = np.linalg.inv(turn @ stretch) @ (x - z)
        constraints += [cp.abs(x) <= 8, cp.abs(u) <= 4, c @ x <= J1]
        if shape in ("box", "rectangle"):
            constraints.append(cp.abs(inner) <= y)
        else:
            constraints.append(cp.norm(inner, 1 if shape == "rhombus" else 2) <= y[0])
    worst = cp.sum(cp.abs(V2))
    spread = toy.B @ V2 + toy.E
    rows = cp.sum(cp.abs(spread), axis=1)
    cost_row = cp.sum(cp.abs(c @ spread))
    slope = toy.B @ W2 + toy.D @ turn @ stretch @ cp.diag(y)
    if shape == "ellipse":
        middle = toy.B @ v2 + toy.D @ z
        for k in range(2):
            constraints.append(cp.abs(middle[k]) + cp.norm(slope[k], 2) + rows[k] <= 8)
        constraints.append(cp.abs(v2[0]) + cp.norm(W2[0], 2) + worst <= 4)
        constraints.append(c @ middle + cp.norm(c @ slope, 2) + cost_row <= J2)
    corners = np.vstack([np.eye(2), -np.eye(2)]) if shape == "rhombus" else CORNERS
    for s in corners if shape != "ellipse" else []:
        u = v2 + W2 @ s
        x = toy.B @ v2 + toy.D @ z + slope @ s
        constraints += [cp.abs(x) + rows <= 8, cp.abs(u) + worst <= 4, c @ x + cost_row <= J2]
    problem = cp.Problem(cp.Minimize(J1 + J2), constraints)
    problem.solve(solver=cp.CLARABEL)
    return float(problem.value) if problem.status == "optimal" else np.inf


@pytest.mark.parametrize("degrees", [-60.0, 20.0, 45.0, 75.0])
@pytest.mark.parametrize("shape", ["box", "rectangle", "rhombus", "ellipse"])
def test_rotated_shapes_agree_with_an_independent_formulation(shape: str, degrees: float) -> None:
    chosen = {
        "box": primitive.Shape("box", primitive.rotation(degrees), ((0, 1),)),
        "rectangle": primitive.rectangle(degrees),
        "rhombus": primitive.Shape("rhombus", primitive.rotation(degrees), ((0, 1),)),
        "ellipse": primitive.ellipse(3.0, degrees),
    }[shape]
    expected = oracle_local_toy(shape, degrees, 3.0)
    if not np.isfinite(expected):
        with pytest.raises(InfeasibleError):
            design_network(toy.toy_network(), "local", chosen)
        return
    assert design_network(toy.toy_network(), "local", chosen).objective == pytest.approx(expected, abs=1e-5)


def test_polygon_with_many_corners_approaches_the_circle() -> None:
    circle = design_network(toy.toy_network(), "local", primitive.ball(2)).objective
    polygon = design_network(toy.toy_network(), "local", primitive.regular_polygon(64)).objective
    assert polygon == pytest.approx(circle, rel=5e-3)


# -- the spring chain -------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("M", "epigraph", "centralised", "local"),
    [(2, "constant", 37.8053, 38.7961), (4, "constant", 73.2547, 78.3315), (2, "affine", 33.6711, 34.4421)],
)
def test_spring_chain_has_the_reference_values(M: int, epigraph: str, centralised: float, local: float) -> None:
    network = spring_network(topology("chain", M))
    assert design_network(network, "centralised", epigraph=epigraph).objective == pytest.approx(centralised, abs=1e-3)
    assert design_network(network, "local", epigraph=epigraph).objective == pytest.approx(local, abs=1e-3)


def test_unit_disturbance_is_infeasible_at_the_long_horizon() -> None:
    with pytest.raises(InfeasibleError):
        design_network(spring_network(topology("chain", 2), e=1.0), "local")


def one_way(T: int = 4, seed: int = 0, arcs: tuple[tuple[int, int], ...] = ((0, 1), (1, 2))) -> Network:
    """Three stable two-state agents along directed arcs."""
    rng = np.random.default_rng(seed)
    graph = Graph(3, arcs)
    agents = []
    for i in range(3):
        agents.append(
            Agent(
                f"a{i}",
                A=np.array([[0.9, 0.3], [0.0, 0.8]]),
                D=np.array([[0.2], [1.0]]),
                E=0.3 * np.eye(2),
                x0=rng.uniform(-1, 1, 2),
                disturbance=Disturbance.box([-1, -1], [1, 1]),
                couplings=tuple(Coupling(j, "x", rng.uniform(-0.4, 0.4, (2, 2))) for j in graph.neighbours(i)),
                signals=(state_signal(2),),
                constraints=box_constraints(2, 1, 5.0, 3.0),
                costs=(norm_cost(x=np.eye(2)), norm_cost(u=0.2 * np.eye(1))),
            )
        )
    return Network(tuple(agents), T)


@pytest.mark.parametrize("epigraph", ["constant", "affine"])
def test_more_information_never_costs_more(epigraph: str) -> None:
    for seed in range(3):
        network = one_way(seed=seed)
        values = [design_network(network, s, epigraph=epigraph).objective for s in ("centralised", "nested", "local")]
        assert values[0] <= values[1] + 1e-7
        assert values[1] <= values[2] + 1e-7


def test_flexible_sets_close_the_gap_to_nested_on_a_two_layer_network_over_time() -> None:
    network = one_way(T=3, arcs=((0, 1), (0, 2)))
    nested = design_network(network, "nested").objective
    flexible = design_flexible(network, rounds=3)
    assert flexible.start is not None
    assert nested - 1e-6 <= flexible.design.objective <= flexible.start + 1e-7
    assert check_by_simulation(flexible.design, 20, 0).gauge <= 1 + 1e-5


@pytest.mark.parametrize("structure", ["centralised", "nested", "local"])
def test_simulated_network_keeps_limits_promises_and_cost(structure: str) -> None:
    for network in (spring_network(topology("chain", 3), T=6), one_way()):
        check = check_by_simulation(design_network(network, structure), 40, 1)
        assert check.violation <= 1e-6
        assert check.gauge <= 1 + 1e-6
        assert check.cost_excess <= 1e-6


@pytest.mark.parametrize(
    "shape",
    [
        primitive.rhombus(2),
        primitive.ball(2),
        primitive.rotated_box(primitive.rotation(30)),
        primitive.regular_polygon(6),
        primitive.box(2, shared_in_time=True),
        primitive.square(2),
    ],
)
def test_every_shape_holds_its_promises_in_simulation(shape: primitive.Shape) -> None:
    network = one_way(T=3, seed=1)
    design = design_network(network, "local", shape)
    check = check_by_simulation(design, 30, 0)
    assert check.violation <= 1e-5
    assert check.gauge <= 1 + 1e-4
    assert design.objective >= design_network(network, "nested").objective - 1e-6


def test_grouped_scales_never_beat_separate_ones() -> None:
    network = one_way(T=3)
    separate = design_network(network, "local", primitive.box(2)).objective
    assert separate <= design_network(network, "local", primitive.square(2)).objective + 1e-7
    assert separate <= design_network(network, "local", primitive.box(2, shared_in_time=True)).objective + 1e-7


def test_norms_and_squares_of_one_component_bound_the_same_cost() -> None:
    graph = topology("chain", 2)
    values = {p: design_network(spring_network(graph, T=4, p=p), "local").objective for p in (1.0, 2.0, np.inf)}
    assert values[2.0] == pytest.approx(values[1.0], rel=1e-5)  # Q x and R u have one entry each
    assert values[np.inf] == pytest.approx(values[1.0], rel=1e-5)


def test_reports_say_what_is_learned_and_what_sets_cost() -> None:
    network = spring_network(topology("chain", 3), T=5)
    local, central = design_network(network, "local"), design_network(network, "centralised")
    assert all(row["physical_neighbour"] for row in privacy_report(local))
    assert len(privacy_report(local)) == 4
    assert len(privacy_report(central)) == 6
    rows = conservatism_report(local)
    assert len(rows) == 4
    assert all(row["cost"] >= -1e-5 for row in rows)
    assert max(row["cost"] for row in rows) > 0.01


def test_wrong_models_are_refused_with_the_reason() -> None:
    with pytest.raises(ConfigError, match="arc to itself"):
        Graph(2, ((0, 0),))
    with pytest.raises(ConfigError, match="coupling from agent number"):
        Network((toy.toy_network().agents[1], toy.toy_network().agents[1]), 1)
    with pytest.raises(ConfigError, match="known: centralised"):
        design_network(one_way(), "everybody")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="partition"):
        primitive.Shape("box", np.eye(2), ((0,),))


def test_precedents_follow_directed_paths() -> None:
    graph = Graph(5, ((0, 1), (1, 2), (4, 2), (2, 3)))
    assert graph.precedents(3) == (0, 1, 2, 4)
    assert graph.neighbours(2) == (1, 4)
    assert graph.followers(0) == (1,)
    for name in ("chain", "ring", "star", "mesh", "complete"):
        shape = topology(name, 6)
        colours = shape.colours()
        assert all(colours[a] != colours[b] for a, b in shape.arcs)
    assert max(topology("mesh", 20).colours()) == 1


def test_polytopes_by_their_vertices_agree_with_boxes_and_shrink_with_them() -> None:
    network = one_way(T=3)

    def with_hull(points: np.ndarray) -> Network:
        agents = tuple(replace(a, disturbance=Disturbance.hull(points)) for a in network.agents)
        return replace(network, agents=agents)

    corners = CORNERS.T
    for structure in ("centralised", "local"):
        boxed = design_network(network, structure).objective
        assert design_network(with_hull(corners), structure).objective == pytest.approx(boxed, abs=1e-6)
        triangle = design_network(with_hull(corners[:, :3]), structure)
        assert triangle.objective < boxed
        check = check_by_simulation(triangle, 20, 0)
        assert check.violation <= 1e-6
        assert check.gauge <= 1 + 1e-6
