"""The power cone {(x, y, z) : x^α · y^(1−α) ≥ |z|, x, y ≥ 0}, along a last axis of length 3."""

from dataclasses import dataclass

import torch
from torch import Tensor
from typing_extensions import override

from opteq_cvx.atoms.contract import Atom, Data, Spelling, Trait
from opteq_cvx.atoms.primitives import euclidean, indicator
from opteq_cvx.atoms.roots import Implicit, newton
from opteq_cvx.ir.pattern import Arg, Op, Par


def _weighted(x: Tensor, y: Tensor, alpha: Tensor) -> Tensor:
    """ln(x^α · y^(1−α)), −inf where x or y is not positive."""
    some = (x > 0) & (y > 0)
    mean = alpha * torch.where(some, x, 1.0).log() + (1.0 - alpha) * torch.where(some, y, 1.0).log()
    return torch.where(some, mean, -torch.inf)


def _raised(x: Tensor, k: Tensor) -> Tensor:
    """p ≥ 0 with p − k/p = x for k ≥ 0, x of size at most 1: without cancellation on both sides of 0."""
    root = torch.hypot(x, 2.0 * k.sqrt())
    return torch.where(x >= 0, 0.5 * (x + root), 2.0 * k / torch.where(x >= 0, 1.0, root - x))


