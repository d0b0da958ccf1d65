"""The sum of the k largest eigenvalues of a symmetric matrix."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor
from typing_extensions import override

from opteq_cvx.atoms.contract import Data, Recognized, Spelling, Trait
from opteq_cvx.atoms.lifting import Lifting
from opteq_cvx.atoms.primitives import indicator
from opteq_cvx.atoms.spectral import OfEigenvalues, Spectral, eigenvalues
from opteq_cvx.atoms.sum_largest import SumLargest
from opteq_cvx.errors import CompileError, message
from opteq_cvx.ir.frozen import FrozenDict
from opteq_cvx.ir.pattern import Op, match
from opteq_cvx.ir.tree import Node


@dataclass(frozen=True, slots=True)
class LambdaSumLargest(Lifting):
    """f(X) = λ₁ + … + λₖ over the last two axes, static `k`; the prox is that of `sum_largest`, on eigenvalues.

    Raises:
        CompileError: k ≤ 0.
    """

    k: float = 1.0

    name = "lambda_sum_largest"
    formula = "sum of the k largest λ(X)"
    cost = "O(n³)"
    source = "Parikh, Boyd 2014, section 6.7 (matrix functions), of sum_largest"
    traits = frozenset({Trait.HOMOGENEOUS})
    patterns = (Op("lambda_sum_largest"),)
    wrong: ClassVar[tuple[Mapping[str, Any], ...]] = ({"k": 0.0}, {"k": -1.0})
    spellings = (
        Spelling(
            text="lambda_sum_largest((x + x.T) / 2, 2)",
            variables={"x": (3, 3)},
            arg="(x + x.T) / 2",
            static={"k": 2.0},
        ),
        Spelling(
            text="-lambda_sum_smallest((x + x.T) / 2, 2)",
            variables={"x": (3, 3)},
            arg="-(x + x.T) / 2",
            static={"k": 2.0},
        ),
    )

    def __post_init__(self) -> None:
        if self.k <= 0:
            raise CompileError(message(f"lambda_sum_largest got k={self.k}", "k > 0", "give a positive number"))

    @override
    @classmethod
    def recognize(cls, node: Node) -> Recognized | None:
        found = match(cls.patterns[0], node)
        if found is None or found.bound["x"].affine is None:
            return None
        return Recognized(found.bound["x"].affine, FrozenDict(k=node.attrs["k"]))

    @override
    def value(self, x: Tensor, data: Data) -> Tensor:
        return SumLargest(k=self.k).value(eigenvalues(x), data).unsqueeze(-1)

    @property
    @override
    def lifted(self) -> Spectral:
        return OfEigenvalues(lambda values, t: SumLargest(k=self.k).prox(values, t, {}))

    @override
    def conjugate(self, y: Tensor, data: Data) -> Tensor:
        values = eigenvalues(y)
        outside = (torch.relu(-values) + torch.relu(values - 1.0)).sum(-1, keepdim=True)
        total = (values.sum(-1, keepdim=True) - self.k).abs()
        return indicator((outside + total).unsqueeze(-1), y.abs().sum((-2, -1), keepdim=True))
