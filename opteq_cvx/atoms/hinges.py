"""Hinges Σₖ wₖ max(x − cₖ, 0), entry by entry: with a linear term any convex piecewise-linear function."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor
from typing_extensions import override

from opteq_cvx.atoms.contract import Atom, Data, Spelling, Trait
from opteq_cvx.errors import CompileError, message

_LOW, _HIGH = ((5,), {"bounds": [-1.5, -0.5]}), ((5,), {"bounds": [0.5, 1.5]})
_SLOPE = ((), {"nonneg": True})


@dataclass(frozen=True, slots=True)
class Hinges(Atom):
    """f(x) = Σₖ wₖ max(x − cₖ, 0), data c0, w0, c1, w1, …; |x| = 2 max(x, 0) − x and max(−x, 0) = max(x, 0) − x.

    The prox is the composition of the single ones, that of the smallest c first.
    """

    count: int = 2

    name = "hinges"
    formula = "Σₖ wₖ max(x − cₖ, 0)"
    cost = "O(K n)"
    source = "Yu, *On decomposing the proximal map*, 2013"
    traits = frozenset({Trait.SEPARABLE})
    wrong: ClassVar[tuple[Mapping[str, Any], ...]] = ({"count": 0},)
    spellings = (
        Spelling(
            text="2 * sum(pos(x)) + 3 * sum(pos(x - 1))",
            static={"count": 2},
            data={"c0": "0.0", "w0": "2.0", "c1": "1.0", "w1": "3.0"},
        ),
        Spelling(
            text="sum(pos(x - h)) + a * sum(pos(x - l)) + sum(pos(x - 2))",
            parameters={"h": _HIGH, "l": _LOW, "a": _SLOPE},
            static={"count": 3},
            data={"c0": "h", "w0": "1.0", "c1": "l", "w1": "a", "c2": "2.0", "w2": "1.0"},
        ),
    )

    def __post_init__(self) -> None:
        if self.count < 1:
            found = f"atom 'hinges' got count={self.count}"
            raise CompileError(message(found, "a positive number", "give the number of hinges"))

    @override
    def value(self, x: Tensor, data: Data) -> Tensor:
        return torch.stack([data[f"w{k}"] * torch.relu(x - data[f"c{k}"]) for k in range(self.count)]).sum(0)

    @override
    def prox(self, v: Tensor, step: Tensor, data: Data) -> Tensor:
        places = [data[f"c{k}"].expand_as(v) for k in range(self.count)]
        heights = [(step * data[f"w{k}"]).expand_as(v) for k in range(self.count)]
        at, order = torch.stack(places, dim=-1).sort(dim=-1)
        height = torch.stack(heights, dim=-1).gather(-1, order)
        x = v
        for k in range(self.count):
            over = x - at[..., k]
            x = x - torch.clamp(over, torch.zeros_like(over), height[..., k])
        return x

    @override
    def kinks(self, v: Tensor, step: Tensor, data: Data) -> tuple[Tensor, ...]:
        below = torch.zeros_like(v)
        places = torch.stack([data[f"c{k}"].expand_as(v) for k in range(self.count)], dim=-1)
        heights = torch.stack([(step * data[f"w{k}"]).expand_as(v) for k in range(self.count)], dim=-1)
        at, order = places.sort(dim=-1)
        found = []
        for k in range(self.count):  # both ends of each flat piece, a rounding error inside
            height = heights.gather(-1, order)[..., k]
            start, end = at[..., k] + below, at[..., k] + below + height
            inside = 8.0 * torch.finfo(v.dtype).eps * (1.0 + start.abs() + end.abs())
            found += [start + inside, end - inside]
            below = below + height
        return tuple(found)
