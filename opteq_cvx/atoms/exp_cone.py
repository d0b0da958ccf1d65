"""The exponential cone, the closure of {(x, y, z) : y·e^(x/y) ≤ z, y > 0}, along a last axis of length 3."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from typing_extensions import override

from opteq_cvx.atoms.contract import Atom, Data, Spelling, Trait
from opteq_cvx.atoms.primitives import euclidean, indicator
from opteq_cvx.atoms.roots import Implicit, newton
from opteq_cvx.ir.pattern import Op


def _regions(v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Whether v is in the interior, in the polar cone, or projects on the face y = 0."""
    x, y, z = v.split(1, dim=-1)
    up = (y > 0) & (z > 0)
    p, q = torch.where(up, y, 1.0), torch.where(up, z, 1.0)
    interior = up & (x < p * (q.log() - p.log()))
    face = (x <= 0) & (y <= 0)
    down = (x > 0) & (z < 0)
    p, q = torch.where(down, x, 1.0), torch.where(down, -z, 1.0)
    polar = (down & (y <= p * (1.0 + q.log() - p.log()))) | ((x == 0) & (y <= 0) & (z <= 0))
    return interior, polar, face


@dataclass(frozen=True, slots=True)
class _Projection(Implicit):
    """v = y·(r, 1, eʳ) + μ·(eʳ, (1 − r)eʳ, −1), y, μ > 0, by one root in the ratio r = x/y.

    The derivative is that of the nearest point of a surface: aaᵀ/‖a‖² + y·bbᵀ/(y‖b‖² + μeʳ‖a‖⁴) with the orthogonal
    tangents a = (r, 1, eʳ) and b = ‖a‖²(1, 0, eʳ) − ⟨a, (1, 0, eʳ)⟩a, of any common scale.
    """

    @override
    def solve(self, *inputs: Tensor) -> Tensor:
        (v,) = inputs
        interior, polar, face = _regions(v)
        size = v.abs().amax(-1, keepdim=True)
        unit = v / torch.where(size > 0, size, 1.0)
        plain = interior | polar | face
        x, y, z = torch.where(plain, torch.ones_like(v), unit).split(1, dim=-1)  # (1, 1, 1) is outside of all three
        r = self._ratio(x, y, z)
        small, large = torch.exp(torch.clamp(r, max=0.0)), torch.exp(-torch.relu(r))
        top = torch.relu(z + torch.relu(x - r * y) / (r * r - r + 1.0) * large)  # z where r > 0
        near = r > -1.0
        s = torch.where(near, 0.0, 1.0 / torch.where(near, -1.0, r))  # 1/r, whose square does not overflow
        left = (s * y + (1.0 - s) * x) / (1.0 - s + s * s)  # x where r ≤ −1
        low = torch.relu(torch.where(near, (y + (r - 1.0) * x) / (r * r - r + 1.0), s * left))
        height = torch.where(r > 0, top * large, low)
        wide = torch.where(near, r * height, left)
        point = torch.cat([wide, height, torch.where(r > 0, top, height * small)], dim=-1) * size
        zero = torch.zeros_like(x)
        on_face = torch.cat([v[..., :1], zero, torch.relu(v[..., 2:])], dim=-1)
        return torch.where(interior, v, torch.where(polar, v - v, torch.where(face, on_face, point)))

    @staticmethod
    def _ratio(x: Tensor, y: Tensor, z: Tensor) -> Tensor:
        """The root r of ((r − 1)x + y)eʳ − (x − ry)e⁻ʳ = (r² − r + 1)z, where both brackets are positive."""
        far = 10.0 - math.log(torch.finfo(x.dtype).tiny)
        flat, steep = torch.where(x == 0, 1.0, x), torch.where(y == 0, 1.0, y)
        one, two = 1.0 - y / flat, x / steep
        low = torch.maximum(torch.where(x > 0, one, -torch.inf), torch.where(y < 0, two, -torch.inf))
        high = torch.minimum(torch.where(x < 0, one, torch.inf), torch.where(y > 0, two, torch.inf))
        low = torch.maximum(low, torch.clamp(high, max=0.0) - far)  # e^far exceeds every ratio of two floats
        high = torch.minimum(high, torch.relu(low) + far)

        def residual(r: Tensor) -> tuple[Tensor, Tensor]:
            rise, fall = torch.exp(2.0 * torch.clamp(r, max=0.0)), torch.exp(-2.0 * torch.relu(r))
            scale = torch.exp(-r.abs())
            p, m = (r - 1.0) * x + y, x - r * y
            g = rise * p - fall * m - (scale + r * (r * scale) - r * scale) * z
            return g, rise * (p + x) + fall * (m + y) - scale * (2.0 * r - 1.0) * z

        return newton(residual, low, high)

    @staticmethod
    def _apply(p: Tensor, v: Tensor, h: Tensor) -> Tensor:
        """The derivative, symmetric, times h."""
        interior, polar, face = _regions(v)
        some = p[..., 1:2] > 0
        x, y, _ = torch.where(some, p, 1.0).split(1, dim=-1)
        r = x / y
        short = 1.0 / torch.clamp(-r, min=1.0)
        low = torch.where(r > 0, torch.exp(-torch.relu(r)), short)
        steep = torch.where(r > 0, 1.0, torch.exp(torch.clamp(r, max=0.0)))
        top = short * steep  # top/low = eʳ, and neither overflows
        a = torch.cat([r * low, low, top], dim=-1)
        flat = low * low / short
        b = torch.cat(
            [flat + (1.0 - r) * top * steep, -r * flat - top * steep, steep * (r * (r * low) - r * low + low)], dim=-1
        )
        aa, bb = (a * a).sum(-1, keepdim=True), (b * b).sum(-1, keepdim=True)
        ah, bh = (a * h).sum(-1, keepdim=True), (b * h).sum(-1, keepdim=True)
        bend = torch.relu(v[..., :1] - x) / y / short * aa**2 / short
        curved = a * (ah / aa) + b * (bh / (bb + bend))
        upper = v[..., 2:] > 0
        beyond = torch.cat([v[..., :1] < 0, ~upper & upper, upper], dim=-1)  # on the face, or y below every float
        kept = torch.cat([beyond[..., :1] & face, beyond[..., 1:]], dim=-1)
        edge = torch.where(some & ~face, curved, torch.where(kept, h, 0.0))
        return torch.where(interior, h, torch.where(polar, 0.0, edge))

    @override
    def push(self, x: Tensor, inputs: tuple[Tensor, ...], tangents: tuple[Tensor, ...]) -> Tensor:
        return self._apply(x, inputs[0], tangents[0])

    @override
    def pull(self, x: Tensor, inputs: tuple[Tensor, ...], grad: Tensor) -> tuple[Tensor, ...]:
        return (self._apply(x, inputs[0], grad),)


