"""Bounds on matrices of parameters that hold for every admissible value: read off norms, signs and Gram structure.

`norm_bound` bounds ‖E‖₂, `range_bound` bounds λ_max of the symmetric part, which monotonicity needs. None where nothing
is known by construction; both then are computed from the values.
"""

import math

import numpy as np
import torch

from opteq_cvx.ir.frozen import Array, size
from opteq_cvx.ir.linmap import (
    Adjoint,
    Broadcast,
    Compose,
    Conv2d,
    Diagonal,
    Gather,
    Identity,
    LeftMul,
    LinearMap,
    Permute,
    Reshape,
    RightMul,
    Sum,
    SumMap,
    Zero,
)
from opteq_cvx.ir.param import Apply, Const, Leaf, ParamExpr, is_zero
from opteq_cvx.maps.conv_norm import conv_norm

EXACT = 1024  # constants up to this side have their norm computed exactly
UP = 1.0 + 1e-12  # covers the rounding of that


def norm_bound(expr: ParamExpr) -> float | None:
    """An upper bound on the spectral norm of a matrix (of the Euclidean norm of a vector, |·| of a number)."""
    match expr:
        case Const():
            return _constant_norm(expr)
        case Leaf(attributes=a):
            if a.get("orthogonal"):
                return 1.0
            if a.get("norm") is not None:
                return float(a["norm"])
            return _largest_entry(expr) if expr.shape == () else None
        case Apply(op="transpose" | "neg" | "wrap" | "psd_wrap" | "symmetric_wrap", args=(a,)):
            return norm_bound(a)
        case Apply(op="matmul", args=(a, b)):
            return _times(norm_bound(a), norm_bound(b))
        case Apply(op="add", args=args):
            return _total([norm_bound(a) for a in args])
        case Apply(op="multiply", args=(a, b)) if 1 in (size(a.shape), size(b.shape)):
            return _times(norm_bound(a), norm_bound(b))
        case Apply(op="hstack" | "vstack", args=args) if len(expr.shape) == 2:
            return block_norm(expr)
        case Apply(op="map_matrix", attrs=attrs):
            return map_norm(attrs["map"])
        case _:
            return None


def map_norm(m: LinearMap) -> float | None:
    """An upper bound on the norm of a linear map."""
    match m:
        case Identity() | Reshape() | Permute():
            return 1.0
        case Zero():
            return 0.0
        case Diagonal(d=d):
            return float(np.abs(d.dense()).max(initial=0.0)) if isinstance(d, Const) else _scalar(d)
        case LeftMul(a=a) | RightMul(b=a):
            return norm_bound(a)
        case Conv2d(kernel=kernel):
            return _kernel_norm(m, kernel)
        case Gather(index=index):
            used = index[index >= 0]
            return math.sqrt(int(np.bincount(used).max())) if used.size else 0.0
        case Sum() | Broadcast():
            wide, narrow = sorted((size(m.shape_in), size(m.shape_out)), reverse=True)
            return math.sqrt(wide / narrow) if narrow else 0.0
        case Adjoint(of=of):
            return map_norm(of)
        case Compose(maps=maps):
            total: float | None = 1.0
            for part in maps:
                total = _times(total, map_norm(part))
            return total
        case SumMap(maps=maps):
            return _total([map_norm(part) for part in maps])
        case _:
            return None


def _kernel_norm(m: Conv2d, kernel: ParamExpr) -> float | None:
    """Of a constant kernel computed, of a weight its `norm`, which bounds every convolution with it."""
    match kernel:
        case Const():
            value = torch.from_numpy(kernel.dense().copy()).unsqueeze(0)
            return float(conv_norm(value, m.stride, m.groups)) * UP
        case Leaf(attributes=a) if a.get("norm") is not None and m.groups == 1:
            return float(a["norm"])
        case _:
            return None


def _scalar(d: ParamExpr) -> float | None:
    return norm_bound(d) if size(d.shape) == 1 else None


def _largest_entry(leaf: Leaf) -> float | None:
    bounds = leaf.attributes.get("bounds")
    if bounds is None:
        return None
    top = max(float(np.abs(np.asarray(b)).max()) for b in bounds)
    return top if math.isfinite(top) else None


def blocks(expr: ParamExpr) -> list[list[ParamExpr]]:
    """The blocks of a matrix made of rows (vstack) of blocks (hstack)."""
    rows = expr.args if isinstance(expr, Apply) and expr.op == "vstack" else (expr,)
    return [list(r.args) if isinstance(r, Apply) and r.op == "hstack" else [r] for r in rows]


def block_norm(expr: ParamExpr) -> float | None:
    """‖E‖ ≤ ‖N‖ with N the norms of the blocks, which form a grid."""
    grid = [[norm_bound(b) for b in row] for row in blocks(expr)]
    known = [n for row in grid for n in row if n is not None]
    if len({len(row) for row in grid}) != 1 or len(known) < sum(map(len, grid)):
        return None
    return float(np.linalg.norm(np.reshape(known, (len(grid), -1)), 2)) * UP


def range_bound(expr: ParamExpr, sign: float = 1.0) -> float | None:
    """An upper bound on λ_max of the symmetric part of sign · E, for square E.

    X − Xᵀ contributes nothing, −AᵀA and −AAᵀ and negative PSD parameters at most 0, everything else its norm.
    """
    parts = _summands(expr, sign)
    total = 0.0
    while parts:
        part, s = parts.pop()
        partner = next((i for i, (other, t) in enumerate(parts) if t == -s and is_transpose(part, other)), None)
        if partner is not None:
            parts.pop(partner)
            continue
        bound = _single(part, s)
        if bound is None:
            return None
        total += bound
    return total


