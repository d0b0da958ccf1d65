"""Rules of arithmetic and of products: add, multiply, matmul, kron, conv and their relatives."""

import torch
import torch.nn.functional as F
from torch import Tensor

from opteq_cvx.ir.frozen import size
from opteq_cvx.ir.param import Apply
from opteq_cvx.maps.base import align
from opteq_cvx.maps.combine import flat, regroup
from opteq_cvx.maps.matrix import DenseMatrix
from opteq_cvx.maps.rule import Rules, elementwise


def _add(node: Apply, *values: Tensor) -> Tensor:
    first, *rest = (align(value, len(node.shape)) for value in values)
    for value in rest:
        first = first + value
    return first.expand(first.shape[0], *node.shape)


def _neg(node: Apply, x: Tensor) -> Tensor:
    return -x


def matmul(node: Apply, a: Tensor, b: Tensor) -> Tensor:
    """numpy.matmul with one batch axis before the event; one product where all samples share a factor."""
    rank_a, rank_b = a.ndim - 1, b.ndim - 1
    if a.shape[0] == 1 and rank_a == 2:
        shared = DenseMatrix(a)
        return shared.rows(b) if rank_b == 1 else shared.left(b)
    if b.shape[0] == 1 and rank_b == 2:
        return DenseMatrix(b.mT).rows(a)
    left = a.unsqueeze(1) if rank_a == 1 else a
    right = b.unsqueeze(-1) if rank_b == 1 else b
    rank = max(left.ndim, right.ndim) - 1
    return regroup(torch.matmul(align(left, rank), align(right, rank)), node.shape)


def _kron(node: Apply, a: Tensor, b: Tensor) -> Tensor:
    (p, q), (m, n) = a.shape[1:], b.shape[1:]
    left, right = a.reshape(-1, p, 1, q, 1), b.reshape(-1, 1, m, 1, n)
    return regroup(left * right, node.shape)


def _conv(node: Apply, c: Tensor, x: Tensor) -> Tensor:
    m, n = size(tuple(c.shape[1:])), size(tuple(x.shape[1:]))
    rows = max(c.shape[0], x.shape[0])
    signal = regroup(x, (n,)).expand(rows, n).unsqueeze(0)
    kernel = regroup(c, (m,)).flip(-1).expand(rows, m).unsqueeze(1)
    return regroup(F.conv1d(signal, kernel, padding=m - 1, groups=rows)[0], node.shape)


def _outer(node: Apply, x: Tensor, y: Tensor) -> Tensor:
    return regroup(flat(x).unsqueeze(-1) * flat(y).unsqueeze(-2), node.shape)


def _inner(node: Apply, x: Tensor, y: Tensor) -> Tensor:
    return regroup((flat(x) * flat(y)).sum(dim=-1), node.shape)


RULES: Rules = {
    "add": _add,
    "neg": _neg,
    "sub": elementwise(lambda x, y: x - y),
    "multiply": elementwise(lambda x, y: x * y),
    "divide": elementwise(lambda x, y: x / y),
    "matmul": matmul,
    "kron": _kron,
    "conv": _conv,
    "convolve": _conv,
    "outer": _outer,
    "vdot": _inner,
    "scalar_product": _inner,
}
