"""A point outside of a domain by rounding has the value of the boundary, however steep the function is there."""

import cvxpy as cp
import pytest
import torch

import opteq_cvx as oc
from opteq_cvx.frontend import read
from opteq_cvx.ir.program import Program
from opteq_cvx.maps.evaluate import Environment
from opteq_cvx.splitting.objective import objective

OUTSIDE = -3e-11
STEEP = {  # at 0, the edge of their domains, of value 0
    "log_sigmoid": lambda x: oc.activation("log_sigmoid").f(x),
    "entropy": lambda x: -cp.entr(x),
    "sqrt": lambda x: -cp.sqrt(x),
    "fourth root": lambda x: -cp.power(x, 0.25),
    "softplus": lambda x: oc.activation("softplus").f(x),
}


def program(name: str, weight: float) -> Program:
    x = cp.Variable(3, name="x")
    return read(cp.Problem(cp.Minimize(weight * cp.sum(STEEP[name](x))))).program


@pytest.mark.parametrize("name", STEEP)
def test_the_objective_just_outside(name: str) -> None:
    env = Environment({}, torch.float64, torch.device("cpu"))
    x = torch.tensor([[OUTSIDE, 0.0, OUTSIDE]], dtype=torch.float64)
    assert float(objective(program(name, 800.0), {"x": x}, env)) == pytest.approx(0.0, abs=2e-5)


def test_where_the_function_jumps_at_the_edge() -> None:
    """x²/y is 0 at the origin, and anything beside it."""
    x, y = cp.Variable(2, name="x"), cp.Variable(name="y")
    found = read(cp.Problem(cp.Minimize(350.0 * cp.quad_over_lin(x, y)))).program
    env = Environment({}, torch.float64, torch.device("cpu"))
    point = {
        "x": torch.tensor([[1e-9, -2e-10]], dtype=torch.float64),
        "y": torch.tensor([-2e-12], dtype=torch.float64),
    }
    assert float(objective(found, point, env)) == pytest.approx(0.0, abs=1e-5)
