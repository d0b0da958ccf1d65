"""Piecewise linear activations: f is quadratic or 0 on an interval, or a multiple of |y|."""

import math
from dataclasses import replace

import torch
from torch import Tensor

from opteq_cvx.activations.row import Activation, inside, refuse


def identity() -> Activation:
    """a: f = 0."""
    return replace(linear(1.0), name="identity")


def linear(slope: float = 0.5) -> Activation:
    """slope·a, 0 < slope ≤ 1: f = (1/s − 1)y²/2."""
    s = slope
    if not 0 < s <= 1:
        raise refuse("linear", f"slope={s}", "0 < slope ≤ 1, where f is convex")
    return Activation(
        "linear",
        lambda a: s * a,
        lambda a: torch.full_like(a, s),
        lambda y: 0.5 * (1.0 / s - 1.0) * y * y,
        lambda a: 0.5 * s * a * a,
        s,
    )


def _clip(name: str, lower: float, upper: float) -> Activation:
    def sigma(a: Tensor) -> Tensor:
        return torch.where(a <= lower, lower, torch.where(a >= upper, upper, a))

    def primitive(a: Tensor) -> Tensor:
        return 0.5 * a * a - 0.5 * (a - a.clamp(lower, upper)) ** 2

    def slope(a: Tensor) -> Tensor:
        return ((a > lower) & (a < upper)).to(a.dtype)

    return Activation(
        name, sigma, slope, lambda y: inside(y, lower, upper, torch.zeros_like), primitive, 1.0, lower, upper
    )


def relu() -> Activation:
    """max(a, 0): f = ι[0, ∞)."""
    return Activation(
        "relu",
        torch.relu,
        lambda a: (a > 0).to(a.dtype),
        lambda y: inside(y, 0.0, math.inf, torch.zeros_like),
        lambda a: 0.5 * torch.relu(a) ** 2,
        lower=0.0,
    )


def hardtanh(lower: float = -1.0, upper: float = 1.0) -> Activation:
    """clip(a, lower, upper): f = ι[lower, upper]."""
    if not lower < upper:
        raise refuse("hardtanh", f"lower={lower}, upper={upper}", "lower < upper")
    return _clip("hardtanh", lower, upper)


def relu6() -> Activation:
    """clip(a, 0, 6)."""
    return _clip("relu6", 0.0, 6.0)


def leaky_relu(slope: float = 0.01) -> Activation:
    """a for a ≥ 0, slope·a below, 0 < slope < 1: f = (1 − s)y²/(2s) for y < 0."""
    s = slope
    if not 0 < s < 1:
        raise refuse("leaky_relu", f"slope={s}", "0 < slope < 1")
    return Activation(
        "leaky_relu",
        lambda a: torch.where(a > 0, a, s * a),
        lambda a: torch.where(a > 0, torch.ones_like(a), s),
        lambda y: (1.0 - s) / (2.0 * s) * torch.relu(-y) ** 2,
        lambda a: 0.5 * a * torch.where(a > 0, a, s * a),
    )


def soft_threshold(threshold: float = 1.0) -> Activation:
    """sign(a) max(|a| − λ, 0): f = λ|y|."""
    lam = threshold
    if not lam >= 0:
        raise refuse("soft_threshold", f"threshold={lam}", "a nonnegative number")
    return Activation(
        "soft_threshold",
        lambda a: a - a.clamp(-lam, lam),
        lambda a: (a.abs() > lam).to(a.dtype),
        lambda y: lam * y.abs(),
        lambda a: 0.5 * torch.relu(a.abs() - lam) ** 2,
    )


def hard_sigmoid() -> Activation:
    """clip(a/6 + ½, 0, 1): f = (5/2)y² − 3y on [0, 1]."""
    return Activation(
        "hard_sigmoid",
        lambda a: torch.where(a <= -3, 0.0, torch.where(a >= 3, 1.0, a / 6 + 0.5)).to(a.dtype),
        lambda a: torch.where(a.abs() < 3, torch.full_like(a, 1.0 / 6.0), 0.0),
        lambda y: inside(y, 0.0, 1.0, lambda y: 2.5 * y * y - 3.0 * y),
        lambda a: torch.where(a <= -3, 0.0, torch.where(a >= 3, a, (a + 3) ** 2 / 12)).to(a.dtype),
        1.0 / 6.0,
        0.0,
        1.0,
    )
