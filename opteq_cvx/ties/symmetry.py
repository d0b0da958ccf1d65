"""Whether D(P − C) is symmetric for some positive block scaling D, decided at two random draws of all parameters.

An identity of polynomials in the parameters that holds at random points holds everywhere, with probability one.
"""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from opteq_cvx.errors import OpteqError
from opteq_cvx.ir.frozen import Array, IntArray
from opteq_cvx.ir.layout import Layout
from opteq_cvx.ir.param import Leaf, ParamExpr
from opteq_cvx.ir.program import Program
from opteq_cvx.maps.evaluate import Environment
from opteq_cvx.splitting.structure import SMOOTH
from opteq_cvx.weights.composite import composite
from opteq_cvx.weights.draw import draw

DRAWS = (20210528, 20220314)
SAME = 1e-9  # relative to the largest entry


def components(program: Program, layout: Layout) -> IntArray:
    """A number for each variable: equal where a term other than quadratic and linear joins them.

    ∂f is a sum over these components, so that a positive scaling of each keeps it a subdifferential.
    """
    owner = np.arange(len(layout.names))
    for term in program.terms:
        if term.atom in (*SMOOTH, "linear"):
            continue
        joined = [layout.names.index(name) for name, _ in term.arg.parts]
        for other in joined[1:]:
            owner[owner == owner[other]] = owner[joined[0]]
    return owner


def scaling(program: Program, matrix: ParamExpr, layout: Layout) -> Array | None:
    """d > 0 for each variable with d_i F_ij = d_j F_jiᵀ at every draw, F the value of `matrix`; else None."""
    groups = components(program, layout)
    found: list[Array] = []
    for seed in DRAWS:
        d = _scaling(random_value(program.parameters, matrix, seed), layout, groups)
        if d is None:
            return None
        found.append(d)
    return _snapped(found[0]) if np.allclose(found[0], found[1], rtol=SAME) else None


def _snapped(d: Array) -> Array:
    """d without the rounding errors of simple numbers."""
    simple = np.round(d, 6)
    return np.where(np.abs(d - simple) < SAME, simple, d)


def random_value(leaves: Sequence[Leaf], expr: ParamExpr, seed: int) -> Array:
    """The value of `expr` at random admissible parameters, float64."""
    generator = torch.Generator().manual_seed(seed)
    values = {leaf.name: _random(leaf, generator).unsqueeze(0) for leaf in leaves}
    value = Environment(values, torch.float64, torch.device("cpu"))(expr)[0]
    return value.detach().numpy()


def _random(leaf: Leaf, generator: torch.Generator) -> Tensor:
    try:
        return draw(leaf, composite(leaf), generator)
    except OpteqError:  # attributes that an input may have and a weight may not
        return torch.randn(leaf.shape, dtype=torch.float64, generator=generator)


def _scaling(f: Array, layout: Layout, groups: IntArray) -> Array | None:
    """d by walking from block to block, then checked on all of them."""
    ends = (*layout.starts, layout.n)
    parts = [slice(a, b) for a, b in pairwise(ends)]
    tiny = SAME * max(float(np.abs(f).max(initial=0.0)), 1e-300)
    d = np.zeros(len(parts))
    for root in range(len(parts)):
        if d[root]:
            continue
        d[root], stack = 1.0, [root]
        while stack:
            i = stack.pop()
            for j in range(len(parts)):
                if d[j]:
                    continue
                ratio = 1.0 if groups[i] == groups[j] else _ratio(f[parts[i], parts[j]], f[parts[j], parts[i]], tiny)
                if ratio is None:
                    continue
                d[j] = d[i] * ratio
                stack.append(j)
    if not (d > 0).all() or any(np.ptp(d[groups == g]) > SAME * d.max() for g in groups):
        return None
    for i, a in enumerate(parts):
        for j, b in enumerate(parts):
            if np.abs(d[i] * f[a, b] - d[j] * f[b, a].T).max(initial=0.0) > tiny * max(d[i], d[j]):
                return None
    return d


def _ratio(ab: Array, ba: Array, tiny: float) -> float | None:
    """r with F_ij = r F_jiᵀ, so that d_j = r d_i; −1 where no r > 0 is one, None where neither block says anything."""
    there, back = np.abs(ab).max(initial=0.0), np.abs(ba).max(initial=0.0)
    if there <= tiny and back <= tiny:
        return None
    ratio = float((ab * ba.T).sum() / (ba * ba).sum()) if back > tiny else -1.0
    return ratio if ratio > 0.0 else -1.0
