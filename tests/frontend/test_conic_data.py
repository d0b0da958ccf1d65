"""Functions with parameters as data inside other functions: the conic route, against CVXPY with Clarabel."""

import cvxpy as cp
import numpy as np
import pytest
import torch

import opteq_cvx as oc

TIGHT = dict.fromkeys(("tol_gap_abs", "tol_gap_rel", "tol_feas"), 1e-9)
ACCURACY = 1e-8  # of the objective, which is strongly convex: points agree to its root
RNG = np.random.default_rng(5)
VALUES = {
    "b": RNG.normal(size=3) * 2, "M": np.array(0.7),
    "P": np.diag([1.0, 2.0, 0.5]) + 0.2, "G": RNG.normal(size=(3, 2)),
}  # fmt: skip

CASES = (
    "max(huber(x, M))",
    "exp(quad_form(x, P) / 4)",
    "square(quad_form(x, psd_wrap(G @ G.T)))",
    "maximum(quad_form(x[:2], psd_wrap(G.T @ G)), sum(x), 1)",
    "square(pos(quad_form(x, np.diag([1.0, 2.0, 0.0])) - 1))",
    "maximum(dotsort(x, [1, 2, 2]), 1)",
    "exp(huber(norm(x)) / 4) + maximum(dotsort(abs(x), [1, 2, 2]), 1)",  # data beside a bound
    "square(quad_form(reshape(x, (3, 1), order='C'), P))",
)


@pytest.mark.parametrize("text", CASES)
def test_the_objective_is_as_small_as_clarabels(text: str) -> None:
    x = cp.Variable(3, name="x")
    inputs = {name: cp.Parameter(v.shape, name=name, nonneg=name == "M", PSD=name == "P", value=v) for name, v in
              VALUES.items()}  # fmt: skip
    f = eval(text, {**vars(cp), **inputs, "np": np, "x": x})
    problem = cp.Problem(cp.Minimize(f + 0.5 * cp.sum_squares(x - inputs["b"])))
    used = [p for name, p in inputs.items() if name in {*text, "b"}]
    layer = oc.compile(problem, inputs=used, tolerance=1e-9)
    (found,) = layer(*(torch.as_tensor(p.value) for p in used))
    best = float(problem.solve(solver=cp.CLARABEL, ignore_dpp=True, **TIGHT))
    x.value = found.numpy()
    assert float(problem.objective.value) <= best + ACCURACY * max(1.0, abs(best))


OF_TWO = (
    # pieces with a rule, pieces without one, and a parameter inside, which stays with CVXPY
    "perspective(sum(x) + 2, s)",
    "perspective(sum(abs(x)) + x[0], s)",
    "-perspective(log(x[0]) + sum(x), s)",
    "perspective(sum_squares(x) + exp(x[0]), s)",
    "perspective(3 * square(x[0]) + x[1], s)",  # the factor of a square of one entry
    "-perspective(-square(x[0]), s)",
    "perspective(norm(pos(x)), s)",
    "perspective(M * square(x[0]), s)",
    # power cones of more than three entries, inside other functions
    "exp(-geo_mean(x + 3, [1, 2, 3], approx=False)) + square(pos(2 - geo_mean(x + 3, approx=False)))",
)


@pytest.mark.filterwarnings("ignore:You are solving a parameterized problem that is not DPP")  # about Clarabel's speed
@pytest.mark.parametrize("text", OF_TWO)
def test_perspectives_and_long_power_cones_are_as_small_as_clarabels(text: str) -> None:
    x, s, M = (
        cp.Variable(3, name="x"),
        cp.Variable(name="s", nonneg=True),
        cp.Parameter(name="M", nonneg=True, value=0.7),
    )
    f = eval(text, {**vars(cp), "x": x, "s": s, "M": M})
    near = 0.5 * cp.sum_squares(x - np.array([1.0, -0.5, 2.0])) + 0.5 * cp.square(s - 1)
    problem = cp.Problem(cp.Minimize(f + near), [s >= 0.2])
    layer = oc.compile(problem, inputs=problem.parameters(), outputs=[x, s], tolerance=1e-9).double()
    found = layer(*(torch.as_tensor(p.value) for p in problem.parameters()))
    best = float(problem.solve(solver=cp.CLARABEL, **TIGHT))
    np.testing.assert_allclose(found[0].numpy(), x.value, atol=1e-4)
    x.value, s.value = found[0].numpy(), found[1].numpy()
    assert float(problem.objective.value) <= best + 1e-6 * max(1.0, abs(best))


def test_a_quadrature_of_the_relative_entropy_is_solved_and_has_no_multipliers() -> None:
    x, y, z = (cp.Variable(2, name=n) for n in "xyz")
    cone = cp.constraints.RelEntrConeQuad(x, y, z, 2, 2)
    goal = cp.sum_squares(x - 1) + cp.sum_squares(y - np.array([0.5, 1.0])) + cp.sum_squares(z + 2)
    problem = cp.Problem(cp.Minimize(goal), [cone])
    found = oc.compile(problem, outputs=[x, y, z], tolerance=1e-9).double()()
    problem.solve(solver=cp.CLARABEL, **TIGHT)
    for ours, theirs in zip(found, (x, y, z), strict=True):
        np.testing.assert_allclose(ours.numpy(), theirs.value, atol=1e-6)
    with pytest.raises(oc.UnsupportedError, match=r"multipliers of constraint\[0\].*second-order, semidefinite"):
        oc.compile(problem, outputs=[x, cone])
