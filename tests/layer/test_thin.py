"""Douglas–Rachford with a diagonal and few rows: against the dense factor and Clarabel; where the plan takes it."""

from collections.abc import Callable

import cvxpy as cp
import numpy as np
import pytest
import torch
from torch import Tensor

import opteq_cvx as oc
from opteq_cvx.maps.evaluate import Environment
from opteq_cvx.splitting.douglas_rachford import DouglasRachford
from opteq_cvx.splitting.jacobians import Jacobians
from opteq_cvx.splitting.matrices import Dense
from opteq_cvx.splitting.thin_douglas_rachford import ThinDouglasRachford
from opteq_cvx.splitting.thin_form import woodbury
from opteq_cvx.splitting.thin_matrices import ThinMatrices
from opteq_cvx.status import Status

N = 128
F64, CPU = torch.float64, torch.device("cpu")


def portfolio() -> cp.Problem:
    """A factor model with learned exposures, sector limits per sample, turnover: rows of P and of K, entries of K."""
    rng = np.random.default_rng(0)
    mu, limit, x = oc.Input(N, name="mu"), oc.Input(4, name="limit"), cp.Variable(N, name="x")
    f = oc.Weight((6, N), name="F", init=rng.normal(size=(6, N)) / 4)
    d, sectors = rng.uniform(0.3, 0.6, size=N), np.eye(4)[np.arange(N) % 4].T
    risk = cp.sum_squares(f @ x) + cp.sum_squares(cp.multiply(d, x))
    cost = risk - 0.05 * (mu @ x) + 0.002 * cp.norm1(x - 1 / N)
    return cp.Problem(cp.Minimize(cost), [cp.sum(x) == 1, x >= 0, sectors @ x <= 0.3 + 0.01 * cp.abs(limit)])


