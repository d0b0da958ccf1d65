"""LinearMap: structured linear operators between C-ordered arrays, with ParamExpr coefficients.

Every node knows `shape_in` and `shape_out` (without batch axes). Nothing is ever stuffed into one big
matrix: `Sparse` is reserved for constant affine atoms that have no rule of their own.
`maps` gives each node its batched torch meaning, `ir.printer` its text.
"""

from dataclasses import dataclass, field

import numpy as np
import scipy.sparse as sp

from opteq_cvx.ir.frozen import Frozen, IntArray, Shape, freeze_index, size
from opteq_cvx.ir.param import Const, ParamExpr, Stage, is_one, is_zero, multiply, neg


@dataclass(frozen=True, slots=True, eq=False)
class Identity(Frozen):
    """x ↦ x."""

    shape_in: Shape

    @property
    def shape_out(self) -> Shape:
        return self.shape_in


@dataclass(frozen=True, slots=True, eq=False)
class Zero(Frozen):
    """x ↦ 0."""

    shape_in: Shape
    shape_out: Shape


@dataclass(frozen=True, slots=True, eq=False)
class Diagonal(Frozen):
    """x ↦ d ∘ x; `d` has a shape that broadcasts to `shape_in` (a scalar is a scaling)."""

    d: ParamExpr
    shape_in: Shape

    @property
    def shape_out(self) -> Shape:
        return self.shape_in


@dataclass(frozen=True, slots=True, eq=False)
class LeftMul(Frozen):
    """X ↦ A @ X with A (m, n) and X (n,) or (..., n, k)."""

    a: ParamExpr
    shape_in: Shape

    @property
    def shape_out(self) -> Shape:
        m = self.a.shape[0]
        return (m,) if len(self.shape_in) == 1 else (*self.shape_in[:-2], m, self.shape_in[-1])


@dataclass(frozen=True, slots=True, eq=False)
class RightMul(Frozen):
    """X ↦ X @ B with B (n, k) and X (..., n)."""

    b: ParamExpr
    shape_in: Shape

    @property
    def shape_out(self) -> Shape:
        return (*self.shape_in[:-1], self.b.shape[1])


@dataclass(frozen=True, slots=True, eq=False)
class Gather(Frozen):
    """out.flat[i] = x.flat[index.flat[i]], or 0 where the index is −1.

    One node for indexing, slicing, diag, stacking (by zero padding) and triangles; its adjoint
    scatters and adds.
    """

    index: IntArray
    shape_in: Shape

    @property
    def shape_out(self) -> Shape:
        return self.index.shape


@dataclass(frozen=True, slots=True, eq=False)
class Reshape(Frozen):
    """Reshape in C order, or in Fortran order (`order="F"`, CVXPY's default)."""

    shape_in: Shape
    shape_out: Shape
    order: str = "F"


@dataclass(frozen=True, slots=True, eq=False)
class Permute(Frozen):
    """Permute axes, as `numpy.transpose(x, axes)`."""

    axes: tuple[int, ...]
    shape_in: Shape

    @property
    def shape_out(self) -> Shape:
        return tuple(self.shape_in[a] for a in self.axes)


@dataclass(frozen=True, slots=True, eq=False)
class Sum(Frozen):
    """Sum over `axes` (nonnegative), dropping them or, with `keepdims`, keeping length 1."""

    axes: tuple[int, ...]
    shape_in: Shape
    keepdims: bool = False

    @property
    def shape_out(self) -> Shape:
        if self.keepdims:
            return tuple(1 if i in self.axes else n for i, n in enumerate(self.shape_in))
        return tuple(n for i, n in enumerate(self.shape_in) if i not in self.axes)


@dataclass(frozen=True, slots=True, eq=False)
class Broadcast(Frozen):
    """Broadcast to `shape_out` by NumPy's rules (promotion of a scalar included)."""

    shape_in: Shape
    shape_out: Shape


@dataclass(frozen=True, slots=True, eq=False)
class Sparse(Frozen):
    """out.flat = matrix @ x.flat with a constant CSR matrix (C order on both sides)."""

    matrix: sp.csr_array
    shape_in: Shape
    shape_out: Shape


@dataclass(frozen=True, slots=True, eq=False)
class Compose(Frozen):
    """maps[0] ∘ maps[1] ∘ … (the last one acts first)."""

    maps: tuple["LinearMap", ...]

    @property
    def shape_in(self) -> Shape:
        return self.maps[-1].shape_in

    @property
    def shape_out(self) -> Shape:
        return self.maps[0].shape_out


@dataclass(frozen=True, slots=True, eq=False)
class SumMap(Frozen):
    """Σᵢ maps[i], all with the same shapes."""

    maps: tuple["LinearMap", ...]

    @property
    def shape_in(self) -> Shape:
        return self.maps[0].shape_in

    @property
    def shape_out(self) -> Shape:
        return self.maps[0].shape_out


@dataclass(frozen=True, slots=True, eq=False)
class Adjoint(Frozen):
    """The adjoint (transpose) of a map."""

    of: "LinearMap"

    @property
    def shape_in(self) -> Shape:
        return self.of.shape_out

    @property
    def shape_out(self) -> Shape:
        return self.of.shape_in


@dataclass(frozen=True, slots=True, eq=False)
class Kron(Frozen):
    """X ↦ cvxpy.kron(A, X) (`side="left"`) or cvxpy.kron(X, A) (`side="right"`), for 2-D X."""

    a: ParamExpr
    shape_in: Shape
    side: str = "left"
    shape_out: Shape = field(init=False)

    def __post_init__(self) -> None:
        (p, q), (m, n) = self.a.shape, self.shape_in
        object.__setattr__(self, "shape_out", (p * m, q * n))


