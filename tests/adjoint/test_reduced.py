"""The reduced adjoint of maps in graph form: the dense I − J is its oracle, at any state, fixed point or not."""

from collections.abc import Callable

import cvxpy as cp
import numpy as np
import pytest
import torch
from torch import Tensor

import opteq_cvx as oc
from opteq_cvx import passes
from opteq_cvx.adjoint.krylov import reduced
from opteq_cvx.adjoint.krylov.automatic import Automatic
from opteq_cvx.adjoint.krylov.contract import Linear, LinearSolver, System
from opteq_cvx.adjoint.krylov.reduced import Reduced
from opteq_cvx.adjoint.problem import take
from opteq_cvx.frontend import read
from opteq_cvx.ir.param import const
from opteq_cvx.maps.evaluate import Environment
from opteq_cvx.splitting.contract import Prepared, Splitting, Theta
from opteq_cvx.splitting.douglas_rachford import DouglasRachford
from opteq_cvx.splitting.graph_form import GraphForm
from opteq_cvx.splitting.graph_inclusion import GraphInclusion
from opteq_cvx.splitting.linearization import Linearization

BATCH = 8


def polyhedral() -> cp.Problem:
    rng = np.random.default_rng(0)
    x = cp.Variable(6)
    cost = cp.sum_squares(rng.normal(size=(8, 6)) @ x - 1) + cp.norm1(x) + cp.sum(cp.huber(x))
    return cp.Problem(cp.Minimize(cost), [rng.normal(size=(4, 6)) @ x <= 1, cp.sum(x) == 1])


def conic() -> cp.Problem:
    x, t = cp.Variable((3, 4)), cp.Variable(4)
    cost = cp.sum_squares(x - 1) + cp.sum_squares(t) + cp.normNuc(x[:, :3]) + cp.sum(cp.logistic(t))
    return cp.Problem(cp.Minimize(cost), [cp.SOC(t, x[:2], axis=0), cp.ExpCone(x[0], x[1], t), cp.sum(x) <= 3])


def flat() -> cp.Problem:
    """No quadratic: what moves the solution are the active rows alone."""
    x = cp.Variable(3)
    return cp.Problem(cp.Minimize(cp.sum(x)), [x >= 0, cp.norm1(x) <= 2, x[0] + 2 * x[1] == 1])


def map_of(problem: cp.Problem) -> tuple[Splitting, Theta]:
    form = GraphForm.of(passes.run(read(problem).program))
    return DouglasRachford(form), form.theta(Environment({}, torch.float64, torch.device("cpu")))


def inclusion(problem: cp.Problem, generator: torch.Generator) -> tuple[Splitting, Theta]:
    """The same rows with a monotone F that is far from symmetric."""
    splitting, (p, *rest) = map_of(problem)
    assert isinstance(splitting, DouglasRachford)
    n, m = splitting.form.layout.n, splitting.form.m
    skew = torch.randn(n, n, generator=generator, dtype=p.dtype)
    f = p + torch.eye(n) + skew - skew.mT
    return GraphInclusion(splitting.form, const(f[0].numpy()), np.ones(n), np.ones(m)), (f, *rest)


def system_at(splitting: Splitting, theta: Theta, z: Tensor, transposed: bool) -> System:
    ready = splitting.prepare(theta)

    def restrict(rows: Tensor) -> Linearization:
        return splitting.linearize(z[rows], take(theta, rows), Prepared(take(ready.tensors, rows), ready.certificate))

    return System(splitting.linearize(z, theta, ready), transposed, restrict)


def exact(system: System, v: Tensor) -> Tensor:
    j = system.jacobian.dense(v.shape[0], v)
    a = torch.eye(v.shape[1], dtype=v.dtype) - (j.mT if system.transposed else j)
    return torch.linalg.lstsq(a, v[:, :, None], driver="gelsd").solution[..., 0]


def solve(solver: LinearSolver, system: System, v: Tensor, tolerance: float = 1e-10) -> Linear:
    return solver.solve(system, v, tolerance=torch.full((1,), tolerance, dtype=v.dtype), max_steps=1000)


def consistent(system: System, v: Tensor, want: Tensor) -> Tensor:
    """Whether `want`, a least-squares solution, is one (B,)."""
    gap = torch.linalg.vector_norm(v - system.apply(want), dim=1)
    return gap <= 1e-7 * torch.linalg.vector_norm(v, dim=1)


