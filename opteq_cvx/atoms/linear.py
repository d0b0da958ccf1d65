"""The linear functional f(x) = x, entry by entry: its argument carries the coefficients."""

from dataclasses import dataclass

from torch import Tensor
from typing_extensions import override

from opteq_cvx.atoms.contract import Atom, Data, Spelling, Trait
from opteq_cvx.atoms.primitives import indicator
from opteq_cvx.ir.pattern import Arg


@dataclass(frozen=True, slots=True)
class Linear(Atom):
    """f(x) = x; prox v − t."""

    name = "linear"
    formula = "x"
    cost = "O(n)"
    source = "Parikh, Boyd 2014, section 6.1.1"
    traits = frozenset({Trait.SEPARABLE, Trait.LINEAR, Trait.QUADRATIC, Trait.HOMOGENEOUS, Trait.SMOOTH})
    patterns = (Arg(),)
    spellings = (
        Spelling(text="-3 * x", variables={"x": ()}, arg="-3 * x"),
        Spelling(text="c @ x", parameters={"c": ((5,), {})}, arg="c @ x"),
        Spelling(text="sum(x)", arg="sum(x)"),
    )

    @override
    def value(self, x: Tensor, data: Data) -> Tensor:
        return x.clone()

    @override
    def prox(self, v: Tensor, step: Tensor, data: Data) -> Tensor:
        return v - step

    @override
    def prox_inplace(self, v: Tensor, step: Tensor, data: Data) -> Tensor:
        return v.sub_(step)

    @override
    def conjugate(self, y: Tensor, data: Data) -> Tensor:
        return indicator((y - 1.0).abs(), y.abs())
