"""Solves that made no progress, in cases that random programs brought up; the answers are Clarabel's.

Errors are relative to the terms that cancel in them, so that far from a solution they are all about 1, and the first
point was kept as the best. The proximal term of the Newton steps kept its weight, so that a solution far away along a
nearly flat direction was approached by steps of one length.
"""

import cvxpy as cp
import numpy as np
import pytest
import torch
from torch import Tensor

import opteq_cvx as oc
from opteq_cvx.atoms import atom
from opteq_cvx.ir.program import Origin
from opteq_cvx.iterate import Plain
from opteq_cvx.iterate.contract import Measure, Stop
from opteq_cvx.splitting import newton
from opteq_cvx.splitting.blocks import Block
from opteq_cvx.splitting.matrices import Dense
from opteq_cvx.splitting.sizes import optimality


def hinges() -> cp.Problem:
    """A nuclear norm beside hinges whose rows lie five decades apart."""
    x, v = cp.Variable((4, 2), name="x"), cp.Variable(2, nonneg=True, name="v")
    center = np.array([[0.483318, 0.208171], [0.38212, 0.033539], [0.61221, 0.049043], [0.935061, 0.111182]])
    rows = np.array(
        [[0.22433, 0.630452], [-5.18906, -19.7927], [74.0275, -20.3856], [-4.2e-4, 5.3e-4], [0.0156, 0.0438]]
    )
    ramps = 2.0 * cp.sum(cp.pos(rows @ v)) + 3.0 * cp.sum(cp.pos(rows @ v - 1.0))
    return cp.Problem(cp.Minimize(789.016 * cp.normNuc(x - center) + 18.7955 * ramps))


def test_it_is_solved_in_a_few_hundred_steps() -> None:
    declared = hinges()
    layer = oc.compile(declared, outputs=declared.variables(), splitting=oc.DouglasRachford(), tolerance=1e-8).double()
    solution = layer.solve()
    declared.solve(solver="CLARABEL")
    assert solution.status.all_converged
    assert float(solution.objective) == pytest.approx(declared.value, abs=1e-5)
    assert int(solution.stats.steps.max()) <= 400


def test_newton_steps_grow_toward_a_far_solution() -> None:
    """−Σ log x + ⟨c, x⟩ has its minimum at 1/c, where the curvature c² is far below the weight of the proximal term."""
    c = torch.tensor([[1e-2, 1e-3, 3e-4]], dtype=torch.float64)
    eye, zero = torch.eye(3, dtype=torch.float64)[None], torch.zeros(1, 3, dtype=torch.float64)
    block = Block(atom("neg_log")(), np.arange(3), Origin("objective[0]", "-sum(log(x))"))
    program = newton.Program([block], Dense(0.0 * eye, eye), c, zero, ())

    def residuals(x: Tensor, w: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return optimality(x, w, y, c, zero, x, 0.0 * x, y)

    start, one = torch.ones_like(zero), torch.ones_like(zero)
    done = newton.finish(program, 1e-2 * one, one, (start, -start), residuals, tolerance=1e-8, steps=60)
    assert float(done.error) <= 1e-8
    torch.testing.assert_close(done.x, 1.0 / c, rtol=1e-2, atol=0.0)


def test_of_worthless_points_the_last_one_is_kept() -> None:
    """An error of 1 everywhere but at the limit: a second run goes on where the first one ended."""

    def gauge(_: Tensor | None) -> Measure:
        return lambda z, image: (z[:, 0] > 1e-6).to(z)

    start = torch.ones(3, 2, dtype=torch.float64)
    stop = Stop(tolerance=1e-3, max_steps=11, gauge=gauge)
    first = Plain().run(lambda _: lambda z: 0.5 * z, start, stop)
    assert not first.converged.any()
    assert float(first.z.max()) < 1e-2
    assert Plain().run(lambda _: lambda z: 0.5 * z, first.z, stop).converged.all()
