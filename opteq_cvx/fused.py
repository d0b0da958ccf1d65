"""Steps of a proximal-gradient map in one kernel: u ← prox(u M + c − b·before) many times, a tile of rows on the chip.

For one matrix M shared by the batch and a prox that shrinks and clips entry by entry (signs, bounds, l1 norms): the
layer u* = argmin ½uᵀPu + qᵀu + Σ w|u| over an interval, as a trained network runs it. By Triton on a CUDA device;
elsewhere, and where Triton does not install, the same steps by torch.

Source: P. Tillet, H. Kung, D. Cox, Triton, MAPL 2019; the steps are those of `iterate.heavy_ball`.
"""

import importlib.util
import os
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

MOST = 512  # columns of a tile: seven tiles of so many are kept in registers
ROWS = INNER = 16  # the least that a product of tiles takes; more of M's rows at a time do not fit the registers


@dataclass(frozen=True, slots=True, eq=False)
class Clip:
    """prox(v) = clamp(v − clamp(v, −t, t), lower, upper), all (1|B, n): t = γw of |u|, ±∞ where there is no bound."""

    threshold: Tensor
    lower: Tensor
    upper: Tensor

    def scaled(self, a: float) -> "Clip":
        """The prox of a step a times as long."""
        return Clip(a * self.threshold, self.lower, self.upper)

    def __call__(self, v: Tensor) -> Tensor:
        """(B, n) → (B, n)."""
        shrunk = v - torch.minimum(torch.maximum(v, -self.threshold), self.threshold)
        return torch.minimum(torch.maximum(shrunk, self.lower), self.upper)


def available(device: torch.device, n: int, dtype: torch.dtype) -> bool:
    """Whether the kernel runs: float32, up to 512 unknowns, on a CUDA device or under Triton's interpreter."""
    place = device.type == "cuda" or os.environ.get("TRITON_INTERPRET") == "1"
    return place and dtype == torch.float32 and 0 < n <= MOST and _installed()


@lru_cache(maxsize=1)
def _installed() -> bool:
    return importlib.util.find_spec("triton") is not None


def burst(
    z: Tensor, before: Tensor, m: Tensor, c: Tensor, clip: Clip, momentum: float, count: int
) -> tuple[Tensor, Tensor]:
    """The last two states after `count` steps z_{k+1} = clip(z_k M + c − momentum · z_{k−1}), from z and before (B, n).

    Both are copied first. M (n, n); c (1|B, n).
    """
    if not available(z.device, z.shape[1], z.dtype):
        for _ in range(count):
            z, before = clip(torch.addmm(c - momentum * before, z, m)), z
        return z, before
    return _launch(z.clone(), before.clone(), m.contiguous(), c, clip, momentum, count)


def _launch(
    z: Tensor, before: Tensor, m: Tensor, c: Tensor, clip: Clip, momentum: float, count: int
) -> tuple[Tensor, Tensor]:
    from opteq_cvx.fused_kernel import burst as kernel

    rows, n = z.shape
    parts = [part.expand(-1, n).contiguous() for part in (c, clip.threshold, clip.lower, clip.upper)]
    by_row = [part.shape[0] > 1 for part in parts]
    columns = max(16, 1 << (n - 1).bit_length())
    grid: Any = (-(-rows // ROWS),)
    tile = {"ROWS": ROWS, "COLUMNS": columns, "INNER": INNER}
    with torch.cuda.device_of(z):
        kernel[grid](
            z, before, m, *parts, momentum, rows, n, count, *by_row, **tile, num_warps=warps(columns), num_stages=2
        )
    return z, before


def warps(columns: int) -> int:
    """Warps of a program whose tile has so many columns: up to 256 of them, nothing leaves the registers."""
    return min(16, max(4, columns // 16))
