"""prox of f(s∘v + b), s entry by entry: zeros among the scales, which data may bring, remove their entries."""

from collections.abc import Callable

import torch
from torch import Tensor

from opteq_cvx.atoms import Atom, Trait
from opteq_cvx.ir.frozen import Shape
from opteq_cvx.maps.peek import known_true

SMALL = 1e-6  # the step at which the slope of f is read off its prox


def precomposed(
    f: Atom, step: Tensor, scale: Tensor, offset: Tensor | None, data: dict[str, Tensor], event: Shape
) -> Callable[[Tensor], Tensor]:
    """prox_{t f(s· + b)}(v) = (prox_{ts²f}(sv + b) − b)/s, and v where s = 0: f is constant there.

    Around s = 0 it is v − ts f'(b) to first order, which is what the derivative in s has to say; for the indicator of
    a set that holds b in its interior, v.
    Source: Parikh, Boyd, *Proximal Algorithms* (2014), section 2.2.
    """
    zero = scale == 0
    if known_true(~zero):
        return _plain(f, step, scale, offset, data)
    regular = _plain(f, step, torch.where(zero, torch.ones_like(scale), scale), offset, data)
    flat = step * scale * slope(f, step, offset, data, event)
    return lambda v: torch.where(zero, v - flat, regular(v))


def _plain(f: Atom, step: Tensor, s: Tensor, b: Tensor | None, data: dict[str, Tensor]) -> Callable[[Tensor], Tensor]:
    inner_step = step * s * s

    def prox(v: Tensor) -> Tensor:
        out = f.prox(s * v if b is None else s * v + b, inner_step, data)
        return (out if b is None else out - b) / s

    return prox


def slope(f: Atom, step: Tensor, offset: Tensor | None, data: dict[str, Tensor], event: Shape) -> Tensor:
    """An element of ∂f near b, (1|B, *event): the gradient of the Moreau envelope; 0 for sets."""
    zeros = step.new_zeros(1, *event)
    if Trait.SET in f.traits:
        return zeros
    b = zeros if offset is None else zeros + offset.detach()
    small = torch.full((1,) * b.ndim, SMALL, dtype=b.dtype, device=b.device)
    return ((b - f.prox(b, small, {k: d.detach() for k, d in data.items()})) / SMALL).detach()
