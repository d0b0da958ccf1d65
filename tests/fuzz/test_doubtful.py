"""What decides where two statuses are right, or one is a limit, on programs whose answer is known."""

import cvxpy as cp
import numpy as np
import pytest

from tests.fuzz.doubtful import falls_for_ever, has_feasible_point, has_no_point, has_ray, only_in_the_limit
from tests.fuzz.reference import distance, in_units, violation

X, Y = cp.Variable(2, name="x"), cp.Variable(2, name="y")
EMPTY = [cp.sum(X) <= 0, cp.sum(X) >= 1]


@pytest.mark.parametrize(
    ("objective", "constraints", "expected"),
    [
        (cp.sum(Y), [*EMPTY, Y <= 3], True),
        (cp.sum(Y), [*EMPTY, Y >= 3], False),
        (cp.sum(Y) - cp.sum(cp.log(X + 1)), EMPTY, True),
        (cp.sum(Y) + 0.1 * cp.sum_squares(Y), EMPTY, False),
        (-cp.sqrt(Y[0]), EMPTY, True),
        (Y[0], [Y[0] == 1, Y[0] == 2], False),
        (Y[0], [Y[1] == 1, Y[1] == 2], True),
    ],
)
def test_rays_of_infeasible_programs(
    objective: cp.Expression, constraints: list[cp.Constraint], expected: bool
) -> None:
    assert has_ray(cp.Problem(cp.Minimize(objective), constraints)) is expected


@pytest.mark.parametrize(
    ("barrier", "bound", "expected"),
    [
        (-cp.sum(cp.log(X)), 0.0, True),
        (cp.sum(cp.inv_pos(X)), 0.0, True),
        (-cp.sum(cp.log(X)), 1.0, False),
        (-cp.sum(cp.sqrt(X)), 0.0, False),
        (-cp.sum(cp.entr(X)), 0.0, False),
        (cp.norm1(X), 0.0, False),
    ],
)
def test_programs_whose_only_points_are_at_the_edge(barrier: cp.Expression, bound: float, expected: bool) -> None:
    problem = cp.Problem(cp.Minimize(barrier + cp.sum_squares(X - 1)), [bound >= X])
    assert only_in_the_limit(problem) is expected


@pytest.mark.parametrize(
    ("objective", "constraints", "expected"),
    [
        (cp.sum(cp.power(X - 2, 1.5)), [cp.sum(X) <= 4.5], True),
        (cp.sum(cp.power(X - 2, 1.5)), [cp.sum(X) <= 3.5], False),
        (cp.sum(X), [cp.sum(X) == 1, X >= 0.4], True),
        (cp.sum(X), [cp.sum(X) == 1, X >= 0.6], False),
        (cp.sum(X) + cp.sum_squares(Y), [cp.sum(X) == 1], True),
    ],
)
def test_feasible_points(objective: cp.Expression, constraints: list[cp.Constraint], expected: bool) -> None:
    assert has_feasible_point(cp.Problem(cp.Minimize(objective), constraints)) is expected


def test_outside_of_a_constraints_domain_is_a_violation_without_measure() -> None:
    constraint = cp.sum(cp.log(X)) >= 0
    X.value = np.array([-1e-12, 5.0])
    with np.errstate(invalid="ignore"):
        assert violation(constraint) == np.inf


@pytest.mark.parametrize(
    ("objective", "constraints", "expected"),
    [
        (-cp.sum(cp.log(X)), [], True),
        (-0.006 * cp.sum(cp.power(X, 0.25)), [], True),
        (-cp.sum(cp.sqrt(X)), [cp.sum(X) == 1], False),
        (cp.sum(cp.exp(X)), [], False),
        (cp.sum(cp.inv_pos(X)), [], False),
        (cp.sum(cp.logistic(X)), [], False),
        (-cp.sum(cp.log(X)) + 1e-3 * cp.norm1(X), [], False),
        (cp.sum_squares(X - 30), [], False),
    ],
)
def test_values_that_fall_for_ever(objective: cp.Expression, constraints: list[cp.Constraint], expected: bool) -> None:
    assert falls_for_ever(cp.Problem(cp.Minimize(objective), constraints)) is expected


@pytest.mark.parametrize(("place", "expected"), [(-1.0, True), (0.5, False)])
def test_constraints_without_a_point(place: float, expected: bool) -> None:
    constraints = [cp.sum(cp.log(X)) >= -4, place == X, Y >= 0]
    assert has_no_point(cp.Problem(cp.Minimize(-cp.sum(Y)), constraints)) is expected


@pytest.mark.parametrize("away", [0.0, 1e-9, 1e-7, 1e-3])
def test_a_distance_is_known_to_far_less_than_what_is_allowed(away: float) -> None:
    X.value = np.array([0.027, -away])
    assert distance(cp.Problem(cp.Minimize(0), [cp.sum(cp.kl_div(X, X)) <= 0.3])) == pytest.approx(away, abs=1e-7)


@pytest.mark.parametrize("size", [1.0, 1e7, 1e9, 1e11, 1e13])
@pytest.mark.parametrize("name", ["squares and entropies", "inverses", "squares", "entropies"])
def test_large_objectives_have_the_optimum_of_small_ones(name: str, size: float) -> None:
    """Asked as they are, most of these are called infeasible, unbounded or optimal at a wrong value."""
    v, a = cp.Variable(12, name="v"), np.random.default_rng(0).normal(size=(8, 12))
    entropy = cp.sum(cp.rel_entr(v, 5.0))
    small = {
        "squares and entropies": cp.sum_squares(a @ v - 1) + 1e-9 * entropy,
        "inverses": cp.sum(cp.inv_pos(v)),
        "squares": cp.sum_squares(v),
        "entropies": entropy,
    }[name]
    held = [v >= 1, v <= 2, cp.sum(v) >= 13]
    best = cp.Problem(cp.Minimize(small), held).solve(solver="CLARABEL")
    found = in_units(cp.Problem(cp.Minimize(size * small), held), size * abs(best))
    assert found.status == "optimal"
    assert found.value == pytest.approx(size * best, rel=1e-7)
