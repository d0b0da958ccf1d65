"""What one product with a linear map costs, and whether a convolution is in it."""

from opteq_cvx.ir.frozen import size
from opteq_cvx.ir.linmap import (
    Adjoint,
    Compose,
    Conv2d,
    Identity,
    Kron,
    LeftMul,
    LinearMap,
    Reshape,
    RightMul,
    Sparse,
    SumMap,
)


def cost(m: LinearMap) -> int:
    """Flops of one product with a map."""
    match m:
        case Identity() | Reshape():
            return 0
        case LeftMul(a=a):
            return 2 * size(m.shape_in) * a.shape[0]
        case RightMul(b=b):
            return 2 * size(m.shape_in) * b.shape[1]
        case Conv2d(kernel=kernel):
            return 2 * size(m.shape_out) * size(kernel.shape[1:])
        case Sparse(matrix=matrix):
            return 2 * int(matrix.nnz)
        case Kron():
            return 2 * size(m.shape_out)
        case Adjoint(of=of):
            return cost(of)
        case Compose(maps=maps) | SumMap(maps=maps):
            return sum(cost(part) for part in maps)
        case _:
            return max(size(m.shape_in), size(m.shape_out))


def has_conv(m: LinearMap) -> bool:
    """Whether a convolution is among the parts of a map."""
    match m:
        case Conv2d():
            return True
        case Adjoint(of=of):
            return has_conv(of)
        case Compose(maps=maps) | SumMap(maps=maps):
            return any(has_conv(part) for part in maps)
        case _:
            return False
