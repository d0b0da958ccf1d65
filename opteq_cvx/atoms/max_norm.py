"""The largest of the norms of rows, f(x) = max_i ‖x_i‖₁ or max_i ‖x_i‖₂: norms of matrices as operators."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor
from typing_extensions import override

from opteq_cvx.atoms.axes import WRONG, Reducing, join, split
from opteq_cvx.atoms.contract import Data, Recognized, Spelling, Trait
from opteq_cvx.atoms.primitives import euclidean, indicator, soft_threshold
from opteq_cvx.atoms.roots import newton
from opteq_cvx.atoms.threshold import level
from opteq_cvx.errors import CompileError, message
from opteq_cvx.ir.frozen import FrozenDict
from opteq_cvx.ir.tree import Node


@dataclass(frozen=True, slots=True)
class MaxNorm(Reducing):
    """f(x) = max_i ‖x_i‖_p over the rows x_i along `inner`, axes among `axes`; static `p` 1 or 2.

    The prox projects each row on the ball of one radius τ. For p = 2 the norms of the rows are cut at τ as by the prox
    of max. For p = 1 the rows are thresholded by θ_i ≥ 0 with Σ θ_i(τ) = t, a convex piecewise linear equation.

    Raises:
        CompileError: p is not 1 or 2, or `inner` is not among `axes`, or all of them.
    """

    axes: tuple[int, ...] = (-2, -1)
    inner: tuple[int, ...] = (-1,)
    p: int = 1

    name = "max_norm"
    formula = "max_i ‖x_i‖₁ or max_i ‖x_i‖₂, rows x_i"
    cost = "O(n log n)"
    source = "Moreau; Quattoni, Carreras, Collins, Darrell 2009 (the ball of Σ_i ‖y_i‖_∞)"
    traits = frozenset({Trait.HOMOGENEOUS, Trait.EVEN})
    wrong: ClassVar[tuple[Mapping[str, Any], ...]] = (*WRONG, {"p": 3}, {"inner": (-3,)}, {"inner": (-2, -1)})
    spellings = (
        Spelling(text="norm(x, 1)", variables={"x": (3, 4)}, static={"inner": (-2,)}),
        Spelling(text="norm(x, 'inf')", variables={"x": (3, 4)}),
        Spelling(
            text="lam * max(norm(x - b, 2, axis=0))",
            variables={"x": (3, 2)},
            parameters={"b": ((3, 2), {}), "lam": ((), {"nonneg": True})},
            arg="x - b",
            weight="lam",
            static={"inner": (-2,), "p": 2},
        ),
        Spelling(text="mixed_norm(x, 2, 'inf')", variables={"x": (3, 4)}, static={"p": 2}),
    )

    @override
    def __post_init__(self) -> None:
        Reducing.__post_init__(self)
        if self.p not in (1, 2) or not self.inner or not set(self.inner) < set(self.axes):
            found = f"max_norm got p={self.p}, inner={self.inner}, axes={self.axes}"
            raise CompileError(message(found, "p 1 or 2, inner some of the axes", "use norm1, norm2 or norm_inf"))

    @override
    @classmethod
    def recognize(cls, node: Node) -> Recognized | None:
        """max or norm_inf, over all entries, of norms along some axes."""
        rows = node.args[0] if node.op in ("max", "norm_inf") else node
        while rows.op == "abs":
            rows = rows.args[0]
        absolute = rows.op == "sum" and rows.args[0].op == "abs"
        if rows is node or not (absolute or rows.op == "norm2"):
            return None
        x = (rows.args[0].args[0] if absolute else rows.args[0]).affine
        inner, outer = tuple(rows.attrs["axes"]), tuple(node.attrs["axes"])
        if x is None or len(outer) < len(rows.shape) or len(inner) == len(x.shape):
            return None
        axes = tuple(range(-len(x.shape), 0))
        return Recognized(x, FrozenDict(axes=axes, inner=inner, p=1 if absolute else 2))

    @property
    def outer(self) -> tuple[int, ...]:
        """The axes along which rows meet."""
        return tuple(a for a in self.axes if a not in self.inner)

    def _rows(self, x: Tensor) -> Tensor:
        """x as (*batch, rows, entries of a row)."""
        flat = join(x, (*self.outer, *self.inner))
        return flat.reshape((*flat.shape[:-1], -1, math.prod(x.shape[a] for a in self.inner)))

    @override
    def value(self, x: Tensor, data: Data) -> Tensor:
        size = x.abs().sum(self.inner, keepdim=True) if self.p == 1 else euclidean(x, self.inner)
        return size.amax(self.outer, keepdim=True)

    @override
    def prox(self, v: Tensor, step: Tensor, data: Data) -> Tensor:
        rows, t = self._rows(v), join(step, self.axes)
        if self.p == 2:
            norm = torch.linalg.vector_norm(rows, dim=-1)
            tau = torch.relu(level(norm, t, ties=True))
            cut = norm >= tau
            onto = rows * torch.where(cut, tau / torch.where(norm > 0, norm, 1.0), 1.0).unsqueeze(-1)
        else:
            theta = _thresholds(rows.abs(), t)
            onto = torch.where(theta < 0, rows, soft_threshold(rows, theta.abs()))
        return split(onto.flatten(-2), (*self.outer, *self.inner), v.shape)

    @override
    def conjugate(self, y: Tensor, data: Data) -> Tensor:
        rows = self._rows(y)
        size = rows.abs().amax(-1) if self.p == 1 else torch.linalg.vector_norm(rows, dim=-1)
        total = size.sum(-1, keepdim=True)
        return split(indicator(total - 1.0, total), self.axes, (1,) * y.ndim)


def _thresholds(u: Tensor, t: Tensor) -> Tensor:
    """θ (*batch, rows, 1) with Σ_j max(u_ij − θ_i, 0) = τ, or −1 for rows of less than τ, and Σ max(θ_i, 0) = t.

    u (*batch, rows, n) ≥ 0, t (*batch, 1). Found without gradient, then recomputed from the active entries.
    """
    with torch.no_grad():
        total = u.sum(-1)
        sums = u.sort(dim=-1, descending=True).values.cumsum(-1)
        count = torch.arange(1, u.shape[-1] + 1, dtype=u.dtype, device=u.device)

        def residual(tau: Tensor) -> tuple[Tensor, Tensor]:
            theta, at = ((sums - tau.unsqueeze(-1)) / count).max(dim=-1)
            some = theta > 0
            return t - torch.where(some, theta, 0.0).sum(-1, keepdim=True), torch.where(some, 1.0 / count[at], 0.0).sum(
                -1, keepdim=True
            )

        zero = torch.zeros_like(t.expand(total[..., :1].shape))
        inside = residual(zero)[0] < 0  # else all rows are 0
        top = total.amax(-1, keepdim=True)
        tau = torch.where(inside, newton(residual, zero, top, zero, scale=top), zero)
        theta = ((sums - tau.unsqueeze(-1)) / count).amax(-1)
        rows = total >= tau
        active = (u > theta.unsqueeze(-1)) & rows.unsqueeze(-1)
    number = active.sum(-1).to(u.dtype)
    some = number > 0
    each = torch.where(some, 1.0 / torch.where(some, number, 1.0), 0.0)
    level_ = torch.where(active, u, 0.0).sum(-1)
    below = each.sum(-1, keepdim=True)
    exact = ((level_ * each).sum(-1, keepdim=True) - t) / torch.where(below > 0, below, 1.0)
    exact = torch.where(inside & (below > 0), exact, 0.0)
    found = torch.where(some, (level_ - exact) * each, u.amax(-1))
    return torch.where(rows & (t > 0), found, -1.0).unsqueeze(-1)