def scaled() -> cp.Problem:
    """No dense row at all: a diagonal, with scales that are trained and rows that repeat columns."""
    y, x = oc.Input(N, name="y"), cp.Variable(N, name="x")
    s = oc.Weight(N, name="s", init=np.random.default_rng(1).uniform(0.5, 1.5, size=N))
    cost = 0.5 * cp.sum_squares(x - y) + 0.3 * cp.norm(x) + 0.1 * cp.norm1(cp.multiply(s, x) - 1)
    return cp.Problem(cp.Minimize(cost), [x[: N // 2] <= 0.5, x >= -1])


MAKE = {"portfolio": portfolio, "scaled": scaled}
ROWS = {"portfolio": 10, "scaled": 0}


def layers(make: Callable[[], cp.Problem], tolerance: float) -> dict[str, oc.EquilibriumLayer]:
    """The same program by the diagonal and rows, and by the dense factor."""
    found = {"thin": oc.compile(make(), splitting="douglas-rachford", tolerance=tolerance).double()}
    found["dense"] = oc.compile(make(), splitting=oc.DouglasRachford(factor="dense"), tolerance=tolerance).double()
    assert isinstance(found["thin"].plan.splitting, ThinDouglasRachford)
    assert isinstance(found["dense"].plan.splitting, DouglasRachford)
    return found


def drawn(problem: cp.Problem, count: int) -> list[Tensor]:
    g = torch.Generator().manual_seed(0)
    inputs = [p for p in problem.parameters() if p.name() in ("mu", "limit", "y")]
    shapes = {p.name(): p.shape for p in inputs}
    return [torch.randn(count, *shapes[k], generator=g, dtype=torch.float64) for k in shapes]


@pytest.mark.parametrize("name", MAKE)
def test_values_duals_and_gradients_are_those_of_the_dense_factor(name: str) -> None:
    found = layers(MAKE[name], 1e-10)
    results = []
    for layer in found.values():
        inputs = [t.requires_grad_() for t in drawn(MAKE[name](), 3)]
        solution = layer.solve(*inputs)
        assert solution.status.all_converged
        seed = torch.randn(3, N, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
        grads = torch.autograd.grad((solution.values[0] * seed).sum(), [*inputs, *layer.parameters()])
        results.append((solution.values[0], solution.objective, *solution.duals, *grads))
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("name", MAKE)
def test_values_match_the_exact_solver(name: str) -> None:
    problem = MAKE[name]()
    layer = oc.compile(problem, splitting="douglas-rachford", tolerance=1e-9).double()
    inputs = drawn(problem, 2)
    solution = layer.solve(*inputs)
    named = {p.name(): p for p in problem.parameters()}
    for key, value in zip([k for k in named if k in ("mu", "limit", "y")], inputs, strict=True):
        named[key].value = value[1].numpy()
    problem.solve(solver="CLARABEL", ignore_dpp=True)
    assert solution.objective[1].item() == pytest.approx(problem.value, abs=1e-6)
    np.testing.assert_allclose(solution.values[0][1].detach().numpy(), problem.variables()[0].value, atol=1e-4)


@pytest.mark.parametrize("name", MAKE)
def test_the_plan_names_the_rows(name: str) -> None:
    plan = oc.explain(MAKE[name](), splitting="douglas-rachford").plan
    splitting, rows = plan.splitting, ROWS[name]
    assert isinstance(splitting, ThinDouglasRachford)
    assert splitting.form.rank == rows
    assert f"diagonal of {N}" + (f" and {rows} rows (Woodbury)" if rows else ", once") in str(plan)


def test_small_or_dense_programs_keep_the_dense_factor() -> None:
    for n, rows in ((20, 2), (N, N)):
        x, a = cp.Variable(n, name="x"), np.random.default_rng(0).normal(size=(rows, n))
        problem = cp.Problem(cp.Minimize(cp.sum_squares(x - 1)), [a @ x <= 1])
        assert isinstance(oc.explain(problem).plan.splitting, DouglasRachford)


@pytest.mark.filterwarnings("ignore::opteq_cvx.errors.SolveWarning")
@pytest.mark.parametrize("factor", ["woodbury", "dense"])
def test_infeasible_and_unbounded_samples_beside_solvable_ones(factor: str) -> None:
    """min cᵀx over x ≥ 0 whose first half sums to `total`: all of it on the cheapest entry, the second half 0."""
    total, c, x, half = oc.Input(name="total"), oc.Input(N, name="c"), cp.Variable(N, name="x"), N // 2
    problem = cp.Problem(cp.Minimize(c @ x), [cp.sum(x[:half]) == total, x >= 0])
    splitting = oc.DouglasRachford(factor=factor)
    layer = oc.compile(problem, inputs=[total, c], splitting=splitting, tolerance=1e-7).double()
    assert isinstance(layer.plan.splitting, ThinDouglasRachford if factor == "woodbury" else DouglasRachford)
    costs = torch.rand(4, N, generator=torch.Generator().manual_seed(5), dtype=F64) + 0.1
    costs[2, half + 3] = -1.0
    totals = torch.tensor([1.0, -1.0, 1.0, 2.0], dtype=F64).requires_grad_()
    solution = layer.solve(totals, costs.requires_grad_())
    good, empty, open_ = Status.CONVERGED, Status.PRIMAL_INFEASIBLE, Status.DUAL_INFEASIBLE
    assert list(solution.status) == [good, empty, open_, good]
    expected = torch.zeros(4, N, dtype=F64)
    for i in (0, 3):
        expected[i, int(costs[i, :half].argmin())] = totals[i].detach()
        torch.testing.assert_close(solution.values[0][i], expected[i], atol=1e-5, rtol=0)
        alone = layer.solve(totals[i], costs[i])
        torch.testing.assert_close(alone.values[0], solution.values[0][i], atol=1e-6, rtol=0)
    (grad,) = torch.autograd.grad((solution.values[0] * costs).sum(), totals)
    least = costs.detach()[:, :half].amin(dim=1)
    least[1:3] = 0.0  # samples without a solution have no gradient
    torch.testing.assert_close(grad, least, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("dtype", "newton", "slack"), [(F64, True, 1e-7), (F64, False, 1e-7), (torch.float32, True, 1e-3)]
)
def test_an_unknown_that_only_dense_rows_hold_is_no_trouble(dtype: torch.dtype, newton: bool, slack: float) -> None:
    """An intercept: min ½‖w‖² + 0.3‖y − Aw − b‖₁ interpolates, w = Aᵀν, Aw + b = y, 1ᵀν = 0, while |ν| < 0.3.

    Its entry of Δ was σ alone: float32 diverged.
    """
    a, r = torch.randn(20, N, generator=torch.Generator().manual_seed(0), dtype=F64), 20
    y = torch.randn(3, r, generator=torch.Generator().manual_seed(1), dtype=F64)
    w, b, labels = cp.Variable(N, name="w"), cp.Variable(name="b"), oc.Input(r, name="y")
    cost = 0.5 * cp.sum_squares(w) + 0.3 * cp.norm1(labels - a.numpy() @ w - b)
    splitting = oc.DouglasRachford(factor="woodbury", newton=newton)
    layer = oc.compile(cp.Problem(cp.Minimize(cost)), splitting=splitting, max_steps=300).to(dtype)
    data = y.to(dtype, copy=True).requires_grad_()
    solution = layer.solve(data, tolerance=1e-9 if dtype is F64 else None)
    assert solution.status.all_converged
    kkt = torch.ones(r + 1, r + 1, dtype=F64)
    kkt[:r, :r], kkt[r, r] = a @ a.T, 0.0
    inverse = torch.linalg.inv(kkt)
    found = y @ inverse[:r]  # (ν, b), the matrix being symmetric
    assert float(found[:, :r].abs().max()) < 0.3
    torch.testing.assert_close(solution.values[0].double(), found[:, :r] @ a, atol=slack, rtol=0)
    torch.testing.assert_close(solution.values[1].double(), found[:, r], atol=slack, rtol=0)
    (grad,) = torch.autograd.grad(solution.values[1].sum(), data)
    torch.testing.assert_close(grad.double(), inverse[r, :r].expand(3, -1), atol=slack, rtol=0)


def test_woodbury_is_the_inverse() -> None:
    g = torch.Generator().manual_seed(0)
    delta, v, weight = (torch.rand(*s, generator=g, dtype=torch.float64) + 0.1 for s in ((3, 9), (1, 4, 9), (3, 4)))
    flat, m, sound = woodbury(delta, v, weight)
    assert sound.all()
    w = flat.diag_embed() - flat[:, :, None] * (v.mT @ m @ v) * flat[:, None, :]
    h = delta.diag_embed() + v.mT @ (weight[:, :, None] * v)
    torch.testing.assert_close(w @ h, torch.eye(9, dtype=torch.float64).expand(3, -1, -1))


@pytest.mark.parametrize("name", MAKE)
def test_newton_steps_products_and_sizes_are_those_of_the_matrices(name: str) -> None:
    layer, g = oc.compile(MAKE[name]()).double(), torch.Generator().manual_seed(3)
    splitting = layer.plan.splitting
    assert isinstance(splitting, ThinDouglasRachford)
    parameters = layer.program.parameters
    env = Environment({p.name: torch.rand(2, *p.shape, generator=g, dtype=F64) for p in parameters}, F64, CPU)
    thin = splitting.thin(splitting.theta(env))
    p, k = thin.dense()
    n, m = splitting.form.layout.n, splitting.form.graph.m
    x, y, slope = (torch.rand(2, size, generator=g, dtype=F64) for size in (n, m, m))
    r, sigma = 10.0 ** torch.randint(-2, 4, (2, m), generator=g).double(), torch.full((1, n), 1e-6, dtype=F64)
    found = ThinMatrices(thin)
    torch.testing.assert_close(found.curved(x), (p @ x[:, :, None])[:, :, 0])
    torch.testing.assert_close(found.image(x), (k @ x[:, :, None])[:, :, 0])
    torch.testing.assert_close(found.back(y), (k.mT @ y[:, :, None])[:, :, 0])
    torch.testing.assert_close(found.magnitudes().image(x), (k.abs() @ x[:, :, None])[:, :, 0])
    torch.testing.assert_close(found.tallest(), k.abs().amax(dim=2))
    h = p + torch.diag_embed(sigma) + k.mT @ ((r * (1 - slope))[:, :, None] * k)
    step = found.newton(sigma, r, Jacobians(slope, ()), x)
    torch.testing.assert_close(step, torch.linalg.solve(h, x), rtol=1e-8, atol=1e-10)
    moved, dense = found.moved(x, y, x, y), Dense(p, k).moved(x, y, x, y)
    for part in ("kx", "ky", "px", "row_size", "k_size", "p_size"):
        torch.testing.assert_close(getattr(moved, part), getattr(dense, part))


def test_newton_steps_finish_large_batches_too() -> None:
    """Douglas–Rachford alone stalls at 1e-6: the curvature of the entropy varies by 1e8 between entries.

    The bound keeps the marginals from being one set, which would leave nothing to split."""
    n, batch = 16, 128
    cost, x = oc.Input((n, n), name="C"), cp.Variable((n, n), name="X")
    goal = cp.sum(cp.multiply(cost, x)) - 0.1 * cp.sum(cp.entr(x))
    problem = cp.Problem(cp.Minimize(goal), [cp.sum(x, axis=1) == 1 / n, cp.sum(x, axis=0) == 1 / n, x <= 1])
    layer = oc.compile(problem, tolerance=1e-8, splitting="douglas-rachford").double()
    assert isinstance(layer.plan.splitting, ThinDouglasRachford)
    solution = layer.solve(torch.rand(batch, n, n, generator=torch.Generator().manual_seed(0), dtype=F64))
    assert solution.status.all_converged
    assert int(solution.stats.steps.max()) < 300
