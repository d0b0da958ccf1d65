"""Equilibrium propagation: the gradient from nudged solves of the same program, no linear system."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from typing_extensions import override

from opteq_cvx.adjoint.equilibrium import equilibrium
from opteq_cvx.adjoint.first_order import first_order
from opteq_cvx.adjoint.implicit import Implicit
from opteq_cvx.adjoint.mode import AdjointMode, Equilibrated, everything, gather, sound
from opteq_cvx.adjoint.nudged import Nudging, nudged_gradient
from opteq_cvx.adjoint.problem import FixedPoint
from opteq_cvx.errors import InputError, UnsupportedError, message
from opteq_cvx.splitting.contract import Splitting, Theta


@dataclass(frozen=True, slots=True, kw_only=True)
class EquilibriumPropagation(AdjointMode):
    """dL/dθ = [∂_θℒ(z⁺; θ) − ∂_θℒ(z⁻; θ)] / 2β, z^± the solution with ±β⟨v, z⟩ added to the objective, v = ∂L/∂z.

    ℒ is the Lagrangian, held at solution and multipliers of the nudged programs; both signs are solved as one batch
    of size 2B. Exact at finite β for polyhedral-quadratic programs where z⁺ and z⁻ have one active set: that is
    certified sample by sample (`Stats.certified`), and β is halved where it fails. Elsewhere the error is O(β²),
    O(β⁴) with `richardson`, O(β) with one point. Needs an objective (no monotone inclusions) and unique multipliers
    where parameters sit in constraints. First order only: a second derivative raises OrderError.
    Sources: Scellier & Bengio 2017; Laborieux et al. 2021 (symmetric nudging); Domke 2010.

    Args:
        beta: size of the nudge, relative: β = beta·(1 + ‖z‖)/‖v‖ for each sample. The largest that is certified is
            best, since noise of the solves divides by it.
        points: 2 (symmetric) or 1 (one solve of size B, and a biased gradient).
        richardson: (4ĝ(β/2) − ĝ(β))/3, for smooth programs, where active sets say nothing; no halving.
        max_halvings: of β, where the active set changes; fewer where rounding would spoil the difference, or where the
            program is smooth and β small enough.
        fallback: differentiates samples that were never certified; None keeps their difference at the last β.
    """

    beta: float = 0.1
    points: int = 2
    richardson: bool = False
    max_halvings: int = 24
    fallback: Implicit | None = None

    def __post_init__(self) -> None:
        if not self.beta > 0:
            raise InputError(message(f"beta={self.beta}", "a positive number", "leave it out for 0.1"))
        if self.points not in (1, 2) or (self.richardson and self.points == 1):
            expected = "2 points, or 1 without richardson"
            raise InputError(message(f"points={self.points}", expected, "leave it out for 2"))
        if self.max_halvings < 0:
            raise InputError(message(f"max_halvings={self.max_halvings}", "at least 0", "leave it out for 24"))

    @override
    def equilibrate(self, problem: FixedPoint, z0: Tensor, theta: Theta, valid: Tensor | None = None) -> Equilibrated:
        refuse(problem.splitting)
        constants = tuple(t.detach() for t in theta)
        found = gather(equilibrium(problem, z0.detach(), everything(z0, valid), *constants))
        attached = tuple(first_order(t) if t.requires_grad else t for t in theta)
        start, parameters, prepared = sound(problem, found, found.z, attached)
        modulus = found.prepared.certificate.modulus
        assert modulus is not None, "gather always sets it"
        rule = Nudging(self.beta, self.points, self.richardson, self.max_halvings)
        bound = replace(
            problem, prepared=None, linear=None if self.fallback is None else self.fallback.options(problem)
        )
        count = len(parameters)
        z = attach(bound, rule, count, start.detach(), found.failed, modulus, *parameters, *prepared)
        moved = (z - z.detach()).masked_fill(found.failed[:, None], 0.0)
        return replace(found, z=found.z + moved)


def refuse(splitting: Splitting) -> None:
    """Raise where a map has no energy: its splitting does not define `nudge`.

    Raises:
        UnsupportedError: a monotone inclusion, for which the difference would be wrong by 100 %.
    """
    if type(splitting).nudge is Splitting.nudge:
        found = "equilibrium propagation through a map that has no energy"
        raise UnsupportedError(message(found, "a minimization problem", "compile with adjoint=Implicit()"))


class Attach(torch.autograd.Function):
    """z ↦ z, with the gradient of `nudged_gradient` in θ.

    apply(problem, rule, count, z, failed, modulus, *theta, *prepared): the first `count` of the last tensors are θ.
    """

    @override
    @staticmethod
    def forward(
        problem: FixedPoint, rule: Nudging, count: int, z: Tensor, failed: Tensor, modulus: Tensor, *tensors: Tensor
    ) -> Tensor:
        return z.clone()

    @override
    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        ctx.problem, ctx.rule, ctx.count, *tensors = inputs
        ctx.save_for_backward(*tensors)

    @override
    @staticmethod
    def backward(ctx: Any, *cotangents: Any) -> Any:
        (v,) = cotangents
        grads = difference(ctx.problem, ctx.rule, ctx.count, v, *ctx.saved_tensors)
        rest = len(ctx.saved_tensors) - 3 - ctx.count
        return None, None, None, None, None, None, *grads, *[None] * rest

    @override
    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], *arguments: Any) -> Any:
        return looped(
            lambda parts: (attach(*arguments[:3], *parts),), info.batch_size, in_dims[3:], arguments[3:], one=True
        )


class Difference(torch.autograd.Function):
    """The gradient as a function that vmap may call: sample by sample of the mapped axis."""

    @override
    @staticmethod
    def forward(problem: FixedPoint, rule: Nudging, count: int, v: Tensor, z: Tensor, *tensors: Tensor) -> Any:
        failed, modulus, *rest = tensors
        return nudged_gradient(problem, rule, z, v, failed, modulus, tuple(rest[:count]), tuple(rest[count:]))

    @override
    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        ctx.mark_non_differentiable(*output)

    @override
    @staticmethod
    def backward(ctx: Any, *cotangents: Any) -> Any:
        raise AssertionError("`first_order` raises before")

    @override
    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], *arguments: Any) -> Any:
        return looped(lambda parts: difference(*arguments[:3], *parts), info.batch_size, in_dims[3:], arguments[3:])


attach: Callable[..., Tensor] = Attach.apply
difference: Callable[..., tuple[Tensor, ...]] = Difference.apply


def looped(
    apply: Callable[[list[Tensor]], tuple[Tensor, ...]],
    size: int,
    dims: tuple[int | None, ...],
    tensors: tuple[Tensor, ...],
    *,
    one: bool = False,
) -> tuple[Any, Any]:
    """vmap as a loop over the mapped axis: solves adapt to their samples, and so do the number of their steps."""
    results = [
        apply([t if dim is None else t.select(dim, i) for t, dim in zip(tensors, dims, strict=True)])
        for i in range(size)
    ]
    stacked = tuple(torch.stack(parts) for parts in zip(*results, strict=True))
    return (stacked[0], 0) if one else (stacked, (0,) * len(stacked))
