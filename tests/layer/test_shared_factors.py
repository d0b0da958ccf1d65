"""Quadratics whose pieces share factors: the added-up P against CVXPY's values, its bounds against eigenvalues."""

from collections.abc import Callable
from dataclasses import dataclass

import cvxpy as cp
import numpy as np
import pytest
import scipy.sparse as sp
import torch
from numpy.typing import NDArray

import opteq_cvx as oc
from opteq_cvx.maps.evaluate import Environment
from opteq_cvx.splitting.matrix_free import FactoredForwardBackward
from opteq_cvx.splitting.merged import strands
from opteq_cvx.splitting.pieces import Bound, factored
from opteq_cvx.splitting.quadratic import constant_scalar
from problems import conv_deep

Made = tuple[cp.Expression, list[cp.Variable]]


def _kernel(channels: int, norm: float | None) -> oc.Weight:
    k = np.random.default_rng(channels).normal(size=(channels, channels, 3, 3))
    return oc.Weight(k.shape, name=f"K{channels}", norm=norm, init=k / 20)


def _gram(k: oc.Weight, shape: tuple[int, int, int]) -> cp.Expression:
    a = oc.conv2d_matrix(k, shape, padding="same")
    n = shape[0] * shape[1] * shape[2]
    return cp.psd_wrap(sp.eye_array(n, format="csr") - a @ a.T)


def two_layers() -> Made:
    """The squares cancel, ±⟨Aᵀu, Bᵀv⟩ is left."""
    problem, _, states = conv_deep.declare(pixels=7, channels=2)
    return problem.objective.expr, states


def one_factor_twice() -> Made:
    """‖Aᵀu‖² in two terms with different factors: one piece."""
    u, k = cp.Variable((2, 4, 3), name="u"), _kernel(2, 0.9)
    seen = oc.conv_transpose2d(u, k, padding="same")
    curved = cp.quad_form(cp.vec(u, order="C"), _gram(k, (2, 4, 3)))
    return 0.5 * curved + 0.3 * cp.sum_squares(seen) + cp.sum(u), [u]


def both_of_one_unknown() -> Made:
    """Two factors that read the same entries, mixed: the spectrum of KᵀL + LᵀK is within twice the norms."""
    u, k = cp.Variable((2, 4, 4), name="u"), _kernel(2, 0.9)
    seen, own = oc.conv2d(u, k, padding="same"), 0.4 * u
    return cp.sum_squares(seen - own) + cp.sum_squares(seen + own) + 2 * cp.sum_squares(u + seen), [u]


def parts_of_a_vector() -> Made:
    """Selections only beside a convolution: a diagonal with several values."""
    u, v, k = cp.Variable((2, 3, 3), name="u"), cp.Variable(3, name="v"), _kernel(2, None)
    cost = 0.5 * cp.sum_squares(u) + 2 * cp.sum_squares(v) + cp.sum_squares(oc.conv2d(u, k) - 1)
    return cost + 0.5 * cp.sum_squares(v[1:]), [u, v]


def not_shared() -> Made:
    """Two kernels, nothing in common."""
    u = cp.Variable((2, 3, 3), name="u")
    other = oc.Weight((1, 2, 2, 2), name="L", init=np.ones((1, 2, 2, 2)) / 5)
    return cp.sum_squares(oc.conv2d(u, _kernel(2, None))) + cp.sum_squares(oc.conv2d(u, other)) + cp.sum_squares(u), [u]


@dataclass(frozen=True)
class Case:
    """`share`: flops of a product with the sum, of those with the pieces one by one, at most."""

    make: Callable[[], Made]
    share: float


CASES = [
    Case(two_layers, 0.55),
    Case(one_factor_twice, 0.6),
    Case(both_of_one_unknown, 0.7),
    Case(parts_of_a_vector, 1.0),
    Case(not_shared, 1.0),
]


def compiled(make: Callable[[], Made]) -> tuple[oc.EquilibriumLayer, Made]:
    torch.manual_seed(0)
    cost, variables = made = make()
    inputs = [p for p in cost.parameters() if p.name() == "x"]
    layer = oc.compile(cp.Problem(cp.Minimize(cost)), inputs=inputs, outputs=variables)
    return layer.double(), made


def bound_of(layer: oc.EquilibriumLayer, which: object) -> Bound:
    values = {name: layer.weights.value(name).detach()[None] for name in layer.weights.names}
    env = Environment(values, torch.float64, "cpu")
    return which.bind([env(e) for e in which.exprs])  # type: ignore[attr-defined]


def curvature(layer: oc.EquilibriumLayer, made: Made, z: NDArray[np.float64], y: NDArray[np.float64]) -> float:
    """yᵀPz from values of CVXPY's objective by polarization: f(z + y) − f(z) − f(y) + f(0)."""
    cost, variables = made
    for p in cost.parameters():
        p.value = np.zeros(p.shape) if p.name() == "x" else layer.weights.value(p.name()).detach().numpy()

    def value(flat: NDArray[np.float64]) -> float:
        at = 0
        for v in variables:
            v.save_value(flat[at : at + v.size].reshape(v.shape))
            at += v.size
        return float(np.sum(cost.value))

    return value(z + y) - value(z) - value(y) + value(0 * z)


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.make.__name__)
def test_products_with_the_added_up_quadratic_are_those_of_the_objective(case: Case) -> None:
    layer, made = compiled(case.make)
    map_ = layer.plan.splitting
    assert isinstance(map_, FactoredForwardBackward)
    smooth = map_.parts.smooth
    alone = factored(smooth.layout, smooth.quadratic, constant_scalar)
    assert alone is not None
    assert map_.factors.flops <= case.share * alone.flops
    bound = bound_of(layer, map_.factors)
    eye = torch.eye(map_.dimension, dtype=torch.float64)
    found = torch.cat([bound.multiply(eye[i : i + 1]) for i in range(map_.dimension)]).numpy()
    for z, y in np.random.default_rng(0).normal(size=(6, 2, map_.dimension)):
        np.testing.assert_allclose(y @ found @ z, curvature(layer, made, z, y), rtol=1e-9)
    values = np.linalg.eigvalsh(found)
    low, high = (float(t[0]) for t in bound.spectrum(eye))
    assert low <= values[0] + 1e-12 and values[-1] <= high + 1e-12  # noqa: PT018
    _, top = bound_of(layer, alone).spectrum(eye)
    assert high <= float(top[0])


def test_two_layers_are_certified_by_the_product_of_their_norms() -> None:
    layer, _ = compiled(two_layers)
    map_ = layer.plan.splitting
    assert isinstance(map_, FactoredForwardBackward)
    np.testing.assert_allclose(map_.factors.known, (1 - 0.95**2, 1 + 0.95**2), rtol=1e-9)
    assert "KᵀL + LᵀK" in str(layer.plan)
    assert "contraction factor ≤ 0.9488 by construction" in str(layer.plan)


def test_strands_are_the_map() -> None:
    """A sum of scaled strands of flat vectors is the map, whatever sums, scalings and adjoints it is made of."""
    layer, _ = compiled(both_of_one_unknown)
    map_ = layer.plan.splitting
    assert isinstance(map_, FactoredForwardBackward)
    smooth = map_.parts.smooth
    alone = factored(smooth.layout, smooth.quadratic, constant_scalar)
    assert alone is not None
    for piece in alone.pieces:
        found = strands(piece.k)
        assert len({s.key for s in found}) == len(found)
        assert all(s.map.shape_in == piece.k.shape_in for s in found)
