"""Gradients in closed form are those of the map itself, differentiated by autograd."""

import cvxpy as cp
import numpy as np
import pytest
import torch
from torch import Tensor

import opteq_cvx as oc
from opteq_cvx import call
from opteq_cvx.binding import bind
from opteq_cvx.maps.evaluate import Constants
from opteq_cvx.splitting.contract import Prepared, Theta
from opteq_cvx.splitting.forward_backward import ForwardBackward

N, B = 6, 5


def layer(*, shared_matrix: bool, shared_linear: bool, prox: str) -> tuple[oc.EquilibriumLayer, list[Tensor]]:
    """½uᵀ(I + AAᵀ)u − cᵀu with A and c inputs or weights, over u ≥ 0, u ≤ 0 or free of constraints."""
    rng, g = np.random.default_rng(0), torch.Generator().manual_seed(0)
    a = oc.Weight((N, N), name="A", init=rng.normal(size=(N, N))) if shared_matrix else oc.Input((N, N), name="A")
    c = oc.Weight(N, name="c", init=rng.normal(size=N)) if shared_linear else oc.Input(N, name="c")
    u, x = cp.Variable(N, name="u"), oc.Input(name="x")
    energy = 0.5 * cp.quad_form(u, cp.psd_wrap(np.eye(N) + a @ a.T)) - c @ u
    sides = {"nonneg": [u >= 0], "nonpos": [u <= 0], "box": [u >= -0.1, u <= 0.2]}[prox]
    built = oc.compile(cp.Problem(cp.Minimize(energy + 0 * x), sides), outputs=[u]).double()
    values = {"A": torch.randn(B, N, N, generator=g).double(), "c": torch.randn(B, N, generator=g).double()}
    values["x"] = torch.zeros(B, dtype=torch.float64)
    return built, [values[name] for name in built.input_names]


@pytest.mark.parametrize("shared_matrix", [True, False])
@pytest.mark.parametrize("shared_linear", [True, False])
@pytest.mark.parametrize("prox", ["nonneg", "nonpos"])
def test_pullback_is_the_derivative_of_the_step(shared_matrix: bool, shared_linear: bool, prox: str) -> None:
    built, inputs = layer(shared_matrix=shared_matrix, shared_linear=shared_linear, prox=prox)
    splitting = built.plan.splitting
    assert isinstance(splitting, ForwardBackward)
    theta, prepared = data(built, inputs)
    g = torch.Generator().manual_seed(1)
    z, w = (torch.randn(B, N, generator=g, dtype=torch.float64) for _ in range(2))
    with torch.no_grad():
        found = splitting.pullback(z, theta, prepared, w)
    assert found is not None
    leaves = [t.clone().requires_grad_() for t in theta]
    wanted = torch.autograd.grad(splitting.step(z, tuple(leaves), prepared), leaves, w)
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other, atol=1e-13, rtol=1e-12)


def test_proxes_that_do_not_know_their_slope_are_left_to_autograd() -> None:
    built, inputs = layer(shared_matrix=True, shared_linear=False, prox="box")
    theta, prepared = data(built, inputs)
    z = torch.zeros(B, N, dtype=torch.float64)
    assert built.plan.splitting.pullback(z, theta, prepared, z) is None


def data(built: oc.EquilibriumLayer, inputs: list[Tensor]) -> tuple[Theta, Prepared]:
    """θ and what is prepared from it, as a call has them."""
    weights = {n: built.weights.value(n).detach().unsqueeze(0) for n in built.weights.names}
    leaves = tuple(p for p in built.program.parameters if p.name in built.input_names)
    bound = bind(leaves, inputs, {}, next(iter(weights.values()), None))
    theta = call.evaluate(built.plan.splitting, weights, bound, Constants()).theta
    return theta, built.plan.splitting.prepare(theta)
