"""The sorted inner product f(x) = Σ w₍ᵢ₎ x₍ᵢ₎, both sorted: the support function of the permutahedron of w."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor
from typing_extensions import override

from opteq_cvx.atoms.chain import chain
from opteq_cvx.atoms.contract import Atom, Data, Recognized, Spelling, Trait
from opteq_cvx.ir import affine as aff
from opteq_cvx.ir.act import reshape
from opteq_cvx.ir.frozen import FrozenDict, size
from opteq_cvx.ir.linmap import Reshape
from opteq_cvx.ir.param import ParamExpr
from opteq_cvx.ir.program import Affine
from opteq_cvx.ir.tree import Node


def flattened(x: Affine, w: ParamExpr) -> Recognized:
    """The argument as a vector (its order does not matter) and the weights as one."""
    n = (size(x.shape),)
    flat = x if x.shape == n else aff.image(Reshape(x.shape, n, "C"), x)
    return Recognized(flat, data=FrozenDict(w=reshape(w, (size(w.shape),))))


def descending(w: Tensor, n: int) -> Tensor:
    """Weights filled up with zeros to length n, sorted."""
    return F.pad(w, (0, n - w.shape[-1])).sort(dim=-1, descending=True).values


def nonincreasing(z: Tensor) -> Tensor:
    """The projection on {x₁ ≥ x₂ ≥ …} of the last axis."""
    free = z.new_zeros((*(1,) * (z.ndim - 1), z.shape[-1] - 1))
    return chain(z, free, free + torch.inf)


@dataclass(frozen=True, slots=True)
class Dotsort(Atom):
    """f(x) = ⟨sort x, sort w⟩, data `w` of at most n entries of any sign, zeros for the rest.

    The prox sorts v, subtracts t·sort(w), makes the result nonincreasing and puts it back in order.
    """

    name = "dotsort"
    formula = "⟨sort x, sort w⟩"
    cost = "that of monotone"
    source = "Blondel, Teboul, Berthet, Djolonga, *Fast differentiable sorting and ranking*, 2020, section 4"
    traits = frozenset({Trait.HOMOGENEOUS})
    spellings = (
        Spelling(text="dotsort(x, [3, 1, -2, 0, 2])", data={"w": "np.array([3.0, 1.0, -2.0, 0.0, 2.0])"}),
        Spelling(text="dotsort(x, w)", parameters={"w": ((5,), {})}, data={"w": "w"}),
        Spelling(text="dotsort(x, [2, 1])", data={"w": "np.array([2.0, 1.0])"}),
        Spelling(
            text="dotsort(x, w)",
            variables={"x": (2, 3)},
            parameters={"w": ((6,), {})},
            arg="vec(x, order='C')",
            data={"w": "w"},
        ),
    )

    @override
    @classmethod
    def recognize(cls, node: Node) -> Recognized | None:
        if node.op != "dotsort" or node.args[0].affine is None or node.args[1].param is None:
            return None
        return flattened(node.args[0].affine, node.args[1].param)

    @override
    def value(self, x: Tensor, data: Data) -> Tensor:
        top = x.sort(dim=-1, descending=True).values
        return (top * descending(data["w"], x.shape[-1])).sum(-1, keepdim=True)

    @override
    def prox(self, v: Tensor, step: Tensor, data: Data) -> Tensor:
        top, order = v.sort(dim=-1, descending=True)
        x = nonincreasing(top - step * descending(data["w"], v.shape[-1]))
        return x.gather(-1, order.argsort(dim=-1))

    @override
    def kinks(self, v: Tensor, step: Tensor, data: Data) -> tuple[Tensor, ...]:
        w = descending(data["w"], v.shape[-1])
        height = step * (w[..., :1] - w[..., 1:].mean(-1, keepdim=True))
        first = torch.arange(v.shape[-1], device=v.device) == 0
        return (torch.where(first, height, 0.0).expand_as(v),)
