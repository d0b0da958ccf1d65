"""Rules of elementwise functions, with CVXPY's values outside their domains."""

import torch
from torch import Tensor

from opteq_cvx.ir.param import Apply
from opteq_cvx.maps.base import align
from opteq_cvx.maps.rule import Rules, elementwise

ROUNDING = 4
"""CVXPY rounds to this many decimals before `ceil` and `floor`."""


def _power(node: Apply, x: Tensor, *exponent: Tensor) -> Tensor:
    rank = len(node.shape)
    p = align(exponent[0], rank) if exponent else float(node.attrs["p"])
    return torch.pow(align(x, rank), p)


def _huber(node: Apply, x: Tensor, *threshold: Tensor) -> Tensor:
    rank = len(node.shape)
    m = align(threshold[0], rank) if threshold else torch.full_like(x[:1], float(node.attrs.get("M", 1.0)))
    size_of = torch.abs(x)
    return torch.where(size_of <= m, x * x, 2 * m * size_of - m * m)


def _rel_entr(x: Tensor, y: Tensor) -> Tensor:
    inside, zero = (x > 0) & (y > 0), (x == 0) & (y >= 0)
    safe_x, safe_y = torch.where(inside, x, 1.0), torch.where(inside, y, 1.0)
    outside = torch.where(zero, 0.0, torch.inf).to(x.dtype)
    return torch.where(inside, safe_x * torch.log(safe_x / safe_y), outside)


def _kl_div(x: Tensor, y: Tensor) -> Tensor:
    return _rel_entr(x, y) - x + y


def _signed_sqrt(x: Tensor) -> Tensor:
    """√x where x > 0, else x: the radius of a ball ‖v‖² ≤ x, which x < 0 leaves empty."""
    return torch.where(x > 0, torch.where(x > 0, x, 1.0).sqrt(), x)


def _maximum(node: Apply, *values: Tensor) -> Tensor:
    first, *rest = (align(value, len(node.shape)) for value in values)
    for value in rest:
        first = torch.maximum(first, value)
    return first


def _minimum(node: Apply, *values: Tensor) -> Tensor:
    first, *rest = (align(value, len(node.shape)) for value in values)
    for value in rest:
        first = torch.minimum(first, value)
    return first


def _softplus(x: Tensor) -> Tensor:
    return torch.logaddexp(x, torch.zeros_like(x))


def _sign(x: Tensor) -> Tensor:
    return torch.where(x > 0, 1.0, -1.0).to(x.dtype)


RULES: Rules = {
    "power": _power,
    "huber": _huber,
    "maximum": _maximum,
    "minimum": _minimum,
    "abs": elementwise(torch.abs),
    "exp": elementwise(torch.exp),
    "log": elementwise(torch.log),
    "log1p": elementwise(torch.log1p),
    "sqrt": elementwise(torch.sqrt),
    "signed_sqrt": elementwise(_signed_sqrt),
    "square": elementwise(torch.square),
    "inv_pos": elementwise(torch.reciprocal),
    "pos": elementwise(torch.relu),
    "entr": elementwise(torch.special.entr),
    "kl_div": elementwise(_kl_div),
    "rel_entr": elementwise(_rel_entr),
    "logistic": elementwise(_softplus),
    "xexp": elementwise(lambda x: x * torch.exp(x)),
    "sign": elementwise(_sign),
    "ceil": elementwise(lambda x: torch.ceil(torch.round(x, decimals=ROUNDING))),
    "floor": elementwise(lambda x: torch.floor(torch.round(x, decimals=ROUNDING))),
    "one_minus_pos": elementwise(lambda x: 1 - x),
    "diff_pos": elementwise(lambda x, y: x - y),
    "sin": elementwise(torch.sin),
    "cos": elementwise(torch.cos),
    "tan": elementwise(torch.tan),
    "sinh": elementwise(torch.sinh),
    "tanh": elementwise(torch.tanh),
    "asinh": elementwise(torch.asinh),
    "atanh": elementwise(torch.atanh),
    "normcdf": elementwise(torch.special.ndtr),
    "log_normcdf": elementwise(torch.special.log_ndtr),
}
