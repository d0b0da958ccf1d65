"""Constant sparse matrices: one sparse product for the batch, differentiable, open to torch's transforms."""

import warnings
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx
from typing_extensions import override

from opteq_cvx.maps.memo import IdentityMemo

with warnings.catch_warnings():  # torch warns once, at the first CSR tensor, that its CSR support is in beta
    warnings.simplefilter("ignore")
    torch.sparse_csr_tensor([0, 1], [0], [1.0], size=(1, 1), check_invariants=False)


@dataclass(frozen=True, eq=False)
class SparseMatrix:
    """A constant CSR matrix and its transpose, rebuilt from float64 for each dtype and device it meets."""

    csr: sp.csr_array
    csr_of_transpose: sp.csr_array
    flipped: bool = False
    _tensors: dict[tuple[torch.dtype, torch.device, bool], Tensor] = field(default_factory=dict)

    @property
    def shape(self) -> tuple[int, int]:
        """(m, n)."""
        m, n = self.host.shape
        return int(m), int(n)

    @property
    def transposed(self) -> "SparseMatrix":
        """Aᵀ, sharing everything with A."""
        return SparseMatrix(self.csr, self.csr_of_transpose, not self.flipped, self._tensors)

    @property
    def host(self) -> sp.csr_array:
        """A in SciPy, float64."""
        return self.csr_of_transpose if self.flipped else self.csr

    def tensor(self, like: Tensor) -> Tensor:
        """A as a torch CSR tensor (m, n) of the dtype and device of `like`."""
        key = (like.dtype, like.device, self.flipped)
        if key not in self._tensors:
            indptr, indices, data = (part.to(like.device) for part in self._parts())
            self._tensors[key] = torch.sparse_csr_tensor(
                indptr, indices, data.to(like.dtype), size=self.shape, check_invariants=False
            )
        return self._tensors[key]

    def _parts(self) -> tuple[Tensor, Tensor, Tensor]:
        host = self.host
        indptr, indices = host.indptr.astype(np.int64), host.indices.astype(np.int64)
        return torch.from_numpy(indptr), torch.from_numpy(indices), torch.from_numpy(host.data.copy())

    def dense(self, like: Tensor) -> Tensor:
        """A as a dense tensor (m, n)."""
        return torch.from_numpy(self.host.toarray()).to(dtype=like.dtype, device=like.device)

    def multiply(self, x: Tensor) -> Tensor:
        """A on each row: (N, n) → (N, m)."""
        if torch.compiler.is_compiling():
            return self._scatter(x)
        out: Tensor = _Product.apply(x, self)  # type: ignore[no-untyped-call]
        return out

    def _scatter(self, x: Tensor) -> Tensor:
        """The same product by gather and scatter, which torch can trace."""
        indptr, columns, data = self._parts()
        lines = torch.repeat_interleave(torch.arange(self.shape[0]), indptr.diff(), output_size=columns.shape[0])
        terms = x.index_select(1, columns.to(x.device)) * data.to(dtype=x.dtype, device=x.device)
        return x.new_zeros(x.shape[0], self.shape[0]).index_add(1, lines.to(x.device), terms)


class _Product(torch.autograd.Function):
    """x (N, n) ↦ x Aᵀ; linear, so backward and forward mode are such products again, to any order."""

    @staticmethod
    @override
    def forward(x: Tensor, matrix: SparseMatrix) -> Tensor:
        return (matrix.tensor(x) @ x.mT).mT

    @staticmethod
    @override
    def setup_context(ctx: FunctionCtx, inputs: tuple[Any, ...], output: Any) -> None:
        ctx.matrix = inputs[1]  # type: ignore[attr-defined]

    @staticmethod
    @override
    def backward(ctx: FunctionCtx, *grads: Any) -> Any:
        return ctx.matrix.transposed.multiply(grads[0]), None  # type: ignore[attr-defined]

    @staticmethod
    @override
    def jvp(ctx: FunctionCtx, *tangents: Any) -> Any:
        return ctx.matrix.multiply(tangents[0])  # type: ignore[attr-defined]

    @staticmethod
    @override
    def vmap(info: Any, in_dims: tuple[int | None, ...], *args: Any) -> tuple[Tensor, int]:
        x, matrix = args
        stacked = x.movedim(in_dims[0], 0)
        out = matrix.multiply(stacked.reshape(-1, stacked.shape[-1]))
        return out.reshape(*stacked.shape[:-1], out.shape[-1]), 0


_TRANSPOSES: IdentityMemo[tuple[sp.csr_array, sp.csr_array]] = IdentityMemo()


def sparse_matrix(matrix: sp.csr_array) -> SparseMatrix:
    """Wrap a SciPy CSR matrix of the IR, whose transpose is computed once."""

    def both() -> tuple[sp.csr_array, sp.csr_array]:
        summed = sp.csr_array(matrix, dtype=np.float64, copy=True)
        summed.sum_duplicates()
        return summed, sp.csr_array(summed.T)

    return SparseMatrix(*_TRANSPOSES.of(matrix, both))
