"""Functions that reduce axes: the static field `axes`, its recognition, moving them to the end and back."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor
from typing_extensions import override

from opteq_cvx.atoms.contract import Atom, Recognized
from opteq_cvx.errors import CompileError, message
from opteq_cvx.ir import act
from opteq_cvx.ir.frozen import FrozenDict, Shape, size
from opteq_cvx.ir.linmap import Identity, LinearMap, Permute, Reshape, compose
from opteq_cvx.ir.param import ParamExpr
from opteq_cvx.ir.pattern import Pattern, match
from opteq_cvx.ir.program import Affine
from opteq_cvx.ir.tree import Node

WRONG: tuple[Mapping[str, Any], ...] = ({"axes": ()}, {"axes": (0,)}, {"axes": (-1, -1)})

LARGEST = ("max", "norm_inf")
"""Of norms, which are not negative, both are the largest."""


@dataclass(frozen=True, slots=True)
class Reducing(Atom):
    """A function of the entries along `axes` (negative numbers), one value for each position of the others.

    Raises:
        CompileError: `axes` is empty, repeats, or is not negative.
    """

    axes: tuple[int, ...] = (-1,)

    copied: ClassVar[tuple[str, ...]] = ()  # attributes of the node that are static attributes too
    wrong = WRONG

    def __post_init__(self) -> None:
        good = self.axes and all(a < 0 for a in self.axes) and len(set(self.axes)) == len(self.axes)
        if not good:
            found, expected = f"atom {self.name!r} got axes={self.axes}", "distinct negative numbers"
            raise CompileError(message(found, expected, "count axes from the end: -1 is the last one"))

    @override
    @classmethod
    def recognize(cls, node: Node) -> Recognized | None:
        for pattern in cls.patterns:
            found = match(pattern, node)
            if found is not None and found.bound["x"].affine is not None:
                static = {"axes": tuple(node.attrs["axes"]), **{key: node.attrs[key] for key in cls.copied}}
                return Recognized(found.bound["x"].affine, FrozenDict(static))
        return None


def below(node: Node, *functions: Pattern) -> tuple[Node, Node, Affine, tuple[int, ...]] | None:
    """(f, bound, x, axes) where `node` is f(x) ≤ bound and f one of `functions` of an affine x, else None."""
    if node.op != "leq":
        return None
    f, bound = node.args
    for function in functions:
        found = match(function, f)
        if found is not None and found.bound["x"].affine is not None:
            return f, bound, found.bound["x"].affine, tuple(f.attrs.get("axes", ()))
    return None


def joining(shape: Shape, axes: tuple[int, ...]) -> LinearMap:
    """The map that moves `axes` to the end and flattens them into one."""
    rest = tuple(i for i in range(len(shape)) if i - len(shape) not in axes)
    order = (*rest, *(a + len(shape) for a in axes))
    moved = tuple(shape[i] for i in order)
    rows = moved[: len(rest)]
    flat = (*rows, size(moved[len(rest) :]))
    permute = Identity(shape) if order == tuple(range(len(shape))) else Permute(order, shape)
    return compose(Identity(moved) if flat == moved else Reshape(moved, flat, "C"), permute)


def kept(shape: Shape, axes: tuple[int, ...]) -> Shape:
    """`shape` with length 1 on `axes`."""
    return tuple(1 if i - len(shape) in axes else n for i, n in enumerate(shape))


def level_set(node: Node, *functions: Pattern) -> tuple[Affine, tuple[int, ...], ParamExpr] | None:
    """(x, axes, radius) where `node` is f(x) ≤ radius, of parameters only, in the reduced shape.

    The largest of several values of f is bounded where each of them is.
    """
    found = below(node, *functions)
    if found is None and node.op == "leq" and node.args[0].op in LARGEST and node.args[0].shape == ():
        found = below(replace(node, args=(node.args[0].args[0], node.args[1])), *functions)
    if found is None or found[1].param is None:
        return None
    f, bound, x, axes = found
    assert bound.param is not None
    return x, axes, act.reshape(act.spread(bound.param, f.shape), kept(x.shape, axes))


def join(x: Tensor, axes: tuple[int, ...]) -> Tensor:
    """Move `axes` to the end and flatten them into one."""
    if axes == (-1,):
        return x
    last = tuple(range(-len(axes), 0))
    return x.movedim(axes, last).flatten(-len(axes))


def split(y: Tensor, axes: tuple[int, ...], shape: Shape) -> Tensor:
    """Undo `join` for a tensor whose joined axis has the sizes that `shape` has on `axes`."""
    if axes == (-1,):
        return y
    last = tuple(range(-len(axes), 0))
    return y.reshape((*y.shape[:-1], *(shape[a] for a in axes))).movedim(last, axes)


def spike(v: Tensor, axes: tuple[int, ...], height: Tensor) -> Tensor:
    """The tensor of `v`'s shape with `height` as first entry along `axes` and zeros elsewhere."""
    flat = torch.zeros_like(join(v, axes))
    first = torch.cat([join(height, axes).expand_as(flat[..., :1]), flat[..., 1:]], dim=-1)
    return split(first, axes, v.shape)


def tie(v: Tensor, axes: tuple[int, ...], total: Tensor) -> Tensor:
    """A tensor of `v`'s shape whose second entry along `axes` is τ with Σ max(v − τ, 0) = total; others 0."""
    flat = torch.zeros_like(join(v, axes))
    first = (1.0 + join(total, axes)).expand_as(flat[..., :1])
    return split(torch.cat([first, first - join(total, axes), flat[..., 2:]], dim=-1), axes, v.shape)
