"""Activations as proximal operators: σ = prox_f, with f, the primitive σ̃ and the Lipschitz constant of σ.

For every row: σ̃(a) = aσ(a) − f(σ(a)) − ½σ(a)² (3.1), f*(a − σ(a)) = σ̃(a) − ½σ(a)² (3.2), σ = prox_f, f convex.
Functions act entry by entry on tensors, softmax along the last axis; f is +inf outside its domain. The derivative of σ
at a kink is the smallest one-sided one. Source: Combettes, Pesquet, arXiv 1808.07526, section 2.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from opteq_cvx.dilogarithm import PI2_6, dilogarithm
from opteq_cvx.errors import CompileError, message

Scalar = Callable[[Tensor], Tensor]


@dataclass(frozen=True, slots=True)
class Activation:
    """One row of the table.

    Attributes:
        name: how `oc.activation` calls it.
        sigma: σ.
        slope: σ'.
        f: the convex function with σ = prox_f.
        primitive: σ̃, with σ̃' = σ and the constant that (3.1) fixes.
        lipschitz: of σ.
        lower: the lower end of f's domain.
        upper: its upper end.
    """

    name: str
    sigma: Scalar
    slope: Scalar
    f: Scalar
    primitive: Scalar
    lipschitz: float = 1.0
    lower: float = -math.inf
    upper: float = math.inf

    def conjugate_at(self, a: Tensor) -> Tensor:
        """f*(a − σ(a)), by (3.2)."""
        s = self.sigma(a)
        return self.primitive(a) - 0.5 * s * s


def _inside(y: Tensor, lower: float, upper: float, value: Scalar) -> Tensor:
    """`value` on [lower, upper], +inf elsewhere; NaN stays NaN."""
    safe = y.clamp(lower, upper)
    return torch.where((y < lower) | (y > upper), torch.inf, value(safe))


# --- rows ----------------------------------------------------------------------------------------------


def _clip(name: str, lower: float, upper: float) -> Activation:
    def sigma(a: Tensor) -> Tensor:
        return torch.where(a <= lower, lower, torch.where(a >= upper, upper, a))

    def primitive(a: Tensor) -> Tensor:
        return 0.5 * a * a - 0.5 * (a - a.clamp(lower, upper)) ** 2

    def slope(a: Tensor) -> Tensor:
        return ((a > lower) & (a < upper)).to(a.dtype)

    return Activation(
        name, sigma, slope, lambda y: _inside(y, lower, upper, torch.zeros_like), primitive, 1.0, lower, upper
    )


def relu() -> Activation:
    """max(a, 0): f = ι[0, ∞)."""
    return Activation(
        "relu",
        torch.relu,
        lambda a: (a > 0).to(a.dtype),
        lambda y: _inside(y, 0.0, math.inf, torch.zeros_like),
        lambda a: 0.5 * torch.relu(a) ** 2,
        lower=0.0,
    )


def hardtanh(lower: float = -1.0, upper: float = 1.0) -> Activation:
    """clip(a, lower, upper): f = ι[lower, upper]."""
    if not lower < upper:
        raise _refuse("hardtanh", f"lower={lower}, upper={upper}", "lower < upper")
    return _clip("hardtanh", lower, upper)


def relu6() -> Activation:
    """clip(a, 0, 6)."""
    return _clip("relu6", 0.0, 6.0)


def leaky_relu(slope: float = 0.01) -> Activation:
    """a for a ≥ 0, slope·a below, 0 < slope < 1: f = (1 − s)y²/(2s) for y < 0."""
    s = slope
    if not 0 < s < 1:
        raise _refuse("leaky_relu", f"slope={s}", "0 < slope < 1")
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
        raise _refuse("soft_threshold", f"threshold={lam}", "a nonnegative number")
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
        lambda y: _inside(y, 0.0, 1.0, lambda y: 2.5 * y * y - 3.0 * y),
        lambda a: torch.where(a <= -3, 0.0, torch.where(a >= 3, a, (a + 3) ** 2 / 12)).to(a.dtype),
        1.0 / 6.0,
        0.0,
        1.0,
    )


def tanh() -> Activation:
    """tanh a: f = ½[(1 + y)ln(1 + y) + (1 − y)ln(1 − y)] − ½y² on [−1, 1]."""

    def entropy(y: Tensor) -> Tensor:
        above: Tensor = torch.special.xlog1py(1 + y, y)
        below: Tensor = torch.special.xlog1py(1 - y, -y)
        return 0.5 * (above + below - y * y)

    def primitive(a: Tensor) -> Tensor:
        return a.abs() + torch.log1p(torch.exp(-2 * a.abs())) - math.log(2.0)

    def slope(a: Tensor) -> Tensor:
        return 4.0 * torch.sigmoid(2.0 * a) * torch.sigmoid(-2.0 * a)

    return Activation("tanh", torch.tanh, slope, lambda y: _inside(y, -1, 1, entropy), primitive, 1.0, -1.0, 1.0)


def sigmoid() -> Activation:
    """1/(1 + e⁻ᵃ): f = y ln y + (1 − y)ln(1 − y) − ½y² on [0, 1]."""

    def entropy(y: Tensor) -> Tensor:
        rest: Tensor = torch.special.xlog1py(1 - y, -y)
        return torch.xlogy(y, y) + rest - 0.5 * y * y

    return Activation(
        "sigmoid",
        torch.sigmoid,
        lambda a: torch.sigmoid(a) * torch.sigmoid(-a),
        lambda y: _inside(y, 0, 1, entropy),
        lambda a: torch.logaddexp(a, torch.zeros_like(a)),
        0.25,
        0.0,
        1.0,
    )


def softplus() -> Activation:
    """ln(1 + eᵃ): f = Li₂(e⁻ʸ) − π²/6 on [0, ∞)."""
    return Activation(
        "softplus",
        lambda a: torch.logaddexp(a, torch.zeros_like(a)),
        torch.sigmoid,
        lambda y: _inside(y, 0, math.inf, lambda y: dilogarithm(torch.exp(-y)) - PI2_6),
        lambda a: -_dilogarithm_exp(a),
        1.0,
        0.0,
    )


def _dilogarithm_exp(a: Tensor) -> Tensor:
    """Li₂(−eᵃ) without overflow: for a > 0 by inversion."""
    inner = dilogarithm(-torch.exp(-a.abs()))
    return torch.where(a > 0, -PI2_6 - 0.5 * a * a - inner, inner)


def log_sigmoid() -> Activation:
    """−ln(1 + e⁻ᵃ): f = Li₂(eʸ) − π²/6 on (−∞, 0]."""
    return Activation(
        "log_sigmoid",
        lambda a: -torch.logaddexp(-a, torch.zeros_like(a)),
        lambda a: torch.sigmoid(-a),
        lambda y: _inside(y, -math.inf, 0, lambda y: dilogarithm(torch.exp(y)) - PI2_6),
        lambda a: -_dilogarithm_exp(-a),
        1.0,
        upper=0.0,
    )


def squareplus(mu: float = 1.0) -> Activation:
    """½(a + √(a² + 4μ)), μ > 0: f = −μ ln y for y > 0."""
    if not mu > 0:
        raise _refuse("squareplus", f"mu={mu}", "a positive number")
    root = 2.0 * math.sqrt(mu)

    def sigma(a: Tensor) -> Tensor:
        far = 0.5 * (a.abs() + torch.hypot(a, torch.full_like(a, root)))
        return torch.where(a >= 0, far, mu / far)

    def slope(a: Tensor) -> Tensor:
        return 0.5 * (1.0 + a / torch.hypot(a, torch.full_like(a, root)))

    def primitive(a: Tensor) -> Tensor:
        s = sigma(a)
        return a * s + mu * torch.log(s) - 0.5 * s * s

    def f(y: Tensor) -> Tensor:
        return torch.where(y < 0, torch.inf, -mu * torch.log(y.clamp(min=0.0)))

    return Activation("squareplus", sigma, slope, f, primitive, 1.0, 0.0)


def softsign() -> Activation:
    """a/(1 + |a|): f = −|y| − ln(1 − |y|) − ½y² on (−1, 1)."""
    return Activation(
        "softsign",
        lambda a: a / (1 + a.abs()),
        lambda a: 1.0 / (1.0 + a.abs()) ** 2,
        lambda y: _inside(y, -1, 1, lambda y: -y.abs() - torch.log1p(-y.abs()) - 0.5 * y * y),
        lambda a: a.abs() - torch.log1p(a.abs()),
        1.0,
        -1.0,
        1.0,
    )


def algebraic() -> Activation:
    """a/√(1 + a²): f = −√(1 − y²) − ½y² on [−1, 1]."""
    return Activation(
        "algebraic",
        lambda a: a / torch.hypot(a, torch.ones_like(a)),
        lambda a: torch.hypot(a, torch.ones_like(a)) ** -3.0,
        lambda y: _inside(y, -1, 1, lambda y: -torch.sqrt((1 - y) * (1 + y)) - 0.5 * y * y),
        lambda a: torch.hypot(a, torch.ones_like(a)),
        1.0,
        -1.0,
        1.0,
    )


def arctan() -> Activation:
    """arctan a: f = −ln cos y − ½y² on (−π/2, π/2)."""
    half = math.pi / 2.0
    return Activation(
        "arctan",
        torch.arctan,
        lambda a: 1.0 / (1.0 + a * a),
        lambda y: _inside(y, -half, half, lambda y: -torch.log(torch.cos(y)) - 0.5 * y * y),
        lambda a: a * torch.arctan(a) - torch.log(torch.hypot(a, torch.ones_like(a))),
        1.0,
        -half,
        half,
    )


def elu(alpha: float = 1.0) -> Activation:
    """a for a ≥ 0, α(eᵃ − 1) below, 0 < α ≤ 1: f = (α + y)ln(1 + y/α) − y − ½y² for −α ≤ y < 0."""
    if not 0 < alpha <= 1:
        raise _refuse("elu", f"alpha={alpha}", "0 < alpha ≤ 1, where the slope is at most 1")

    def f(y: Tensor) -> Tensor:
        low = y.clamp(-alpha, 0.0)
        value = alpha * torch.special.xlog1py(1 + low / alpha, low / alpha) - low - 0.5 * low * low
        return torch.where(y < -alpha, torch.inf, value)

    return Activation(
        "elu",
        lambda a: torch.where(a > 0, a, alpha * torch.expm1(a.clamp(max=0.0))),
        lambda a: torch.where(a > 0, 1.0, alpha * torch.exp(a.clamp(max=0.0))),
        f,
        lambda a: torch.where(a > 0, 0.5 * a * a, alpha * (torch.expm1(a.clamp(max=0.0)) - a)),
        lower=-alpha,
    )


def celu(alpha: float = 1.0) -> Activation:
    """a for a ≥ 0, α(e^{a/α} − 1) below, α > 0: f = α(α + y)ln(1 + y/α) − αy − ½y² for −α ≤ y < 0."""
    if not alpha > 0:
        raise _refuse("celu", f"alpha={alpha}", "a positive number")

    def f(y: Tensor) -> Tensor:
        low = y.clamp(-alpha, 0.0)
        value = alpha * alpha * torch.special.xlog1py(1 + low / alpha, low / alpha) - alpha * low - 0.5 * low * low
        return torch.where(y < -alpha, torch.inf, value)

    def below(a: Tensor) -> Tensor:
        return a.clamp(max=0.0) / alpha

    return Activation(
        "celu",
        lambda a: torch.where(a > 0, a, alpha * torch.expm1(below(a))),
        lambda a: torch.where(a > 0, 1.0, torch.exp(below(a))),
        f,
        lambda a: torch.where(a > 0, 0.5 * a * a, alpha * alpha * (torch.expm1(below(a)) - below(a))),
        lower=-alpha,
    )


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
    )


ACTIVATIONS: dict[str, Callable[..., Activation]] = {
    make.__name__: make
    for make in (
        relu,
        hardtanh,
        relu6,
        leaky_relu,
        soft_threshold,
        hard_sigmoid,
        tanh,
        sigmoid,
        softplus,
        log_sigmoid,
        squareplus,
        softsign,
        algebraic,
        arctan,
        elu,
        celu,
        softmax,
    )
}
"""Name to a maker of the row, whose arguments are the activation's own (slope, alpha, ...)."""

REFUSED = {
    "gelu": "it is not monotone, hence no prox of a convex function",
    "silu": "it is not monotone, hence no prox of a convex function",
    "mish": "it is not monotone, hence no prox of a convex function",
    "selu": "its slope exceeds 1, so f is not convex",
    "hardshrink": "it is discontinuous",
}


def table(name: str, **options: float) -> Activation:
    """The row of an activation.

    Raises:
        CompileError: no convex f has this σ as its prox, an unknown name, or options outside their range.
    """
    if name in REFUSED:
        raise _refuse(name, REFUSED[name], f"one of {', '.join(ACTIVATIONS)}")
    if name not in ACTIVATIONS:
        raise _refuse(name, "there is no such row", f"one of {', '.join(ACTIVATIONS)}")
    try:
        return ACTIVATIONS[name](**options)
    except TypeError as error:
        raise _refuse(name, str(error), "the options of this activation") from error


def _refuse(name: str, found: str, expected: str) -> CompileError:
    return CompileError(message(f"activation {name!r}: {found}", expected, "choose another one"))
