"""The sorted l1 norm f(x) = Σ w₍ᵢ₎ |x|₍ᵢ₎ (SLOPE, OWL), both sorted."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from typing_extensions import override

from opteq_cvx.atoms.contract import Atom, Data, Recognized, Spelling, Trait
from opteq_cvx.atoms.dotsort import descending, flattened, nonincreasing
from opteq_cvx.ir.frozen import Array
from opteq_cvx.ir.param import const
from opteq_cvx.ir.tree import Node


def _largest(k: float) -> Array:
    """The weights of the k largest entries; the last one where k is no integer."""
    return np.minimum(1.0, k - np.arange(math.ceil(k), dtype=np.float64))


@dataclass(frozen=True, slots=True)
class SortedL1(Atom):
    """f(x) = ⟨sort |x|, sort w⟩, data `w` ≥ 0 of at most n entries, zeros for the rest.

    The prox sorts |v|, subtracts t·sort(w), makes the result nonincreasing and nonnegative, restores order and signs.
    OSCAR is the case of weights that fall linearly.
    """

    name = "sorted_l1"
    formula = "⟨sort |x|, sort w⟩"
    cost = "that of monotone"
    source = "Bogdan, van den Berg, Sabatti, Su, Candès, *SLOPE*, 2015, section 2"
    traits = frozenset({Trait.HOMOGENEOUS, Trait.EVEN})
    spellings = (
        Spelling(text="dotsort(abs(x), [3, 2.5, 2, 1, 0.5])", data={"w": "np.array([3.0, 2.5, 2.0, 1.0, 0.5])"}),
        Spelling(text="dotsort(abs(x), w)", parameters={"w": ((5,), {"nonneg": True})}, data={"w": "w"}),
        Spelling(text="dotsort(abs(x), [2, 1])", data={"w": "np.array([2.0, 1.0])"}),
        Spelling(text="sum_largest(abs(x), 2)", data={"w": "np.array([1.0, 1.0])"}),
    )

    @override
    @classmethod
    def recognize(cls, node: Node) -> Recognized | None:
        if node.op == "sum_largest" and node.args[0].op == "abs" and len(node.attrs["axes"]) == len(node.args[0].shape):
            x = node.args[0].args[0].affine
            return None if x is None else flattened(x, const(_largest(node.attrs["k"])))
        if node.op != "dotsort" or node.args[0].op != "abs" or node.args[1].param is None:
            return None
        x = node.args[0].args[0].affine
        return None if x is None else flattened(x, node.args[1].param)

    @override
    def value(self, x: Tensor, data: Data) -> Tensor:
        top = x.abs().sort(dim=-1, descending=True).values
        return (top * descending(data["w"], x.shape[-1])).sum(-1, keepdim=True)

    @override
    def prox(self, v: Tensor, step: Tensor, data: Data) -> Tensor:
        top, order = v.abs().sort(dim=-1, descending=True)
        x = torch.relu(nonincreasing(top - step * descending(data["w"], v.shape[-1])))
        return torch.sign(v) * x.gather(-1, order.argsort(dim=-1))

    @override
    def kinks(self, v: Tensor, step: Tensor, data: Data) -> tuple[Tensor, ...]:
        first = torch.arange(v.shape[-1], device=v.device) == 0
        height = step * descending(data["w"], v.shape[-1])[..., :1]
        return (torch.where(first, height, 0.0).expand_as(v),)
