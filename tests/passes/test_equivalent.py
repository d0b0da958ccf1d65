"""Passes that merge terms: the atoms they find, the splitting that follows, and Clarabel's solution."""

from collections.abc import Callable
from dataclasses import dataclass

import cvxpy as cp
import numpy as np
import pytest
import torch

import opteq_cvx as oc
from opteq_cvx import passes
from opteq_cvx.frontend import read

N = 6
EXACT = dict.fromkeys(("tol_gap_abs", "tol_gap_rel", "tol_feas"), 1e-11)
CLOSE = 1e-6

Made = tuple[cp.Expression, list[cp.Constraint]]

GRID = "reshape(x, (2, 3), order='C')"
DR = "Douglas–Rachford"


@dataclass(frozen=True)
class Case:
    """A penalty and constraints on x (N), beside a dense quadratic and a linear term, with the atoms expected."""

    text: str
    atoms: tuple[str, ...]
    splitting: str = "forward–backward"


CASES = (
    Case("[x >= 0, sum(x) == 1]", ("simplex",)),
    Case("[x >= 0, sum(x) == r]", ("simplex",)),
    Case("[x >= 0, 2 * sum(x) == r]", ("simplex",)),
    Case("[x >= 0, -sum(x) == -1]", ("simplex",)),
    Case("[x >= 0, np.ones((1, 6)) @ x == 1]", ("simplex",)),
    Case("[x >= 0, mean(x) == 1]", ("simplex",)),
    Case("[x >= 0, w @ x == r]", ("box_plane",)),
    Case("[x >= 0, x <= 0.4, sum(x) == 1]", ("box_plane",)),
    Case("[x >= -1, x <= 1, b @ x == 0.1]", ("box_plane",)),
    Case("[x >= 0, sum(x) <= r]", ("box_plane",)),
    Case("[x <= 1, x >= -1, w @ x >= r - 1]", ("box_plane",)),
    Case("[x >= 0, sum(x[:3]) == 1]", ("simplex", "nonneg")),
    Case("[x >= 0, sum(x[:3]) == 1, sum(x[3:]) == 2]", ("simplex", "simplex")),
    Case("[x >= 0, sum(x[::2]) == 1, x[1] + 2 * x[3] <= 1]", ("simplex", "box_plane", "nonneg")),
    Case("[reshape(x, (2, 3), order='C') >= 0, sum(reshape(x, (2, 3), order='C'), axis=0) == 1]", ("simplex",)),
    Case("[x >= 0, sum(x) == 1, x[0] + x[1] <= 0.3]", ("simplex", "nonpos"), "Douglas–Rachford"),
    Case("[x >= 0, sum(x) == 1, A @ x <= 1]", ("simplex", "nonpos"), "Douglas–Rachford"),
    Case(f"[x >= 0, sum({GRID}, axis=1) == r, sum({GRID}, axis=0) == 2 * r / 3]", ("transport",)),
    Case(f"[{GRID}.T @ np.ones(2) == w[:3], x >= 0, {GRID}[:1] @ np.ones(3) == w[3]]", ("transport",)),
    Case(f"[x >= 0, mean({GRID}, axis=1) == r, sum({GRID}, axis=0)[1:] == r / 3]", ("transport",)),
    Case(
        f"[x >= 0, *(sum({GRID}[i]) == r for i in range(2)), *(sum({GRID}[:, j]) == 2 * r / 3 for j in range(3))]",
        ("transport",),
    ),
    Case(f"[x >= 0, 2 * sum({GRID}[0]) == 3, sum({GRID}[1]) == r, sum({GRID}, axis=0)[1:] == 0.5]", ("transport",)),
    Case(f"[x >= 0, x <= 1, sum({GRID}, axis=1) == 1.5, sum({GRID}, axis=0) == 1]", ("transport",)),
    Case(f"[x >= 0, x <= 0.9, sum({GRID}, axis=1) == 1.5, sum({GRID}, axis=0) == 1]", ("box_plane", "zero"), DR),
    Case(f"[x >= 0, x <= 2, sum({GRID}, axis=1) == r, sum({GRID}, axis=0)[0] == r]", ("box_plane", "zero"), DR),
    Case(f"[x >= -1, sum({GRID}, axis=1) == 1.5, sum({GRID}, axis=0) == 1]", ("box_plane", "zero"), DR),
    Case(f"[x >= 0, x <= 2, sum({GRID}, axis=1) == r, sum({GRID}, axis=0) == 2 * r / 3]", ("box_plane", "zero"), DR),
    Case(f"[x[:4] >= 0, sum({GRID}, axis=1) == 1.5, sum({GRID}, axis=0) == 1]", ("nonneg", "zero", "zero"), DR),
    Case(
        "[x >= 0, sum(x[:3]) == 1, sum(x[3:]) == 2, x[0] + x[1] == 0.7, x[2] + x[3] == 1, x[4] + x[5] == 1.3]",
        ("simplex", "simplex", "zero", "zero", "zero"),
        DR,
    ),
    Case("[x[:4] >= 0, sum(x) == 1]", ("nonneg", "zero"), "forward–backward, after elimination"),
    Case("[x >= 0, w[:3] @ multiply(w, x)[:3] == r]", ("nonneg", "zero"), DR),
    Case("[x >= 0, sum(cumsum(x)[:3]) == 1]", ("box_plane", "nonneg")),
    Case("[x >= 0, np.zeros((1, 6)) @ x == 0]", ("nonneg", "zero"), DR),
    Case("[x >= 0, np.array([[1.0, 1, 0, 0, 0, 0], [1, 0, 1, 1, 0, 0]]) @ x == 1]", ("nonneg", "zero"), DR),
    Case("lam * tv(x)", ("tv",)),
    Case("norm1(diff(x)[:3]) + 0.5 * norm1(diff(x)[4:])", ("tv", "tv")),
    Case("w[:5] @ abs(diff(x))", ("tv",)),
    Case("2 * abs(x[5] - x[2]) + abs(x[0] - x[5])", ("abs", "abs"), "Douglas–Rachford"),
    Case("norm1(hstack([x[5] - x[2], x[0] - x[5]]))", ("tv",)),
    Case("norm1(hstack([x[0] - x[1], x[1] - x[2], x[2] - x[0]]))", ("abs",), "Douglas–Rachford"),
    Case("norm1(hstack([x[0] - x[1], x[2] - x[0], x[0] - x[3]]))", ("abs",), DR),
    Case("norm1(x[1:3] - 2 * x[:2])", ("abs",), DR),
    Case("norm1(diff(x, 2))", ("abs",), "Douglas–Rachford"),
    Case("lam * tv(x) + 0.2 * norm1(x)", ("fused_lasso",)),
    Case("tv(x) + w @ abs(x)", ("abs", "abs"), "Douglas–Rachford"),
    Case("tv(x) + norm1(multiply(b, x))", ("abs", "abs"), DR),
    Case("tv(x) + norm1(x - 1)", ("abs", "abs"), DR),
    Case("norm1(hstack([x[0] - x[1], 3 * (x[1] - x[2])])) + lam * norm1(x[:3])", ("fused_lasso",)),
    Case("[diff(x) >= 0]", ("monotone",)),
    Case("[diff(x) <= 0]", ("monotone",)),
    Case("[x[2] <= x[0], x[3:5] >= x[4:]]", ("monotone", "monotone")),
    Case("[hstack([x[1] - x[0], x[2] - x[0]]) >= 0]", ("nonneg",), DR),
    Case("[hstack([x[1] - x[0], x[1] - x[2]]) >= 0]", ("nonneg",), DR),
    Case("[hstack([x[1] - x[0], x[2] - x[1], x[0] - x[2]]) >= 0]", ("nonneg",), DR),
    Case("[diff(x) >= 0, x >= -1]", ("nonneg", "box"), "Douglas–Rachford"),
    Case("dotsort(abs(x), w)", ("sorted_l1",)),
    Case("dotsort(x, b)", ("dotsort",)),
    Case("sum(scalene(x - b, 0.3, 1.2))", ("hinges",)),
    Case("lam * norm1(x) + sum(pos(x - b)) + sum(pos(-2 * x[::-1] - 1))", ("hinges",)),
    Case("norm1(x - b) + norm1(x + b) + w @ pos(x)", ("hinges",)),
    Case("norm1(x - b) + norm1(multiply(w, x))", ("abs", "abs"), DR),
    Case("sum(pos(x - b)) + sum(pos(x + 1))", ("hinges",)),
    Case("abs(x[0]) + pos(x[0] + r)", ("hinges",)),
    Case("sum(maximum(0.7 * (x - b), -0.3 * (x - b)))", ("pos",)),
    Case("sum(maximum(x, b)) + sum(maximum(b, -x))", ("hinges",)),
    Case("sum(maximum(x, -2 * x, b))", ("max",), "Douglas–Rachford"),
    Case("-sum(minimum(x, b))", ("pos",)),
    Case("mixed_norm(reshape(x, (2, 3), order='C'), 2, 1)", ("norm2",)),
    Case("mixed_norm(reshape(x, (2, 3), order='C'), 'inf', 1)", ("norm_inf",)),
    Case("norm2(x[:4]) + 2 * norm2(x[2:])", ("norm2", "norm2"), "Douglas–Rachford"),
    Case("ptp(x)", ("max", "max"), "Douglas–Rachford"),
    Case("cvar(x, 0.5)", ("sum_largest",)),
    Case("(lam * norm1(x[:2]), [x[3:5] >= 0, x[5] <= 0])", ("abs", "nonneg", "nonpos")),
    Case("(lam * norm1(x[:3]), [x[:3] >= -r, x[:3] <= w[:3], x[4:] >= 0])", ("abs", "box", "nonneg")),
    Case("(lam * norm(x[:3]), [x[3:5] >= -r, x[4:] <= w[4:]])", ("norm2", "box")),
    Case("(lam * norm1(x[:4]), [x[2:4] <= w[:2], x[3:] >= -1])", ("abs", "box"), "Douglas–Rachford"),
    Case("(lam * norm1(x), [x[3:5] >= 0, x[5] <= 0])", ("abs", "box")),
    Case("(w @ abs(x) + sum(pos(x)), [x >= 0])", ("nonneg",)),
    Case("(lam * norm1(x), [x >= r])", ("abs", "box")),
    Case("(0, [x >= -r, x >= b])", ("box",)),
    Case("(0, [x <= r, x <= b, x >= -3])", ("box",)),
)


