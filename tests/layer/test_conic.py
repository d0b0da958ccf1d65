"""The conic route: programs without a direct prox against Clarabel, values, feasibility, gradients, structure."""

import warnings

import cvxpy as cp
import numpy as np
import pytest
import torch

import opteq_cvx as oc
from opteq_cvx.frontend import read
from opteq_cvx.ir.linmap import LeftMul, Sparse, coefficients
from opteq_cvx.ir.param import Const, Stage, leaves
from tests.layer.conic_cases import CASES, build, draw

SAMPLES = 3
EXACT = {"tol_gap_abs": 1e-10, "tol_gap_rel": 1e-10, "tol_feas": 1e-10}
VALUE = 1e-5
FEASIBLE = 1e-5
NUDGE = 1e-6  # an entry that rounding put outside a domain is infinitely infeasible to CVXPY
SLOPE = 1e-3
GRADIENTS = ("log_sum_exp(x) <= 1", "quad_form(x, P) <= 1", "sum(kl_div(x, w)) <= 0.5", "sum(huber(x, lam)) <= 1")


def exact(problem: cp.Problem, inputs: list[cp.Parameter], values: list[np.ndarray]) -> float:
    for parameter, value in zip(inputs, values, strict=True):
        parameter.value = value
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Clarabel's "may be inaccurate" at 1e-10
        problem.solve(solver="CLARABEL", ignore_dpp=True, **EXACT)
    return float(problem.value)


def violation(problem: cp.Problem, values: dict[str, np.ndarray]) -> float:
    """The largest violation of a constraint, at the point or a rounding error inside the domain."""
    worst = []
    for nudge in (0.0, NUDGE, -NUDGE):
        for v in problem.variables():
            point = values[v.name()]
            v.project_and_assign(point + (nudge if v.ndim < 2 else 0.0))
        with np.errstate(all="ignore"):
            each = [float(np.max(c.violation())) for c in problem.constraints]
        worst.append(max(each, default=0.0))
    return float(np.nanmin(worst))


@pytest.mark.parametrize("case", CASES, ids=lambda c: " s.t. ".join([c[0], *c[1]])[:90])
def test_a_program_without_direct_proxes_has_clarabels_solution(case: tuple[str, tuple[str, ...]]) -> None:
    problem, inputs = build(*case)
    layer = oc.compile(problem, inputs=inputs, tolerance=1e-7).double()
    rng = np.random.default_rng(1)
    samples = [draw(inputs, rng) for _ in range(SAMPLES)]
    solution = layer.solve(*(torch.tensor(np.stack(column)) for column in zip(*samples, strict=True)))
    assert solution.status.all_converged
    assert layer.output_names == tuple(v.name() for v in problem.variables())
    for k, sample in enumerate(samples):
        assert solution.objective[k].item() == pytest.approx(exact(problem, inputs, sample), rel=VALUE, abs=VALUE)
        values = dict(zip(layer.output_names, (v[k].detach().numpy() for v in solution.values), strict=True))
        assert violation(problem, values) < FEASIBLE


@pytest.mark.parametrize("constraint", GRADIENTS)
def test_gradients_match_differences_of_the_exact_value(constraint: str) -> None:
    problem, inputs = build("sum_squares(x - b)", (constraint,))
    layer = oc.compile(problem, inputs=inputs, tolerance=1e-10).double()
    rng = np.random.default_rng(3)
    sample = [a + (1.0 if p.name() == "b" else 0.0) for a, p in zip(draw(inputs, rng), inputs, strict=True)]
    tensors = [torch.tensor(a, requires_grad=True) for a in sample]
    b = tensors[[p.name() for p in inputs].index("b")]
    (x,) = layer(*tensors)
    grads = torch.autograd.grad(((x - b) ** 2).sum(), tensors)  # of the optimal value
    for at, grad in enumerate(grads):
        direction = rng.normal(size=sample[at].shape)
        direction = (direction + direction.T) / 2 if direction.ndim == 2 else direction
        ends = [
            exact(problem, inputs, [a + h * direction if i == at else a for i, a in enumerate(sample)])
            for h in (1e-4, -1e-4)
        ]
        slope = (ends[0] - ends[1]) / 2e-4
        assert float((grad.numpy() * direction).sum()) == pytest.approx(slope, rel=SLOPE, abs=SLOPE)


def test_a_parameter_stays_in_its_structured_map() -> None:
    x, a = cp.Variable(4, name="x"), oc.Input((3, 4), name="A")
    problem = cp.Problem(cp.Minimize(cp.sum_squares(x)), [cp.log_sum_exp(a @ x) + cp.norm(a @ x) <= x[0]])
    program = read(problem, [], [x]).program
    assert [o.name for o in program.outputs] == ["x"]
    maps = [m for t in program.terms for _, m in t.arg.parts]
    varying = [c for m in maps for c in coefficients(m) if not isinstance(c, Const)]
    assert varying
    assert all(leaf is program.parameters[0] for c in varying for leaf in leaves(c))
    assert all(c is program.parameters[0] for c in varying), "the parameter itself, not a tensor made of it"
    flat = [part for m in maps for part in getattr(m, "maps", (m,))]
    assert any(isinstance(part, LeftMul) and part.a is program.parameters[0] for part in flat)
    assert all(part.matrix.shape[0] < 50 for part in flat if isinstance(part, Sparse))
    assert program.parameters[0].stage is Stage.INPUT


def test_one_function_has_one_bound() -> None:
    x = cp.Variable(3, name="x")
    size = cp.norm(x)
    problem = cp.Problem(cp.Minimize(cp.exp(size) + cp.square(size + 1)), [size + cp.max(x) <= 3])
    program = read(problem, [], [x]).program
    assert sum(t.atom == "soc" for t in program.terms) == 1


def test_unknown_functions_inside_parameters_are_refused_in_words() -> None:
    x, w = cp.Variable(3, name="x"), oc.Input(3, name="w")
    with pytest.raises(oc.UnsupportedError, match=r"constraint\[0\].*dotsort depends on a parameter.*Fix: "):
        read(cp.Problem(cp.Minimize(cp.sum(x)), [cp.dotsort(x, w) <= 1]))


def test_new_unknowns_avoid_the_names_of_the_user() -> None:
    x, y = cp.Variable(3, name="@s1"), cp.Variable(name="@s2")
    program = read(cp.Problem(cp.Minimize(y), [cp.norm(x) + cp.norm(x - 1) <= y])).program
    names = [v.name for v in program.variables]
    assert len(set(names)) == len(names) == 4
