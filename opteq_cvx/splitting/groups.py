"""Rows that one prox couples: they share its step, so their scale, and their sizes count together.

A function of the rows of a matrix, or of pairs of entries, is many proxes that do not know of each other: each has a
step, a Jacobian and a scale of its own.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from opteq_cvx.atoms import Atom, Trait
from opteq_cvx.atoms.axes import Reducing
from opteq_cvx.atoms.level_set import LevelSet
from opteq_cvx.ir.frozen import Frozen, IntArray, size

COUPLED = dict.fromkeys(
    (
        "soc",
        "epigraph",
        "exp_cone",
        "pow_cone",
        "kl_div",
        "rel_entr",
        "quad_over_lin",
        "activation_softmax",
        "activation_sparsemax",
        "fused_lasso",
        "monotone",
        "tv",
    ),
    (-1,),
) | dict.fromkeys(
    (
        "psd",
        "norm_nuc",
        "sigma_max",
        "lambda_max",
        "lambda_sum_largest",
        "neg_log_det",
        "neg_von_neumann_entr",
        "tr_inv",
    ),
    (-2, -1),
)
"""The axes along which functions without static axes couple entries; of others, all of them."""

Reduction = Callable[[Tensor, tuple[int, ...]], Tensor]
"""(*batch, *event) and axes → the same with these axes of length 1."""


@dataclass(frozen=True, slots=True, eq=False)
class Rows(Frozen):
    """The rows `index` (*event) of a block; its prox couples them along `axes` (negative), and not along others."""

    index: IntArray
    axes: tuple[int, ...]

    @staticmethod
    def of(f: Atom, index: IntArray) -> "Rows":
        """The rows on which f acts."""
        rank = index.ndim
        if Trait.SEPARABLE in f.traits:
            return Rows(index, ())
        axes = f.axes if isinstance(f, Reducing | LevelSet) else COUPLED.get(f.name, tuple(range(-rank, 0)))
        return Rows(index, tuple(a for a in axes if a >= -rank))

    @property
    def width(self) -> int:
        """How many rows one prox couples."""
        return size(tuple(self.index.shape[a] for a in self.axes))

    @property
    def first(self) -> IntArray:
        """One row of each group, coupled axes kept with length 1."""
        rank = self.index.ndim
        return self.index[..., *(slice(0, 1) if i - rank in self.axes else slice(None) for i in range(rank))]

    def grouped(self, x: Tensor) -> Tensor:
        """x (*event) as (groups, width)."""
        return x.movedim(self.axes, tuple(range(-len(self.axes), 0))).reshape(-1, self.width)

    def share(self, x: Tensor, by: Reduction) -> None:
        """Put in place of each entry of x (B, m) what `by` makes of its group."""
        start, stop = int(self.index.flat[0]), int(self.index.flat[0]) + self.index.size
        event = (x.shape[0], *self.index.shape)
        if np.array_equal(self.index.reshape(-1), np.arange(start, stop)):
            part = x[:, start:stop].reshape(event)
            x[:, start:stop] = by(part, self.axes).expand_as(part).reshape(x.shape[0], -1)
        else:
            rows = torch.as_tensor(self.index.reshape(-1).copy(), device=x.device)
            part = x.index_select(1, rows).reshape(event)
            x.index_copy_(1, rows, by(part, self.axes).expand_as(part).reshape(x.shape[0], -1))


def shared(x: Tensor, groups: Sequence[Rows], by: Reduction) -> Tensor:
    """x (B, m) with what `by` makes of each group in place of its entries."""
    if groups:
        x = x.clone()
    for rows in groups:
        rows.share(x, by)
    return x


def top_of(x: Tensor, axes: tuple[int, ...]) -> Tensor:
    """The largest entry along the axes."""
    return x.amax(dim=axes, keepdim=True)


def least_of(x: Tensor, axes: tuple[int, ...]) -> Tensor:
    """The smallest entry along the axes."""
    return x.amin(dim=axes, keepdim=True)


def mean_of(x: Tensor, axes: tuple[int, ...]) -> Tensor:
    """The mean along the axes."""
    return x.mean(dim=axes, keepdim=True)
