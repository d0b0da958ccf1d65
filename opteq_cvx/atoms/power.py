"""Powers f(x) = x^p that are convex, p < 0 or p > 1, entry by entry: 1/x, √x³, x³, x⁴."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor
from typing_extensions import override

from opteq_cvx.atoms.contract import Atom, Data, Recognized, Spelling, Trait
from opteq_cvx.atoms.primitives import indicator
from opteq_cvx.atoms.roots import Entrywise, fall_root, grow_root
from opteq_cvx.errors import CompileError, message
from opteq_cvx.ir.frozen import FrozenDict
from opteq_cvx.ir.pattern import Op, match
from opteq_cvx.ir.tree import Node


@dataclass(frozen=True, slots=True)
class FallingPower(Entrywise):
    """x − t·|p|·x^(p−1) = v, x > 0, for p < 1."""

    p: float

    @override
    def solve(self, *inputs: Tensor) -> Tensor:
        v, t = inputs
        return fall_root(v, abs(self.p) * t, self.p - 1.0)

    @override
    def partials(self, x: Tensor, *inputs: Tensor) -> tuple[Tensor, ...]:
        _, t = inputs
        power = x ** (2.0 - self.p)
        total = power + abs(self.p) * (1.0 - self.p) * t
        some = total > 0
        total = torch.where(some, total, 1.0)
        return torch.where(some, power / total, 0.0), torch.where(some, abs(self.p) * x / total, 0.0)


@dataclass(frozen=True, slots=True)
class _GrowingPower(Entrywise):
    """x + t·p·x^(p−1) = v, x ≥ 0, for p > 1, and 0 where v ≤ 0; `even`: that of |v| with the sign of v."""

    p: float
    even: bool

    @override
    def solve(self, *inputs: Tensor) -> Tensor:
        v, t = inputs
        if self.even:
            return v.sign() * grow_root(v.abs(), self.p * t, self.p - 1.0)
        return grow_root(v, self.p * t, self.p - 1.0)

    @override
    def partials(self, x: Tensor, *inputs: Tensor) -> tuple[Tensor, ...]:
        v, t = inputs
        some = (v != 0) & (x != 0) if self.even else (v > 0) & (x > 0)
        size = torch.where(some, x.abs(), 1.0)
        slope = self.p * size ** (self.p - 1.0)
        rate = torch.where(some, size / (size + t * (self.p - 1.0) * slope), self._at_zero(t))
        return rate, torch.where(some, -v.sign() * slope * rate, 0.0)

    def _at_zero(self, t: Tensor) -> Tensor:
        """1/(1 + t·f''(0)) of |x|^p; 0 where x ≥ 0 cuts it off, and where f''(0) = ∞."""
        if not self.even or self.p < 2:
            return torch.zeros_like(t)
        return torch.ones_like(t) if self.p > 2 else 1.0 / (1.0 + 2.0 * t)


@dataclass(frozen=True, slots=True)
class Power(Atom):
    """f(x) = x^p, static `p`: for p < 0 on x > 0; for p > 1 on x ≥ 0, but |x|^p on all x for p = 4, 8, 16, …,
    and wherever static `absolute` says so.

    The prox is the root of x + t·p·x^(p−1) = v, of |x|^p that of |v| with the sign of v; at v = 0, where x ≥ 0 cuts
    it off, the derivative is 0.

    Raises:
        CompileError: 0 ≤ p ≤ 1, or p < 0 with `absolute`.
    """

    p: float = 3.0
    absolute: bool = False

    name = "power"
    formula = "x^p, p < 0 or p > 1; |x|^p, p > 1"
    cost = "O(n)"
    source = "optimality: x + t·p·x^(p−1) = v"
    traits = frozenset({Trait.SEPARABLE})
    patterns = (Op("power"), Op("power", (Op("abs"),)))
    wrong: ClassVar[tuple[Mapping[str, Any], ...]] = ({"p": 0.0}, {"p": 0.5}, {"p": 1.0}, {"p": -1.0, "absolute": True})
    spellings = (
        Spelling(text="sum(inv_pos(x))", static={"p": -1.0}, draw=(0.1, 3.0)),
        Spelling(text="sum(power(x, -2))", static={"p": -2.0}, draw=(0.1, 3.0)),
        Spelling(text="sum(x**1.5)", static={"p": 1.5}, draw=(0.0, 3.0)),
        Spelling(text="sum(x**3)", variables={"x": (2, 3)}, static={"p": 3.0}, draw=(0.0, 3.0)),
        Spelling(
            text="w @ x**4",
            parameters={"w": ((5,), {"nonneg": True})},
            weight="w",
            static={"p": 4.0},
        ),
        Spelling(text="sum(abs(x)**3)", static={"p": 3.0, "absolute": True}),
        Spelling(text="sum(power(abs(x), 1.5))", static={"p": 1.5, "absolute": True}),
    )

    def __post_init__(self) -> None:
        if not (self.p > 1 or (self.p < 0 and not self.absolute)):
            raise CompileError(message(f"power got p={self.p}", "p < 0 or p > 1", "use neg_power for 0 < p < 1"))

    @override
    @classmethod
    def recognize(cls, node: Node) -> Recognized | None:
        for pattern, absolute in zip(cls.patterns, (False, True), strict=True):
            found = match(pattern, node)
            if found is not None and found.bound["x"].affine is not None and (not absolute or node.attrs["p"] > 1):
                static = {"p": node.attrs["p"], **({"absolute": True} if absolute else {})}
                return Recognized(found.bound["x"].affine, FrozenDict(static))
        return None

    @property
    def even(self) -> bool:
        """Whether f is |x|^p for all x, which CVXPY has for powers of two too."""
        return self.absolute or (self.p > 1 and self.p.is_integer() and (int(self.p) & (int(self.p) - 1)) == 0)

    @override
    def value(self, x: Tensor, data: Data) -> Tensor:
        if self.even:
            return x.abs() ** self.p
        outside = x <= 0 if self.p < 0 else x < 0
        return torch.where(outside, torch.inf, torch.where(outside, 1.0, x) ** self.p)

    @override
    def prox(self, v: Tensor, step: Tensor, data: Data) -> Tensor:
        if self.p < 0:
            return FallingPower(self.p)(v, step)
        return _GrowingPower(self.p, self.even)(v, step)

    @override
    def conjugate(self, y: Tensor, data: Data) -> Tensor:
        q = self.p / (self.p - 1.0)
        if self.p < 0:
            size = torch.relu(-y) / -self.p
            return (self.p - 1.0) * size**q + indicator(torch.relu(y), y.abs())
        size = y.abs() if self.even else torch.relu(y)
        return (self.p - 1.0) * (size / self.p) ** q

    @override
    def kinks(self, v: Tensor, step: Tensor, data: Data) -> tuple[Tensor, ...]:
        return (torch.zeros_like(v),) if self.p > 2 and not self.even else ()
