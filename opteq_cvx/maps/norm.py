"""norm_bound: a certified upper bound on the spectral norm of a LinearMap, exact wherever that is cheap.

Bounds of the parts combine as ‖AB‖ ≤ ‖A‖‖B‖ and ‖A + B‖ ≤ ‖A‖ + ‖B‖, the latter improved to the root of the
sum of squares where the summands write disjoint outputs. Computed in float64, rounded up, without gradient.
Source: Golub and Van Loan, Matrix Computations (4th ed.), sections 2.3 (norms) and 8.1 (perturbation).
"""

import math
from functools import reduce

import numpy as np
import torch
from torch import Tensor

from opteq_cvx.ir import linmap as lm
from opteq_cvx.ir.frozen import IntArray, size
from opteq_cvx.ir.param import Const, ParamExpr
from opteq_cvx.maps.base import PROBE, Lookup
from opteq_cvx.maps.combine import flat
from opteq_cvx.maps.conv_norm import conv_norm
from opteq_cvx.maps.dense import dense
from opteq_cvx.maps.sparse import sparse_matrix

EXACT_SIDE = 512
"""Eigenvalues of the smaller Gram matrix are computed up to this side."""

EXACT_ENTRIES = 1 << 18
"""A sum or composition is made dense, for an exact norm, up to this many entries a sample."""


def norm_bound(linear: lm.LinearMap, lookup: Lookup, *, like: Tensor | None = None) -> Tensor:
    """An upper bound (1|B,) on ‖K‖₂ at the coefficients' values.

    `like` gives the dtype and device; without it, `lookup` is asked for a constant.
    """
    like = lookup(PROBE) if like is None else like
    with torch.no_grad():
        bound = _bound(linear, _Values(lookup, like))
        return _rounded_up(bound, like.dtype)


def matrix_norm_bound(a: Tensor) -> Tensor:
    """An upper bound (b,) on ‖A‖₂ for A (b, m, n): exact to rounding where min(m, n) ≤ 512.

    Else min(‖A‖_F, √(‖A‖₁ ‖A‖_∞)).
    """
    with torch.no_grad():
        return _rounded_up(_matrix(a.detach().to(torch.float64)), a.dtype)


class _Values:
    """Coefficients in float64, without gradient."""

    def __init__(self, lookup: Lookup, like: Tensor) -> None:
        self.lookup = lookup
        self.like = like.detach().to(torch.float64)

    def __call__(self, expr: ParamExpr) -> Tensor:
        return self.lookup(expr).detach().to(torch.float64)

    def number(self, value: float) -> Tensor:
        return self.like.new_full((1,), value)


def _bound(linear: lm.LinearMap, values: _Values) -> Tensor:
    match linear:
        case lm.Identity() | lm.Reshape() | lm.Permute():
            return values.number(1.0)
        case lm.Zero():
            return values.number(0.0)
        case lm.Diagonal(d=d):
            return flat(values(d)).abs().amax(dim=1)
        case lm.LeftMul(a=a) | lm.RightMul(b=a):
            return _coefficient(a, values)
        case lm.Kron(a=a):
            return flat(values(a)).square().sum(dim=1).sqrt()  # an outer product: the Frobenius norm, exactly
        case lm.Conv2d(kernel=kernel):
            return _sharpened(linear, conv_norm(values(kernel), linear.stride, linear.groups), values)
        case lm.Gather(index=index):
            return values.number(math.sqrt(_most_frequent(index)))
        case lm.Sum() | lm.Broadcast():
            return values.number(math.sqrt(_repeats(linear)))
        case lm.Sparse(matrix=matrix):
            return _coefficient(Const(matrix), values)
        case lm.Adjoint(of=of):
            return _bound(of, values)
        case lm.Compose(maps=maps):
            loose = _product([_bound(part, values) for part in maps])
            return loose if _exact_product(maps) else _sharpened(linear, loose, values)
        case lm.SumMap(maps=maps):
            return _sharpened(linear, _summed(maps, [_bound(part, values) for part in maps]), values)


def _product(bounds: list[Tensor]) -> Tensor:
    return reduce(torch.mul, bounds)


