"""The function whose prox at step 1 is softmax: f(x) = Σ x ln x − ½‖x‖² on the simplex, along the last axis."""

from dataclasses import dataclass

import torch
from torch import Tensor
from typing_extensions import override

from opteq_cvx.activations.vector import softmax
from opteq_cvx.atoms.contract import Atom, Data, Recognized, Spelling, Trait
from opteq_cvx.atoms.roots import Implicit, newton
from opteq_cvx.ir.tree import Node

_ROW = softmax()


class _Prox(Implicit):
    """x > 0 with t ln x + (1 − t)x + ν = v and Σ x = 1, for t > 0: one root in ν, one for each entry inside it."""

    @override
    def solve(self, *inputs: Tensor) -> Tensor:
        v, t = inputs
        t = t.expand(*v.shape[:-1], 1)
        top = v.amax(-1, keepdim=True)
        n = v.shape[-1]
        # Σ x falls with ν; at the ends every x is at most 1/n, and the largest is at least 1
        low = top - (1.0 - t)
        high = top - t * torch.log(v.new_tensor(1.0 / n)) - (1.0 - t) / n
        ends = torch.minimum(low, high), torch.maximum(low, high)

        def residual(nu: Tensor) -> tuple[Tensor, Tensor]:
            x = self._entries(v - nu, t)
            return 1.0 - x.sum(-1, keepdim=True), (x / (t + (1.0 - t) * x)).sum(-1, keepdim=True)

        nu = newton(residual, *ends)
        x = self._entries(v - nu, t)
        return x / x.sum(-1, keepdim=True)

    @staticmethod
    def _entries(w: Tensor, t: Tensor) -> Tensor:
        """x in (0, 1] with t ln x + (1 − t)x = w, capped at 1, by its logarithm a ≤ 0."""
        flat = torch.minimum(w / t, (w - (1.0 - t)) / t)
        steep = torch.maximum(w / t, (w - (1.0 - t)) / t)

        def residual(a: Tensor) -> tuple[Tensor, Tensor]:
            x = torch.exp(a)
            return t * a + (1.0 - t) * x - w, t + (1.0 - t) * x

        a = newton(residual, flat.clamp(max=0.0), steep.clamp(max=0.0))
        return torch.exp(a)

    @staticmethod
    def _project(x: Tensor, t: Tensor, w: Tensor) -> Tensor:
        """The derivative of x in the direction w of v: D − D1(D1)ᵀ/Σ D, D = x/(t + (1 − t)x)."""
        d = x / (t + (1.0 - t) * x)
        return d * (w - (d * w).sum(-1, keepdim=True) / d.sum(-1, keepdim=True))

    @override
    def push(self, x: Tensor, inputs: tuple[Tensor, ...], tangents: tuple[Tensor, ...]) -> Tensor:
        _, t = inputs
        slope = torch.where(x > 0, torch.log(torch.where(x > 0, x, 1.0)), 0.0) - x
        return self._project(x, t, tangents[0] - slope * tangents[1])

    @override
    def pull(self, x: Tensor, inputs: tuple[Tensor, ...], grad: Tensor) -> tuple[Tensor, ...]:
        _, t = inputs
        slope = torch.where(x > 0, torch.log(torch.where(x > 0, x, 1.0)), 0.0) - x
        back = self._project(x, t, grad)
        return back, -(slope * back).sum(-1, keepdim=True).sum_to_size(t.shape)


@dataclass(frozen=True, slots=True)
class ActivationSoftmax(Atom):
    """prox at step 1 is softmax; other steps by a root in the multiplier. Step 0 projects nothing: it returns v."""

    name = "activation_softmax"
    formula = "Σ x ln x − ½‖x‖² + ι{x ≥ 0, Σ x = 1}"
    cost = "O(n), nested roots"
    source = "Combettes, Pesquet, arXiv 1808.07526, section 2"
    traits = frozenset({Trait.STRONGLY_CONVEX})
    spellings = (
        Spelling(text="activation('softmax').f(x)", argmin=False, draw=(0.1, 1.0)),
        Spelling(text="activation('softmax').f(x)", variables={"x": (2, 3)}, argmin=False, draw=(0.1, 1.0)),
    )

    @override
    @classmethod
    def recognize(cls, node: Node) -> Recognized | None:
        if node.op != cls.name or node.args[0].affine is None:
            return None
        return Recognized(node.args[0].affine)

    @override
    def value(self, x: Tensor, data: Data) -> Tensor:
        return _ROW.f(x)

    @override
    def prox(self, v: Tensor, step: Tensor, data: Data) -> Tensor:
        some = step > 0
        x = _Prox()(v, torch.where(some, step, 1.0))
        return torch.where(some, x, v)
