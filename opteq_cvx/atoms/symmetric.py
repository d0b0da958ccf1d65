"""The symmetric matrices."""

from dataclasses import dataclass

from torch import Tensor
from typing_extensions import override

from opteq_cvx.atoms.contract import Atom, Data, Spelling, Trait
from opteq_cvx.atoms.primitives import indicator
from opteq_cvx.ir.pattern import Op


@dataclass(frozen=True, slots=True)
class Symmetric(Atom):
    """The indicator of {X = Xᵀ} over the last two axes; projection (V + Vᵀ)/2."""

    name = "symmetric"
    formula = "ι{X = Xᵀ}"
    cost = "O(n²)"
    source = "Parikh, Boyd 2014, section 6.2.1"
    traits = frozenset({Trait.SET, Trait.CONE, Trait.EVEN})
    patterns = (Op("symmetric"),)
    spellings = (Spelling(text="", constraint=True, variables={"x": (3, 3)}, attributes={"x": {"symmetric": True}}),)

    @override
    def value(self, x: Tensor, data: Data) -> Tensor:
        return indicator(self.violation(x, data), x.abs().amax((-2, -1), keepdim=True))

    @override
    def prox(self, v: Tensor, step: Tensor, data: Data) -> Tensor:
        return (v + v.mT) / 2.0

    @override
    def violation(self, x: Tensor, data: Data) -> Tensor:
        return (x - x.mT).abs().amax((-2, -1), keepdim=True)
