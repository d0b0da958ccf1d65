"""What the form of a second objective says about it, and what is left of the first."""

import cvxpy as cp
import numpy as np
import pytest

from opteq_cvx.frontend import read
from opteq_cvx.frontend.selected import read_selected
from opteq_cvx.ir import printer

x, y = cp.Variable(3, name="x"), cp.Variable(2, name="y")
A, r, lam = cp.Parameter((2, 3), name="A"), cp.Parameter(3, name="r"), cp.Parameter(nonneg=True, name="lam")
INPUTS = [A, r, lam]
PROBLEM = cp.Problem(cp.Minimize(cp.norm1(A @ x - y) + cp.sum(cp.pos(x - r))), [x >= 0, cp.sum(y) == 1])

FORMS = {
    # ω: (strongly convex by its form, a quadratic, a multiple of a squared distance)
    "Minimize(sum_squares(x) + sum_squares(y))": (True, True, True),
    "Minimize(3 * sum_squares(x - r) + 3 * sum_squares(y) + sum(y))": (True, True, True),
    "Maximize(-sum_squares(x) - sum_squares(y - 1))": (True, True, True),
    "Minimize(sum_squares(x) + sum_squares(x - r) + 2 * sum_squares(y))": (True, True, True),
    "Minimize(sum_squares(x) + 2 * sum_squares(y))": (True, True, False),
    "Minimize(sum_squares(x) + sum_squares(y) + norm1(x))": (True, False, False),
    "Minimize(sum_squares(x) + sum_squares(y) + sum_squares(A @ x))": (True, True, False),
    "Minimize(sum_squares(x))": (False, True, False),
    "Minimize(sum_squares(x[:2]) + sum_squares(y))": (False, True, False),
    "Minimize(sum_squares(A @ x) + sum_squares(y))": (False, True, False),
    "Minimize(lam * sum_squares(x) + sum_squares(y))": (False, True, False),
    "Minimize([1, 2, 3] @ square(x) + sum_squares(y))": (False, True, False),
    "Minimize(norm1(x) + norm(y))": (False, False, False),
    "Minimize(sum(x) + sum(y))": (False, True, False),
}


@pytest.mark.parametrize("text", FORMS)
def test_the_form_of_the_second_objective(text: str) -> None:
    found = read_selected(PROBLEM, eval(text, {**vars(cp), "x": x, "y": y, "A": A, "r": r, "lam": lam}), INPUTS)
    assert (found.strong, found.quadratic, found.isotropic) == FORMS[text]


GOALS = {
    # the first objective: how many summands it has
    "Minimize(norm1(x) + sum(exp(norm(x) + y)))": 2,
    "Maximize(-norm1(x) + y[0])": 2,
    "Minimize(sum_squares(x))": 1,
}


@pytest.mark.parametrize("text", GOALS)
def test_what_is_left_is_the_problem_itself(text: str) -> None:
    """Parameters of the second objective stay inputs; its bounds and cones leave with it, constraints stay."""
    goal = eval(text, {**vars(cp), "x": x, "y": y})
    problem = cp.Problem(goal, [x >= -1, cp.sum(y) == 1, y >= 0])
    found = read_selected(problem, cp.Minimize(lam * cp.power(cp.norm(x - r), 3)), [lam, r])
    alone = read(problem).program
    assert [t.atom for t in found.reading.program.terms] == [t.atom for t in alone.terms]
    assert [v.name for v in found.reading.program.variables] == [v.name for v in alone.variables]
    assert [p.name for p in found.reading.program.parameters] == ["lam", "r"]
    assert printer.param(found.reading.program.offset) == printer.param(alone.offset)
    assert found.summand == GOALS[text]
    assert len(found.program.terms) > len(alone.terms)
    assert found.text == "lam * norm2(x - r)**3"
    np.testing.assert_equal([o.name for o in found.program.outputs], ["x", "y"])
