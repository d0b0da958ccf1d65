"""What a rule of `evaluate` is, and what rules share: alignment and reductions over event axes."""

from collections.abc import Callable, Mapping

from torch import Tensor

from opteq_cvx.ir.frozen import size
from opteq_cvx.ir.param import Apply
from opteq_cvx.maps.base import align
from opteq_cvx.maps.combine import regroup

Rule = Callable[..., Tensor]
"""rule(node, *values): the node has attributes and shape, the values are (1|B, *shape of the argument)."""

Rules = Mapping[str, Rule]


def elementwise(f: Callable[..., Tensor]) -> Rule:
    """A rule that applies f to arguments broadcast to the node's rank."""

    def rule(node: Apply, *values: Tensor) -> Tensor:
        return f(*(align(value, len(node.shape)) for value in values))

    return rule


def reduction(f: Callable[[Tensor], Tensor]) -> Rule:
    """A rule that applies f: (..., n) → (...) to the axes that the node reduces, joined in C order."""

    def rule(node: Apply, x: Tensor) -> Tensor:
        return reduce_with(f, node, x)

    return rule


def reduce_with(f: Callable[[Tensor], Tensor], node: Apply, x: Tensor, *, order: str = "C") -> Tensor:
    """Move the reduced axes last, join them in the order and apply f; `keepdims` is in the node's shape."""
    rank = x.ndim - 1
    axes = axes_of(node, rank)
    kept = tuple(i for i in range(rank) if i not in axes)
    moved = x.permute(0, *(i + 1 for i in kept), *(i + 1 for i in (axes if order == "C" else axes[::-1])))
    count = size(tuple(x.shape[i + 1] for i in axes))
    joined = moved.reshape(x.shape[0], *(x.shape[i + 1] for i in kept), count)
    return regroup(f(joined), node.shape)


def axes_of(node: Apply, rank: int) -> tuple[int, ...]:
    """The reduced event axes, nonnegative; all of them where `axis` is None."""
    axis = node.attrs.get("axis")
    if axis is None:
        return tuple(range(rank))
    axes = axis if isinstance(axis, tuple | list) else (axis,)
    return tuple(int(a) % rank for a in axes)
