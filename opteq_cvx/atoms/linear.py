"""The linear functional f(x) = c x, entry by entry."""

from dataclasses import dataclass

from torch import Tensor
from typing_extensions import override

from opteq_cvx.atoms.contract import Atom, Data, Spelling, Trait
from opteq_cvx.atoms.primitives import indicator
from opteq_cvx.ir.pattern import Arg


@dataclass(frozen=True, slots=True)
class Linear(Atom):
    """f(x) = c x with data `c` of any sign (1 where it is absent)."""

    name = "linear"
    formula = "c x"
    cost = "O(n)"
    source = "Parikh, Boyd 2014, section 6.1.1"
    traits = frozenset({Trait.SEPARABLE, Trait.LINEAR, Trait.QUADRATIC, Trait.HOMOGENEOUS, Trait.SMOOTH})
    patterns = (Arg(),)
    spellings = (
        Spelling(text="sum(x)"),
        Spelling(text="c @ x", parameters={"c": ((5,), {})}, data={"c": "c"}),
        Spelling(text="x - 1", variables={"x": ()}, arg="x - 1"),
    )

    @override
    def value(self, x: Tensor, data: Data) -> Tensor:
        return x * data["c"] if "c" in data else x.clone()

    @override
    def prox(self, v: Tensor, step: Tensor, data: Data) -> Tensor:
        return v - step * data["c"] if "c" in data else v - step

    @override
    def conjugate(self, y: Tensor, data: Data) -> Tensor:
        slope = data["c"] if "c" in data else y.new_ones(())
        return indicator((y - slope).abs(), y.abs())
