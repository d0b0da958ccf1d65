"""The negative of a concave p-norm, f(x) = −‖x‖_p for x ≥ 0, p < 1: harmonic means."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor
from typing_extensions import override

from opteq_cvx.atoms.axes import WRONG, Reducing, join, split
from opteq_cvx.atoms.concave_root import ConcaveRoot
from opteq_cvx.atoms.contract import Data, Spelling, Trait
from opteq_cvx.atoms.p_root import p_norm
from opteq_cvx.atoms.primitives import indicator
from opteq_cvx.errors import CompileError, message
from opteq_cvx.ir.pattern import Op


@dataclass(frozen=True, slots=True)
class NegPNorm(Reducing):
    """f(x) = −(Σ xᵢ^p)^(1/p) for x ≥ 0 along `axes`, static `p`; 0 where p < 0 and an entry is 0.

    The prox is s·y with the root s of ‖y(s)‖_p = 1, s·yᵢ − t·yᵢ^(p−1) = vᵢ; max(v, 0) where ‖max(−v, 0)‖_q ≥ t,
    1/p + 1/q = 1.

    Raises:
        CompileError: p is 0, 1 or above, or not finite.
    """

    p: float = -1.0

    name = "neg_pnorm"
    formula = "−‖x‖_p, p < 1"
    cost = "O(n) a step of the root"
    source = "optimality: xᵢ − t(xᵢ/‖x‖_p)^(p−1) = vᵢ; Hardy, Littlewood, Pólya 1952, section 2.8"
    traits = frozenset({Trait.HOMOGENEOUS})
    patterns = (Op("neg_pnorm"),)
    copied = ("p",)
    wrong: ClassVar[tuple[Mapping[str, Any], ...]] = (*WRONG, {"p": 0.0}, {"p": 1.0}, {"p": -math.inf})
    spellings = (
        Spelling(
            text="-harmonic_mean(x)",
            variables={"x": (4,)},
            static={"p": -1.0},
            weight="4.0",
            draw=(0.1, 3.0),
        ),
        Spelling(text="-pnorm(x, 0.5)", static={"p": 0.5}, draw=(0.1, 3.0)),
        Spelling(
            text="-lam * pnorm(1 + x, -2)",
            variables={"x": (3,)},
            parameters={"lam": ((), {"nonneg": True})},
            arg="1 + x",
            weight="lam",
            static={"p": -2.0},
            draw=(0.1, 3.0),
        ),
        Spelling(
            text="-pnorm(x, 0.25)",
            variables={"x": (2, 2)},
            static={"axes": (-2, -1), "p": 0.25},
            draw=(0.1, 3.0),
        ),
    )

    @override
    def __post_init__(self) -> None:
        Reducing.__post_init__(self)
        if not -math.inf < self.p < 1.0 or self.p == 0:
            raise CompileError(message(f"neg_pnorm got p={self.p}", "p < 1, not 0", "use pnorm for p > 1"))

    @override
    def value(self, x: Tensor, data: Data) -> Tensor:
        flat = join(x, self.axes)
        outside = (flat < 0).any(-1, keepdim=True)
        norm = p_norm(torch.relu(flat), self.p)
        return split(torch.where(outside, torch.inf, -norm), self.axes, (1,) * x.ndim)

    @override
    def prox(self, v: Tensor, step: Tensor, data: Data) -> Tensor:
        flat = join(v, self.axes)
        t = join(step, self.axes).expand((*flat.shape[:-1], 1))
        return split(ConcaveRoot(self.p)(flat, t), self.axes, v.shape)

    @override
    def conjugate(self, y: Tensor, data: Data) -> Tensor:
        """The indicator of {y ≤ 0, ‖y‖_q ≥ 1}, by the distance: roundings of small entries move ‖y‖_q much further."""
        flat = join(y, self.axes)
        outside = ConcaveRoot(self.p)(flat, torch.ones_like(flat[..., :1])).sum(-1, keepdim=True)
        return split(indicator(outside, flat.abs().sum(-1, keepdim=True)), self.axes, (1,) * y.ndim)