_PROJECTION = _Projection()


@dataclass(frozen=True, slots=True)
class ExpCone(Atom):
    """The indicator of {y·e^(x/y) ≤ z, y > 0} and its limit {x ≤ 0, y = 0, z ≥ 0}; projection by one root in x/y."""

    name = "exp_cone"
    formula = "ι{y·e^(x/y) ≤ z} of [x, y, z]"
    cost = "O(n)"
    source = "Friberg, *Projection onto the exponential cone: a univariate root-finding problem*, 2023, section 4"
    traits = frozenset({Trait.SET, Trait.CONE})
    patterns = (Op("exp_cone"),)
    spellings = (
        Spelling(
            text="ExpCone(x, y, z)",
            constraint=True,
            variables={"x": (4,), "y": (4,), "z": (4,)},
            arg="stack([x, y, z], axis=-1)",
        ),
    )

    @override
    def value(self, x: Tensor, data: Data) -> Tensor:
        return indicator(self.violation(x, data), x.abs().amax(-1, keepdim=True))

    @override
    def prox(self, v: Tensor, step: Tensor, data: Data) -> Tensor:
        return _PROJECTION(v)

    @override
    def conjugate(self, y: Tensor, data: Data) -> Tensor:
        return indicator(euclidean(_PROJECTION(y)), y.abs().amax(-1, keepdim=True))

    @override
    def violation(self, x: Tensor, data: Data) -> Tensor:
        return euclidean(x - _PROJECTION(x))
