"""dense: a LinearMap as a matrix, by structure (no products with unit vectors where there is a formula)."""

import torch
from torch import Tensor

from opteq_cvx.ir import linmap as lm
from opteq_cvx.ir.frozen import Shape, size
from opteq_cvx.maps.base import PROBE, Lookup, align
from opteq_cvx.maps.bind import bind
from opteq_cvx.maps.combine import regroup
from opteq_cvx.maps.matrix import matrix_of


def dense(linear: lm.LinearMap, lookup: Lookup, *, like: Tensor | None = None) -> Tensor:
    """The matrix (1|B, prod(shape_out), prod(shape_in)) of `linear`, differentiable in its coefficients.

    `like` gives the dtype and device; without it, `lookup` is asked for a constant.
    """
    like = lookup(PROBE) if like is None else like
    n, m = size(linear.shape_in), size(linear.shape_out)
    match linear:
        case lm.Diagonal(d=d, shape_in=shape):
            value = align(lookup(d), len(shape))
            return torch.diag_embed(regroup(value.expand(value.shape[0], *shape), (n,)))
        case lm.LeftMul(a=a, shape_in=shape):
            lead, width = (1, 1) if len(shape) == 1 else (size(shape[:-2]), shape[-1])
            return _expanded(matrix_of(a, lookup).dense(like), lead, width)
        case lm.RightMul(b=b, shape_in=shape):
            return _expanded(matrix_of(b, lookup).dense(like).mT, size(shape[:-1]), 1)
        case lm.Adjoint(of=of):
            return dense(of, lookup, like=like).mT
        case lm.SumMap(maps=maps):
            first, *rest = (dense(part, lookup, like=like) for part in maps)
            for part in rest:
                first = first + part
            return first
        case lm.Compose(maps=maps):
            if m < n:
                head, tail = dense(maps[0], lookup, like=like), lm.Compose(maps[1:])
                flipped = _columns(lm.Adjoint(tail), head.mT, lookup)
                return flipped.mT
            return _columns(lm.Compose(maps[:-1]), dense(maps[-1], lookup, like=like), lookup)
        case _:
            return _columns(linear, torch.eye(n, dtype=like.dtype, device=like.device).unsqueeze(0), lookup)


def _columns(linear: lm.LinearMap, matrix: Tensor, lookup: Lookup) -> Tensor:
    """K @ matrix, (b, prod(in), c) → (b, prod(out), c)."""
    columns = matrix.shape[-1]
    lifted = bind(linear, lookup).lift(columns)
    shape: Shape = (size(linear.shape_out), columns)
    return regroup(lifted.apply(regroup(matrix, lifted.shape_in)), shape)


def _expanded(a: Tensor, lead: int, width: int) -> Tensor:
    """I_lead ⊗ A ⊗ I_width for A (b, m, n)."""
    if lead == 1 and width == 1:
        return a
    b, m, n = a.shape
    outer = torch.eye(lead, dtype=a.dtype, device=a.device).reshape(1, lead, 1, 1, lead, 1, 1)
    inner = torch.eye(width, dtype=a.dtype, device=a.device).reshape(1, 1, 1, width, 1, 1, width)
    blocks = outer * a.reshape(b, 1, m, 1, 1, n, 1) * inner
    return blocks.reshape(b, lead * m * width, lead * n * width)
