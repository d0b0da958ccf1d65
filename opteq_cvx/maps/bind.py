"""bind: give a LinearMap of the IR its coefficients' values."""

from opteq_cvx.ir import linmap as lm
from opteq_cvx.ir.frozen import size
from opteq_cvx.maps.base import Lookup, Operator
from opteq_cvx.maps.combine import Regrouped, Total, chain, transposed
from opteq_cvx.maps.conv import Conv2dOperator
from opteq_cvx.maps.gather import gather_operator
from opteq_cvx.maps.kron import kron_operator
from opteq_cvx.maps.matrix import ConstantSparse, LeftMulOperator, RightMulOperator, matrix_of
from opteq_cvx.maps.shape import BroadcastOperator, PermuteOperator, SumOperator, reshape_operator
from opteq_cvx.maps.simple import DiagonalOperator, IdentityOperator, ZeroOperator
from opteq_cvx.maps.sparse import sparse_matrix


def bind(linear: lm.LinearMap, lookup: Lookup) -> Operator:
    """The operator of `linear` with each coefficient's value (1|B, *shape) taken from `lookup`.

    Sparse constants are not looked up: they stay sparse and take their dtype and device from the argument.
    """
    ends = linear.shape_in, linear.shape_out
    match linear:
        case lm.Identity():
            return IdentityOperator(*ends)
        case lm.Zero():
            return ZeroOperator(*ends)
        case lm.Diagonal(d=d):
            return DiagonalOperator(*ends, lookup(d))
        case lm.LeftMul(a=a):
            return LeftMulOperator(*ends, matrix_of(a, lookup))
        case lm.RightMul(b=b):
            return RightMulOperator(*ends, matrix_of(b, lookup).transposed)
        case lm.Gather(index=index, shape_in=shape):
            return gather_operator(index, shape)
        case lm.Reshape(order=order):
            return reshape_operator(*ends, order)
        case lm.Permute(axes=axes):
            return PermuteOperator(*ends, axes)
        case lm.Sum(axes=axes):
            return SumOperator(*ends, axes)
        case lm.Broadcast():
            return BroadcastOperator(*ends)
        case lm.Sparse(matrix=matrix):
            flat_in, flat_out = (size(ends[0]),), (size(ends[1]),)
            inner = LeftMulOperator(flat_in, flat_out, ConstantSparse(sparse_matrix(matrix)))
            return Regrouped(*ends, inner)
        case lm.Compose(maps=maps):
            return chain(*(bind(part, lookup) for part in maps))
        case lm.SumMap(maps=maps):
            return Total(*ends, tuple(bind(part, lookup) for part in maps))
        case lm.Adjoint(of=of):
            return transposed(bind(of, lookup))
        case lm.Conv2d(kernel=kernel):
            return Conv2dOperator(*ends, lookup(kernel), linear.stride, linear.padding, linear.groups)
        case lm.Kron():
            return kron_operator(linear, lookup)
