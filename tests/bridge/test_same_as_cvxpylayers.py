"""One import changed: the same problems through cvxpylayers and through our CvxpyLayer, values, duals and gradients.

cvxpylayers solves with SCS at 1e-11; the tolerances are its own. It has no duals of power cones of vectors.
"""

from collections.abc import Callable
from itertools import product

import cvxpy as cp
import pytest
import torch
from torch import Tensor

from opteq_cvx.bridge import CvxpyLayer

peer = pytest.importorskip("cvxpylayers.torch", reason="cvxpylayers is an optional reference")

VALUE, SLOPE = 1e-6, 1e-4
N = 3

pytestmark = pytest.mark.filterwarnings("ignore:__array__:DeprecationWarning", "ignore::UserWarning")  # the peer's


def tensor(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def compare(
    problem: cp.Problem, parameters: list[cp.Parameter], outputs: list[cp.Variable], values: list[Tensor]
) -> None:
    """Both layers at the same tensors: shapes, values, and gradients of one random functional."""
    layers = (
        CvxpyLayer(problem, parameters, outputs, solver_args={"eps": 1e-11}),
        peer.CvxpyLayer(problem, parameters=parameters, variables=outputs, solver_args={"eps": 1e-11}),
    )
    results = []
    for layer in layers:
        leaves = [v.clone().requires_grad_() for v in values]
        found = layer(*leaves)
        total = torch.stack([(f * tensor(*f.shape, seed=9 + i)).sum() for i, f in enumerate(found)]).sum()
        results.append((found, torch.autograd.grad(total, leaves)))
    (ours, our_slopes), (theirs, their_slopes) = results
    for a, b in zip(ours, theirs, strict=True):
        assert a.shape == b.shape
        torch.testing.assert_close(a, b, atol=VALUE, rtol=VALUE)
    for a, b in zip(our_slopes, their_slopes, strict=True):
        torch.testing.assert_close(a, b, atol=SLOPE, rtol=SLOPE)


@pytest.mark.parametrize(
    ("first", "second"),
    [pair for pair in product([(), (1,), (4,)], repeat=2) if set(pair) != {(1,), (4,)}],  # which it refuses, we do not
)
def test_batch_axes_follow_the_same_rules(first: tuple[int, ...], second: tuple[int, ...]) -> None:
    x, a, b = cp.Variable(N), cp.Parameter((4, N)), cp.Parameter(4)
    problem = cp.Problem(cp.Minimize(cp.sum_squares(a @ x - b) + cp.sum_squares(x)), [cp.sum(x) == 1])
    compare(problem, [a, b], [x], [tensor(*first, 4, N, seed=1), tensor(*second, 4, seed=2)])


def equality(x: cp.Variable, b: cp.Parameter) -> tuple[cp.Expression, list[object]]:
    return cp.sum_squares(x - b), [cp.sum(x) == 1]


def inequality(x: cp.Variable, b: cp.Parameter) -> tuple[cp.Expression, list[object]]:
    return cp.sum_squares(x - b), [x <= 0.2, cp.sum(x) == 0]


def second_order(x: cp.Variable, b: cp.Parameter) -> tuple[cp.Expression, list[object]]:
    t = cp.Variable()
    return cp.sum_squares(x - b) + t, [cp.SOC(t, x)]


def exponential(x: cp.Variable, b: cp.Parameter) -> tuple[cp.Expression, list[object]]:
    """One cone: of several, cvxpylayers returns the duals in another layout than CVXPY's."""
    z = cp.Variable(1)
    return cp.sum_squares(x - b) + cp.sum(z), [cp.ExpCone(x[:1], x[1:2] + 2, z)]


def semidefinite(x: cp.Variable, b: cp.Parameter) -> tuple[cp.Expression, list[object]]:
    m = cp.Variable((N, N), symmetric=True)
    return cp.sum_squares(m - cp.diag(x)) + cp.sum_squares(x - b), [m >> 0, cp.trace(m) == 1]


def mixed(x: cp.Variable, b: cp.Parameter) -> tuple[cp.Expression, list[object]]:
    t = cp.Variable()
    return cp.sum_squares(x - b) + t, [cp.norm2(x) <= t, cp.sum(x) == 1, x >= -0.1]


@pytest.mark.parametrize("make", [equality, inequality, second_order, exponential, semidefinite, mixed])
def test_duals_of_each_cone_are_the_same(
    make: Callable[[cp.Variable, cp.Parameter], tuple[cp.Expression, list[object]]],
) -> None:
    x, b = cp.Variable(N), cp.Parameter(N)
    cost, constraints = make(x, b)
    problem = cp.Problem(cp.Minimize(cost), constraints)
    duals = [d for c in problem.constraints for d in c.dual_variables]
    compare(problem, [b], [x, *duals], [tensor(2, N, seed=4)])