def _regions(v: Tensor, alpha: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Whether v is in the interior, in the polar cone, or in the plane z = 0 (to far below rounding)."""
    x, y, z = v.split(1, dim=-1)
    size = z.abs().log()
    interior = _weighted(x, y, alpha) > size
    polar = (x <= 0) & (y <= 0) & ((_weighted(-x / alpha, -y / (1.0 - alpha), alpha) >= size) | (z == 0))
    return interior, polar, z.abs() <= torch.finfo(v.dtype).tiny ** 0.5 * v.abs().amax(-1, keepdim=True)


@dataclass(frozen=True, slots=True)
class _Projection(Implicit):
    """x − αr(|z₀| − r)/x = x₀, y − (1 − α)r(|z₀| − r)/y = y₀ with the root r = |z| of r = x^α·y^(1−α). Inputs v, α.

    The derivative is that of the nearest point of the surface (eᵃ, eᵇ, ±e^(αa + (1−α)b)) in its coordinates a, b.
    """

    @override
    def solve(self, *inputs: Tensor) -> Tensor:
        v, alpha = inputs
        interior, polar, flat = _regions(v, alpha)
        size = v.abs().amax(-1, keepdim=True)
        plain = interior | polar | flat
        outside = torch.tensor([0.0, 0.0, 1.0], dtype=v.dtype, device=v.device)
        x, y, z = torch.where(plain, outside, v / torch.where(size > 0, size, 1.0)).split(1, dim=-1)
        height = z.abs()
        low = height * torch.finfo(v.dtype).tiny ** 0.5

        def sides(u: Tensor) -> tuple[Tensor, Tensor]:
            product = u * (height - u)
            return _raised(x, alpha * product), _raised(y, (1.0 - alpha) * product)

        high = 0.5 * height
        near = _weighted(*sides(high), alpha) > high.log()  # r > |z₀|/2: the unknown u is |z₀| − r, else r

        def residual(s: Tensor) -> tuple[Tensor, Tensor]:
            u = s.exp()
            p, q = sides(u)
            across = alpha * (p - x) / (2.0 * p - x) + (1.0 - alpha) * (q - y) / (2.0 * q - y)
            mean, slope = _weighted(p, q, alpha), across * (height - 2.0 * u) / (height - u)
            rest = height - u
            return torch.where(near, mean - rest.log(), s - mean), torch.where(near, slope + u / rest, 1.0 - slope)

        u = torch.minimum(newton(residual, low.log(), high.log(), high.log() - 1.5).exp(), high)
        point = torch.cat([*sides(u), torch.copysign(torch.where(near, height - u, u), z)], dim=-1) * size
        x, y, z = v.split(1, dim=-1)
        bottom = torch.cat([torch.where(x <= 0, 0.0, x), torch.where(y <= 0, 0.0, y), z - z], dim=-1)
        return torch.where(interior, v, torch.where(polar, v - v, torch.where(flat, bottom, point)))

    @staticmethod
    def _solve(p: Tensor, v: Tensor, alpha: Tensor, right: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """M⁻¹ right, M the Hessian of ½‖p − v‖² in (a, b) at the nearest point p."""
        x, y, z = p.split(1, dim=-1)
        r = z.abs()
        bend = alpha * (1.0 - alpha) * r * torch.relu(v[..., 2:].abs() - r)
        aa, bb = x * x + (alpha * r) ** 2 + bend, y * y + ((1.0 - alpha) * r) ** 2 + bend
        ab = alpha * (1.0 - alpha) * r * r - bend
        det = (x * y) ** 2 + ((1.0 - alpha) * r * x) ** 2 + (alpha * r * y) ** 2 + bend * (x * x + y * y + r * r)
        some = det > 0
        det = torch.where(some, det, 1.0)
        s, t = right
        return torch.where(some, (bb * s - ab * t) / det, 0.0), torch.where(some, (aa * t - ab * s) / det, 0.0)

    @staticmethod
    def _tangents(p: Tensor, alpha: Tensor) -> tuple[Tensor, Tensor]:
        x, y, z = p.split(1, dim=-1)
        zero = torch.zeros_like(x)
        return torch.cat([x, zero, alpha * z], dim=-1), torch.cat([zero, y, (1.0 - alpha) * z], dim=-1)

    def _apply(self, p: Tensor, v: Tensor, alpha: Tensor, h: Tensor) -> Tensor:
        """The derivative by v, symmetric, times h."""
        interior, polar, flat = _regions(v, alpha)
        a, b = self._tangents(p, alpha)
        s, t = self._solve(p, v, alpha, ((a * h).sum(-1, keepdim=True), (b * h).sum(-1, keepdim=True)))
        kept = torch.cat([v[..., :2] > 0, v[..., 2:] != v[..., 2:]], dim=-1)
        edge = torch.where(flat, torch.where(kept, h, 0.0), a * s + b * t)
        return torch.where(interior, h, torch.where(polar, 0.0, edge))

    def _by_alpha(self, p: Tensor, v: Tensor, alpha: Tensor) -> Tensor:
        """∂p/∂α."""
        interior, polar, flat = _regions(v, alpha)
        curved = ~(interior | polar | flat) & (p[..., :1] > 0) & (p[..., 1:2] > 0)
        safe = torch.where(curved, p, 1.0)
        x, y, z = safe.split(1, dim=-1)
        skew = x.log() - y.log()
        gap = torch.where(curved, v[..., 2:] - z, 0.0)
        a, b = self._tangents(safe, alpha)
        right = (
            alpha * z * z * skew - gap * z * (1.0 + alpha * skew),
            (1.0 - alpha) * z * z * skew - gap * z * ((1.0 - alpha) * skew - 1.0),
        )
        s, t = self._solve(safe, v, alpha, right)
        own = torch.cat([torch.zeros_like(p[..., :2]), z * skew], dim=-1)
        return torch.where(curved, own - a * s - b * t, 0.0)

    @override
    def push(self, x: Tensor, inputs: tuple[Tensor, ...], tangents: tuple[Tensor, ...]) -> Tensor:
        v, alpha = inputs
        return self._apply(x, v, alpha, tangents[0]) + self._by_alpha(x, v, alpha) * tangents[1]

    @override
    def pull(self, x: Tensor, inputs: tuple[Tensor, ...], grad: Tensor) -> tuple[Tensor, ...]:
        v, alpha = inputs
        by_alpha = (self._by_alpha(x, v, alpha) * grad).sum(-1, keepdim=True)
        return self._apply(x, v, alpha, grad), by_alpha


_PROJECTION = _Projection()


def _project(v: Tensor, data: Data) -> Tensor:
    return _PROJECTION(v, data["alpha"].expand((*v.shape[:-1], 1)))


@dataclass(frozen=True, slots=True)
class PowCone(Atom):
    """The indicator of {x^α · y^(1−α) ≥ |z|, x, y ≥ 0}, data `alpha` in (0, 1) with a last axis of length 1."""

    name = "pow_cone"
    formula = "ι{x^α·y^(1−α) ≥ |z|} of [x, y, z]"
    cost = "O(n)"
    source = "Hien, *Differential properties of Euclidean projection onto power cone*, 2015, proposition 2.2"
    traits = frozenset({Trait.SET, Trait.CONE})
    patterns = (Op("pow_cone", (Arg(), Par("alpha"))),)
    spellings = (
        Spelling(
            text="PowCone3D(x, y, z, 0.3)",
            constraint=True,
            variables={"x": (4,), "y": (4,), "z": (4,)},
            arg="stack([x, y, z], axis=-1)",
            data={"alpha": "0.3 * np.ones((4, 1))"},
        ),
        Spelling(
            text="PowCone3D(x, y, z, [0.5, 0.2, 0.9])",
            constraint=True,
            variables={"x": (3,), "y": (3,), "z": (3,)},
            arg="stack([x, y, z], axis=-1)",
            data={"alpha": "np.array([[0.5], [0.2], [0.9]])"},
        ),
    )

    @override
    def value(self, x: Tensor, data: Data) -> Tensor:
        return indicator(self.violation(x, data), x.abs().amax(-1, keepdim=True))

    @override
    def prox(self, v: Tensor, step: Tensor, data: Data) -> Tensor:
        return _project(v, data)

    @override
    def conjugate(self, y: Tensor, data: Data) -> Tensor:
        return indicator(euclidean(_project(y, data)), y.abs().amax(-1, keepdim=True))

    @override
    def violation(self, x: Tensor, data: Data) -> Tensor:
        return euclidean(x - _project(x, data))
