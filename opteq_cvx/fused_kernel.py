"""The Triton kernel behind `fused`: many steps u ← clip(shrink(u M + c − b·before)) on a tile of rows, one launch.

Rows are independent, so a program keeps its rows and takes all steps without another's; only the product needs the
other columns of its own rows, which go through global memory, that is through the first-level cache.
"""

import triton
import triton.language as tl


@triton.jit  # type: ignore[untyped-decorator]
def burst(  # type: ignore[no-untyped-def]
    z_ptr,
    before_ptr,
    m_ptr,
    c_ptr,
    t_ptr,
    low_ptr,
    high_ptr,
    momentum,
    rows,
    n,
    count,
    c_rows: tl.constexpr,
    t_rows: tl.constexpr,
    low_rows: tl.constexpr,
    high_rows: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    INNER: tl.constexpr,
):
    """z, before (rows, n) are overwritten by the last two states; M (n, n); the rest (1|rows, n), *_rows says which.

    ROWS × COLUMNS is the tile, COLUMNS ≥ n; INNER columns of M's rows are read at a time. All are contiguous.
    """
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    column = tl.arange(0, COLUMNS)
    inside = (row[:, None] < rows) & (column[None, :] < n)
    own = row[:, None] * n + column[None, :]
    shared = 0 * row[:, None] + column[None, :]
    z = tl.load(z_ptr + own, mask=inside, other=0.0)
    before = tl.load(before_ptr + own, mask=inside, other=0.0)
    c = tl.load(c_ptr + (own if c_rows else shared), mask=inside, other=0.0)
    t = tl.load(t_ptr + (own if t_rows else shared), mask=inside, other=0.0)
    low = tl.load(low_ptr + (own if low_rows else shared), mask=inside, other=0.0)
    high = tl.load(high_ptr + (own if high_rows else shared), mask=inside, other=0.0)
    for _ in range(count):
        total = c - momentum * before
        for start in range(0, n, INNER):
            k = start + tl.arange(0, INNER)
            known = (row[:, None] < rows) & (k[None, :] < n)
            left = tl.load(z_ptr + row[:, None] * n + k[None, :], mask=known, other=0.0)
            right = tl.load(
                m_ptr + k[:, None] * n + column[None, :], mask=(k[:, None] < n) & (column[None, :] < n), other=0.0
            )
            total = tl.dot(left, right, total, input_precision="ieee")
        total = total - tl.minimum(tl.maximum(total, -t), t)
        total = tl.minimum(tl.maximum(total, low), high)
        before = z
        z = total
        tl.debug_barrier()  # all columns of the old z were read
        tl.store(z_ptr + own, z, mask=inside)
        tl.debug_barrier()  # all columns of the new z are there
    tl.store(before_ptr + own, before, mask=inside)
