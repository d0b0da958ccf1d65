"""The exact solver against closed forms, and its refusal to believe what CVXPY believes."""

import cvxpy as cp
import numpy as np
import pytest

from opteq_cvx.verify.answer import ExactStatus
from opteq_cvx.verify.convexity import doubts
from opteq_cvx.verify.exact import solve_exact

ROUNDING = 1e-11  # polished solutions are good to rounding of the linear systems behind them


def _rng() -> np.random.Generator:
    return np.random.default_rng(0)


def test_least_squares_is_the_normal_equations() -> None:
    A, b = _rng().normal(size=(9, 5)), _rng().normal(size=9)
    x = cp.Variable(5)
    found = solve_exact(cp.Problem(cp.Minimize(cp.sum_squares(A @ x - b))), [x, 2 * x + 1])
    truth = np.linalg.lstsq(A, b)[0]
    assert found.status is ExactStatus.OPTIMAL
    np.testing.assert_allclose(found.outputs[0], truth, atol=ROUNDING)
    np.testing.assert_allclose(found.outputs[1], 2 * truth + 1, atol=ROUNDING)
    assert found.objective == pytest.approx(np.sum((A @ truth - b) ** 2), abs=ROUNDING)


def test_a_point_right_at_a_kink_is_exact() -> None:
    """Clarabel alone is off by about 1e-5 there: the threshold equals the entry."""
    v = np.array([1.0, 1.0 + 1e-7, 1.0 - 1e-7, -1.0, 3.0])
    x = cp.Variable(5)
    problem = cp.Problem(cp.Minimize(0.5 * cp.sum_squares(x - v) + cp.norm1(x)))
    truth = np.sign(v) * np.maximum(np.abs(v) - 1.0, 0.0)
    raw, polished = (solve_exact(problem, [x], polished=p) for p in (False, True))
    np.testing.assert_allclose(polished.outputs[0], truth, atol=1e-13)
    assert np.abs(raw.outputs[0] - truth).max() > 1e-10, "the polish has nothing to do: test something harder"


def _cone_problems() -> dict[str, cp.Problem]:
    rng = _rng()
    A, b, c = rng.normal(size=(8, 4)), rng.normal(size=8), rng.normal(size=4)
    C = rng.normal(size=(4, 4))
    x, X = cp.Variable(4), cp.Variable((4, 4), PSD=True)
    return {
        "lp": cp.Problem(cp.Minimize(c @ x), [x >= 0, cp.sum(x) == 1]),
        "qp": cp.Problem(cp.Minimize(cp.sum_squares(A @ x - b) + cp.norm1(x)), [x >= -0.1]),
        "soc": cp.Problem(cp.Minimize(cp.norm2(A @ x - b) + cp.norm2(x))),
        "sdp": cp.Problem(cp.Minimize(cp.sum_squares(X - C - C.T))),
        "spectral": cp.Problem(cp.Minimize(cp.trace((C + C.T) @ X)), [cp.trace(X) == 1]),
        "exponential": cp.Problem(cp.Minimize(cp.log_sum_exp(A @ x - b) + 0.1 * cp.sum_squares(x))),
        "entropy": cp.Problem(cp.Maximize(cp.sum(cp.entr(x)) + c @ x), [cp.sum(x) == 1]),
        "logdet": cp.Problem(cp.Minimize(cp.trace((C @ C.T + np.eye(4)) @ X) - cp.log_det(X))),
        "power": cp.Problem(cp.Minimize(cp.pnorm(A @ x - b, 3))),
    }


@pytest.mark.parametrize("name", list(_cone_problems()))
def test_every_cone_is_polished_and_agrees_with_cvxpy(name: str) -> None:
    problem = _cone_problems()[name]
    found = solve_exact(problem, problem.variables())
    assert found.status is ExactStatus.OPTIMAL
    assert found.polished
    assert found.residual < 1e-14
    problem.solve(solver=cp.CLARABEL)
    assert found.objective == pytest.approx(problem.value, rel=1e-6, abs=1e-6)
    for ours, theirs in zip(found.outputs, problem.variables(), strict=True):
        np.testing.assert_allclose(ours, theirs.value, atol=1e-3)


