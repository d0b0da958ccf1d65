"""z*(θ) = T(z*, θ) as a differentiable function of θ, to any order and in every transform."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from typing_extensions import override

from opteq_cvx.adjoint.fold import vectorize
from opteq_cvx.adjoint.linear_solve import adjoint_solve, substitute
from opteq_cvx.adjoint.problem import FixedPoint, mend
from opteq_cvx.adjoint.pull import final, forward_again, pull, push
from opteq_cvx.iterate.contract import Iterate
from opteq_cvx.maps.peek import known_true
from opteq_cvx.precision import full_precision
from opteq_cvx.splitting.contract import Certificate, Prepared

INFO = 9  # tensors between z and the prepared ones, as the docstring of `Equilibrium` lists them


class Equilibrium(torch.autograd.Function):
    """Solve z = T(z, θ); differentiate by (I − J)ᵀ w = g, dL/dθ = (∂T/∂θ)ᵀ w.

    apply(problem, z0, valid, *theta) → (z, failed, residual, steps, converged, finite, modulus, convex, empty,
    unbounded, *prepared): only z is differentiable, and only in θ. `valid` (B,) is False for samples the caller
    rejects; failed samples have a zero gradient. What was prepared travels as outputs, so that every transform
    carries it along.
    Source: Bai, Kolter, Koltun, *Deep equilibrium models*, arXiv 1909.01377, section 3.
    """

    @override
    @staticmethod
    def forward(problem: FixedPoint, z0: Tensor, valid: Tensor, *theta: Tensor) -> tuple[Tensor, ...]:
        with full_precision(z0, problem.tolerance):
            iterate, prepared = problem.solve(z0, theta, problem.prepared)
        return outputs(problem, iterate, prepared, valid)

    @override
    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        problem, _, _, *theta = inputs
        z, failed, _, _, _, _, modulus, _, _, _, *prepared = output
        ctx.problem, ctx.count = problem, len(theta)
        ctx.mark_non_differentiable(*output[1:])
        ctx.save_for_backward(z, failed, modulus, *theta, *prepared)
        ctx.save_for_forward(z, failed, modulus, *theta, *prepared)
        ctx.set_materialize_grads(False)

    @override
    @staticmethod
    def backward(ctx: Any, *cotangents: Any) -> Any:
        g = cotangents[0]
        if g is None:
            return None, None, None, *[None] * ctx.count
        with full_precision(g, ctx.problem.tolerance):
            return None, None, None, *pulled_back(ctx, g)

    @override
    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Any:
        problem: FixedPoint = ctx.problem
        count = ctx.count
        needs = [move is not None for move in tangents[3:]]
        with forward_again(ctx) as saved, full_precision(saved[0], problem.tolerance):
            z, failed, modulus, theta, prepared = unpack(problem, count, saved)
            nothing = [None] * (INFO + len(prepared))

            def image(*chosen: Tensor) -> Tensor:
                return problem.step(z, substitute(theta, needs, chosen), prepared)

            if not any(needs):
                return torch.zeros_like(z), *nothing
            primals = [t for t, need in zip(theta, needs, strict=True) if need]
            right = push(image, primals, [move for move in tangents[3:] if move is not None])
            right = right.masked_fill(failed[:, None], 0.0)
            return adjoint_solve(problem, False, count, z, right, modulus, *theta, *prepared), *nothing

    @override
    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], *arguments: Any) -> Any:
        problem, *tensors = arguments
        if any(dim is not None for dim in in_dims[3:]):
            problem = replace(problem, prepared=None)  # made for other θ

        def apply(merged: list[Tensor]) -> tuple[Tensor, ...]:
            return equilibrium(problem, *merged)

        return vectorize(apply, info.batch_size, tensors, in_dims[1:], full=2)


def pulled_back(ctx: Any, g: Tensor) -> list[Tensor | None]:
    """dL/dθ for the cotangent g of z, None where it is not needed."""
    problem: FixedPoint = ctx.problem
    count = ctx.count
    z, failed, modulus, theta, prepared = unpack(problem, count, ctx.saved_tensors)
    v = g if known_true(~failed) else g.masked_fill(failed[:, None], 0.0)
    w = adjoint_solve(problem, True, count, z, v, modulus, *theta, *prepared)
    needs = ctx.needs_input_grad[3:]

    def image(*chosen: Tensor) -> Tensor:
        return problem.step(z, substitute(theta, needs, chosen), prepared)

    known = None
    if final(z, w, *theta):
        known = problem.splitting.pullback(z, theta, Prepared(prepared, Certificate()), w)
    if known is not None:
        products = tuple(t for t, need in zip(known, needs, strict=True) if need)
    else:
        products = pull(image, [t for t, need in zip(theta, needs, strict=True) if need], w)
    if problem.record.spoiled:
        lost = failed.all()
        products = tuple(torch.where(lost, 0.0, p) for p in products)
    rest = iter(products)
    return [next(rest) if need else None for need in needs]


equilibrium: Callable[..., tuple[Tensor, ...]] = Equilibrium.apply


def outputs(problem: FixedPoint, iterate: Iterate, prepared: Prepared, valid: Tensor) -> tuple[Tensor, ...]:
    """What `Equilibrium.apply` returns, and the note of what failed in the problem's record."""
    certificate, z = prepared.certificate, iterate.z
    modulus = z.new_full((1,), torch.nan) if certificate.modulus is None else certificate.modulus.to(z)
    sound, convex, empty = torch.logical_and(iterate.converged, valid), torch.ones_like(valid), torch.zeros_like(valid)
    if certificate.convex is not None:
        convex = certificate.convex.expand_as(valid).clone()
        sound.logical_and_(convex)
    if certificate.empty is not None:
        empty = certificate.empty.expand_as(valid).clone()
        sound.logical_and_(~empty)
    unbounded = torch.zeros_like(valid)
    if certificate.unbounded is not None:
        unbounded = certificate.unbounded.expand_as(valid).clone()
        sound.logical_and_(~unbounded)
    failed = ~sound
    problem.record.note_forward(iterate.residual, not bool(torch.logical_and(iterate.finite, valid).all()))
    flags = (failed, iterate.residual, iterate.steps, iterate.converged, iterate.finite)
    return z, *flags, modulus.detach(), convex, empty, unbounded, *(t.detach() for t in prepared.tensors)


def unpack(
    problem: FixedPoint, count: int, saved: Sequence[Tensor]
) -> tuple[Tensor, Tensor, Tensor, tuple[Tensor, ...], tuple[Tensor, ...]]:
    """z, failed, modulus, θ, prepared as saved, with the rows of failed samples replaced where they hold poison."""
    z, failed, modulus, *tensors = saved
    if problem.record.spoiled:
        z, *tensors = mend(failed, [z, *tensors])
    return z, failed, modulus, tuple(tensors[:count]), tuple(tensors[count:])
