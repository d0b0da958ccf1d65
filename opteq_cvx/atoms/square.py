"""The square, f(x) = x², entry by entry."""

from dataclasses import dataclass

from torch import Tensor
from typing_extensions import override

from opteq_cvx.atoms.contract import Atom, Data, Spelling, Trait
from opteq_cvx.ir.pattern import Op


@dataclass(frozen=True, slots=True)
class Square(Atom):
    """f(x) = x²; prox v / (1 + 2t)."""

    name = "square"
    formula = "x²"
    cost = "O(n)"
    source = "Parikh, Boyd 2014, section 6.1.1"
    traits = frozenset({Trait.SEPARABLE, Trait.QUADRATIC, Trait.EVEN, Trait.STRONGLY_CONVEX, Trait.SMOOTH})
    patterns = (Op("square"),)
    spellings = (
        Spelling(text="sum_squares(x)"),
        Spelling(text="sum(square(x))", variables={"x": (2, 3)}),
        Spelling(text="sum(x**2)"),
        Spelling(text="w @ square(x)", parameters={"w": ((5,), {"nonneg": True})}, weight="w"),
        Spelling(text="sum_squares(A @ x - b)", parameters={"A": ((3, 5), {}), "b": ((3,), {})}, arg="A @ x - b"),
    )

    @override
    def value(self, x: Tensor, data: Data) -> Tensor:
        return x * x

    @override
    def prox(self, v: Tensor, step: Tensor, data: Data) -> Tensor:
        return v / (1.0 + 2.0 * step)

    @override
    def prox_inplace(self, v: Tensor, step: Tensor, data: Data) -> Tensor:
        return v.div_(1.0 + 2.0 * step)

    @override
    def conjugate(self, y: Tensor, data: Data) -> Tensor:
        return y * y / 4.0
