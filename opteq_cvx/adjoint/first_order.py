"""An identity that lets gradients through once and raises when those gradients are differentiated again."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from typing_extensions import override

from opteq_cvx.errors import OrderError, message

TEXT = message(
    "a second derivative through an adjoint of first order",
    "one backward pass, or an adjoint that differentiates itself",
    "compile with adjoint=Implicit() (or Unrolled(steps=...)) where second order is wanted",
)


class Barrier(torch.autograd.Function):
    """g ↦ g, attached to θ so that a derivative of the gradient, whichever way it is reached, raises."""

    generate_vmap_rule = True

    @override
    @staticmethod
    def forward(cotangent: Tensor, theta: Tensor) -> Tensor:
        return cotangent.view_as(cotangent)

    @override
    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        return None

    @override
    @staticmethod
    def backward(ctx: Any, *cotangents: Any) -> Any:
        raise OrderError(TEXT)

    @override
    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Any:
        raise OrderError(TEXT)


barrier: Callable[[Tensor, Tensor], Tensor] = Barrier.apply


class FirstOrder(torch.autograd.Function):
    """θ ↦ θ; the cotangent passes through `Barrier`."""

    generate_vmap_rule = True

    @override
    @staticmethod
    def forward(theta: Tensor) -> Tensor:
        return theta.view_as(theta)

    @override
    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        ctx.save_for_backward(inputs[0])

    @override
    @staticmethod
    def backward(ctx: Any, *cotangents: Any) -> Any:
        (theta,) = ctx.saved_tensors
        return barrier(cotangents[0], theta)

    @override
    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Any:
        return tangents[0].view_as(tangents[0])


first_order: Callable[[Tensor], Tensor] = FirstOrder.apply
