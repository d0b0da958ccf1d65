"""The transport polytope {X ≥ 0, X1 = r, Xᵀ1 = c} over the last two axes; with all sums 1 it is Birkhoff's."""

from dataclasses import dataclass

import torch
from torch import Tensor
from typing_extensions import override

from opteq_cvx.atoms.contract import Atom, Data, Spelling, Trait
from opteq_cvx.atoms.marginals import Fit, Positive
from opteq_cvx.atoms.primitives import indicator

_FIT = Fit(Positive())
UNEQUAL = 1e3  # units of rounding by which the two totals may differ


def fitted(fit: Fit, v: Tensor, t: Tensor, data: Data) -> Tensor:
    """X for `v` (*batch, m, n) and the data `rows` (*batch, m, 1), `columns` (*batch, 1, n)."""
    batch = torch.broadcast_shapes(*(s.shape[:-2] for s in (v, t, *data.values())))
    m, n = v.shape[-2:]
    r = data["rows"].squeeze(-1).expand(*batch, m)
    c = data["columns"].squeeze(-2).expand(*batch, n)
    return fit(v.expand(*batch, m, n), r, c, t.expand(*batch, 1, 1))


def gap(x: Tensor, data: Data) -> Tensor:
    """How far x is from the marginals and from x ≥ 0, (*batch, 1, 1)."""
    rows = (x.sum(-1, keepdim=True) - data["rows"]).abs().sum(-2, keepdim=True)
    columns = (x.sum(-2, keepdim=True) - data["columns"]).abs().sum(-1, keepdim=True)
    return rows + columns + torch.relu(-x).sum((-2, -1), keepdim=True)


def no_plan(data: Data) -> Tensor:
    """Whether some sum is negative, or the totals differ by more than rounding, (*batch, 1, 1)."""
    r, c = data["rows"], data["columns"]
    size = torch.maximum(r.abs().sum(-2, keepdim=True), c.abs().sum(-1, keepdim=True))
    slack = UNEQUAL * torch.finfo(r.dtype).eps * size
    apart = (r.sum(-2, keepdim=True) - c.sum(-1, keepdim=True)).abs() > slack
    least = torch.minimum(r.amin(-2, keepdim=True), c.amin(-1, keepdim=True))
    return apart | (least < -slack)


@dataclass(frozen=True, slots=True)
class Transport(Atom):
    """The indicator of {X ≥ 0, X1 = r, Xᵀ1 = c}, data `rows` (m, 1) and `columns` (1, n) with one total.

    The projection is max(V + a1ᵀ + 1bᵀ, 0), a and b by a semismooth Newton method on the dual. It is accurate to the
    rounding of V's entries: for those of the sums' size to 1e-10 in float64 and a few 1e-6 in float32, as the sums are;
    from some 1e5 times the sums on the steps may end before. Totals that differ are no program (status
    `primal_infeasible`); the prox takes the nearest sums with one total.
    Derivatives in V, r and c are those of the support; where it is not connected, the shortest that fit.
    """

    name = "transport"
    formula = "ι{X ≥ 0, X1 = r, Xᵀ1 = c}"
    cost = "O(mn log n + mn²) a Newton step, n ≤ m, about ten steps"
    source = "Li, Sun, Toh, SIAM J. Optim. 30(4), 2020 (semismooth Newton for Birkhoff's polytope)"
    traits = frozenset({Trait.SET})
    spellings = (
        Spelling(
            text="[x >= 0, sum(x, axis=1) == 1, sum(x, axis=0) == 1]",
            constraint=True,
            variables={"x": (5, 5)},
            data={"rows": "np.ones((5, 1))", "columns": "np.ones((1, 5))"},
        ),
        Spelling(
            text="[x >= 0, sum(x, axis=1) == r, sum(x, axis=0) == sum(r) / 4]",
            constraint=True,
            variables={"x": (3, 4)},
            parameters={"r": ((3,), {"nonneg": True})},
            data={"rows": "reshape(r, (3, 1), order='C')", "columns": "sum(r) / 4 * np.ones((1, 4))"},
        ),
        Spelling(
            text="[x >= 0, sum(x, axis=1) == r, sum(x, axis=0)[:-1] == c]",
            constraint=True,
            variables={"x": (2, 3)},
            parameters={"r": ((2,), {"bounds": [1.0, 2.0]}), "c": ((2,), {"bounds": [0.2, 0.8]})},
            data={
                "rows": "reshape(r, (2, 1), order='C')",
                "columns": "reshape(hstack([c, sum(r) - sum(c)]), (1, 3), order='C')",
            },
        ),
    )

    @override
    def value(self, x: Tensor, data: Data) -> Tensor:
        return indicator(gap(x, data), x.abs().sum((-2, -1), keepdim=True))

    @override
    def prox(self, v: Tensor, step: Tensor, data: Data) -> Tensor:
        return fitted(_FIT, v, v.new_ones((1,) * v.ndim), data)

    @override
    def violation(self, x: Tensor, data: Data) -> Tensor:
        return gap(x, data)

    @override
    def empty(self, data: Data) -> Tensor:
        return no_plan(data)