def spectral_bounds(expr: ParamExpr) -> tuple[float, float] | None:
    """(lower, upper) of the symmetric part's spectrum, from the blocks of a square matrix."""
    grid = blocks(expr)
    if any(len(row) != len(grid) for row in grid) or any(
        row[i].shape[0] != row[i].shape[1] for i, row in enumerate(grid)
    ):
        return None
    found = comparison(grid)
    if found is None:
        return None
    low, high, off = found
    sym = (off + off.T) / 2
    upper = float(np.linalg.eigvalsh(np.diag(high) + sym)[-1]) if np.isfinite(high).all() else math.inf
    return float(np.linalg.eigvalsh(np.diag(low) - sym)[0]), upper


def comparison(grid: list[list[ParamExpr]]) -> tuple[Array, Array, Array] | None:
    """(lower, upper) bounds of the diagonal blocks' symmetric parts (upper may be ∞), and the other blocks' norms."""
    n = len(grid)
    low, high, off = np.zeros(n), np.zeros(n), np.zeros((n, n))
    for i, row in enumerate(grid):
        below, above = range_bound(row[i], -1.0), range_bound(row[i])
        if below is None:
            return None
        low[i], high[i] = -below, math.inf if above is None else above
        for j, block in enumerate(row):
            if i != j:
                norm = norm_bound(block)
                if norm is None:
                    return None
                off[i, j] = norm
    return low, high, off


def perron_scaling(b: Array) -> Array:
    """d > 0 for which ‖D^½BD^{-½}‖ is (nearly) the spectral radius of the nonnegative B.

    d = y/x with the right and left Perron vectors x, y. Source: Stoer and Witzgall 1962 (transformations by diagonal
    matrices in a normed space); a small multiple of the all-ones matrix makes B irreducible.
    """
    n = b.shape[0]
    full = b + 1e-9 * max(float(b.max(initial=0.0)), 1e-300) * np.ones((n, n))
    right, left = np.ones(n), np.ones(n)
    shifted = full + float(np.linalg.norm(full, 2)) * np.eye(n)  # aperiodic, with the same vectors
    for _ in range(2000):
        right, left = shifted @ right, shifted.T @ left
        right, left = right / right.max(), left / left.max()
    d = left / right
    return np.asarray(d / d.max(), dtype=np.float64)


def radius(b: Array) -> float:
    """The spectral radius of a matrix."""
    return float(np.abs(np.linalg.eigvals(b)).max(initial=0.0))


def _summands(expr: ParamExpr, sign: float) -> list[tuple[ParamExpr, float]]:
    match expr:
        case Apply(op="add", args=args):
            return [pair for a in args for pair in _summands(a, sign)]
        case Apply(op="neg", args=(a,)):
            return _summands(a, -sign)
        case Apply(op="multiply", args=(Const() as c, a)) if size(c.shape) == 1:
            return _summands(a, sign * float(c.dense().reshape(-1)[0]))
        case _:
            return [(expr, sign)]


def _single(expr: ParamExpr, sign: float) -> float | None:
    if isinstance(expr, Const):
        if is_zero(expr):
            return 0.0
        if expr.shape[0] > EXACT:
            bound = norm_bound(expr)
            return None if bound is None else abs(sign) * bound
        value = sign * expr.dense()
        top = float(np.linalg.eigvalsh((value + value.T) / 2)[-1])
        return top + (UP - 1.0) * abs(top)
    if sign < 0 and semidefinite(expr):
        return 0.0
    bound = norm_bound(expr)
    return None if bound is None else abs(sign) * bound


def is_transpose(a: ParamExpr, b: ParamExpr) -> bool:
    """Whether b = aᵀ shows in the form."""
    return (isinstance(b, Apply) and b.op == "transpose" and b.args[0] is a) or (
        isinstance(a, Apply) and a.op == "transpose" and a.args[0] is b
    )


def semidefinite(expr: ParamExpr) -> bool:
    """Whether E ⪰ 0 shows in the form: Gram matrices, PSD parameters, their positive multiples and sums."""
    match expr:
        case Leaf(attributes=a):
            return bool(a.get("PSD"))
        case Apply(op="matmul", args=(a, b)):
            return is_transpose(a, b)
        case Apply(op="add", args=args):
            return all(semidefinite(a) for a in args)
        case Apply(op="multiply", args=(a, b)):
            return any(_nonnegative(x) and semidefinite(y) for x, y in ((a, b), (b, a)))
        case _:
            return False


def _nonnegative(expr: ParamExpr) -> bool:
    match expr:
        case Const():
            return size(expr.shape) == 1 and bool((expr.dense() >= 0).all())
        case Leaf(attributes=a):
            return size(expr.shape) == 1 and bool(a.get("nonneg") or a.get("pos"))
        case _:
            return False


def _constant_norm(expr: Const) -> float | None:
    value = expr.dense()
    if value.ndim > 2:
        return None
    if value.ndim < 2 or min(value.shape) <= 1 or min(value.shape) > EXACT:
        return float(np.linalg.norm(value.reshape(-1))) * UP
    return float(np.linalg.norm(value, 2)) * UP


def _times(a: float | None, b: float | None) -> float | None:
    return None if a is None or b is None else a * b


def _total(values: list[float | None]) -> float | None:
    known = [v for v in values if v is not None]
    return sum(known) if len(known) == len(values) else None
