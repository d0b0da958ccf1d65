"""Where Newton steps begin and end: multipliers that are worthless are dropped, and no accuracy is lost afterwards."""

from collections.abc import Callable

import cvxpy as cp
import numpy as np
import pytest
import torch
from torch import Tensor

from opteq_cvx import passes
from opteq_cvx.atoms import atom
from opteq_cvx.frontend import read
from opteq_cvx.ir.program import Origin
from opteq_cvx.maps.evaluate import Environment
from opteq_cvx.splitting import newton
from opteq_cvx.splitting.blocks import Block
from opteq_cvx.splitting.contract import Splitting
from opteq_cvx.splitting.douglas_rachford import DouglasRachford
from opteq_cvx.splitting.graph_form import GraphForm
from opteq_cvx.splitting.matrices import Dense
from opteq_cvx.splitting.sizes import optimality
from opteq_cvx.splitting.thin_douglas_rachford import ThinDouglasRachford
from opteq_cvx.splitting.thin_form import ThinForm

TOLERANCE = 1e-8


def test_multipliers_that_are_far_off_are_dropped() -> None:
    """Steps in a wrong metric leave multipliers of 1e8 beside slopes of 1; from them 60 steps did not come back."""
    rng = np.random.default_rng(0)
    k = torch.cat([torch.tensor(rng.normal(size=(3, 3))), torch.eye(3, dtype=torch.float64)])[None]
    q, b = 0.3 * torch.tensor([[1.0, -1.0, 1.0]], dtype=torch.float64), torch.ones(1, 6, dtype=torch.float64)
    parts = [
        Block(atom("nonneg")(), np.arange(3), Origin("constraints[0]", "Ax + 1 >= 0")),
        Block(atom("logistic")(), np.arange(3, 6), Origin("objective[0]", "sum(logistic(x + 1))")),
    ]
    program = newton.Program(parts, Dense(torch.zeros(1, 3, 3, dtype=torch.float64), k), q, b, ())

    def residuals(x: Tensor, w: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return optimality(x, w, y, q, b, x @ k[0].T, 0.0 * x, y @ k[0])

    start, sigma = (torch.zeros_like(q), -1e8 * b), torch.full_like(q, 1e-6)
    done = newton.finish(program, sigma, b, start, residuals, tolerance=TOLERANCE, steps=60)
    assert float(done.error) <= TOLERANCE
    x = cp.Variable(3)
    exact = cp.Problem(cp.Minimize(q.numpy()[0] @ x + cp.sum(cp.logistic(x + 1))), [k.numpy()[0, :3] @ x + 1 >= 0])
    exact.solve(solver="CLARABEL")
    assert x.value == pytest.approx(done.x[0].numpy(), abs=1e-4)


def _usual(form: GraphForm) -> DouglasRachford:
    return DouglasRachford(form)


def _thin(form: GraphForm) -> ThinDouglasRachford:
    found = ThinForm.of(form, paying=False)
    assert isinstance(found, ThinForm)
    return ThinDouglasRachford(found)


@pytest.mark.parametrize("make", [_usual, _thin], ids=["dense factor", "diagonal and rows"])
def test_the_state_is_as_accurate_as_the_newton_steps_were(make: Callable[[GraphForm], Splitting]) -> None:
    """In a metric of 1e-7 the state w + y/R has no digits of w left: another one is handed on with it."""
    x = cp.Variable(3)
    cost = cp.sum(cp.kl_div(x + 800.0, np.array([600.0, 700.0, 900.0]))) + cp.norm(x - 1)
    form = GraphForm.of(passes.run(read(cp.Problem(cp.Minimize(cost), [cp.sum(x) == 1, x[0] >= 3])).program))
    splitting, env = make(form), Environment({}, torch.float64, torch.device("cpu"))
    theta = splitting.theta(env)
    usual = splitting.prepare(theta)
    if isinstance(splitting, ThinDouglasRachford):
        sigma, metric, tau, *_ = usual.tensors
        prepared = splitting._factorized(splitting.thin(theta), sigma, 1e-6 * metric, tau, usual.certificate)
    else:
        assert isinstance(splitting, DouglasRachford)
        prepared = splitting._rescaled(theta, usual, torch.full((1,), 1e-6, dtype=torch.float64))
    found = splitting.polish(splitting.start(1, theta), theta, prepared, TOLERANCE, 100)
    assert found is not None
    assert found.prepared is not None
    assert float(splitting.error(found.z, theta, prepared)) > 1e-2
    assert float(splitting.error(found.z, theta, found.prepared)) <= TOLERANCE