def declared(case: Case) -> tuple[cp.Problem, cp.Variable, list[cp.Parameter]]:
    """The problem, its variable and its inputs c, b, w, lam, r with values."""
    rng = np.random.default_rng(1)
    x, A = cp.Variable(N, name="x"), rng.normal(size=(3, N))
    inputs = {"c": (N,), "b": (N,), "w": (N,), "lam": (), "r": ()}
    made = {k: cp.Parameter(s, name=k, nonneg=k in ("w", "lam", "r")) for k, s in inputs.items()}
    for k, p in made.items():
        p.value = rng.uniform(0.3, 1.5, p.shape) if k in ("w", "lam", "r") else rng.normal(size=p.shape)
    written = eval(case.text, {**vars(cp), "np": np, "x": x, "A": A, **made})
    penalty, constraints = (0.0, written) if isinstance(written, list) else (written, [])
    penalty, constraints = written if isinstance(written, tuple) else (penalty, constraints)
    half = rng.normal(size=(N, N))
    cost = 0.5 * cp.quad_form(x, half @ half.T + 0.3 * np.eye(N)) + made["c"] @ x + penalty
    problem = cp.Problem(cp.Minimize(cost), constraints)
    return problem, x, [p for p in made.values() if any(p is q for q in problem.parameters())]


