"""Games that are one convex program in a metric: each player against Clarabel at the others' answers, with duals."""

from typing import Any

import cvxpy as cp
import numpy as np
import pytest
import torch

import opteq_cvx as oc
from opteq_cvx.errors import CompileError, NotConvexError
from opteq_cvx.ties.equilibrium import Verdict

EXACT = dict.fromkeys(("tol_gap_abs", "tol_gap_rel", "tol_feas"), 1e-11)
RNG = np.random.default_rng(8)
A = RNG.normal(size=(3, 2)) / 4
E, ROOT, G = RNG.normal(size=2), RNG.normal(size=(2, 2)), RNG.normal(size=(4, 2))
NAMES: dict[str, Any] = vars(cp) | {"np": np, "e": E, "P": ROOT @ ROOT.T + np.eye(2), "G": G}

SECOND = (
    # (the second player's own cost, its constraints)
    ("sum_squares(v - e)", ""),
    ("quad_form(v - e, P)", ""),
    ("3 * quad_form(v - e, P) + x[:2] @ v", ""),
    ("sum(multiply([1, 2], square(v - e)))", "v >= 0.1"),
    ("sum_squares(v) + norm1(v - x[:2])", "sum(v) == 0.2"),
    ("sum_squares(v) + 2 * huber(v[0]) - v[1]", "G @ v <= 0.3"),
    ("sum_squares(v) + sum(v)", "SOC(0.4, v)"),
    ("sum_squares(v - 1) + quad_over_lin(v, 2)", "v <= 0.5, v[0] + v[1] == 0.7"),
)

pytestmark = pytest.mark.filterwarnings("ignore:Solution may be inaccurate")


def players(cost: str, constraints: str, scale: float) -> tuple[list[cp.Problem], dict[cp.Parameter, cp.Variable], Any]:
    """Two players; `scale` multiplies the cost of the second, and so its influence, but not its answers."""
    x = oc.Input(3, name="x")
    u, v = cp.Variable(3, name="u"), cp.Variable(2, name="v")
    p, q = cp.Parameter(2, name="p"), cp.Parameter(3, name="q")
    names = NAMES | {"u": u, "v": v, "x": x}
    one = cp.Problem(cp.Minimize(0.5 * cp.sum_squares(u - 1) + (A @ p - x) @ u), [u >= 0, cp.sum(u) <= 2])
    own = eval(f"[{constraints}]", names)
    two = cp.Problem(cp.Minimize(scale * (eval(cost, names) + (A.T @ q) @ v)), own)
    return [one, two], {p: v, q: u}, (x, u, v, p, q)


@pytest.mark.parametrize("scale", [1.0, 4.0])
@pytest.mark.parametrize(("cost", "constraints"), SECOND)
def test_each_player_answers_the_other_exactly(cost: str, constraints: str, scale: float) -> None:
    problems, ties, (x, u, v, p, q) = players(cost, constraints, scale)
    layer = oc.compile(problems, ties=ties, outputs=[u, v], tolerance=1e-11).double()
    found = layer.plan.inclusion
    assert found is not None
    assert found.verdict is Verdict.VARIATIONAL
    np.testing.assert_allclose(found.scaling, [1.0, 1.0 / scale])
    value = np.random.default_rng(1).normal(size=3)
    solution = layer.solve(torch.as_tensor(value))
    assert solution.status.all_converged
    first, second = (t.detach().numpy() for t in solution.values)
    x.value, p.value, q.value = value, second, first
    for problem in problems:
        problem.solve(solver=cp.CLARABEL, ignore_dpp=True, **EXACT)
    np.testing.assert_allclose(first, u.value, atol=2e-6)
    np.testing.assert_allclose(second, v.value, atol=2e-6)
    every = [c for problem in problems for c in problem.constraints]
    for dual, constraint in zip(solution.duals, every, strict=True):
        parts = [dual] if isinstance(dual, torch.Tensor) else dual
        for part, expected in zip(parts, constraint.dual_variables, strict=True):
            answer = np.asarray(expected.value)
            np.testing.assert_allclose(part.detach().numpy(), answer.reshape(part.shape), atol=2e-5)


