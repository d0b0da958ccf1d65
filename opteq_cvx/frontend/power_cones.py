"""The power cone of many variables, |z| ≤ w₁^a₁ ⋯ wₙ^aₙ, as a balanced tree of cones of three.

A node over the variables of its left and right halves has |u| ≤ u_left^α u_right^{1−α}, α the left share of the
exponents below it; the root is z, the leaves are w.
"""

import numpy as np

from opteq_cvx.frontend.scope import Scope
from opteq_cvx.ir import act
from opteq_cvx.ir import affine as aff
from opteq_cvx.ir.frozen import Array, FrozenDict, size
from opteq_cvx.ir.linmap import Adjoint, Identity, LinearMap, gather
from opteq_cvx.ir.param import Apply, Const, ParamExpr, const
from opteq_cvx.ir.program import Affine, Origin, Term


def power_tree(x: Affine, alpha: ParamExpr, scope: Scope, origin: Origin) -> tuple[Term, LinearMap]:
    """One term for x = [w, z] in the power cones with exponents `alpha`, both joined along the last axis.

    Returns it with the map from its multipliers to those of [w, z, auxiliary].
    """
    n = x.shape[-1] - 1
    if n == 1:
        return Term("soc", x, origin), Identity(x.shape)
    joined = aff.join([x, scope.fresh("s", (*x.shape[:-1], n - 2))]) if n > 2 else x
    triples, left, below = _tree(n)
    positions = np.arange(size(joined.shape)).reshape(joined.shape)
    picked = gather(positions[..., np.array(triples)], joined.shape)
    term = Term("pow_cone", aff.image(picked, joined), origin, data=FrozenDict(alpha=_shares(alpha, left, below)))
    return term, Adjoint(picked)


def _tree(n: int) -> tuple[list[tuple[int, int, int]], Array, Array]:
    """(left child, right child, node) for the n − 1 nodes, and for each (columns) the leaves of its left half and all.

    Places are those of [w, z, auxiliary].
    """
    triples: list[tuple[int, int, int]] = []
    left, below = np.zeros((n, n - 1)), np.zeros((n, n - 1))
    free = n + 1
    stack = [(0, n, n)]
    while stack:
        start, stop, place = stack.pop()
        middle = (start + stop) // 2
        children = []
        for a, b in ((start, middle), (middle, stop)):
            if b - a == 1:
                children.append(a)
            else:
                children.append(free)
                stack.append((a, b, free))
                free += 1
        left[start:middle, len(triples)] = 1.0
        below[start:stop, len(triples)] = 1.0
        triples.append((children[0], children[1], place))
    return triples, left, below


def _shares(alpha: ParamExpr, left: Array, below: Array) -> ParamExpr:
    """The left share of the exponents below each node, with a trailing axis of length 1."""
    if isinstance(alpha, Const):
        shares: ParamExpr = const((alpha.dense() @ left) / (alpha.dense() @ below))
    else:
        top, bottom = act.matmul(alpha, const(left)), act.matmul(alpha, const(below))
        shares = Apply("divide", (top, bottom), top.shape)
    return act.reshape(shares, (*shares.shape, 1))