def test_entropy_is_softmax() -> None:
    c = _rng().normal(size=6)
    x = cp.Variable(6)
    found = solve_exact(cp.Problem(cp.Maximize(cp.sum(cp.entr(x)) + c @ x), [cp.sum(x) == 1]), [x])
    np.testing.assert_allclose(found.outputs[0], np.exp(c) / np.exp(c).sum(), atol=ROUNDING)
    assert found.objective == pytest.approx(np.log(np.exp(c).sum()), abs=ROUNDING)


@pytest.mark.parametrize("sense", [cp.Minimize, cp.Maximize])
def test_duals_are_cvxpys(sense: type[cp.Minimize]) -> None:
    c = _rng().normal(size=4)
    x = cp.Variable(4)
    cost = cp.sum_squares(x - c)
    problem = cp.Problem(sense(cost if sense is cp.Minimize else -cost), [x <= 0.4, cp.sum(x) == 1])
    found = solve_exact(problem, [x])
    problem.solve(solver=cp.CLARABEL)
    for ours, constraint in zip(found.duals, problem.constraints, strict=True):
        np.testing.assert_allclose(ours[0], constraint.dual_value, atol=1e-5)


def test_an_indefinite_psd_wrap_is_refused_although_cvxpy_solves_it() -> None:
    W = cp.Parameter((3, 3), name="W", value=2.0 * np.eye(3))
    u = cp.Variable(3)
    wrapped = cp.quad_form(u, cp.psd_wrap(np.eye(3) - W @ W.T))
    problem = cp.Problem(cp.Minimize(wrapped + cp.sum(u)), [u >= -1, u <= 1])
    problem.solve(solver=cp.CLARABEL, ignore_dpp=True)
    assert problem.status == "optimal", "CVXPY no longer believes psd_wrap: simplify verify.convexity"
    found = solve_exact(problem, [u])
    assert found.status is ExactStatus.NOT_CONVEX
    assert "psd_wrap" in found.note
    assert solve_exact(problem, [u], {W: 0.5 * np.eye(3)}).status is ExactStatus.OPTIMAL


def test_a_matrix_on_the_boundary_is_convex() -> None:
    q = np.linalg.qr(_rng().normal(size=(5, 5)))[0]
    u = cp.Variable(5, nonneg=True)
    problem = cp.Problem(cp.Minimize(cp.quad_form(u, cp.psd_wrap(np.eye(5) - q @ q.T)) + cp.sum(u)))
    assert doubts(problem) == ()
    assert solve_exact(problem, [u]).status is ExactStatus.OPTIMAL


@pytest.mark.parametrize(
    ("wrap", "value"),
    [
        ("psd_wrap", np.diag([1.0, -1.0])),
        ("nsd_wrap", np.diag([1.0, -1.0])),
        ("nonneg_wrap", np.array([1.0, -1.0])),
        ("nonpos_wrap", np.array([1.0, -1.0])),
        ("symmetric_wrap", np.array([[1.0, 2.0], [0.0, 1.0]])),
        ("skew_symmetric_wrap", np.eye(2)),
    ],
)
def test_every_wrap_is_checked(wrap: str, value: np.ndarray) -> None:
    from cvxpy.atoms.affine import wraps

    p = cp.Parameter(value.shape, value=value)
    x = cp.Variable(value.shape)
    problem = cp.Problem(cp.Minimize(cp.sum_squares(x - vars(wraps)[wrap](p))))
    assert solve_exact(problem, [x]).status is ExactStatus.NOT_CONVEX
    p.value = np.zeros(value.shape)
    assert solve_exact(problem, [x]).status is ExactStatus.OPTIMAL