@pytest.mark.parametrize("favor", [1.0, 2.0])
def test_variables_that_a_term_joins_share_their_scaling(favor: float) -> None:
    """A player with two variables on one ball: the metric may favor the player, but not one of its variables."""
    x = oc.Input(2, name="x")
    u, v, w = (cp.Variable(2, name=n) for n in "uvw")
    p, q = cp.Parameter(2, name="p"), cp.Parameter(4, name="q")
    B = np.random.default_rng(2).normal(size=(2, 4)) / 4
    one = cp.Problem(cp.Minimize(0.5 * cp.sum_squares(u - x) + (B @ q) @ u))
    both = cp.hstack([v, w])
    tilt = 2 * (B[:, :2].T @ p) @ v + 2 * favor * (B[:, 2:].T @ p) @ w
    two = cp.Problem(cp.Minimize(2 * cp.sum_squares(both) + tilt + cp.sum(w)), [cp.norm(both) <= 0.3])
    layer = oc.compile([one, two], ties={p: u, q: both}, outputs=[u, v, w], tolerance=1e-11).double()
    found = layer.plan.inclusion
    assert found is not None
    assert found.verdict is (Verdict.VARIATIONAL if favor == 1.0 else Verdict.MONOTONE)
    if favor == 1.0:
        np.testing.assert_allclose(found.scaling, [1.0, 0.5, 0.5])
    solution = layer.solve(torch.tensor([0.4, -1.0], dtype=torch.float64))
    assert solution.status.all_converged
    answers = [t.detach().numpy() for t in solution.values]
    x.value, p.value, q.value = np.array([0.4, -1.0]), answers[0], np.concatenate(answers[1:])
    for problem in (one, two):
        problem.solve(solver=cp.CLARABEL, ignore_dpp=True, **EXACT)
    for at, variable in zip(answers, (u, v, w), strict=True):
        np.testing.assert_allclose(at, variable.value, atol=2e-6)


@pytest.mark.parametrize("last", [False, True])
def test_one_follows_and_the_other_does_not_care(last: bool) -> None:
    """A leader and a follower, in both orders: no metric makes a one-sided influence symmetric."""
    x = oc.Input(2, name="x")
    u, v, p = cp.Variable(2, name="u"), cp.Variable(2, name="v"), cp.Parameter(2, name="p")
    leader = cp.Problem(cp.Minimize(cp.sum_squares(u - x)), [u >= 0])
    follower = cp.Problem(cp.Minimize(cp.sum_squares(v) + (p - 1) @ v))
    programs = [follower, leader] if last else [leader, follower]
    layer = oc.compile(programs, ties={p: u}, outputs=[u, v], tolerance=1e-11).double()
    assert layer.plan.inclusion is not None
    assert layer.plan.inclusion.verdict is Verdict.MONOTONE
    first, second = (t.detach().numpy() for t in layer(torch.tensor([0.4, -1.0], dtype=torch.float64)))
    np.testing.assert_allclose(first, [0.4, 0.0], atol=1e-9)
    np.testing.assert_allclose(second, [0.3, 0.5], atol=1e-9)


def test_an_input_that_no_weight_could_be_counts_as_any_number() -> None:
    """Symmetry is decided at random parameters; a Boolean input is drawn as a real one."""
    x = oc.Input(2, name="x", boolean=True)
    u, z = cp.Variable(2, name="u"), cp.Parameter(2, name="z")
    problem = cp.Problem(cp.Minimize(cp.sum_squares(u) - (cp.multiply(x, z) + x) @ u))
    layer = oc.compile(problem, ties={z: u}, outputs=[u], tolerance=1e-11).double()
    assert layer.plan.inclusion is not None
    assert layer.plan.inclusion.verdict is Verdict.VARIATIONAL
    values = layer(torch.tensor([[1.0, 0.0], [1.0, 1.0]], dtype=torch.float64))[0]  # 2u = x∘u + x
    np.testing.assert_allclose(values.detach().numpy(), [[1.0, 0.0], [1.0, 1.0]], atol=1e-9)


def test_a_cycle_of_players_with_two_variables_each() -> None:
    """Rock, paper, scissors, one player's two variables on one ball: each answer is exact."""
    x = oc.Input(2, name="x")
    names = ("a", "b", "c")
    first, second = ([cp.Variable(2, name=f"{n}{i}") for n in names] for i in (0, 1))
    others = [cp.Parameter(2, name=f"o{n}") for n in names]
    problems = [
        cp.Problem(
            cp.Minimize(0.5 * cp.sum_squares(s - x) + 0.5 * cp.sum_squares(t) + (0.5 * o + k) @ (s + t)),
            [cp.norm(cp.hstack([s, t])) <= 1] if k == 0 else [s >= 0],
        )
        for k, (s, t, o) in enumerate(zip(first, second, others, strict=True))
    ]
    ties = {o: first[(k + 1) % 3] for k, o in enumerate(others)}
    layer = oc.compile(problems, ties=ties, outputs=[*first, *second], tolerance=1e-11).double()
    assert layer.plan.name == "Douglas–Rachford"
    value = torch.tensor([1.5, -0.5], dtype=torch.float64)
    solution = layer.solve(value)
    assert solution.status.all_converged
    found = [t.detach().numpy() for t in solution.values]
    x.value = value.numpy()
    for k, problem in enumerate(problems):
        others[k].value = found[(k + 1) % 3]
        problem.solve(solver=cp.CLARABEL, ignore_dpp=True, **EXACT)
        np.testing.assert_allclose(found[k], first[k].value, atol=2e-6)
        np.testing.assert_allclose(found[3 + k], second[k].value, atol=2e-6)


