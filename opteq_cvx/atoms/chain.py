"""Chains: min ½‖x − v‖² + Σ upᵢ (xᵢ₊₁ − xᵢ)₊ + downᵢ (xᵢ − xᵢ₊₁)₊ along the last axis, exactly and batched.

Total variation (up = down), isotonic regression (down = ∞, up = 0) and the sorted norms are chains. Divide and
conquer: the solution lies above θ where the binary problem with costs θ − vᵢ and the same jumps labels it 1; with θ
the mean of a piece, either the piece is constant or the labels cut it, and a cut jump is linear in x. The binary
problems of all pieces and samples are solved at once: their messages D ← gᵢ + clamp(D, −down, up) compose to such
clamps, by a scan.
Cost of a round O(n log n); rounds about log n, n at worst. Ties within rounding stay joined.
Source: Hochbaum 2001 and Kumar, Bach, *Active-set methods for submodular minimization problems*, 2017 (decomposition);
Johnson 2013 (the messages).
"""

import torch
import torch.nn.functional as F
from torch import Tensor

SLACK = 16.0  # multiples of machine epsilon · √n · largest number by which a message must pass its bound to cut
MANY = 48  # samples from which a CPU is faster along the chain than by doubling


def chain(v: Tensor, down: Tensor, up: Tensor) -> Tensor:
    """The minimizer (*batch, n), differentiable; `down`, `up` (*batch, n − 1) ≥ 0, infinity allowed."""
    if v.shape[-1] < 2:
        return v.clone()
    shape = (*v.shape[:-1], v.shape[-1] - 1)
    down, up = down.expand(shape), up.expand(shape)
    cut = cuts(*(t.detach().reshape(-1, t.shape[-1]) for t in (v, down, up))).reshape(shape)
    moved = _moved(v, cut, down, up)
    piece = F.pad((cut != 0).long().cumsum(-1), (1, 0))
    count = torch.zeros_like(v).scatter_add(-1, piece, torch.ones_like(v))
    total = torch.zeros_like(v).scatter_add(-1, piece, moved)
    return (total / count.clamp(min=1.0)).gather(-1, piece)


def _moved(v: Tensor, cut: Tensor, down: Tensor, up: Tensor) -> Tensor:
    """v minus the gradient of the jumps that are cut."""
    jump = torch.where(cut > 0, down, 0.0) - torch.where(cut < 0, up, 0.0)
    return v - F.pad(jump, (0, 1)) + F.pad(jump, (1, 0))


@torch.library.custom_op("opteq_cvx::chain_cuts", mutates_args=())
def cuts(v: torch.Tensor, down: torch.Tensor, up: torch.Tensor) -> torch.Tensor:
    """Where the solution jumps, (rows, n − 1): 1 down, −1 up, 0 joined; v (rows, n), without gradient.

    One operation for torch, so that `vmap`, export and devices without values see a shape and no loop.
    """
    return _cuts(v, down, up)


@cuts.register_fake
def _(v: torch.Tensor, down: torch.Tensor, up: torch.Tensor) -> torch.Tensor:
    return v.new_empty((v.shape[0], v.shape[1] - 1), dtype=torch.int8)


@cuts.register_vmap
def _(info: object, dims: tuple[int | None, ...], *args: torch.Tensor) -> tuple[torch.Tensor, int]:
    size = next(t.shape[d] for t, d in zip(args, dims, strict=True) if d is not None)
    given = (t.expand(size, *t.shape) if d is None else t.movedim(d, 0) for t, d in zip(args, dims, strict=True))
    flat = [t.flatten(0, 1) for t in given]
    return cuts(*flat).unflatten(0, (size, -1)), 0


def _cuts(v: Tensor, down: Tensor, up: Tensor) -> Tensor:
    found = torch.zeros(down.shape, dtype=torch.int8, device=v.device)
    free = (down == 0) & (up == 0)
    # free jumps split the chain from the start; their sign does not matter
    found = torch.where(free, torch.ones_like(found), found)
    down, up = down.contiguous(), up.contiguous()
    rows = torch.arange(v.shape[0], device=v.device)
    slack = SLACK * torch.finfo(v.dtype).eps * v.shape[1] ** 0.5
    for _ in range(v.shape[1]):
        part, d, u = found[rows], down[rows], up[rows]
        moved = _moved(v[rows], part, d, u)
        labels = _labels(moved, part, d, u, slack)
        step = labels[:, :-1] - labels[:, 1:]
        new = torch.where(part == 0, step, part)
        changed = (new != part).any(-1)
        if not bool(changed.any()):
            break
        rows = rows[changed]
        found[rows] = new[changed]
    return found


def _labels(v: Tensor, cut: Tensor, down: Tensor, up: Tensor, slack: float) -> Tensor:
    """The binary solution (rows, n) in int8 with θ the mean of each piece."""
    joined = cut == 0
    piece = F.pad((~joined).long().cumsum(-1), (1, 0))
    count = torch.zeros_like(v).scatter_add_(-1, piece, torch.ones_like(v))
    mean = torch.zeros_like(v).scatter_add_(-1, piece, v).div_(count.clamp_(min=1.0)).gather(-1, piece)
    lower, upper = -torch.where(joined, down, 0.0), torch.where(joined, up, 0.0)
    message = _messages(mean - v, lower, upper)
    tolerance = slack * v.abs().amax(-1, keepdim=True)
    ends = F.pad(lower, (0, 1)), F.pad(upper, (0, 1))
    forced = (message < ends[0] - tolerance) | (message > ends[1] + tolerance)
    one = (message < ends[0] - tolerance).to(torch.int8)
    n = v.shape[-1]
    place = torch.arange(n, device=v.device)
    source = torch.where(forced, place, n - 1).flip(-1).cummin(-1).values.flip(-1)  # the next forced label
    return one.gather(-1, source)


def _messages(g: Tensor, lower: Tensor, upper: Tensor) -> Tensor:
    """Dᵢ = gᵢ + clamp(Dᵢ₋₁, lowerᵢ₋₁, upperᵢ₋₁) with D₀ = 0."""
    if g.device.type != "cpu" or g.shape[0] < MANY:
        return _scan(g, lower, upper)
    g, lower, upper = (t.mT.contiguous() for t in (g, lower, upper))  # one row of all samples after the other
    out = g.clone()
    for i in range(1, g.shape[0]):
        out[i].add_(torch.clamp(out[i - 1], lower[i - 1], upper[i - 1]))
    return out.mT


def _scan(g: Tensor, lower: Tensor, upper: Tensor) -> Tensor:
    """The messages by doubling: clamp(x + a, l, u) composed with its kind is one of its kind."""
    zero = torch.zeros_like(g[:, :1])
    a, low, high = g, g + torch.cat([zero, lower], -1), g + torch.cat([zero, upper], -1)
    reach, n = 1, g.shape[-1]
    while reach < n:
        a0, l0, h0 = a[:, :-reach], low[:, :-reach], high[:, :-reach]
        a1, l1, h1 = a[:, reach:], low[:, reach:], high[:, reach:]
        a = torch.cat([a[:, :reach], a0 + a1], -1)
        low = torch.cat([low[:, :reach], torch.minimum(torch.maximum(l0 + a1, l1), h1)], -1)
        high = torch.cat([high[:, :reach], torch.minimum(torch.maximum(h0 + a1, l1), h1)], -1)
        reach *= 2
    return low
