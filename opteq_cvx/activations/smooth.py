"""Smooth activations: sigmoids, soft rectifiers and their complements."""

import math

import torch
from torch import Tensor

from opteq_cvx.activations.row import Activation, Scalar, inside, refuse, stretched
from opteq_cvx.dilogarithm import PI2_6, dilogarithm


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

    return Activation("tanh", torch.tanh, slope, lambda y: inside(y, -1, 1, entropy), primitive, 1.0, -1.0, 1.0)


def sigmoid() -> Activation:
    """1/(1 + e⁻ᵃ): f = y ln y + (1 − y)ln(1 − y) − ½y² on [0, 1]."""

    def entropy(y: Tensor) -> Tensor:
        rest: Tensor = torch.special.xlog1py(1 - y, -y)
        return torch.xlogy(y, y) + rest - 0.5 * y * y

    return Activation(
        "sigmoid",
        torch.sigmoid,
        lambda a: torch.sigmoid(a) * torch.sigmoid(-a),
        lambda y: inside(y, 0, 1, entropy),
        lambda a: torch.logaddexp(a, torch.zeros_like(a)),
        0.25,
        0.0,
        1.0,
    )


def softplus(beta: float = 1.0) -> Activation:
    """ln(1 + e^{βa})/β, β > 0: f = (Li₂(e^{−βy}) − π²/6)/β² on [0, ∞)."""
    if not beta > 0:
        raise refuse("softplus", f"beta={beta}", "a positive number")
    row = Activation(
        "softplus",
        lambda a: torch.logaddexp(a, torch.zeros_like(a)),
        torch.sigmoid,
        lambda y: inside(y, 0, math.inf, lambda y: dilogarithm(torch.exp(-y)) - PI2_6),
        lambda a: -_dilogarithm_exp(a),
        1.0,
        0.0,
    )
    return stretched(row, beta)


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
        lambda y: inside(y, -math.inf, 0, lambda y: dilogarithm(torch.exp(y)) - PI2_6),
        lambda a: -_dilogarithm_exp(-a),
        1.0,
        upper=0.0,
    )


def squareplus(mu: float = 1.0) -> Activation:
    """½(a + √(a² + 4μ)), μ > 0: f = −μ ln y for y > 0."""
    if not mu > 0:
        raise refuse("squareplus", f"mu={mu}", "a positive number")
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
        lambda y: inside(y, -1, 1, lambda y: -y.abs() - torch.log1p(-y.abs()) - 0.5 * y * y),
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
        lambda y: inside(y, -1, 1, lambda y: -torch.sqrt((1 - y) * (1 + y)) - 0.5 * y * y),
        lambda a: torch.hypot(a, torch.ones_like(a)),
        1.0,
        -1.0,
        1.0,
    )


def arctan(bound: float = math.pi / 2.0) -> Activation:
    """(2b/π)arctan(πa/2b), b > 0, of slope 1 at 0: f = −(2b/π)²ln cos(πy/2b) − ½y² on (−b, b); b = π/2: arctan a."""
    if not bound > 0:
        raise refuse("arctan", f"bound={bound}", "a positive number")
    half = math.pi / 2.0
    row = Activation(
        "arctan",
        torch.arctan,
        lambda a: 1.0 / (1.0 + a * a),
        lambda y: inside(y, -half, half, lambda y: -torch.log(torch.cos(y)) - 0.5 * y * y),
        lambda a: a * torch.arctan(a) - torch.log(torch.hypot(a, torch.ones_like(a))),
        1.0,
        -half,
        half,
    )
    return stretched(row, half / bound)


def tanhshrink() -> Activation:
    """a − tanh a: f(y) = ln cosh a − ½tanh² a at the root a of a − tanh a = y, the conjugate of tanh's f (Moreau)."""

    def log_cosh(a: Tensor) -> Tensor:
        return a.abs() + torch.log1p(torch.exp(-2 * a.abs())) - math.log(2.0)

    def sigma(a: Tensor) -> Tensor:
        q = a.clamp(-0.1, 0.1).square()
        series = a * q * (1 / 3 - q * (2 / 15 - q * (17 / 315 - q * (62 / 2835 - q * (1382 / 155925)))))
        return torch.where(a.abs() < 0.1, series, a - torch.tanh(a))

    def f(y: Tensor) -> Tensor:
        with torch.no_grad():
            a = _tanhshrink_root(y.abs(), sigma)
            a = torch.copysign(a, y)
        rate = torch.where(a == 0, 1.0, torch.tanh(a) ** 2)
        for _ in range(2):  # carry two derivatives
            a = a - (sigma(a) - y) / rate
        return log_cosh(a) - 0.5 * torch.tanh(a) ** 2

    return Activation("tanhshrink", sigma, lambda a: torch.tanh(a) ** 2, f, lambda a: 0.5 * a * a - log_cosh(a), 1.0)


def _tanhshrink_root(y: Tensor, sigma: Scalar) -> Tensor:
    """a ≥ 0 with a − tanh a = y ≥ 0, convex: from below, Newton's method passes the root once and falls to it."""
    a = torch.maximum((3.0 * y) ** (1.0 / 3.0), y)
    for _ in range(10):
        rate = torch.tanh(a) ** 2
        a = torch.where(rate > 0, a - (sigma(a) - y) / torch.where(rate > 0, rate, 1.0), a)
    return a


def elu(alpha: float = 1.0) -> Activation:
    """a for a ≥ 0, α(eᵃ − 1) below, 0 < α ≤ 1: f = (α + y)ln(1 + y/α) − y − ½y² for −α ≤ y < 0."""
    if not 0 < alpha <= 1:
        raise refuse("elu", f"alpha={alpha}", "0 < alpha ≤ 1, where the slope is at most 1")

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
        raise refuse("celu", f"alpha={alpha}", "a positive number")

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
