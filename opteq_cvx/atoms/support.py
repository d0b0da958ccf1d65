"""Arrays that vanish outside a pattern: diagonal matrices, sparsity patterns."""

from dataclasses import dataclass

import torch
from torch import Tensor
from typing_extensions import override

from opteq_cvx.atoms.contract import Atom, Data, Spelling, Trait
from opteq_cvx.atoms.primitives import indicator
from opteq_cvx.ir.pattern import Arg, Op, Par


@dataclass(frozen=True, slots=True)
class Support(Atom):
    """The indicator of {x = 0 where mask = 0}, data `mask` of zeros and ones; projection mask ∘ v."""

    name = "support"
    formula = "ι{x = 0 off the mask}"
    cost = "O(n)"
    source = "Parikh, Boyd 2014, section 6.2.1"
    traits = frozenset({Trait.SEPARABLE, Trait.SET, Trait.CONE, Trait.EVEN})
    patterns = (Op("support", (Arg(), Par("mask"))),)
    spellings = (
        Spelling(
            text="",
            constraint=True,
            variables={"x": (3, 3)},
            attributes={"x": {"diag": True}},
            data={"mask": "np.eye(3)"},
        ),
        Spelling(
            text="",
            constraint=True,
            variables={"x": (3, 3)},
            attributes={"x": {"sparsity": [(0, 1), (1, 2)]}},
            data={"mask": "np.array([[0, 1, 0], [0, 0, 1], [0, 0, 0]])"},
        ),
    )

    @override
    def value(self, x: Tensor, data: Data) -> Tensor:
        return indicator(self.violation(x, data), torch.zeros_like(x))

    @override
    def prox(self, v: Tensor, step: Tensor, data: Data) -> Tensor:
        return v * data["mask"]

    @override
    def prox_inplace(self, v: Tensor, step: Tensor, data: Data) -> Tensor:
        return v.mul_(data["mask"])

    @override
    def conjugate(self, y: Tensor, data: Data) -> Tensor:
        return indicator((y * data["mask"]).abs(), torch.zeros_like(y))

    @override
    def violation(self, x: Tensor, data: Data) -> Tensor:
        return (x * (1.0 - data["mask"])).abs()
