"""The p-norm f(x) = ‖x‖_p = (Σ |xᵢ|^p)^(1/p), 1 < p < ∞, along axes."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor
from typing_extensions import override

from opteq_cvx.atoms.axes import WRONG, Reducing, join, spike, split
from opteq_cvx.atoms.contract import Data, Spelling, Trait
from opteq_cvx.atoms.p_root import NormRoot, p_norm
from opteq_cvx.atoms.primitives import indicator
from opteq_cvx.errors import CompileError, message
from opteq_cvx.ir.pattern import Op


def norm_along(x: Tensor, p: float, axes: tuple[int, ...]) -> Tensor:
    """‖x‖_p along `axes`, kept with length 1."""
    return split(p_norm(join(x, axes), p), axes, (1,) * x.ndim)


def check_exponent(name: str, p: float) -> None:
    """Refuse an exponent that is no number above 1."""
    if not 1.0 < p < math.inf:
        raise CompileError(message(f"{name} got p={p}", "1 < p < ∞", "norm1 and norm_inf are functions of their own"))


@dataclass(frozen=True, slots=True)
class PNorm(Reducing):
    """f(x) = ‖x‖_p, static `p` (of `pnorm(x, p)` the rational number that CVXPY takes for p).

    The prox is sign(v)·s·y with the root s of ‖y(s)‖_p = 1, s·yᵢ + t·yᵢ^(p−1) = |vᵢ|; 0, with derivative 0, where
    ‖v‖_q ≤ t, 1/p + 1/q = 1.

    Raises:
        CompileError: p is not above 1 and finite.
    """

    p: float = 3.0

    name = "pnorm"
    formula = "‖x‖_p, 1 < p < ∞"
    cost = "O(n) a step of the root"
    source = "optimality: xᵢ + t·sign(xᵢ)(|xᵢ|/‖x‖_p)^(p−1) = vᵢ; Parikh, Boyd 2014, section 6.5"
    traits = frozenset({Trait.HOMOGENEOUS, Trait.EVEN})
    patterns = (Op("pnorm"),)
    copied = ("p",)
    wrong: ClassVar[tuple[Mapping[str, Any], ...]] = (*WRONG, {"p": 1.0}, {"p": math.inf}, {"p": 0.5})
    spellings = (
        Spelling(text="pnorm(x, 3)", static={"p": 3.0}),
        Spelling(text="norm(x - b, 1.5)", parameters={"b": ((5,), {})}, arg="x - b", static={"p": 1.5}),
        Spelling(text="pnorm(x, 4)", variables={"x": (2, 3)}, static={"axes": (-2, -1), "p": 4.0}),
        Spelling(
            text="lam * pnorm(x, 1.25)",
            parameters={"lam": ((), {"nonneg": True})},
            weight="lam",
            static={"p": 1.25},
        ),
    )

    @override
    def __post_init__(self) -> None:
        Reducing.__post_init__(self)
        check_exponent(self.name, self.p)

    @override
    def value(self, x: Tensor, data: Data) -> Tensor:
        return norm_along(x, self.p, self.axes)

    @override
    def prox(self, v: Tensor, step: Tensor, data: Data) -> Tensor:
        flat = join(v, self.axes)
        t = join(step, self.axes).expand((*flat.shape[:-1], 1))
        return split(NormRoot(self.p)(flat, t), self.axes, v.shape)

    @override
    def conjugate(self, y: Tensor, data: Data) -> Tensor:
        dual = norm_along(y, self.p / (self.p - 1.0), self.axes)
        return indicator(torch.relu(dual - 1.0), dual)

    @override
    def kinks(self, v: Tensor, step: Tensor, data: Data) -> tuple[Tensor, ...]:
        return (spike(v, self.axes, step),)
