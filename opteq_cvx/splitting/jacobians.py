"""The Jacobian D = ∂w/∂v of the proxes of all blocks: entry by entry, and as small matrices where a prox couples."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from opteq_cvx.atoms import Trait
from opteq_cvx.splitting.blocks import Block
from opteq_cvx.splitting.groups import Rows

WIDE = 256  # most entries that a prox may couple for its Jacobian to be formed
AT_ONCE = 1 << 15  # numbers in all columns of a Jacobian, up to which a call costs more than its arithmetic


@dataclass(frozen=True, slots=True)
class Coupled:
    """Rows `order` (groups, width), and the symmetric Jacobian of each group (B, groups, width, width)."""

    order: Tensor
    jacobian: Tensor


@dataclass(frozen=True, slots=True)
class Jacobians:
    """D: `diagonal` (B, m) in [0, 1], 0 on the rows of `coupled` groups, which have their own matrices."""

    diagonal: Tensor
    coupled: tuple[Coupled, ...]


@dataclass(frozen=True, slots=True)
class Spectrum:
    """D diagonalized: values (B, m) in [0, 1], and for coupled rows the eigenvectors of each group.

    The values of a group stand on its rows, in ascending order.
    """

    values: Tensor
    vectors: tuple[Coupled, ...]

    def apply(self, f: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        """f(D) x for x (B, m)."""
        return self.times(f(self.values), x)

    def times(self, values: Tensor, x: Tensor) -> Tensor:
        """U diag(values) Uᵀ x for values and x (B, m)."""
        out = values * x
        for group in self.vectors:
            rows = group.order.reshape(-1)
            shape = (x.shape[0], *group.order.shape)
            inner = (x[:, rows].reshape(shape).unsqueeze(2) @ group.jacobian).squeeze(2)
            inner = values[:, rows].reshape(shape) * inner
            outer = (group.jacobian @ inner.unsqueeze(3)).squeeze(3)
            out = out.index_copy(1, rows, outer.reshape(x.shape[0], -1))
        return out


def formable(parts: Sequence[Block]) -> bool:
    """Whether the Jacobians of all proxes are cheap enough to be formed."""
    return all(Trait.SEPARABLE in b.f.traits or Rows.of(b.f, b.index).width <= WIDE for b in parts)


def jacobians(parts: Sequence[Block], rest: Sequence[Tensor], step: Tensor, v: Tensor) -> Jacobians:
    """D at v (B, m) for the steps `step` (1|B, m) and the blocks' data `rest`; the blocks' rows are contiguous."""
    values = list(rest)
    diagonal, coupled = torch.zeros_like(v), list[Coupled]()
    for block in parts:
        count = len(block.exprs)
        own, values = values[:count], values[count:]
        start, stop = int(block.index.flat[0]) if block.index.size else 0, block.index.size
        stop += start
        if start == stop:
            continue
        here = v[:, start:stop]
        if Trait.SEPARABLE in block.f.traits:
            image, point = _image(block, step, own, here)
            if image.requires_grad:
                (slope,) = torch.autograd.grad(image, point, torch.ones_like(image))
                diagonal[:, start:stop] = slope.nan_to_num(0.0).clamp(0.0, 1.0)
            continue
        order = Rows.of(block.f, block.index).grouped(
            torch.arange(start, stop, device=v.device).reshape(block.index.shape)
        )
        width, event = order.shape[1], (here.shape[0], *block.index.shape)
        found = _known(block, step, own, here.reshape(event))
        if found is not None:
            found = found.reshape(event[0], *order.shape, width)
        elif width * here.numel() <= AT_ONCE:
            found = _at_once(block, _repeated(step, width), [_repeated(t, width) for t in own], here, order - start)
        else:
            image, point = _image(block, step, own, here)
            columns = _columns(image, point, order - start) if image.requires_grad else ()
            found = torch.stack(list(columns), dim=-1) if image.requires_grad else None
        if found is not None:
            jacobian = found.nan_to_num(0.0)
            coupled.append(Coupled(order, (jacobian + jacobian.mT) / 2))
    return Jacobians(diagonal, tuple(coupled))


def _known(block: Block, step: Tensor, own: Sequence[Tensor], v: Tensor) -> Tensor | None:
    """The Jacobian at v (B, *event) where the atom has it: of prox_{ts²f} at sv + b, and the identity where s = 0."""
    t, s, b, data, _ = block.parts(step, own)
    x = v if s is None else s * v
    found = block.f.jacobian(x if b is None else x + b, t if s is None else t * s * s, data)
    if found is None or s is None:
        return found
    return torch.where(s == 0, torch.eye(found.shape[-1], dtype=v.dtype, device=v.device), found)


def _image(block: Block, step: Tensor, own: Sequence[Tensor], v: Tensor) -> tuple[Tensor, Tensor]:
    """The prox at v (B, rows of the block), and the leaf that it is derived by."""
    with torch.enable_grad():
        point = v.detach().requires_grad_()
        return block.bind(step, own)(point.reshape(v.shape[0], *block.index.shape)).reshape(v.shape), point


def _repeated(t: Tensor, times: int) -> Tensor:
    """The batch of t so many times, one after the other; what all samples share stays as it is."""
    return t if t.shape[0] == 1 else t.repeat(times, *(1,) * (t.ndim - 1))


def _at_once(block: Block, step: Tensor, own: Sequence[Tensor], v: Tensor, order: Tensor) -> Tensor | None:
    """All columns of `_columns` by one derivative: the batch once for each place in a group."""
    width, batch = order.shape[1], v.shape[0]
    image, point = _image(block, step, own, v.repeat(width, 1))
    if not image.requires_grad:
        return None
    seed = v.new_zeros(width, batch, v.shape[1])
    for i in range(width):
        seed[i].index_fill_(1, order[:, i], 1.0)
    (columns,) = torch.autograd.grad(image, point, seed.reshape(image.shape))
    return columns[:, order.reshape(-1)].reshape(width, batch, *order.shape).movedim(0, -1)


def diagonalize(found: Jacobians) -> Spectrum:
    """Eigenvalues, clamped to [0, 1], and eigenvectors."""
    values, vectors = found.diagonal, list[Coupled]()
    for group in found.coupled:
        own, basis = torch.linalg.eigh(group.jacobian)
        values = values.index_copy(1, group.order.reshape(-1), own.clamp(0.0, 1.0).flatten(1))
        vectors.append(Coupled(group.order, basis))
    return Spectrum(values, tuple(vectors))


def _columns(image: Tensor, point: Tensor, order: Tensor) -> Iterator[Tensor]:
    """For each place in a group (order is (groups, width)) the derivatives of its entry, (B, groups, width)."""
    for i in range(order.shape[1]):
        seed = torch.zeros_like(image).index_fill(1, order[:, i], 1.0)
        (column,) = torch.autograd.grad(image, point, seed, retain_graph=True)
        yield column[:, order.reshape(-1)].reshape(-1, *order.shape)
