"""Products with the derivatives of a map, in a form that any transform may differentiate or vectorize again."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

Function = Callable[..., Tensor]


def vjp(function: Callable[..., Any], *primals: Tensor) -> tuple[Any, Callable[..., tuple[Tensor, ...]]]:
    """torch.func.vjp, typed: the value and the map from cotangents to one product per primal."""
    found = torch.func.vjp(function, *primals)
    return found[0], found[1]


def pull(function: Function, primals: Sequence[Tensor], cotangent: Tensor) -> tuple[Tensor, ...]:
    """The vector-Jacobian products of function(*primals) with `cotangent`, one per primal.

    Where no derivative of the result can be wanted (gradients are disabled, no tangents) plain autograd does it, at
    half the overhead.
    """
    if not final(*primals, cotangent):
        return vjp(function, *primals)[1](cotangent)
    with torch.enable_grad():
        leaves = [p.detach().requires_grad_() for p in primals]
        image = function(*leaves)
    if not image.requires_grad:
        return tuple(torch.zeros_like(p) for p in primals)
    return torch.autograd.grad(image, leaves, cotangent, allow_unused=True, materialize_grads=True)


def final(*tensors: Tensor) -> bool:
    """Whether nothing computed from these can be differentiated: gradients are disabled, and there are no tangents."""
    return not torch.is_grad_enabled() and all(forward_ad.unpack_dual(t).tangent is None for t in tensors)


def push(function: Function, primals: Sequence[Tensor], tangents: Sequence[Tensor]) -> Tensor:
    """The Jacobian-vector product, by transposing the linear map u ↦ Jᵀu: forward mode does not nest in a jvp rule."""
    image, transpose = vjp(function, *primals)
    _, again = vjp(transpose, torch.zeros_like(image))
    return again(tuple(tangents))[0]


@contextmanager
def forward_again(ctx: Any) -> Iterator[tuple[Tensor, ...]]:
    """Inside a jvp rule: the saved tensors without this level's tangents, and forward mode on for the outer levels.

    torch runs a Function's jvp with forward mode off, so that jvp of jvp would silently lose a term.
    """
    with forward_ad._set_fwd_grad_enabled(True):
        yield tuple(forward_ad.unpack_dual(t).primal for t in ctx.saved_tensors)
