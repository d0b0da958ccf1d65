"""The energies of a unit equilibrium z* = Wᵀσ(Wz* + c), and what they certify: distances, gaps, Lipschitz constants.

With S = WWᵀ, Q = I − S, σ = prox_f L-Lipschitz with primitive σ̃:
    E(z) = ½‖z‖² − Σ σ̃(Wz + c)              smooth, minimized at z*;
    F(u) = Σ f(u) + ½uᵀQu − ⟨c, u⟩           the explicit program, minimized at u* = σ(Wz* + c);
    D(v) = −½vᵀQ̂v − Σ f̂*(c − Q̂v)           its dual, Q̂ = I/L − S, f̂ = f − ½(1/L − 1)(·)²: D ≤ F, equal at u*.
All optimal values agree. Source: Xie et al., arXiv 2105.13228; the reference theory, sections 4 and 6.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from opteq_cvx.activations import Activation, table
from opteq_cvx.errors import InputError, message

HALVINGS = 200  # of the bracket around the root of a − σ(a)/L = y
REACH = 1e12  # the largest root looked for, relative to 1 + |y|


@dataclass(frozen=True, slots=True)
class UnitEnergies:
    """The energies of one unit; W (m, n), c (*batch, m), and points with the same batch axes.

    Attributes:
        activation: a row of `opteq_cvx.activations`, or take `unit_energies(name, W, c)`.
    """

    activation: Activation
    W: Tensor
    c: Tensor

    @property
    def lipschitz(self) -> float:
        """L, of σ."""
        return self.activation.lipschitz

    @property
    def norm(self) -> Tensor:
        """‖W‖₂, by its singular values, in float64."""
        norm: Tensor = torch.linalg.matrix_norm(self.W.double(), 2)
        return norm.to(self.W.dtype)

    @property
    def modulus(self) -> Tensor:
        """μ = 1 − L‖W‖²: strong convexity of E where positive."""
        return 1.0 - self.lipschitz * self.norm**2

    @property
    def modulus_u(self) -> Tensor:
        """μ_F = 1/L − ‖W‖²: strong convexity of F where positive."""
        return 1.0 / self.lipschitz - self.norm**2

    def advance(self, z: Tensor) -> Tensor:
        """T(z) = Wᵀσ(Wz + c), (*batch, n)."""
        return self.activation.sigma(z @ self.W.mT + self.c) @ self.W

    def z_energy(self, z: Tensor) -> Tensor:
        """E(z), (*batch)."""
        return 0.5 * z.square().sum(-1) - self._total(self.activation.primitive(z @ self.W.mT + self.c))

    def u_energy(self, u: Tensor) -> Tensor:
        """F(u), (*batch); +∞ outside the domain of f."""
        pulled = u @ self.W
        quadratic = 0.5 * (u.square().sum(-1) - pulled.square().sum(-1))
        return self._total(self.activation.f(u)) + quadratic - (self.c * u).sum(-1)

    def dual_energy(self, v: Tensor) -> Tensor:
        """D(v) ≤ F(u) for all u and v, (*batch); −∞ where c − Q̂v leaves the domain of f̂*.

        Raises:
            InputError: ‖W‖² > 1/L, where Q̂ is indefinite and D no bound; or σ is not entry by entry.
        """
        if self.activation.vector:
            raise InputError(
                message(f"the dual of {self.activation.name}", "an entrywise activation", "use `distance`")
            )
        if float(self.modulus_u) < -1e-9:
            found = f"‖W‖² = {float(self.norm) ** 2:.4g} > 1/L = {1 / self.lipschitz:.4g}"
            raise InputError(message(found, "a positive semidefinite quadratic", "bound W (norm=)"))
        curved = v / self.lipschitz - (v @ self.W) @ self.W.mT
        return -0.5 * (v * curved).sum(-1) - self._conjugate(self.c - curved).sum(-1)

    def gap(self, u: Tensor) -> Tensor:
        """Δ = F(u) − D(u): F(u) − F* ≤ Δ and (u − u*)ᵀQ̂(u − u*) ≤ Δ."""
        return self.u_energy(u) - self.dual_energy(u)

    def distance(self, z: Tensor) -> Tensor:
        """‖z − T(z)‖/μ ≥ ‖z − z*‖; +∞ where μ ≤ 0."""
        residual = (z - self.advance(z)).norm(dim=-1)
        return _over(residual, self.modulus)

    def certified(self, u: Tensor) -> tuple[Tensor, Tensor]:
        """u⁺ = σ(Su + c) and ‖S(u − u⁺)‖/μ_F ≥ ‖u⁺ − u*‖; S(u − u⁺) is a subgradient of F at u⁺."""
        after = self.activation.sigma((u @ self.W) @ self.W.mT + self.c)
        gradient = ((u - after) @ self.W) @ self.W.mT
        return after, _over(gradient.norm(dim=-1), self.modulus_u)

    def input_lipschitz(self, U: Tensor) -> Tensor:
        """L‖W‖‖U‖/μ, a Lipschitz constant of x ↦ z* where c = Ux + b; +∞ where μ ≤ 0."""
        norm = torch.linalg.matrix_norm(U.double(), 2).to(U.dtype)
        return _over(self.lipschitz * self.norm * norm, self.modulus)

    def _total(self, values: Tensor) -> Tensor:
        """The sum over units; those along the last axis are summed already, kept with length 1."""
        return values.sum(-1)

    def _conjugate(self, y: Tensor) -> Tensor:
        """f̂*(y) by the root of a − σ(a)/L = y: f̂*(y) = σ̃(a) − σ(a)²/2L there."""
        row, inverse = self.activation, 1.0 / self.lipschitz
        reach = REACH * (1.0 + y.abs())
        low, high = -reach, reach.clone()
        for _ in range(HALVINGS):
            middle = 0.5 * (low + high)
            below = middle - inverse * row.sigma(middle) < y
            low, high = torch.where(below, middle, low), torch.where(below, high, middle)
        a = 0.5 * (low + high)
        s = row.sigma(a)
        value = row.primitive(a) - 0.5 * inverse * s * s + s * (y - (a - inverse * s))
        outside = a.abs() > 0.5 * reach
        return torch.where(outside, torch.inf, value)


def unit_energies(name: str, W: Tensor, c: Tensor, **options: float) -> UnitEnergies:
    """The energies of z* = Wᵀσ(Wz* + c), σ by its name in `oc.activation`.

    Raises:
        CompileError: an unknown activation, or one that is the prox of no convex function.
    """
    return UnitEnergies(table(name, **options), W, c)


def dual_energy(name: str, W: Tensor, c: Tensor, v: Tensor, **options: float) -> Tensor:
    """D(v): a lower bound, at every v, on the optimal value of the unit's program; see `UnitEnergies.dual_energy`."""
    return unit_energies(name, W, c, **options).dual_energy(v)


def averaging_bound(units: Sequence[UnitEnergies], z: Tensor, alpha: float) -> Tensor:
    """A bound on ‖z_α − argmin S‖ for averaged layers (1 − α)I + αT_k, S the sum of the layers' envelopes.

    (α/μ_S) Σ_k (L − k)‖z^{k−1} − T_k z^{k−1}‖, μ_S = Σ_k (1 − L_k‖W_k‖²), at the fixed point z = z_α of one pass; +∞
    where μ_S = 0. One pass is an epoch of the incremental gradient method on S, whence the rate O(α).
    """
    total = torch.zeros_like(z[..., 0])
    modulus = torch.stack([u.modulus for u in units]).sum()
    for k, unit in enumerate(units, start=1):
        step = unit.advance(z) - z
        total = total + (len(units) - k) * step.norm(dim=-1)
        z = z + alpha * step
    return _over(alpha * total, modulus)


def _over(numerator: Tensor, denominator: Tensor) -> Tensor:
    """The quotient, +∞ where the denominator is not positive."""
    positive = denominator > 0
    return torch.where(positive, numerator / torch.where(positive, denominator, 1.0), torch.inf)
