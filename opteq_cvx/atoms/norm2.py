"""The Euclidean norm f(x) = ‖x‖₂ along axes: group lasso; over all axes of a matrix the Frobenius norm."""

from dataclasses import dataclass

import torch
from torch import Tensor
from typing_extensions import override

from opteq_cvx.atoms.axes import Reducing, spike
from opteq_cvx.atoms.contract import Data, Spelling, Trait
from opteq_cvx.atoms.primitives import euclidean, indicator
from opteq_cvx.ir.pattern import Op


@dataclass(frozen=True, slots=True)
class Norm2(Reducing):
    """f(x) = ‖x‖₂; prox v·max(0, 1 − t/‖v‖), with derivative 0 at ‖v‖ = t."""

    name = "norm2"
    formula = "‖x‖₂"
    cost = "O(n)"
    source = "Parikh, Boyd 2014, section 6.5.1"
    traits = frozenset({Trait.HOMOGENEOUS, Trait.EVEN})
    patterns = (Op("norm2"),)
    spellings = (
        Spelling(text="norm2(x)"),
        Spelling(text="norm(x - b)", parameters={"b": ((5,), {})}, arg="x - b"),
        Spelling(text="sum(norm2(x, axis=0))", variables={"x": (3, 4)}, static={"axes": (-2,)}),
        Spelling(text="sum(norm2(x, axis=1))", variables={"x": (3, 4)}),
        Spelling(text="norm(x, 'fro')", variables={"x": (2, 3)}, arg="vec(x, order='F')"),
        Spelling(
            text="w @ norm2(x, axis=1)",
            variables={"x": (3, 4)},
            parameters={"w": ((3,), {"nonneg": True})},
            weight="reshape(w, (3, 1), order='C')",
        ),
    )

    @override
    def value(self, x: Tensor, data: Data) -> Tensor:
        return euclidean(x, self.axes)

    @override
    def prox(self, v: Tensor, step: Tensor, data: Data) -> Tensor:
        norm = self.value(v, data)
        large = norm > step
        return v * torch.where(large, 1.0 - step / torch.where(large, norm, 1.0), 0.0)

    @override
    def conjugate(self, y: Tensor, data: Data) -> Tensor:
        norm = self.value(y, data)
        return indicator(norm - 1.0, norm)

    @override
    def kinks(self, v: Tensor, step: Tensor, data: Data) -> tuple[Tensor, ...]:
        return (spike(v, self.axes, step),)
