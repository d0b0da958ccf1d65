"""X ↦ kron(A, X) and X ↦ kron(X, A): an outer product of entries, then a rearrangement."""

import scipy.sparse as sp

from opteq_cvx.ir.frozen import size
from opteq_cvx.ir.linmap import Kron
from opteq_cvx.ir.param import Const
from opteq_cvx.maps.base import Lookup, Operator
from opteq_cvx.maps.combine import chain
from opteq_cvx.maps.matrix import ConstantSparse, DenseMatrix, LeftMulOperator, Matrix
from opteq_cvx.maps.shape import PermuteOperator, ReshapeOperator
from opteq_cvx.maps.sparse import sparse_matrix


def kron_operator(linear: Kron, lookup: Lookup) -> Operator:
    """vec(A) (p·q, 1) times X as a row (1, m·n), split into (p, q, m, n) and interleaved."""
    (p, q), (m, n) = linear.a.shape, linear.shape_in
    entries, row, four = p * q, (1, m * n), (p, q, m, n)
    axes = (0, 2, 1, 3) if linear.side == "left" else (2, 0, 3, 1)
    interleaved = tuple(four[a] for a in axes)
    return chain(
        ReshapeOperator(interleaved, linear.shape_out),
        PermuteOperator(four, interleaved, axes),
        ReshapeOperator((entries, size(row)), four),
        LeftMulOperator(row, (entries, size(row)), _as_column(linear, lookup)),
        ReshapeOperator(linear.shape_in, row),
    )


def _as_column(linear: Kron, lookup: Lookup) -> Matrix:
    entries = size(linear.a.shape)
    if isinstance(linear.a, Const) and linear.a.sparse:
        return ConstantSparse(sparse_matrix(sp.csr_array(linear.a.value.reshape((entries, 1)))))
    value = lookup(linear.a)
    return DenseMatrix(value.reshape(value.shape[0], entries, 1))
