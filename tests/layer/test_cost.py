"""The cost model behind the choice between a factorization and products only: its choices, and measured times."""

import time

import cvxpy as cp
import numpy as np
import pytest
import torch

import opteq_cvx as oc


def regression(n: int, *, own: bool = False) -> cp.Problem:
    """Least absolute deviations: a dense matrix of constants, or one for each sample."""
    a = oc.Input((n, n), name="A") if own else np.random.default_rng(0).normal(size=(n, n))
    x, y = cp.Variable(n, name="x"), oc.Input(n, name="y")
    return cp.Problem(cp.Minimize(cp.norm1(a @ x - y) + cp.norm1(x)))


def denoising(n: int) -> cp.Problem:
    """Total variation of an image."""
    y, image = oc.Input((n, n), name="y"), cp.Variable((n, n), name="X")
    return cp.Problem(cp.Minimize(0.5 * cp.sum_squares(image - y) + 0.1 * cp.tv(image)))


def blurred(n: int) -> cp.Problem:
    """Total variation of an image that is seen through sums of neighbours."""
    y, image = oc.Input((n, n - 1), name="y"), cp.Variable((n, n), name="X")
    seen = image[:, 1:] + image[:, :-1]
    return cp.Problem(cp.Minimize(0.5 * cp.sum_squares(seen - y) + 0.1 * cp.tv(image)))


@pytest.mark.parametrize(
    ("problem", "name"),
    [
        (regression(50), "Douglas–Rachford"),
        (regression(1600), "Douglas–Rachford"),  # a product with a dense matrix costs as much as one with a factor
        (regression(600, own=True), "Douglas–Rachford"),
        (regression(1600, own=True), "PDHG"),  # 32 factors
        (denoising(8), "Douglas–Rachford"),
        (denoising(20), "PDHG"),  # differences cost nothing beside a factor, and the data make it strongly convex
        (denoising(40), "PDHG"),
        (blurred(20), "Douglas–Rachford"),  # as many differences, but no curvature in single pixels
    ],
    ids=["dense", "dense, large", "own", "own, large", "differences", "20 x 20", "40 x 40", "blurred"],
)
def test_the_cheaper_way_is_taken(problem: cp.Problem, name: str) -> None:
    plan = oc.explain(problem).plan
    assert plan.name == name
    assert "products only" in str(plan) or "numbers" in str(plan)


def test_the_plan_says_how_many_steps_it_expects_and_why() -> None:
    assert "300 steps against 100 (strongly convex)" in str(oc.explain(denoising(8)).plan)
    assert "1000 steps against 100 (no strong convexity shows)" in str(oc.explain(blurred(8)).plan)


@pytest.mark.slow
def test_the_choice_is_the_faster_one_where_the_estimates_are_far_apart() -> None:
    """One solve of 32 images by both ways: the ratio of times is on the side that the plan takes."""
    problem, data = (
        denoising(36),
        torch.rand(32, 36, 36, generator=torch.Generator().manual_seed(0), dtype=torch.float64),
    )
    spent = {}
    for name in ("douglas-rachford", "primal-dual"):
        layer = oc.compile(problem, splitting=name, tolerance=1e-5).double()
        started = time.process_time()
        assert layer.solve(data).status.all_converged
        spent[name] = time.process_time() - started
    assert oc.explain(problem).plan.name == "PDHG"
    assert spent["douglas-rachford"] > 1.5 * spent["primal-dual"]
