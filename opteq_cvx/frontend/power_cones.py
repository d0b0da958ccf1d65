"""The power cone of many variables, |z| ≤ w₁^a₁ ⋯ wₙ^aₙ, as a chain of cones of three.

|u_k| ≤ w_k^α_k u_{k+1}^{1−α_k} with u_1 = z, u_n = w_n and α_k = a_k / (a_k + … + a_n).
"""

import numpy as np

from opteq_cvx.frontend.scope import Scope
from opteq_cvx.ir import act
from opteq_cvx.ir import affine as aff
from opteq_cvx.ir.frozen import FrozenDict, IntArray, size
from opteq_cvx.ir.linmap import gather
from opteq_cvx.ir.param import Apply, Const, ParamExpr, const
from opteq_cvx.ir.program import Affine, Origin, Term


def power_chain(x: Affine, alpha: ParamExpr, scope: Scope, origin: Origin) -> Term:
    """One term for x = [w, z] in the power cones with exponents `alpha`, both joined along the last axis."""
    n = x.shape[-1] - 1
    if n == 1:
        return Term("soc", x, origin)
    w, z = _last(x, np.arange(n)), _last(x, np.array([n]))
    lead = [z, scope.fresh("s", (*x.shape[:-1], n - 2))] if n > 2 else [z]
    u = aff.join(lead)
    end = _last(w, np.array([n - 1]))
    following = aff.join([_last(u, np.arange(1, n - 1)), end]) if n > 2 else end
    first = _last(w, np.arange(n - 1))
    return Term("pow_cone", aff.stack([first, following, u]), origin, data=FrozenDict(alpha=_shares(alpha, n)))


def _last(x: Affine, at: IntArray) -> Affine:
    """The entries `at` of the last axis."""
    positions = np.arange(size(x.shape)).reshape(x.shape)
    return aff.image(gather(positions[..., at], x.shape), x)


def _shares(alpha: ParamExpr, n: int) -> ParamExpr:
    """α_k = a_k / (a_k + … + a_n) for k < n, with a trailing axis of length 1."""
    heads, tails = np.eye(n)[:, : n - 1], np.tril(np.ones((n, n)))[:, : n - 1]
    if isinstance(alpha, Const):
        shares: ParamExpr = const((alpha.dense() @ heads) / (alpha.dense() @ tails))
    else:
        top, bottom = act.matmul(alpha, const(heads)), act.matmul(alpha, const(tails))
        shares = Apply("divide", (top, bottom), top.shape)
    return act.reshape(shares, (*shares.shape, 1))
