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
