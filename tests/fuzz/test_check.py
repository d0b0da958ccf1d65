"""When a point is held to be wrong, beside an answer that is known."""

import cvxpy as cp
import numpy as np
import pytest

from tests.fuzz.builder import Builder
from tests.fuzz.check import differences
from tests.fuzz.program import Made
from tests.fuzz.reference import Reference
from tests.fuzz.source import Source


@pytest.mark.parametrize(("away", "worth", "word"), [(1e-8, 0.0, ""), (1e-8, 1e-3, "wrong"), (1e-3, 0.0, "wrong")])
def test_where_the_objective_is_steep_a_right_point_is_enough(away: float, worth: float, word: str) -> None:
    """x²/y is 0 at x = 0 and 1 at (away, away²), however near that is; what is reported has to be 0."""
    x, y = cp.Variable(1, name="x"), cp.Variable(name="y")
    problem = cp.Problem(cp.Minimize(cp.quad_over_lin(x, y)), [x >= 0, y <= 1])
    made = Made(problem=problem, kind="feasible", modulus=0.0, builder=Builder(Source([])), labels=())
    exact = Reference("optimal", 0.0, {"x": np.zeros(1), "y": np.zeros(())})
    got = {"x": np.array([away]), "y": np.array(away**2)}
    assert differences(made, got, worth, exact, "sample 0").partition(" ")[0].rstrip(":") == word
