"""Composite: the parametrization of one weight from its attributes: entries, then structure, then norm."""

import numpy as np
import torch
from torch import Tensor
from typing_extensions import override

from opteq_cvx.ir.frozen import Shape
from opteq_cvx.ir.param import Leaf
from opteq_cvx.weights.attributes import Attributes, read
from opteq_cvx.weights.ball import Ball, SemidefiniteBall
from opteq_cvx.weights.cayley import Cayley
from opteq_cvx.weights.half_line import HalfLine
from opteq_cvx.weights.interval import Interval
from opteq_cvx.weights.part import Part, margin
from opteq_cvx.weights.rescaled import Rescaled
from opteq_cvx.weights.scatter import Scatter
from opteq_cvx.weights.semidefinite import Semidefinite
from opteq_cvx.weights.symmetric import Symmetric


class Composite(Part):
    """W = norm(structure(entries(raw))), each of the three optional.

    `entries` maps numbers one by one, `structure` places or combines them, `norm` shrinks the result. Beside
    `entries`, `structure` is linear and its `right_inverse` gives coordinates, in which entries are
    projected.
    """

    def __init__(self, entries: Part | None, structure: Part | None, norm: Part | None) -> None:
        super().__init__()
        self.entries = entries
        self.structure = structure
        self.norm = norm

    @override
    def forward(self, raw: Tensor) -> Tensor:
        value = raw if self.entries is None else self.entries(raw)
        value = value if self.structure is None else self.structure(value)
        return value if self.norm is None else self.norm(value)

    @override
    def right_inverse(self, value: Tensor) -> Tensor:
        """As in `Part`, for any value and dtype: what lies outside is projected, as assignment needs."""
        inner = self.inside(self.project(value.double()))
        inner = inner if self.norm is None else self.norm.right_inverse(inner)
        inner = inner if self.structure is None else self.structure.right_inverse(inner)
        inner = inner if self.entries is None else self.entries.right_inverse(inner)
        return inner.to(value.dtype).contiguous()

    @override
    def raw_shape(self, shape: Shape) -> Shape:
        return shape if self.structure is None else self.structure.raw_shape(shape)

    @override
    def project(self, value: Tensor) -> Tensor:
        value = value if self.structure is None else self.structure.project(value)
        if self.entries is not None:
            value = self._place(self.entries.project(self._coordinates(value)))
        return value if self.norm is None else self.norm.project(value)

    @override
    def inside(self, value: Tensor) -> Tensor:
        value = value if self.structure is None else self.structure.inside(value)
        if self.entries is not None:
            value = self._place(self.entries.inside(self._coordinates(value)))
        return value if self.norm is None else self.norm.inside(value)

    @override
    def polish(self, value: Tensor) -> Tensor:
        if self.entries is not None:
            value = self._place(self.entries.polish(self._coordinates(value)))
        return value if self.structure is None else self.structure.polish(value)

    def without_norm(self) -> "Composite":
        """The same attributes but for a norm that is held by rescaling."""
        return Composite(self.entries, self.structure, None)

    def _coordinates(self, value: Tensor) -> Tensor:
        return value if self.structure is None else self.structure.right_inverse(value)

    def _place(self, coordinates: Tensor) -> Tensor:
        placed: Tensor = coordinates if self.structure is None else self.structure(coordinates)
        return placed


def composite(leaf: Leaf) -> Composite | None:
    """The parametrization of a weight, None where every value is allowed.

    Raises:
        CompileError: attributes that no weight can have (see `attributes.read`).
    """
    a = read(leaf)
    structure = _structure(a, leaf.shape)
    if a.norm is None or isinstance(structure, SemidefiniteBall):
        entries, norm = _entries(a), None
    elif a.structure == "diag":  # the norm is the largest entry
        entries, norm = _diagonal_ball(a, a.norm), None
    elif a.structure is None and a.sign is None and len(leaf.shape) == 2:
        entries, structure, norm = None, Ball(a.norm, leaf.shape), None
    else:
        entries, norm = _entries(a), Rescaled(a.norm)
    if entries is None and structure is None and norm is None:
        return None
    return Composite(entries, structure, norm)


def _entries(a: Attributes) -> Part | None:
    if a.bounds is not None:
        return Interval(*a.bounds)
    if a.sign is not None:
        return HalfLine(sign=1 if a.sign in ("nonneg", "pos") else -1, strict=a.sign in ("pos", "neg"))
    return None


def _structure(a: Attributes, shape: Shape) -> Part | None:
    match a.structure:
        case "symmetric":
            return Symmetric()
        case "diag" | "sparsity" if a.index is not None:
            return Scatter(a.index, shape)
        case "PSD" | "NSD":
            sign = 1 if a.structure == "PSD" else -1
            return Semidefinite(sign=sign) if a.norm is None else SemidefiniteBall(a.norm, sign=sign)
        case "orthogonal":
            return Cayley()
        case _:
            return None


def _diagonal_ball(a: Attributes, norm: float) -> Interval:
    radius = norm * (1 - margin(torch.float64, 1))
    low = 0.0 if a.sign in ("nonneg", "pos") else -radius
    high = 0.0 if a.sign in ("nonpos", "neg") else radius
    return Interval(np.array(low), np.array(high))
