"""The splitting of a monotone inclusion: Gauss–Seidel where the norms certify it, else steps with one factorization."""

from collections.abc import Sequence

import numpy as np

from opteq_cvx.ir.frozen import Array, freeze, size
from opteq_cvx.ir.layout import Layout
from opteq_cvx.ir.param import ParamExpr, is_zero
from opteq_cvx.ir.program import Program
from opteq_cvx.splitting.blocks import inverse_order
from opteq_cvx.splitting.by_construction import norm_bound, radius
from opteq_cvx.splitting.cyclic import Cyclic, Unit, local
from opteq_cvx.splitting.graph_form import GraphForm
from opteq_cvx.splitting.graph_inclusion import GraphInclusion
from opteq_cvx.splitting.inclusion import MonotoneInclusion
from opteq_cvx.splitting.structure import SMOOTH, Structure
from opteq_cvx.ties.equilibrium import Inclusion
from opteq_cvx.ties.matrix import curvature, scaled_identity

CERTAIN = 1.0 - 1e-9  # a spectral radius above this certifies no contraction


def cyclic(found: Inclusion, base: Program, parts: Structure) -> Cyclic | str:
    """Gauss–Seidel over the variables, or why it is not certified to contract."""
    layout = parts.layout
    curved = _curvatures(base, layout)
    if curved is None:
        return "a program's quadratic is not a constant multiple of the identity"
    ratio = contraction(found, curved)
    if ratio is None:
        return "no bound on the coupling's norm is known by construction"
    if radius(ratio) >= CERTAIN:
        return f"the norms certify no contraction: a spectral radius of {radius(ratio):.4g}"
    units = []
    for i, (start, shape) in enumerate(zip(layout.starts, layout.shapes, strict=True)):
        stop = start + size(shape)
        own = local(parts.blocks, start, stop)
        if own is None:
            return "a term joins variables"
        sources = tuple((j, c) for j, c in enumerate(found.coupling[i]) if not is_zero(c))
        inner = tuple(b for _, b in own)
        places = tuple(p for p, _ in own)
        units.append(Unit(start, stop, curved[i], sources, inner, places, inverse_order(inner, stop - start)))
    return Cyclic(parts, tuple(units), sweep_modulus(ratio))


def _curvatures(base: Program, layout: Layout) -> list[float] | None:
    grid = curvature([t for t in base.terms if t.atom in SMOOTH], layout)
    found = [scaled_identity(row[i]) for i, row in enumerate(grid)]
    off = all(is_zero(b) for i, row in enumerate(grid) for j, b in enumerate(row) if i != j)
    kept = [p for p in found if p is not None and p > 0]
    return kept if off and len(kept) == len(grid) else None


def contraction(found: Inclusion, curved: Sequence[float]) -> Array | None:
    """B = L_k‖C_kj‖/p_k, L_k = p_k/(p_k + μ_k) the Lipschitz constant of the prox; None where a norm is unknown."""
    norms = coupling_norms(found.coupling)
    if norms is None:
        return None
    return freeze(norms / (np.asarray(curved) + found.strong)[:, None])


def coupling_norms(grid: Sequence[Sequence[ParamExpr]]) -> Array | None:
    """‖C_kj‖ by construction; None where one is unknown."""
    bounds = [[0.0 if is_zero(c) else norm_bound(c) for c in row] for row in grid]
    if any(b is None for row in bounds for b in row):
        return None
    return np.array(bounds, dtype=np.float64)


def sweep_modulus(b: Array) -> float:
    """μ with ‖u − u*‖ ≤ ‖u − T(u)‖/μ for a sweep T.

    With e the block norms of T(u) − u* and δ those of u − T(u): e ≤ Be + Uδ, U the part of B that reads old values, so
    that e ≤ (I − B)⁻¹Uδ.
    """
    n = b.shape[0]
    upper = np.triu(b)
    return 1.0 / (1.0 + float(np.linalg.norm(np.linalg.solve(np.eye(n) - b, upper), 2)))


def constrained(found: Inclusion, base: Program, *, certify: bool) -> GraphInclusion:
    """The splitting of terms that act on combinations of coordinates."""
    form = GraphForm.of(base)
    sizes = [size(s) for s in found.layout.shapes]
    owners = [found.layout.names.index(t.arg.parts[0][0]) if t.arg.parts else 0 for t in form.terms]
    counts = [size(t.arg.shape) for t in form.terms]
    metric = freeze(np.repeat(found.scaling, sizes))
    rows = freeze(np.repeat(found.scaling[owners], counts))
    return GraphInclusion(form, found.matrix, metric, rows, certify)


def monotone(found: Inclusion, parts: Structure, *, certify: bool) -> MonotoneInclusion:
    """The splitting that needs nothing but a margin."""
    sizes = [size(s) for s in found.layout.shapes]
    metric, strong = (freeze(np.repeat(v, sizes)) for v in (found.scaling, found.strong))
    return MonotoneInclusion(parts, found.matrix, metric, strong, certify)
