"""Draw: the random start of a weight without an `init`."""

import math

import torch
from torch import Tensor

from opteq_cvx.ir.frozen import Shape, size
from opteq_cvx.ir.param import Leaf
from opteq_cvx.weights import kernels
from opteq_cvx.weights.attributes import Attributes, read
from opteq_cvx.weights.bounds import certified
from opteq_cvx.weights.composite import Composite

SHARE = 0.5
"""The part of a norm bound that a start uses."""


def draw(leaf: Leaf, part: Composite | None, generator: torch.Generator | None = None) -> Tensor:
    """A float64 start with the weight's attributes, from `generator` or torch's global one.

    Entries are normal with variance 1/fan_in (the number of entries that one output sums), folded onto a half
    line, uniform on the middle half of bounds; a norm bound is half used; PSD matrices are GGᵀ/(2n) + I/2;
    orthogonal ones Cayley's map of a normal matrix.
    """
    a, shape = read(leaf), leaf.shape
    if a.bounds is not None:
        value = _between(a, shape, generator)
    else:
        # Drawn in float32, as torch's own starts are: three times as fast.
        value = torch.randn(shape, dtype=torch.float32, generator=generator).double()
        value.mul_(1.0 / math.sqrt(_fan_in(a, shape)))
    if a.sign is not None:
        value = value.abs() if a.sign in ("nonneg", "pos") else -value.abs()
    if part is None:
        return value
    if a.structure in ("PSD", "NSD"):
        value = 0.5 * (value @ value.mT + torch.eye(shape[0], dtype=value.dtype))
        value = value if a.structure == "PSD" else -value
    if a.structure == "orthogonal":
        return part.forward(value)
    if a.structure in ("symmetric", "diag", "sparsity") and part.structure is not None:
        value = part.structure.project(value)
    if a.norm is not None:
        bound = certified(value) if value.ndim == 2 else kernels.bound(value)
        value = value * (SHARE * a.norm / max(float(bound), 1e-300))
    return part.inside(part.project(value))


def _fan_in(a: Attributes, shape: Shape) -> int:
    """How many entries one output of the weight's linear map sums."""
    if a.structure == "diag":
        return 1
    if len(shape) < 2:
        return max(size(shape), 1)
    dense = size(shape[1:])
    return dense if a.index is None else max(len(a.index) // shape[0], 1)


def _between(a: Attributes, shape: Shape, generator: torch.Generator | None) -> Tensor:
    assert a.bounds is not None
    low, high = (torch.tensor(b) for b in a.bounds)
    uniform = 0.25 + 0.5 * torch.rand(shape, dtype=torch.float64, generator=generator)
    below, above = torch.isfinite(low), torch.isfinite(high)
    one = torch.where(below, low + uniform, torch.where(above, high - uniform, uniform - 0.5))
    return torch.where(below & above, low + (high - low) * uniform, one)
