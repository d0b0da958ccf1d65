"""The function whose prox is sparsemax: the indicator of the simplex, along the last axis."""

from dataclasses import dataclass

from torch import Tensor
from typing_extensions import override

from opteq_cvx.atoms.contract import Atom, Data, Recognized, Spelling, Trait
from opteq_cvx.atoms.simplex import Simplex
from opteq_cvx.ir.tree import Node


@dataclass(frozen=True, slots=True)
class ActivationSparsemax(Atom):
    """The projection on {x ≥ 0, Σ x = 1} at every step."""

    name = "activation_sparsemax"
    formula = "ι{x ≥ 0, Σ x = 1}"
    cost = "O(n log n)"
    source = "Martins, Astudillo, *From softmax to sparsemax*, 2016; Held, Wolfe, Crowder 1974"
    traits = frozenset({Trait.SET})
    spellings = (
        Spelling(text="activation('sparsemax').f(x)"),
        Spelling(text="activation('sparsemax').f(x)", variables={"x": (2, 3)}),
    )

    @override
    @classmethod
    def recognize(cls, node: Node) -> Recognized | None:
        if node.op != cls.name or node.args[0].affine is None:
            return None
        return Recognized(node.args[0].affine)

    @override
    def value(self, x: Tensor, data: Data) -> Tensor:
        return Simplex().value(x, _one(x))

    @override
    def prox(self, v: Tensor, step: Tensor, data: Data) -> Tensor:
        return Simplex().prox(v, step, _one(v))

    @override
    def conjugate(self, y: Tensor, data: Data) -> Tensor:
        return Simplex().conjugate(y, _one(y))

    @override
    def violation(self, x: Tensor, data: Data) -> Tensor:
        return Simplex().violation(x, _one(x))

    @override
    def kinks(self, v: Tensor, step: Tensor, data: Data) -> tuple[Tensor, ...]:
        return Simplex().kinks(v, step, _one(v))


def _one(x: Tensor) -> Data:
    return {"total": x.new_ones((1,) * x.ndim)}