@dataclass(frozen=True, slots=True, eq=False)
class Conv2d(Frozen):
    """Cross-correlation (C, H, W) ↦ (O, H', W') with a kernel (O, C/groups, h, w), zeros around the image.

    H' = ⌊(H + 2·padding − h)/stride⌋ + 1, W' likewise; the meaning of `torch.nn.functional.conv2d`.
    """

    kernel: ParamExpr
    shape_in: Shape
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int] = (0, 0)
    groups: int = 1

    @property
    def shape_out(self) -> Shape:
        sides = zip(self.shape_in[1:], self.kernel.shape[2:], self.stride, self.padding, strict=True)
        return (self.kernel.shape[0], *((n + 2 * p - k) // s + 1 for n, k, s, p in sides))


LinearMap = (
    Identity
    | Zero
    | Diagonal
    | LeftMul
    | RightMul
    | Gather
    | Reshape
    | Permute
    | Sum
    | Broadcast
    | Sparse
    | Compose
    | SumMap
    | Adjoint
    | Kron
    | Conv2d
)


def coefficients(m: LinearMap) -> tuple[ParamExpr, ...]:
    """The ParamExprs inside a map."""
    match m:
        case Diagonal(d=d):
            return (d,)
        case LeftMul(a=a) | Kron(a=a):
            return (a,)
        case RightMul(b=b):
            return (b,)
        case Conv2d(kernel=kernel):
            return (kernel,)
        case Compose(maps=maps) | SumMap(maps=maps):
            return tuple(c for part in maps for c in coefficients(part))
        case Adjoint(of=of):
            return coefficients(of)
        case _:
            return ()


def stage(m: LinearMap) -> Stage:
    """The latest stage of a map's coefficients."""
    return max((c.stage for c in coefficients(m)), default=Stage.CONSTANT)


# --- smart constructors ------------------------------------------------------------------------------


def compose(outer: LinearMap, inner: LinearMap) -> LinearMap:
    """outer ∘ inner, flattened; identities and zeros disappear, gathers and scalings fuse."""
    if isinstance(outer, Zero) or isinstance(inner, Zero):
        return Zero(inner.shape_in, outer.shape_out)
    if isinstance(outer, Identity):
        return inner
    if isinstance(inner, Identity):
        return outer
    chain = (*_chain(outer), *_chain(inner))
    fused: list[LinearMap] = []
    for item in chain:
        pair = _fuse(fused[-1], item) if fused else None
        if pair is None:
            fused.append(item)
        else:
            fused[-1:] = [] if isinstance(pair, Identity) and len(chain) > 1 else [pair]
    if not fused:
        return Identity(inner.shape_in)
    return fused[0] if len(fused) == 1 else Compose(tuple(fused))


def _chain(m: LinearMap) -> tuple[LinearMap, ...]:
    return m.maps if isinstance(m, Compose) else (m,)


def _fuse(outer: LinearMap, inner: LinearMap) -> LinearMap | None:
    match outer, inner:
        case Diagonal(d=a), Diagonal(d=b):
            return diagonal(multiply(a, b), outer.shape_in)
        case Gather(index=i), Gather(index=j):
            flat = np.concatenate([j.reshape(-1), [-1]])
            return Gather(freeze_index(flat[i]), inner.shape_in)
        case Gather(index=i), Reshape(order="C"):
            return gather(i, inner.shape_in)
        case Reshape(order="C"), Gather(index=j):
            return gather(j.reshape(outer.shape_out), inner.shape_in)
        case Reshape(), Reshape() if outer.order == inner.order:
            if outer.shape_out == inner.shape_in:
                return Identity(inner.shape_in)
            return Reshape(inner.shape_in, outer.shape_out, outer.order)
        case Permute(), Permute():
            axes = tuple(inner.axes[a] for a in outer.axes)
            if axes == tuple(range(len(axes))):
                return Identity(inner.shape_in)
            return Permute(axes, inner.shape_in)
    return None


def sum_maps(a: LinearMap, b: LinearMap) -> LinearMap:
    """a + b, flattened, zeros dropped."""
    if isinstance(a, Zero):
        return b
    if isinstance(b, Zero):
        return a
    left = a.maps if isinstance(a, SumMap) else (a,)
    right = b.maps if isinstance(b, SumMap) else (b,)
    return SumMap((*left, *right))


def diagonal(d: ParamExpr, shape: Shape) -> LinearMap:
    """d ∘ x, simplified when d is a constant 0 or 1."""
    if is_one(d):
        return Identity(shape)
    if is_zero(d):
        return Zero(shape, shape)
    return Diagonal(d, shape)


def negate(m: LinearMap) -> LinearMap:
    """−m."""
    if isinstance(m, Diagonal):
        return diagonal(neg(m.d), m.shape_in)
    if isinstance(m, Zero):
        return m
    if isinstance(m, SumMap):
        return SumMap(tuple(negate(part) for part in m.maps))
    return compose(diagonal(Const(np.array(-1.0)), m.shape_out), m)


def gather(index: IntArray, shape_in: Shape) -> LinearMap:
    """A Gather, or the identity when it moves nothing."""
    if index.shape == shape_in and np.array_equal(index.reshape(-1), np.arange(size(shape_in))):
        return Identity(shape_in)
    return Gather(freeze_index(index), shape_in)