@pytest.mark.filterwarnings("ignore:You are solving a parameterized problem that is not DPP")  # about Clarabel's speed
@pytest.mark.parametrize("case", CASES, ids=lambda c: c.text)
def test_the_merged_program_has_clarabels_solution(case: Case) -> None:
    problem, x, inputs = declared(case)
    program = read(problem, inputs).program
    after = passes.run(program)
    assert tuple(t.atom for t in after.terms if t.atom not in ("linear", "quad_form")) == case.atoms
    layer = oc.compile(problem, inputs, [x], tolerance=1e-9)
    assert layer.plan.name == case.splitting
    values = [torch.as_tensor(np.asarray(p.value)) for p in inputs]
    solution = layer.solve(*values)
    assert solution.status.all_converged
    problem.solve(solver=cp.CLARABEL, **EXACT)
    np.testing.assert_allclose(solution.values[0].detach().numpy(), x.value, rtol=0, atol=CLOSE)
    np.testing.assert_allclose(float(solution.objective), problem.value, rtol=CLOSE, atol=CLOSE)


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.text)
def test_constraints_keep_their_terms_and_the_passes_are_idempotent(case: Case) -> None:
    problem, _, inputs = declared(case)
    program = read(problem, inputs).program
    after = passes.run(program)
    assert len(after.constraints) == len(program.constraints)
    for before, now in zip(program.constraints, after.constraints, strict=True):
        assert bool(before.terms) == bool(now.terms)
        assert all(0 <= i < len(after.terms) for i in now.terms)
    again = passes.run(after)
    assert [t.atom for t in again.terms] == [t.atom for t in after.terms]


@pytest.mark.parametrize("seed", range(3))
def test_a_batch_of_portfolios_is_a_loop(seed: int) -> None:
    rng = np.random.default_rng(seed)
    mu, x = cp.Parameter(5, name="mu"), cp.Variable(5, name="x")
    problem = cp.Problem(cp.Minimize(cp.sum_squares(x) - mu @ x), [x >= 0, x <= 0.4, cp.sum(x) == 1])
    layer: Callable[..., tuple[torch.Tensor, ...]] = oc.compile(problem, [mu], tolerance=1e-9)
    many = torch.as_tensor(rng.normal(size=(7, 5)))
    (together,) = layer(many)
    for i in range(7):
        torch.testing.assert_close(together[i], layer(many[i])[0], rtol=1e-8, atol=1e-8)
