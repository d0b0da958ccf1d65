"""The map of a proximal-gradient step, its two halves apart, so that steps of other lengths and momentum can be taken.

Source: Bauschke & Combettes, *Convex Analysis and Monotone Operator Theory*, ch. 28; with momentum before the prox,
Ochs, Chen, Brox, Pock, *iPiano*, SIAM J. Imaging Sciences (2014).
"""

from collections.abc import Callable

import torch
from torch import Tensor
from typing_extensions import override

from opteq_cvx.fused import Clip, burst

Map = Callable[[Tensor], Tensor]
"""(B, d) → (B, d), sample by sample."""

Heavy = Callable[[Tensor, Tensor], Tensor]
"""(z_k, z_{k−1}) ↦ z_{k+1}; may overwrite z_{k−1}, and return it."""

Repeated = Callable[[Tensor, Tensor, int], tuple[Tensor, Tensor]]
"""(z_k, z_{k−1}, count) ↦ (z_{k+count}, z_{k+count−1}); may overwrite z_{k−1}."""

Newton = Callable[[Tensor, float], Tensor | None]
"""(z, budget) ↦ z after one semismooth Newton step on z = T(z), None where that costs more than `budget` steps of T."""


class Steps:
    """T(z) = prox_{γf}(z − γ∇g(z)), g convex with a gradient of Lipschitz constant 1/γ.

    Args:
        gradient: z ↦ z − γ∇g(z), a new tensor.
        prox: a ↦ prox_{aγf}, whose result may overwrite its argument.
        newton: one step of Newton's method, see `Newton`; None: no such.
        at_zero: `gradient` at 0, (1|B, d), which starts need no product for; None: not known.
        costly: whether a step costs far more than the residual of one, so that it is looked at often.
    """

    def __init__(
        self,
        gradient: Map,
        prox: Callable[[float], Map],
        newton: Newton | None = None,
        at_zero: Tensor | None = None,
        *,
        costly: bool = False,
    ) -> None:
        self.gradient, self.newton, self.at_zero, self.costly = gradient, newton, at_zero, costly
        self._prox, self._bound = prox, {1.0: prox(1.0)}

    def prox(self, a: float) -> Map:
        """prox_{aγf}."""
        if a not in self._bound:
            self._bound = {1.0: self._bound[1.0], a: self._prox(a)}
        return self._bound[a]

    def __call__(self, z: Tensor) -> Tensor:
        """T(z)."""
        return self._bound[1.0](self.gradient(z))

    def begin(self, z: Tensor) -> Tensor:
        """`gradient` at a start, which most often is 0."""
        if self.at_zero is None or bool(z.any()):
            return self.gradient(z)
        return self.at_zero.expand_as(z).clone()

    def heavy(self, a: float, b: float) -> Heavy:
        """(z, y) ↦ prox_{aγf}(z − aγ∇g(z) + b(z − y)): a step a times as long, with momentum b."""
        prox = self.prox(a)
        return lambda z, before: prox(moved(z, before, self.gradient(z), a, b))

    def repeated(self, a: float, b: float, *, fused: bool = False) -> Repeated:
        """Many steps of `heavy`; with `fused`, in one kernel where there is one for this map."""
        step = self.heavy(a, b)

        def many(z: Tensor, before: Tensor, count: int) -> tuple[Tensor, Tensor]:
            for _ in range(count):
                z, before = step(z, before), z
            return z, before

        return many


class SharedSteps(Steps):
    """As `Steps` for z − γ∇g(z) = z M + c with one M (d, d) for all samples, c (1|B, d).

    `clip` gives the prox at a = 1 where it shrinks and clips entry by entry, else None.
    """

    def __init__(
        self,
        m: Tensor,
        c: Tensor,
        prox: Callable[[float], Map],
        newton: Newton | None = None,
        clip: Callable[[], Clip | None] | None = None,
        at_zero: Tensor | None = None,
    ) -> None:
        super().__init__(lambda z: torch.addmm(c, z, m), prox, newton, at_zero)
        self.m, self.c, self.clip = m, c, clip

    @override
    def heavy(self, a: float, b: float) -> Heavy:
        """One product with (1 + b − a) I + aM."""
        (m, c), prox = self._stretched(a, b), self.prox(a)
        return lambda z, before: prox(torch.add(c, before, alpha=-b, out=before).addmm_(z, m))

    @override
    def repeated(self, a: float, b: float, *, fused: bool = False) -> Repeated:
        clip = self.clip() if fused and self.clip is not None else None
        if clip is None:
            return super().repeated(a, b)
        (m, c), scaled = self._stretched(a, b), clip.scaled(a)
        return lambda z, before, count: burst(z, before, m, c, scaled, b, count)

    def _stretched(self, a: float, b: float) -> tuple[Tensor, Tensor]:
        """(1 + b − a) I + aM and ac."""
        m = self.m * a
        m.diagonal().add_(1.0 + b - a)
        return m, self.c * a


def moved(z: Tensor, before: Tensor, image: Tensor, a: float, b: float) -> Tensor:
    """z + a(image − z) + b(z − before), written into `before`."""
    return before.mul_(-b).add_(z, alpha=1.0 + b - a).add_(image, alpha=a)