@pytest.mark.parametrize("transposed", [True, False])
@pytest.mark.parametrize("skew", [False, True])
@pytest.mark.parametrize("make", [polyhedral, conic, flat], ids=lambda f: f.__name__)
def test_it_solves_the_system_of_the_whole_state(
    make: Callable[[], cp.Problem], skew: bool, transposed: bool, generator: torch.Generator
) -> None:
    """Also where more rows are active than there are variables; without a solution it says so, and least squares serve.

    Where active rows depend on each other w is not unique, but (I − J)ᵀw is.
    """
    splitting, theta = inclusion(make(), generator) if skew else map_of(make())
    z = torch.randn(BATCH, splitting.dimension, generator=generator, dtype=torch.float64)
    v = torch.randn(z.shape, generator=generator, dtype=torch.float64)
    system = system_at(splitting, theta, z, transposed)
    alone, found, want = (solve(Reduced(), system, v), solve(Automatic(), system, v), exact(system, v))
    sound = consistent(system, v, want)
    assert sound.any()
    assert (alone.converged == sound).all()
    assert (found.converged == sound).all()
    assert (alone.steps[sound] <= 20).all()
    image, best = system.apply(found.w), system.apply(want)
    torch.testing.assert_close(image[sound], best[sound], atol=1e-9, rtol=1e-9)
    torch.testing.assert_close(image, best, atol=1e-4, rtol=1e-3)  # least squares up to what counts as rank


def test_dependent_active_rows_leave_a_consistent_system_which_is_solved(generator: torch.Generator) -> None:
    """Three copies of one active row: the multipliers are free but for their sum."""
    x = cp.Variable(3)
    row = np.array([[1.0, -1.0, 0.5]])
    problem = cp.Problem(cp.Minimize(cp.sum_squares(x - 3)), [np.repeat(row, 3, axis=0) @ x == 1, cp.sum(x) == 0])
    splitting, theta = map_of(problem)
    z = torch.randn(BATCH, splitting.dimension, generator=generator, dtype=torch.float64)
    v = torch.randn(z.shape, generator=generator, dtype=torch.float64)
    v[:, 3:] = 0.0  # as for a loss of the variables
    system = system_at(splitting, theta, z, True)
    found = solve(Reduced(), system, v)
    assert found.converged.all()
    torch.testing.assert_close(system.apply(found.w), v, atol=1e-9, rtol=1e-9)
    copies = found.w[:, 3:6]
    torch.testing.assert_close(copies, copies.mean(dim=1, keepdim=True).expand_as(copies), atol=1e-7, rtol=1e-7)


def test_parts_of_the_batch_neighbours_and_zeros(generator: torch.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    splitting, theta = map_of(conic())
    z = torch.randn(5, splitting.dimension, generator=generator, dtype=torch.float64)
    v = torch.randn(z.shape, generator=generator, dtype=torch.float64)
    v[:, 16:] = 0.0
    v[2] = 0.0
    v[3] = torch.nan
    system = system_at(splitting, theta, z, True)
    whole = solve(Reduced(), system, v)
    assert whole.converged.tolist() == [True, True, True, False, True]
    assert (whole.w[2] == 0).all()
    monkeypatch.setattr(reduced, "CHUNK", 2 * 16**2)
    parts = solve(Reduced(), system, v)
    torch.testing.assert_close(parts.w, whole.w, atol=1e-9, rtol=1e-9, equal_nan=True)


def test_single_precision(generator: torch.Generator) -> None:
    splitting, theta = map_of(polyhedral())
    z = torch.randn(BATCH, splitting.dimension, generator=generator, dtype=torch.float64)
    v = torch.randn(z.shape, generator=generator, dtype=torch.float64)
    v[:, 6:] = 0.0
    low = system_at(splitting, tuple(t.float() for t in theta), z.float(), True)
    found = solve(Reduced(), low, v.float(), 1e-5)
    assert found.converged.all()
    got = system_at(splitting, theta, z, True).apply(found.w.double())
    assert ((got - v).norm(dim=1) <= 1e-4 * v.norm(dim=1)).all()


def test_the_rounds_hardly_depend_on_the_accuracy() -> None:
    """What is in memory in backward is one factor per sample, whatever the accuracy of forward and backward."""
    rng = np.random.default_rng(0)
    a, x, h = rng.normal(size=(20, 15)), cp.Variable(15), cp.Parameter(20, nonneg=True)
    problem = cp.Problem(cp.Minimize(cp.sum_squares(x) - np.ones(15) @ x), [a @ x <= h])
    found = []
    for tolerance in (1e-3, 1e-12):
        layer = oc.compile(problem, inputs=[h], outputs=[x], tolerance=tolerance).double()
        assert isinstance(layer.plan.splitting, DouglasRachford)
        solution = layer.solve(torch.tensor(rng.uniform(0.1, 1.0, size=(6, 20)), requires_grad=True))
        solution.values[0].sum().backward()
        assert solution.stats.record.error is not None
        found.append(solution.stats.record.error.steps.max())
    assert max(found) <= 4
