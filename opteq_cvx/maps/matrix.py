"""Matrices A (m, n) that multiply from the left or the right: dense, shared or per sample; sparse, shared."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor
from typing_extensions import override

from opteq_cvx.ir.frozen import Shape, size
from opteq_cvx.ir.param import Const, ParamExpr
from opteq_cvx.maps.base import Lookup, Operator
from opteq_cvx.maps.combine import Regrouped
from opteq_cvx.maps.sparse import SparseMatrix, sparse_matrix


@dataclass(frozen=True, eq=False)
class Matrix(ABC):
    """A coefficient matrix A (m, n), whatever its storage."""

    @property
    @abstractmethod
    def transposed(self) -> "Matrix":
        """Aᵀ."""

    @abstractmethod
    def rows(self, x: Tensor) -> Tensor:
        """A on the last axis: (B, ..., n) → (B, ..., m)."""

    @abstractmethod
    def left(self, x: Tensor) -> Tensor:
        """A @ X: (B, ..., n, k) → (B, ..., m, k)."""

    @abstractmethod
    def dense(self, like: Tensor) -> Tensor:
        """A itself, (1|B, m, n)."""


@dataclass(frozen=True, eq=False)
class DenseMatrix(Matrix):
    """A (1|B, m, n): one product on (B·k, n) where shared, batched products where per sample."""

    a: Tensor

    @property
    @override
    def transposed(self) -> "DenseMatrix":
        return DenseMatrix(self.a.mT)

    @override
    def rows(self, x: Tensor) -> Tensor:
        if self.a.shape[0] == 1:
            return F.linear(x, self.a.squeeze(0))
        lead, m = x.shape[1:-1], self.a.shape[-2]
        flat = x.reshape(x.shape[0], size(tuple(lead)), x.shape[-1])
        out = flat @ self.a.mT
        return out.reshape(out.shape[0], *lead, m)

    @override
    def left(self, x: Tensor) -> Tensor:
        if self.a.shape[0] == 1:
            return F.linear(x.mT, self.a.squeeze(0)).mT
        b, m, n = self.a.shape
        return self.a.reshape(b, *(1,) * (x.ndim - 3), m, n) @ x

    @override
    def dense(self, like: Tensor) -> Tensor:
        return self.a


@dataclass(frozen=True, eq=False)
class ConstantSparse(Matrix):
    """A constant sparse A, one sparse product on all rows of the batch."""

    matrix: SparseMatrix

    @property
    @override
    def transposed(self) -> "ConstantSparse":
        return ConstantSparse(self.matrix.transposed)

    @override
    def rows(self, x: Tensor) -> Tensor:
        lead = x.shape[:-1]
        return self.matrix.multiply(x.reshape(size(tuple(lead)), x.shape[-1])).reshape(*lead, self.matrix.shape[0])

    @override
    def left(self, x: Tensor) -> Tensor:
        return self.rows(x.mT).mT

    @override
    def dense(self, like: Tensor) -> Tensor:
        return self.matrix.dense(like).unsqueeze(0)


def matrix_of(coefficient: ParamExpr, lookup: Lookup) -> Matrix:
    """The matrix of a 2-D coefficient; a sparse constant stays sparse."""
    if isinstance(coefficient, Const) and coefficient.sparse:
        return ConstantSparse(sparse_matrix(coefficient.value))
    return DenseMatrix(lookup(coefficient))


@dataclass(frozen=True, eq=False)
class LeftMulOperator(Operator):
    """X ↦ A @ X for X (n,) or (..., n, k)."""

    matrix: Matrix

    @override
    def apply(self, x: Tensor) -> Tensor:
        return self.matrix.rows(x) if len(self.shape_in) == 1 else self.matrix.left(x)

    @override
    def adjoint(self, y: Tensor) -> Tensor:
        a = self.matrix.transposed
        return a.rows(y) if len(self.shape_in) == 1 else a.left(y)

    @override
    def lift(self, columns: int) -> Operator:
        if len(self.shape_in) == 1:
            return LeftMulOperator((*self.shape_in, columns), (*self.shape_out, columns), self.matrix)
        wide_in, wide_out = _widen(self.shape_in, columns), _widen(self.shape_out, columns)
        wide = LeftMulOperator(wide_in, wide_out, self.matrix)
        return Regrouped((*self.shape_in, columns), (*self.shape_out, columns), wide)


def _widen(shape: Shape, columns: int) -> Shape:
    return (*shape[:-1], shape[-1] * columns)


@dataclass(frozen=True, eq=False)
class RightMulOperator(Operator):
    """X ↦ X @ B for X (..., n); `matrix` is A = Bᵀ, which acts on the last axis."""

    matrix: Matrix

    @override
    def apply(self, x: Tensor) -> Tensor:
        return self.matrix.rows(x)

    @override
    def adjoint(self, y: Tensor) -> Tensor:
        return self.matrix.transposed.rows(y)

    @override
    def lift(self, columns: int) -> Operator:
        return LeftMulOperator((*self.shape_in, columns), (*self.shape_out, columns), self.matrix)