def _summed(maps: tuple[lm.LinearMap, ...], bounds: list[Tensor]) -> Tensor:
    outputs = [_written(part) for part in maps]
    if all(out is not None for out in outputs):
        joined = np.concatenate([out for out in outputs if out is not None])
        if np.unique(joined).size == joined.size:
            return reduce(torch.add, (bound.square() for bound in bounds)).sqrt()
    return reduce(torch.add, bounds)


def _written(linear: lm.LinearMap) -> IntArray | None:
    """The flat outputs that may be nonzero, when the last step is a selection; else None."""
    steps = linear.maps if isinstance(linear, lm.Compose) else (linear,)
    last = next((step for step in steps if not isinstance(step, lm.Diagonal)), None)
    return np.flatnonzero(last.index.reshape(-1) >= 0) if isinstance(last, lm.Gather) else None


def _exact_product(maps: tuple[lm.LinearMap, ...]) -> bool:
    """Whether the product of the parts' norms is the norm: at most one part is not orthogonal."""
    return sum(not isinstance(part, lm.Identity | lm.Reshape | lm.Permute) for part in maps) <= 1


def _sharpened(linear: lm.LinearMap, loose: Tensor, values: _Values) -> Tensor:
    m, n = size(linear.shape_out), size(linear.shape_in)
    if min(m, n) > EXACT_SIDE or m * n > EXACT_ENTRIES:
        return loose
    exact = _matrix(dense(linear, values, like=values.like))
    return torch.minimum(loose, exact)


def _coefficient(a: ParamExpr, values: _Values) -> Tensor:
    if isinstance(a, Const) and a.sparse and min(a.shape) > EXACT_SIDE:
        host = abs(sparse_matrix(a.value).host)
        frobenius = float(np.sqrt((host.data**2).sum()))
        one, inf = (float(np.max(host.sum(axis=axis), initial=0.0)) for axis in (0, 1))
        return values.number(min(frobenius, math.sqrt(one * inf)))
    return _matrix(values(a))


def _matrix(a: Tensor) -> Tensor:
    """A bound on ‖A‖₂ for A (b, m, n) in float64, +∞ for a sample that is not finite."""
    m, n = a.shape[-2:]
    if min(m, n) == 0:
        return a.new_zeros(a.shape[0])
    scale = a.abs().amax(dim=(1, 2))
    finite = scale.isfinite()
    scale = torch.where(finite & (scale > 0), scale, 1.0)
    unit = torch.where(finite[:, None, None], a / scale[:, None, None], 0.0)
    if min(m, n) > EXACT_SIDE:
        norm = _cheap(unit)
    else:
        gram = unit @ unit.mT if m <= n else unit.mT @ unit
        norm = torch.relu(torch.linalg.eigvalsh(gram)[:, -1]).sqrt()
    return torch.where(finite, scale * norm, torch.inf)


def _cheap(a: Tensor) -> Tensor:
    size_of = a.abs()
    frobenius = a.square().sum(dim=(1, 2)).sqrt()
    return torch.minimum(frobenius, (size_of.sum(dim=1).amax(dim=1) * size_of.sum(dim=2).amax(dim=1)).sqrt())


def _most_frequent(index: IntArray) -> int:
    """How often the most repeated entry is read: ‖K‖² of a selection."""
    used = index[index >= 0]
    return int(np.bincount(used).max()) if used.size else 0


def _repeats(linear: lm.Sum | lm.Broadcast) -> float:
    """‖K‖² of a sum (how many entries meet) or a broadcast (how often an entry repeats)."""
    wide, narrow = sorted((size(linear.shape_in), size(linear.shape_out)), reverse=True)
    return wide / narrow if narrow else 0.0


def _rounded_up(bound: Tensor, dtype: torch.dtype) -> Tensor:
    """Enough above to cover rounding: of the Gram matrix in float64, then of the conversion to `dtype`."""
    margin = 1 + 4 * EXACT_SIDE * torch.finfo(torch.float64).eps
    bound = torch.where(bound.isnan(), torch.inf, bound)
    return (bound * margin).to(dtype) * (1 + 2 * torch.finfo(dtype).eps)
