"""Every way a solver can fail has its own name, and nothing inaccurate comes back as optimal."""

import highspy
import numpy as np
import piqp
import pytest
from scipy import sparse

from rmpc_ros.errors import IllScaledError, InfeasibleError, NumericalError, UnboundedError
from rmpc_ros.robust.uncertain_program import UncertainProgram
from rmpc_ros.sets.box import Box
from rmpc_ros.sets.ellipsoid import Ellipsoid
from rmpc_ros.solvers.qp import DenseQp, SparseQp

SOLVERS = {"piqp": "quadratic", "highs": "linear", "clarabel": "quadratic"}


def program(kind, limit=1.0):
    """One decision of two entries that reacts to two numbers."""
    p = UncertainProgram()
    w = p.uncertain("w", p.members("noise", Box([-0.1, -0.1], [0.1, 0.1])))
    u = p.decide("u", np.array([[0, 1], [2, 3]]), w)
    bound = p.parameter("bound", 2)
    p.forall(u + w <= bound, "room")
    p.forall(u >= -limit, "floor")
    p.minimise(p.nominal_squares(u - 3.0) if kind == "quadratic" else p.worst_one_norm(u - 3.0))
    return p


@pytest.mark.parametrize("solver", SOLVERS)
def test_numerically_failed_is_not_infeasible_unbounded_or_ill_scaled(solver, monkeypatch):
    compiled = program(SOLVERS[solver]).compile(solver=solver)
    good = compiled.solve(bound=[1.0, 1.0])
    if solver == "piqp":
        compiled.backend._qp._solver.settings.max_iter = 1
    elif solver == "highs":
        compiled.backend._lp.highs.clearSolver()
        compiled.backend._lp.highs.setOptionValue("simplex_iteration_limit", 0)
        compiled.backend._lp.highs.setOptionValue("presolve", "off")
    else:
        import clarabel

        failed = type("Failed", (), {"status": clarabel.SolverStatus.AlmostSolved, "x": [0.0], "z": [0.0]})
        monkeypatch.setattr(compiled.backend._program, "solve_raw", lambda: failed)
    with pytest.raises(NumericalError) as caught:
        compiled.solve(bound=[0.3, -0.4])
    assert type(caught.value) is NumericalError and caught.value.status
    assert not isinstance(caught.value, InfeasibleError | UnboundedError | IllScaledError)
    assert np.all(good.values[:2] <= 1.0)


def test_a_point_that_violates_its_rows_is_never_optimal(monkeypatch):
    compiled = program("quadratic").compile()
    compiled.solve(bound=[1.0, 1.0])
    monkeypatch.setattr(compiled.backend._qp, "solve_raw", lambda: piqp.PIQP_SOLVED)  # says so, and kept the old point
    with pytest.raises(NumericalError, match="violates a row") as caught:
        compiled.solve(bound=[0.3, -0.4])
    assert caught.value.status == "failed check" and caught.value.details["residual"] > 0.1


def test_a_point_with_nan_is_never_optimal():
    qp = SparseQp(sparse.eye_array(2, format="csc"), np.zeros(2), sparse.eye_array(2, format="csc"), *np.ones((2, 2)))

    class Answer:
        x = np.array([np.nan, 1.0])
        info = None

    qp._solver = type("Solver", (), {"result": Answer, "solve": lambda self: piqp.PIQP_SOLVED})()
    with pytest.raises(NumericalError):
        qp.solve()


def test_highs_reports_an_optimum_only_with_its_own_word(monkeypatch):
    compiled = program("linear").compile()
    compiled.solve(bound=[1.0, 1.0])
    lp = compiled.backend._lp
    monkeypatch.setattr(lp, "highs", _Stopped(lp.highs))
    with pytest.raises(NumericalError, match="HiGHS stopped"):
        compiled.solve(bound=[0.3, 0.4])


class _Stopped:
    """HiGHS that always ends with an unknown status."""

    def __init__(self, highs):
        self._highs = highs

    def __getattr__(self, name):
        return getattr(self._highs, name)

    def getModelStatus(self):
        return highspy.HighsModelStatus.kUnknown


def test_infeasible_and_unbounded_come_with_their_names_from_every_solver():
    for solver, kind in SOLVERS.items():
        compiled = program(kind, limit=-2.0).compile(solver=solver)
        with pytest.raises(InfeasibleError) as caught:
            compiled.solve(bound=[1.0, 1.0])
        assert {"room", "floor"} <= set(caught.value.details["constraints"])
    for solver in ("highs", "clarabel"):
        p = UncertainProgram()
        w = p.uncertain(
            "w", p.members("noise", Ellipsoid([0.0], [[1.0]], 1.0) if solver == "clarabel" else Box([0], [1]))
        )
        u = p.decide("u", np.array([[0]]), w)
        p.forall(u + w <= 1.0)
        p.minimise(p.economic(u))
        with pytest.raises(UnboundedError):
            p.compile(solver=solver).solve()


def test_unsorted_columns_and_doubled_places_give_the_same_optimum():
    rng = np.random.default_rng(0)
    n = 6
    root = rng.normal(size=(n, n))
    full = root @ root.T + np.eye(n)
    c, limit = rng.normal(size=n), np.full(n, 0.3)
    eye = np.eye(n)
    dense = DenseQp(full, eye[:0])
    dense.update(c, limit, -limit)
    wanted = dense.solve().v
    good = sparse.csc_matrix(full)
    order = np.concatenate([np.arange(good.indptr[k], good.indptr[k + 1])[::-1] for k in range(n)])
    unsorted = sparse.csc_matrix((good.data[order], good.indices[order], good.indptr), shape=(n, n))
    indptr = 2 * good.indptr
    doubled = sparse.csc_matrix((np.repeat(good.data, 2) / 2, np.repeat(good.indices, 2), indptr), shape=(n, n))
    for P in (good, unsorted, doubled):
        qp = SparseQp(P, c, sparse.csc_matrix(eye), -limit, limit)
        assert np.allclose(qp.solve().v, wanted, atol=1e-6)
    assert not unsorted.has_sorted_indices and doubled.nnz == 2 * good.nnz  # the caller's matrices are left alone
