"""The negative of a root, f(x) = −x^p with 0 < p < 1, entry by entry: −√x."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor
from typing_extensions import override

from opteq_cvx.atoms.contract import Atom, Data, Recognized, Spelling, Trait
from opteq_cvx.atoms.power import FallingPower
from opteq_cvx.errors import CompileError, message
from opteq_cvx.ir.frozen import FrozenDict
from opteq_cvx.ir.pattern import Op, match
from opteq_cvx.ir.tree import Node


@dataclass(frozen=True, slots=True)
class NegPower(Atom):
    """f(x) = −x^p for x ≥ 0, static `p`; prox the root of x − t·p·x^(p−1) = v.

    Raises:
        CompileError: `p` is not in (0, 1).
    """

    p: float = 0.5

    name = "neg_power"
    formula = "−x^p, 0 < p < 1"
    cost = "O(n)"
    source = "optimality: x − t·p·x^(p−1) = v"
    traits = frozenset({Trait.SEPARABLE})
    patterns = (Op("neg_power"),)
    wrong: ClassVar[tuple[Mapping[str, Any], ...]] = ({"p": 0.0}, {"p": -1.0}, {"p": 1.0})
    spellings = (
        Spelling(text="-sum(sqrt(x))", draw=(0.0, 3.0)),
        Spelling(text="-sum(x**0.25)", variables={"x": (2, 3)}, static={"p": 0.25}, draw=(0.0, 3.0)),
        Spelling(
            text="-w @ sqrt(x)",
            parameters={"w": ((5,), {"nonneg": True})},
            weight="w",
            draw=(0.0, 3.0),
        ),
    )

    def __post_init__(self) -> None:
        if not 0 < self.p < 1:
            raise CompileError(message(f"neg_power got p={self.p}", "0 < p < 1", "use power for a convex x^p"))

    @override
    @classmethod
    def recognize(cls, node: Node) -> Recognized | None:
        found = match(cls.patterns[0], node)
        if found is None or found.bound["x"].affine is None:
            return None
        return Recognized(found.bound["x"].affine, FrozenDict(p=node.attrs["p"]))

    @override
    def value(self, x: Tensor, data: Data) -> Tensor:
        return torch.where(x < 0, torch.inf, -(torch.where(x < 0, 1.0, x) ** self.p))

    @override
    def prox(self, v: Tensor, step: Tensor, data: Data) -> Tensor:
        return FallingPower(self.p)(v, step)

    @override
    def conjugate(self, y: Tensor, data: Data) -> Tensor:
        size = torch.where(y >= 0, 1.0, -y) / self.p
        return torch.where(y >= 0, torch.inf, (1.0 - self.p) * size ** (self.p / (self.p - 1.0)))