def test_two_tied_parameters_of_one_variable_add_up() -> None:
    """z = Mu and y = Nu + n in one program: 2u = Mu + 3(Nu + n) + x."""
    rng = np.random.default_rng(4)
    M, N, n = rng.normal(size=(3, 3)) / 6, rng.normal(size=(3, 3)) / 20, rng.normal(size=3)
    x, u = oc.Input(3, name="x"), cp.Variable(3, name="u")
    z, y = cp.Parameter(3, name="z"), cp.Parameter(3, name="y")
    problem = cp.Problem(cp.Minimize(cp.sum_squares(u) - (z + 3 * y + x) @ u))
    layer = oc.compile(problem, ties={z: M @ u, y: N @ u + n}, outputs=[u, z + y], tolerance=1e-11).double()
    value = rng.normal(size=3)
    found, tied = (t.detach().numpy() for t in layer(torch.as_tensor(value)))
    expected = np.linalg.solve(2 * np.eye(3) - M - 3 * N, 3 * n + value)
    np.testing.assert_allclose(found, expected, atol=1e-9)
    np.testing.assert_allclose(tied, (M + N) @ expected + n, atol=1e-9)


def test_ties_that_hold_tied_parameters() -> None:
    """z = u + y/2 and y = v − z/4, solved for both: what is no affine system is refused with the reason."""
    u, v = cp.Variable(2, name="u"), cp.Variable(2, name="v")
    z, y = cp.Parameter(2, name="z"), cp.Parameter(2, name="y")
    one = cp.Problem(cp.Minimize(2 * cp.sum_squares(u) - (z + 1) @ u))
    two = cp.Problem(cp.Minimize(2 * cp.sum_squares(v) + (y - 2) @ v))
    layer = oc.compile([one, two], ties={z: u + y / 2, y: v - z / 4}, outputs=[u, v, z, y], tolerance=1e-11).double()
    a, b, c, d = (float(t[0]) for t in layer())
    np.testing.assert_allclose([4 * a - c, 4 * b + d, c - a - d / 2, d - b + c / 4], [1.0, 2.0, 0.0, 0.0], atol=1e-9)
    with pytest.raises(CompileError, match=r"the tie of z multiplies a tied parameter by a variable"):
        oc.compile([one, two], ties={z: cp.multiply(y, u), y: v})
    with pytest.raises(CompileError, match=r"the tie of z .* not affine in it"):
        oc.compile([one, two], ties={z: u + cp.square(y), y: v})
    with pytest.raises(CompileError, match=r"the tie of 'z' holds 'z' itself 1 times"):
        oc.compile([one, two], ties={z: u + z, y: v})
    with pytest.raises(CompileError, match=r"output .* multiplies a tied parameter by a variable"):
        oc.compile([one, two], ties={z: u, y: v}, outputs=[cp.multiply(z, v)])
    squared = cp.Problem(cp.Minimize(cp.sum_squares(u - cp.square(z))))
    with pytest.raises(CompileError, match=r"z enters .* in a way that is not affine"):
        oc.compile([squared, two], ties={z: u, y: v})


def test_a_game_that_is_not_monotone_is_refused() -> None:
    """Both players want to be where the other is, and further out: F = [[1, −2], [−2, 1]] has the eigenvalue −1."""
    u, v = cp.Variable(2, name="u"), cp.Variable(2, name="v")
    p, q = cp.Parameter(2, name="p"), cp.Parameter(2, name="q")
    one = cp.Problem(cp.Minimize(0.5 * cp.sum_squares(u) - 2 * p @ u))
    two = cp.Problem(cp.Minimize(0.5 * cp.sum_squares(v) - 2 * q @ v))
    with pytest.raises(NotConvexError, match=r"margin .* is -1"):
        oc.compile([one, two], ties={p: v, q: u})
