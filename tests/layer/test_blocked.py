"""Blocks of samples on the CPU change no value, gradient, dual or status, whatever the samples beside them."""

import warnings
from collections.abc import Callable

import cvxpy as cp
import pytest
import torch
from torch import Tensor

import opteq_cvx as oc
from opteq_cvx import blocked
from opteq_cvx.errors import SolveWarning
from opteq_cvx.status import Status

F64 = torch.float64
BATCH = 7


def lasso() -> cp.Problem:
    """Forward–backward with a matrix per sample."""
    x, a, b = cp.Variable(6, name="x"), oc.Input((8, 6), name="A"), oc.Input(8, name="b")
    return cp.Problem(cp.Minimize(0.5 * cp.sum_squares(a @ x - b) + 0.1 * cp.norm1(x)))


def bounded() -> cp.Problem:
    """Douglas–Rachford with a factor per sample, infeasible where b is large."""
    x, a, b = cp.Variable(6, name="x"), oc.Input((4, 6), name="A"), oc.Input(4, name="b")
    return cp.Problem(cp.Minimize(cp.sum_squares(x) + cp.norm1(x)), [a @ x == b, cp.abs(x) <= 5])


def drawn(rows: int, far: float) -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(0)
    a, b = (torch.randn(BATCH, *s, generator=g, dtype=F64) for s in ((rows, 6), (rows,)))
    b[2, 0] = torch.nan
    b[5] = far
    return a.requires_grad_(), b.requires_grad_()


@pytest.mark.parametrize("make", [lasso, bounded])
@pytest.mark.parametrize("size", [1, 3, 6])
def test_blocks_are_the_batch(make: Callable[[], cp.Problem], size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    layer = oc.compile(make(), tolerance=1e-10, on_failure="nan").double()
    found = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SolveWarning)
        for cache in (blocked.CACHE, size * 8 * 60):  # θ of a sample holds 36 to 70 numbers
            monkeypatch.setattr(blocked, "CACHE", cache)
            a, b = drawn(*((4, 1e4) if make is bounded else (8, 3.0)))
            solution = layer.solve(a, b)
            x = solution.values[0]
            grads = torch.autograd.grad(x.nan_to_num(0.0).square().sum(), (a, b))
            duals = [d for d in solution.duals if isinstance(d, Tensor)]
            found.append((solution.status, x, *grads, *duals))
    (whole, *tensors), (parts, *others) = found
    assert [whole[i] for i in range(BATCH)] == [parts[i] for i in range(BATCH)]
    assert parts[2] == Status.NON_FINITE_INPUT
    assert (make is lasso) == (parts[5] == Status.CONVERGED)
    for t, o in zip(tensors, others, strict=True):
        torch.testing.assert_close(o, t, rtol=1e-6, atol=1e-7, equal_nan=True)


def test_small_batches_and_shared_matrices_stay_whole() -> None:
    z0, shared = torch.zeros(1000, 4, dtype=F64), torch.zeros(1, 2000, 2000, dtype=F64)
    assert blocked._block((shared,), z0) == 1000
    own = torch.zeros(1, 200, 200, dtype=F64).expand(1000, -1, -1)
    assert blocked._block((shared, own), z0) == 39  # 26 equal blocks, 12.5 MB each
    assert blocked._block((own[:1],), z0[:1]) == 1
