"""Every splitting × adjoint against extrapolated differences of tight solves; gradcheck of both orders; transforms."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

import opteq_cvx as oc
from opteq_cvx.adjoint import AdjointMode
from opteq_cvx.errors import UnsupportedError
from opteq_cvx.splitting.forward_backward import ForwardBackward
from opteq_cvx.splitting.inclusion import MonotoneInclusion
from opteq_cvx.splitting.matrix_free import FactoredForwardBackward
from opteq_cvx.splitting.primal_dual import PrimalDual
from tests.layer.every_splitting import PROGRAMS, Program

GRADIENT = 1e-6  # relative, of gradients
STEP = 1e-3  # of the differences, small enough to stay inside one active set
MODES: dict[str, AdjointMode] = {
    "implicit": oc.Implicit(),
    "propagation": oc.EquilibriumPropagation(beta=0.03),
}
Function = Callable[..., tuple[Tensor, ...]]


def in_weights_too(program: Program, layer: oc.EquilibriumLayer) -> tuple[Function, list[Tensor]]:
    """The layer as a function of weights and inputs, and the weights."""
    names = [k for k, _ in layer.named_parameters()]
    values = [v.detach().clone() for v in layer.parameters()]

    def function(*tensors: Tensor) -> tuple[Tensor, ...]:
        weights = dict(zip(names, tensors, strict=False))
        return torch.func.functional_call(layer, weights, tuple(tensors[len(names) :]))

    return function, values


def slope(loss: Callable[[Tensor], Tensor], h: float) -> Tensor:
    """dloss/dt at 0 by central differences at h and h/2, extrapolated: an error of order h⁴."""
    with torch.no_grad():
        coarse, fine = ((loss(torch.tensor(s)) - loss(torch.tensor(-s))) / (2 * s) for s in (h, h / 2))
    return (4 * fine - coarse) / 3


@pytest.mark.parametrize("mode", [*MODES, "unrolled"])
@pytest.mark.parametrize("program", PROGRAMS, ids=lambda p: p.name)
def test_gradients_are_the_differences_of_tight_solves(program: Program, mode: str) -> None:
    """≤ 1e-6 relative along random directions of all inputs and weights together."""
    adjoint = oc.Unrolled(steps=program.steps) if mode == "unrolled" else MODES[mode]
    if mode == "propagation" and program.curved:
        adjoint = oc.EquilibriumPropagation(beta=0.03, richardson=True)
    layer = program.layer(tolerance=program.tight, adjoint=adjoint, gradient_tolerance=1e-3)
    inputs = program.drawn(2)
    if mode == "propagation" and not program.energy:
        with pytest.raises(UnsupportedError, match=r"no energy.*Implicit"):
            layer(*inputs)
        return
    function, weights = in_weights_too(program, layer)
    g = torch.Generator().manual_seed(1)
    tensors = [t.requires_grad_() for t in (*weights, *inputs)]
    values = function(*tensors)
    seeds = [torch.randn(v.shape, generator=g, dtype=v.dtype) for v in values]
    grads = torch.autograd.grad(values, tensors, seeds, allow_unused=True, materialize_grads=True)
    exact = program.layer(tolerance=program.tight)
    solved, _ = in_weights_too(program, exact)
    for _ in range(3):
        moves = [torch.randn(t.shape, generator=g, dtype=t.dtype) for t in tensors]

        def loss(t: Tensor, moves: list[Tensor] = moves) -> Tensor:
            found = solved(*(p.detach() + t * m for p, m in zip(tensors, moves, strict=True)))
            return sum(((s * v).sum() for s, v in zip(seeds, found, strict=True)), torch.zeros(()))

        got = sum((d * m).sum() for d, m in zip(grads, moves, strict=True))
        size = torch.stack([d.norm() * m.norm() for d, m in zip(grads, moves, strict=True)]).norm()
        assert abs(float(got) - float(slope(loss, STEP))) <= GRADIENT * float(size)


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda p: p.name)
def test_gradcheck_and_gradgradcheck(program: Program) -> None:
    """In all inputs and weights; fast mode compares a random projection of the Jacobian."""
    layer = program.layer(tolerance=program.tight)
    function, weights = in_weights_too(program, layer)
    tensors = [t.requires_grad_() for t in (*weights, *program.drawn(2))]
    assert torch.autograd.gradcheck(function, tensors, eps=1e-5, atol=1e-6, rtol=1e-5, fast_mode=True)
    assert torch.autograd.gradgradcheck(function, tensors, eps=1e-5, atol=1e-5, rtol=1e-4, fast_mode=True)


@pytest.mark.filterwarnings("ignore:.*torch.jit.script.*:DeprecationWarning")  # torch.func.jvp itself uses it
@pytest.mark.parametrize("program", PROGRAMS, ids=lambda p: p.name)
def test_transforms_agree(program: Program) -> None:
    """jacrev = jacfwd = vjp = jvp, vmap = the batch, in inputs and weights."""
    layer = program.layer(tolerance=program.tight)
    function, weights = in_weights_too(program, layer)
    inputs = program.drawn(2)

    def first(*tensors: Tensor) -> Tensor:
        return function(*tensors)[0]

    torch.testing.assert_close(
        torch.func.vmap(lambda *x: first(*weights, *x))(*inputs), first(*weights, *inputs), atol=1e-9, rtol=1e-9
    )
    tensors = (*weights, *(t[0] for t in inputs))
    g = torch.Generator().manual_seed(1)
    moves = tuple(torch.randn(t.shape, generator=g, dtype=t.dtype) for t in tensors)
    value, forward = torch.func.jvp(first, tensors, moves)
    v = torch.randn(value.shape, generator=g, dtype=value.dtype)
    pulled = torch.func.vjp(first, *tensors)[1](v)
    product = sum(float((p * m).sum()) for p, m in zip(pulled, moves, strict=True))
    assert product == pytest.approx(float((forward * v).sum()), rel=1e-8, abs=1e-9)
    last = len(tensors) - 1
    reverse, ahead = (f(first, argnums=last)(*tensors) for f in (torch.func.jacrev, torch.func.jacfwd))
    torch.testing.assert_close(reverse, ahead, atol=1e-8, rtol=1e-8)


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda p: p.name)
def test_the_gradient_of_a_weight_is_the_sum_over_the_batch_and_reports_its_error(program: Program) -> None:
    layer = program.layer(tolerance=1e-10)
    parameters, inputs = list(layer.parameters()), program.drawn(3)

    def gradient(rows: list[int]) -> tuple[Tensor, ...]:
        solution = layer.solve(*(t[rows].requires_grad_() for t in inputs))
        found = torch.autograd.grad(sum(v.pow(2).sum() for v in solution.values), parameters)
        assert solution.stats.gradient_error is not None
        assert (solution.stats.gradient_error <= 1e-5).all()
        return found

    together, alone = gradient([0, 1, 2]), [gradient([i]) for i in range(3)]
    for whole, *parts in zip(together, *alone, strict=True):
        torch.testing.assert_close(whole, sum(parts), atol=1e-7, rtol=1e-7)


FIXED = [
    p for p in PROGRAMS if p.splitting in (ForwardBackward, FactoredForwardBackward, PrimalDual, MonotoneInclusion)
]


@pytest.mark.filterwarnings("ignore::opteq_cvx.errors.SolveWarning")
@pytest.mark.parametrize("program", FIXED, ids=lambda p: p.name)
def test_the_unrolled_gradient_is_that_of_the_iterate_converged_or_not(program: Program) -> None:
    """Of the layer's own value after two steps, with or without checkpoints; step sizes do not depend on these inputs.

    A loop that stopped early is still differentiated: only its status says that it is no solution.
    """
    (first, *_), found = program.shapes, []
    moves = torch.randn(2, *first, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    for checkpoint in (None, 1):
        layer = program.layer(adjoint=oc.Unrolled(steps=2, checkpoint=checkpoint))
        point, *others = program.drawn(2)
        solution = layer.solve(point.requires_grad_(), *others)
        assert all(s is oc.Status.MAX_STEPS for s in solution.status)
        (grad,) = torch.autograd.grad(solution.values[0].sum(), point)
        found.append(grad)

        def loss(t: Tensor, layer: oc.EquilibriumLayer = layer, rest: list[Tensor] = others) -> Tensor:
            return layer(program.drawn(2)[0] + t * moves, *rest)[0].sum()

        assert float((grad * moves).sum()) == pytest.approx(float(slope(loss, STEP)), rel=GRADIENT, abs=1e-8)
    torch.testing.assert_close(found[0], found[1], atol=1e-12, rtol=1e-12)
