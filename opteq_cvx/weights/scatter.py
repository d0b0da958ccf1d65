"""Scatter: weights with fixed zeros, `diag` and `sparsity`."""

import torch
from torch import Tensor
from typing_extensions import override

from opteq_cvx.ir.frozen import IntArray, Shape, size
from opteq_cvx.weights.part import Part


class Scatter(Part):
    """Put a vector of free entries at the flat positions `index` (C order) of a tensor that is 0 elsewhere.

    Source: Lezcano-Casado, *Trivializations*, arXiv 1909.09501.
    """

    index: Tensor

    def __init__(self, index: IntArray, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        self.register_buffer("index", torch.tensor(index, dtype=torch.int64), persistent=False)

    @override
    def forward(self, raw: Tensor) -> Tensor:
        return raw.new_zeros(size(self.shape)).scatter(0, self.index, raw).reshape(self.shape)

    @override
    def raw_shape(self, shape: Shape) -> Shape:
        return tuple(self.index.shape)

    @override
    def right_inverse(self, value: Tensor) -> Tensor:
        return value.reshape(-1)[self.index]

    @override
    def project(self, value: Tensor) -> Tensor:
        return self.forward(self.right_inverse(value))