def test_infeasible_and_unbounded_are_said() -> None:
    x = cp.Variable(2)
    assert (
        solve_exact(cp.Problem(cp.Minimize(cp.sum(x)), [x >= 0, cp.sum(x) == -1]), [x]).status is ExactStatus.INFEASIBLE
    )
    assert solve_exact(cp.Problem(cp.Minimize(cp.sum(x))), [x]).status is ExactStatus.UNBOUNDED
    assert solve_exact(cp.Problem(cp.Minimize(-cp.sum_squares(x))), [x]).status is ExactStatus.FAILED


def test_the_users_objects_are_left_as_they_were() -> None:
    p = cp.Parameter(3, value=np.ones(3))
    x = cp.Variable(3)
    constraint = x <= 2
    problem = cp.Problem(cp.Minimize(cp.sum_squares(x - p)), [constraint])
    problem.solve(solver=cp.CLARABEL)
    before = problem.value, x.value.copy(), constraint.dual_value.copy()
    found = solve_exact(problem, [x], {p: np.full(3, 5.0)})
    np.testing.assert_allclose(found.outputs[0], 2.0, atol=ROUNDING)
    assert problem.value == before[0]
    np.testing.assert_array_equal(x.value, before[1])
    np.testing.assert_array_equal(constraint.dual_value, before[2])
    np.testing.assert_array_equal(p.value, np.ones(3))


@pytest.mark.parametrize(
    ("attributes", "good", "bad"),
    [
        ({"nonneg": True}, np.full((2, 2), 1.0), np.full((2, 2), -1.0)),
        ({"symmetric": True}, np.array([[1.0, 2.0], [2.0 + 1e-8, 1.0]]), np.array([[1.0, 2.0], [0.0, 1.0]])),
        ({"PSD": True}, np.diag([1.0, -1e-9]), np.diag([1.0, -1.0])),
        ({"diag": True}, np.diag([1.0, 2.0]), np.ones((2, 2))),
        ({"sparsity": ([0, 1], [1, 1])}, np.array([[0.0, 2.0], [0.0, 3.0]]), np.ones((2, 2))),
        ({"bounds": [0.0, 1.0]}, np.full((2, 2), 1.0 + 1e-9), np.full((2, 2), 2.0)),
        ({"symmetric": True, "nonneg": True}, np.ones((2, 2)), -np.ones((2, 2))),
        ({"symmetric": True, "nonpos": True}, np.array([[0.0, -1.0], [-1.0, -2.0]]), np.ones((2, 2))),
        ({"bounds": [-1.0, 1.0], "nonneg": True}, np.array([[0.0, 1.0], [-1e-9, 0.5]]), np.full((2, 2), -0.5)),
    ],
    ids=str,
)
def test_values_are_rounded_onto_their_attribute_and_no_further(
    attributes: dict[str, object], good: np.ndarray, bad: np.ndarray
) -> None:
    p = cp.Parameter((2, 2), **attributes)
    x = cp.Variable((2, 2))
    problem = cp.Problem(cp.Minimize(cp.sum_squares(x - p)))
    found = solve_exact(problem, [x], {p: good})
    assert found.status is ExactStatus.OPTIMAL
    np.testing.assert_allclose(found.outputs[0], good, atol=1e-7)
    assert p._value is None
    assert solve_exact(problem, [x], {p: bad}).status is ExactStatus.INVALID
    assert solve_exact(problem, [x], {p: np.full((2, 2), np.nan)}).status is ExactStatus.INVALID


def test_a_product_of_parameters_needs_no_dpp() -> None:
    A, b = cp.Parameter((3, 3)), cp.Parameter(3)
    x = cp.Variable(3)
    problem = cp.Problem(cp.Minimize(cp.sum_squares(x - A @ A @ b)))
    values = {A: _rng().normal(size=(3, 3)), b: _rng().normal(size=3)}
    assert not problem.is_dcp(dpp=True)
    found = solve_exact(problem, [x], values)
    np.testing.assert_allclose(found.outputs[0], values[A] @ values[A] @ values[b], atol=ROUNDING)
