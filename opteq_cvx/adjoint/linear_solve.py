"""w = (I − J)^{-T} v as a differentiable function of the state, the parameters and v, to any order."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from typing_extensions import override

from opteq_cvx.adjoint.fold import vectorize
from opteq_cvx.adjoint.krylov.by_parts import by_parts
from opteq_cvx.adjoint.krylov.contract import System
from opteq_cvx.adjoint.problem import FixedPoint, take
from opteq_cvx.adjoint.pull import final, forward_again, pull, push, vjp
from opteq_cvx.splitting.contract import Certificate, Prepared
from opteq_cvx.splitting.linearization import BlockDiagonal, Linearization, SymmetricLinearization

SMALLEST_MARGIN = 1e-3  # tolerances are divided by at most 1/this for badly conditioned programs
ROUNDING = 10.0  # no residual below this many units of rounding is asked for
UNKNOWN_MARGIN = 1e-4  # stands for a modulus that nothing certifies
UNKNOWN_ROUNDING = 1e3  # how many units of rounding limit that margin


class AdjointSolve(torch.autograd.Function):
    """Solve (I − J)ᵀ w = v (transposed) or (I − J) w = v, J = ∂T/∂z at (z, θ).

    apply(problem, transposed, count, z, v, modulus, *theta, *prepared): the first `count` of the last tensors are θ.
    With h = A^{-T} g for the cotangent g of w: dv = h, and z, θ receive the derivative of ⟨h, J w⟩ with w held fixed
    (⟨h, Jᵀ w⟩ when transposed). Both are products of `Splitting.step`, so the rule may be differentiated again.
    Source: Bai, Kolter, Koltun, *Deep equilibrium models*, arXiv 1909.01377, section 3; the rule is its own derivative.
    """

    @override
    @staticmethod
    def forward(
        problem: FixedPoint, transposed: bool, count: int, z: Tensor, v: Tensor, modulus: Tensor, *tensors: Tensor
    ) -> Tensor:
        return solve(problem, transposed, z, v, modulus, tensors[:count], tensors[count:])

    @override
    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        ctx.problem, ctx.transposed, ctx.count, z, _, modulus, *tensors = inputs
        ctx.save_for_backward(z, output, modulus, *tensors)
        ctx.save_for_forward(z, output, modulus, *tensors)
        ctx.set_materialize_grads(False)

    @override
    @staticmethod
    def backward(ctx: Any, *cotangents: Any) -> Any:
        (g,) = cotangents
        problem, transposed, count = ctx.problem, ctx.transposed, ctx.count
        z, w, modulus, *tensors = ctx.saved_tensors
        theta, prepared = tensors[:count], tensors[count:]
        nothing = [None] * len(tensors)
        if g is None:
            return None, None, None, None, None, None, *nothing
        h = adjoint_solve(problem, not transposed, count, z, g, modulus, *tensors)
        needs = [ctx.needs_input_grad[3], *ctx.needs_input_grad[6 : 6 + count]]
        if not any(needs):
            return None, None, None, None, h, None, *nothing
        inner, outer = (w, h) if transposed else (h, w)
        primals = [p for p, need in zip([z, *theta], needs, strict=True) if need]

        def product(*chosen: Tensor) -> Tensor:
            state, *parameters = substitute([z, *theta], needs, chosen)
            return transpose(problem, state, parameters, prepared, inner)

        products = iter(pull(product, primals, outer))
        grads = [next(products) if need else None for need in needs]
        return None, None, None, grads[0], h, None, *grads[1:], *nothing[count:]

    @override
    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Any:
        problem, transposed, count = ctx.problem, ctx.transposed, ctx.count
        moves = [tangents[3], *tangents[6 : 6 + count]]
        needs = [move is not None for move in moves]
        with forward_again(ctx) as (z, w, modulus, *tensors):
            theta, prepared = tensors[:count], tensors[count:]
            right = torch.zeros_like(w) if tangents[4] is None else tangents[4]

            def product(*chosen: Tensor) -> Tensor:
                state, *parameters = substitute([z, *theta], needs, chosen)
                if transposed:
                    return transpose(problem, state, parameters, prepared, w)
                return push(lambda s: problem.step(s, parameters, prepared), [state], [w])

            if any(needs):
                primals = [p for p, need in zip([z, *theta], needs, strict=True) if need]
                right = right + push(product, primals, [move for move in moves if move is not None])
            return adjoint_solve(problem, transposed, count, z, right, modulus, *tensors)

    @override
    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], *arguments: Any) -> Any:
        problem, transposed, count, *tensors = arguments

        def apply(merged: list[Tensor]) -> tuple[Tensor, ...]:
            return (adjoint_solve(problem, transposed, count, *merged),)

        (w,), (dim,) = vectorize(apply, info.batch_size, tensors, in_dims[3:], full=2)
        return w, dim


apply: Callable[..., Tensor] = AdjointSolve.apply


def adjoint_solve(
    problem: FixedPoint, transposed: bool, count: int, z: Tensor, v: Tensor, modulus: Tensor, *tensors: Tensor
) -> Tensor:
    """`AdjointSolve.apply`, or the solve alone where its result cannot be differentiated: a last backward pass."""
    if final(z, v, *tensors[:count]):
        return solve(problem, transposed, z, v, modulus, tensors[:count], tensors[count:])
    return apply(problem, transposed, count, z, v, modulus, *tensors)


def transpose(problem: FixedPoint, z: Tensor, theta: Sequence[Tensor], prepared: Sequence[Tensor], a: Tensor) -> Tensor:
    """Jᵀ a, differentiable in z, θ and a."""
    _, product = vjp(lambda state: problem.step(state, theta, prepared), z)
    return product(a)[0]


def substitute(tensors: Sequence[Tensor], needs: Sequence[bool], chosen: Sequence[Tensor]) -> list[Tensor]:
    """`tensors` with those that `needs` marks replaced by `chosen`, in order."""
    rest = iter(chosen)
    return [next(rest) if need else t for t, need in zip(tensors, needs, strict=True)]


def solve(
    problem: FixedPoint,
    transposed: bool,
    z: Tensor,
    v: Tensor,
    modulus: Tensor,
    theta: Sequence[Tensor],
    prepared: Sequence[Tensor],
) -> Tensor:
    """Solve without autograd, by the options of the problem; report to its record."""
    options = problem.linear
    assert options is not None
    splitting = problem.splitting
    parameters, constants = tuple(theta), tuple(prepared)

    def restrict(rows: Tensor) -> Linearization:
        part = Prepared(take(constants, rows), Certificate())
        return splitting.linearize(z[rows], take(parameters, rows), part)

    jacobian = splitting.linearize(z, parameters, Prepared(constants, Certificate()))
    goal = accuracy(options.tolerance, modulus)
    system = System(jacobian, transposed, restrict, rate(jacobian, modulus))
    solver = by_parts(jacobian, options.solver) if isinstance(jacobian, BlockDiagonal) else options.solver
    answer = solver.solve(system, v.contiguous(), tolerance=goal, max_steps=options.max_steps)
    if transposed:
        problem.record.note_adjoint(v, modulus, answer, options.tolerance / goal)
    return answer.w


def rate(jacobian: Linearization, modulus: Tensor) -> float | None:
    """1 − the smallest certified modulus; None where it is not certified, or on a device that would have to be waited
    for."""
    if not isinstance(jacobian, SymmetricLinearization) or modulus.device.type != "cpu":
        return None
    least = float(modulus.min())  # NaN where nothing is certified
    return 1.0 - least if least > 0.0 else None


def accuracy(tolerance: float, modulus: Tensor) -> Tensor:
    """The residual to solve to (1|B,), relative to v, for a gradient of relative accuracy `tolerance`.

    The error of w is the residual over the smallest singular value of I − J: at least the certified modulus. Where none
    is known, `UNKNOWN_MARGIN` stands for it: Krylov methods converge fast in the end, so that the margin costs little.
    """
    eps = torch.finfo(modulus.dtype).eps
    known = (tolerance * modulus.clamp(SMALLEST_MARGIN, 1.0)).clamp_min(ROUNDING * eps)
    unknown = min(tolerance, max(UNKNOWN_MARGIN * tolerance, UNKNOWN_ROUNDING * eps))
    return torch.where(modulus.isnan(), max(unknown, ROUNDING * eps), known)
