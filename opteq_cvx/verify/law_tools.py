"""Random points and comparisons for the laws of atoms, in float64 and seeded."""

from typing import Any

import torch
from torch import Tensor

from opteq_cvx.atoms.contract import Data
from opteq_cvx.ir.frozen import Shape
from opteq_cvx.verify.spelled import Case

VALUE = 1e-9  # relative; values are evaluated, not solved
ARGMIN = 1e-6  # relative; Clarabel's accuracy beside a kink
ROUND = 1e-9  # relative; identities that hold up to rounding and the tolerance of one-dimensional roots
SLOPE = 1e-4  # one-sided differences with step 1e-6 against the derivative at a kink


def points(case: Case, batch: Shape = (), seed: int = 0) -> Tensor:
    """Points at random in the range of the spelling."""
    generator = torch.Generator().manual_seed(seed)
    low, high = case.draw
    return low + (high - low) * torch.rand((*batch, *case.event), dtype=torch.float64, generator=generator)


def normal(case: Case, batch: Shape = (), seed: int = 0, scale: float = 2.0) -> Tensor:
    """Points at random for a prox, which is defined everywhere."""
    generator = torch.Generator().manual_seed(seed)
    return scale * torch.randn((*batch, *case.event), dtype=torch.float64, generator=generator)


def steps(case: Case, batch: Shape = (), seed: int = 0) -> Tensor:
    """Steps at random, one for each entry of the value."""
    generator = torch.Generator().manual_seed(seed)
    return 0.2 + 1.5 * torch.rand((*batch, *case.reduced), dtype=torch.float64, generator=generator)


def full(case: Case, step: float) -> Tensor:
    return torch.full(case.reduced, step, dtype=torch.float64)


def require(holds: Any, case: Case, text: str) -> None:
    if not bool(holds):
        raise AssertionError(f"{type(case.atom).__name__} spelled {case.label!r}: {text}")


def close(a: Tensor, b: Tensor, case: Case, text: str, tolerance: float = ROUND) -> None:
    error = float((a - b).abs().max()) if a.numel() else 0.0
    scale = 1.0 + (float(b.abs().max()) if b.numel() else 0.0)
    require(error <= tolerance * scale, case, f"{text}: off by {error:.2e}")


def lead(data: Data, axes: int) -> dict[str, Tensor]:
    """Data shared by a batch with this number of batch axes."""
    return {k: t.reshape(*(1,) * axes, *t.shape) for k, t in data.items()}
