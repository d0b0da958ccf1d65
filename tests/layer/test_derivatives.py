"""First and second derivatives of every splitting, in reverse and forward mode, and under torch's transforms."""

import numpy as np
import pytest
import torch
from torch import Tensor

import opteq_cvx as oc
from tests.layer.cases import CASES, Case

BY_NAME = {c.name: c for c in CASES}
QUICK = [BY_NAME[k] for k in ("opteq", "box_qp", "projection", "portfolio", "equality_qp", "inequalities")]


def prepare(case: Case, count: int) -> tuple[oc.EquilibriumLayer, list[Tensor]]:
    problem, inputs, outputs = case.make()
    layer = oc.compile(problem, inputs=inputs, outputs=outputs, tolerance=1e-12).double()
    rng = np.random.default_rng(3)
    columns = zip(*[case.draw(rng) for _ in range(count)], strict=True)
    return layer, [torch.tensor(np.stack(c)) for c in columns]


@pytest.mark.parametrize("case", QUICK, ids=lambda c: c.name)
def test_gradcheck_and_gradgradcheck(case: Case) -> None:
    layer, tensors = prepare(case, 2)
    inputs = [t.requires_grad_() for t in tensors]
    assert torch.autograd.gradcheck(layer, inputs, eps=1e-6, atol=1e-5, rtol=1e-4)
    assert torch.autograd.gradgradcheck(layer, inputs, eps=1e-6, atol=1e-4, rtol=1e-3, fast_mode=True)


@pytest.mark.filterwarnings("ignore:.*torch.jit.script.*:DeprecationWarning")  # torch.func.jvp itself uses it
@pytest.mark.parametrize("case", QUICK, ids=lambda c: c.name)
def test_vmap_jacobians_and_forward_mode_agree_with_reverse_mode(case: Case) -> None:
    layer, tensors = prepare(case, 3)

    def first(*x: Tensor) -> Tensor:
        return layer(*x)[0]

    batched = first(*tensors)
    torch.testing.assert_close(torch.func.vmap(first)(*tensors), batched, atol=1e-9, rtol=1e-9)
    one = [t[0] for t in tensors]
    reverse = torch.func.jacrev(first, argnums=tuple(range(len(one))))(*one)
    forward = torch.func.jacfwd(first, argnums=tuple(range(len(one))))(*one)
    plain = torch.autograd.functional.jacobian(first, tuple(one))
    for a, b, c in zip(reverse, forward, plain, strict=True):
        torch.testing.assert_close(a, c, atol=1e-8, rtol=1e-8)
        torch.testing.assert_close(b, c, atol=1e-8, rtol=1e-8)


def test_per_sample_gradients_of_the_weights() -> None:
    layer, (x,) = prepare(BY_NAME["opteq"], 3)
    weights = dict(layer.named_parameters())

    def loss(parameters: dict[str, Tensor], sample: Tensor) -> Tensor:
        (u,) = torch.func.functional_call(layer, parameters, (sample,))
        return u.pow(2).sum()

    each = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0))(weights, x)
    for i in range(3):
        alone = torch.autograd.grad(loss(weights, x[i]), list(weights.values()))
        for name, grad in zip(weights, alone, strict=True):
            torch.testing.assert_close(each[name][i], grad, atol=1e-9, rtol=1e-8)


def test_a_jacobian_of_a_jacobian() -> None:
    layer, (x,) = prepare(BY_NAME["opteq"], 1)

    def loss(sample: Tensor) -> Tensor:
        return layer(sample)[0].pow(2).sum()

    hessian = torch.func.jacrev(torch.func.jacrev(loss))(x[0])
    h, rows = 1e-5, []
    for i in range(x.shape[1]):
        step = torch.zeros_like(x[0])
        step[i] = h
        rows.append((torch.func.grad(loss)(x[0] + step) - torch.func.grad(loss)(x[0] - step)) / (2 * h))
    torch.testing.assert_close(hessian, torch.stack(rows), atol=1e-6, rtol=1e-6)


def test_the_gradient_reports_its_error() -> None:
    layer, (x,) = prepare(BY_NAME["opteq"], 4)
    solution = layer.solve(x.requires_grad_())
    assert solution.stats.gradient_error is None
    solution.values[0].sum().backward()
    error = solution.stats.gradient_error
    assert error is not None
    assert error.shape == (4,)
    assert (error < 1e-8).all()
