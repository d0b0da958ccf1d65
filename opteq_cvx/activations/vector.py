"""Activations along the last axis: the simplex is the domain of f."""

import torch
from torch import Tensor

from opteq_cvx.activations.row import Activation


def softmax() -> Activation:
    """softmax along the last axis: f = Σ y ln y − ½‖y‖² on the simplex; f, σ̃ keep the axis with length 1."""

    def f(y: Tensor) -> Tensor:
        value = (torch.xlogy(y, y.clamp(min=0.0)) - 0.5 * y * y).sum(-1, keepdim=True)
        gap = (y.sum(-1, keepdim=True) - 1).abs() + torch.relu(-y).sum(-1, keepdim=True)
        return torch.where(gap > 1e3 * torch.finfo(y.dtype).eps, torch.inf, value)

    def slope(a: Tensor) -> Tensor:
        p = torch.softmax(a, dim=-1)
        return p * (1.0 - p)

    return Activation(
        "softmax",
        lambda a: torch.softmax(a, dim=-1),
        slope,
        f,
        lambda a: torch.logsumexp(a, dim=-1, keepdim=True),
        0.5,
        0.0,
        1.0,
        vector=True,
    )


def sparsemax() -> Activation:
    """The projection on the simplex along the last axis: f its indicator, σ̃(a) = ½‖a‖² − ½dist²."""

    def sigma(a: Tensor) -> Tensor:
        top = a.sort(dim=-1, descending=True).values
        count = torch.arange(1, a.shape[-1] + 1, dtype=a.dtype, device=a.device)
        level = ((top.cumsum(-1) - 1.0) / count).amax(-1, keepdim=True).detach()
        active = (a > level).to(a.dtype)
        mean = ((a * active).sum(-1, keepdim=True) - 1.0) / active.sum(-1, keepdim=True)
        return active * (a - mean)

    def slope(a: Tensor) -> Tensor:
        active = (sigma(a) > 0).to(a.dtype)
        return active * (1.0 - 1.0 / active.sum(-1, keepdim=True))

    def f(y: Tensor) -> Tensor:
        gap = (y.sum(-1, keepdim=True) - 1).abs() + torch.relu(-y).sum(-1, keepdim=True)
        return torch.where(gap > 1e3 * torch.finfo(y.dtype).eps, torch.inf, 0.0).to(y.dtype)

    def primitive(a: Tensor) -> Tensor:
        s = sigma(a)
        return (a * s - 0.5 * s * s).sum(-1, keepdim=True)

    return Activation("sparsemax", sigma, slope, f, primitive, 1.0, 0.0, 1.0, vector=True)
