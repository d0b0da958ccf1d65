"""The generalized Hessian that Newton steps use, against a Jacobian by autograd, for proxes that act group by group."""

import cvxpy as cp
import numpy as np
import pytest
import torch

from opteq_cvx import passes
from opteq_cvx.atoms import atom
from opteq_cvx.frontend import read
from opteq_cvx.ir.param import const
from opteq_cvx.ir.program import Origin
from opteq_cvx.maps.evaluate import Environment
from opteq_cvx.splitting import blocks, jacobians
from opteq_cvx.splitting.blocks import Block
from opteq_cvx.splitting.graph_form import GraphForm
from opteq_cvx.splitting.matrices import Dense


@pytest.mark.parametrize("numbers", [0, jacobians.AT_ONCE], ids=["column by column", "at once"])
@pytest.mark.parametrize("samples", [1, 2], ids=["shared steps", "steps of each sample"])
def test_grouped_jacobians_are_those_of_the_whole_prox(
    numbers: int, samples: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jacobians, "AT_ONCE", numbers)
    x, t = cp.Variable((3, 7)), cp.Variable(7)
    cost = cp.sum(cp.norm2(x, axis=0)) + cp.sum_squares(x - 1) + cp.normNuc(x[:, :3]) + cp.sum(cp.huber(t))
    cones = [cp.SOC(t, x[:2], axis=0), cp.ExpCone(x[0], x[1], t), cp.sum(x) <= 3]
    form = GraphForm.of(passes.run(read(cp.Problem(cp.Minimize(cost), cones)).program))
    theta = form.theta(Environment({}, torch.float64, torch.device("cpu")))
    metric = torch.linspace(0.5, 2.0, samples, dtype=torch.float64)[:, None].expand(samples, form.m)
    v = torch.randn(2, form.m, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    d, k = jacobians.jacobians(form.blocks, theta[4:], 1.0 / metric, v), theta[2][0]
    found = Dense(theta[0], theta[2]).curvature(metric, d)
    for i in range(2):
        own = metric[i % samples]
        prox = blocks.bind(form.blocks, form.m, 1.0 / own[None], theta[4:], None)
        jacobian = torch.autograd.functional.jacobian(lambda u, prox=prox: prox(u[None])[0], v[i])
        middle = own.diag() @ (torch.eye(form.m, dtype=torch.float64) - (jacobian + jacobian.mT) / 2)
        torch.testing.assert_close(found[i], k.mT @ middle @ k, atol=1e-10, rtol=1e-10)


@pytest.mark.parametrize("scale", [2.5, -1.0, 0.0], ids=str)
@pytest.mark.parametrize("name", ["norm_nuc", "psd"])
def test_jacobians_that_atoms_know_are_those_of_scaled_and_moved_proxes(name: str, scale: float) -> None:
    """Two matrices side by side, with a weight, a scale (0 removes the function) and an offset."""
    generator = torch.Generator().manual_seed(0)
    moved = torch.randn(3, 3, dtype=torch.float64, generator=generator).numpy()
    weight = None if name == "psd" else const(0.7)
    index = np.arange(18).reshape(2, 3, 3)
    block = Block(atom(name)(), index, Origin("objective[0]", name), weight, const(scale), const(moved + moved.T))
    env = Environment({}, torch.float64, torch.device("cpu"))
    theta, step = [env(e) for e in block.exprs], torch.full((1, 18), 0.4, dtype=torch.float64)
    v = torch.randn(2, 2, 3, 3, dtype=torch.float64, generator=generator)
    v = (v + v.mT).reshape(2, 18)
    (found,) = jacobians.jacobians([block], theta, step, v).coupled
    prox = block.bind(step, theta)
    for i in range(2):
        whole = torch.autograd.functional.jacobian(lambda u: prox(u.reshape(1, 2, 3, 3)).reshape(-1), v[i])
        wanted = torch.block_diag(*found.jacobian[i])
        torch.testing.assert_close((whole + whole.mT) / 2, wanted, atol=1e-10, rtol=1e-10)
