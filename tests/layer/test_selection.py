"""Selection among solutions: against the exact two-stage solution, closed forms, and its own refusals."""

import warnings
from collections.abc import Callable
from pathlib import Path

import cvxpy as cp
import numpy as np
import pytest
import torch

import opteq_cvx as oc
from opteq_cvx.errors import CompileError, InputError, NotConvexError, UnsupportedError
from opteq_cvx.iterate.averaging import Anchoring, AveragingMethod, BiGSAM, Second, SequentialAveraging
from opteq_cvx.verify.two_stage import Second as SecondObjective
from opteq_cvx.verify.two_stage import solve_two_stage

RNG = np.random.default_rng(0)
A = RNG.normal(size=(4, 9))
C = np.array([1.0, 1.0, 2.0, 3.0, 1.0])
Case = tuple[oc.EquilibriumLayer, tuple[torch.Tensor, ...]]


def draw(*shape: int) -> torch.Tensor:
    return torch.randn(3, *shape, generator=torch.Generator().manual_seed(len(shape)), dtype=torch.float64)


def reachable(matrix: np.ndarray = A) -> torch.Tensor:
    """b inside the cone of the columns, so that the solution set has as many dimensions as it can."""
    return (draw(matrix.shape[1]).abs() + 0.2) @ torch.from_numpy(matrix).T


def least_squares() -> tuple[cp.Problem, cp.Variable, oc.Input, oc.Input]:
    """Underdetermined and nonnegative: the solution set is a polyhedron."""
    b, r, u = oc.Input(4, name="b"), oc.Input(9, name="r"), cp.Variable(9, nonneg=True, name="u")
    return cp.Problem(cp.Minimize(0.5 * cp.sum_squares(A @ u - b))), u, b, r


def nearest_to_an_input(selection: object = None) -> Case:
    problem, u, _, r = least_squares()
    layer = oc.compile(problem, select=cp.Minimize(cp.sum_squares(u - r)), selection=selection)
    return layer, (reachable(), draw(9))


def nearest_to_a_weight_with_a_learned_matrix() -> Case:
    b, r, w = oc.Input(4, name="b"), oc.Weight(9, name="r", seed=1), oc.Weight((4, 9), name="A", seed=2)
    u = cp.Variable(9, nonneg=True, name="u")
    problem = cp.Problem(cp.Minimize(0.5 * cp.sum_squares(w @ u - b)))
    return oc.compile(problem, select=cp.Minimize(cp.sum_squares(u - r))), (reachable(w.value),)


def linear_program() -> Case:
    r, d, u = oc.Input(5, name="r"), oc.Input(name="d", nonneg=True), cp.Variable(5, name="u")
    problem = cp.Problem(cp.Minimize(C @ u), [u >= 0, cp.sum(u) == d])
    return oc.compile(problem, select=cp.Minimize(cp.sum_squares(u - r))), (draw(5), draw().abs() + 1.0)


def constrained_by_rows() -> Case:
    r, d, u = oc.Input(5, name="r"), oc.Input(name="d", nonneg=True), cp.Variable(5, name="u")
    problem = cp.Problem(cp.Minimize(C @ u), [u >= 0, u <= 0.6, A[:2, :5] @ u >= -d, cp.sum(u) == d])
    total = torch.tensor([1.0, 1.25, 1.5], dtype=torch.float64)
    return oc.compile(problem, select=cp.Minimize(cp.sum_squares(u - r))), (draw(5), total)


def maximized() -> Case:
    r, u = oc.Input(5, name="r"), cp.Variable(5, name="u")
    problem = cp.Problem(cp.Maximize(-C @ u), [u >= 0, cp.sum(u) == 1])
    return oc.compile(problem, select=cp.Maximize(-cp.sum_squares(u - r))), (draw(5),)


def sparsest() -> Case:
    b, u = oc.Input(4, name="b"), cp.Variable(9, name="u")
    problem = cp.Problem(cp.Minimize(0.5 * cp.sum_squares(A @ u - b)))
    return oc.compile(problem, select=cp.Minimize(cp.norm1(u))), (draw(4),)


def of_part_of_the_variable() -> Case:
    """Merely convex: what ω leaves open goes to the point of least norm."""
    b, u = oc.Input(4, name="b"), cp.Variable(9, name="u")
    problem = cp.Problem(cp.Minimize(0.5 * cp.sum_squares(A @ u - b)))
    return oc.compile(problem, select=cp.Minimize(cp.sum_squares(u[:3]))), (draw(4),)


def orthogonal(nonneg: bool = True) -> Case:
    """‖W‖ = 1 by Cayley's map: what lies in the range of W is free."""
    x, r = oc.Input(6, name="x"), oc.Input(9, name="r")
    w, v = oc.Weight((9, 3), name="W", orthogonal=True, seed=0), oc.Weight((9, 6), name="V", seed=1)
    u = cp.Variable(9, nonneg=nonneg, name="u")
    energy = 0.5 * cp.quad_form(u - v @ x, cp.psd_wrap(np.eye(9) - w @ w.T))
    return oc.compile(cp.Problem(cp.Minimize(energy)), select=cp.Minimize(cp.sum_squares(u - r))), (draw(6), draw(9))


CASES: dict[str, Callable[[], Case]] = {
    "nearest to an input": nearest_to_an_input,
    "nearest to a weight": nearest_to_a_weight_with_a_learned_matrix,
    "linear program": linear_program,
    "constrained by rows": constrained_by_rows,
    "maximized": maximized,
    "sparsest": sparsest,
    "part of the variable": of_part_of_the_variable,
    "orthogonal": orthogonal,
}
METHODS = {
    "Halpern": oc.Halpern(),
    "BiGSAM": oc.BiGSAM(steps=100),
    "SequentialAveraging": oc.SequentialAveraging(steps=100),
}


SLOW = ("sparsest", "constrained by rows")


@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.slow) if n in SLOW else n for n in CASES])
def test_values_and_gradients_are_those_of_the_exact_two_stage_solution(name: str) -> None:
    layer, inputs = CASES[name]()
    report = oc.verify(layer, *inputs)
    assert report.ok, str(report)
    assert "second objective" in report.source
    assert any(row.judged for row in report.gradients)


@pytest.mark.parametrize("name", METHODS)
def test_averaging_methods_reach_the_same_point_after_the_polish(name: str) -> None:
    layer, inputs = nearest_to_an_input(METHODS[name])
    assert type(METHODS[name]).__name__ in str(layer.plan) or name == "Halpern"
    report = oc.verify(layer, *inputs, gradients=False)
    assert report.ok, str(report)


def test_selection_changes_the_answer_but_not_the_objective() -> None:
    problem, u, _, r = least_squares()
    b, points = reachable(), draw(9)
    plain = oc.compile(problem).double().solve(b)
    chosen = oc.compile(problem, select=cp.Minimize(cp.sum_squares(u - r))).double().solve(b, points)
    torch.testing.assert_close(plain.objective, chosen.objective, atol=1e-8, rtol=0.0)
    assert (plain.values[0] - chosen.values[0]).norm(dim=1).min() > 0.1
    assert ((chosen.values[0] - points).norm(dim=1) < (plain.values[0] - points).norm(dim=1)).all()


def test_minimum_norm_is_the_pseudo_inverse() -> None:
    b, u = oc.Input(4, name="b"), cp.Variable(9, name="u")
    problem = cp.Problem(cp.Minimize(0.5 * cp.sum_squares(A @ u - b)))
    layer = oc.compile(problem, select=cp.Minimize(cp.sum_squares(u))).double()
    x = draw(4).requires_grad_()
    (value,) = layer(x)
    inverse = torch.from_numpy(np.linalg.pinv(A))
    torch.testing.assert_close(value, x @ inverse.T, atol=1e-7, rtol=0.0)
    v = draw(9)
    (grad,) = torch.autograd.grad(value, x, v)
    torch.testing.assert_close(grad, v @ inverse, atol=1e-6, rtol=0.0)


def test_without_bounds_an_orthogonal_weight_gives_two_projections() -> None:
    layer, (x, r) = orthogonal(nonneg=False)
    layer = layer.double()
    w, v = (layer.weights.value(k).detach() for k in ("W", "V"))
    torch.testing.assert_close(w.T @ w, torch.eye(3, dtype=w.dtype), atol=1e-12, rtol=0.0)
    projector = w @ w.T
    want = x @ v.T @ (torch.eye(9, dtype=w.dtype) - projector) + r @ projector
    torch.testing.assert_close(layer(x, r)[0], want, atol=1e-6, rtol=0.0)


def test_double_backward_and_single_precision() -> None:
    layer, (b, r) = nearest_to_an_input()
    layer = layer.double()
    assert torch.autograd.gradgradcheck(lambda x: layer(b[:1], x)[0], r[:1].clone().requires_grad_(), atol=1e-4)
    single = nearest_to_an_input()[0].float()
    got = single.solve(b.float(), r.float())
    want = layer.solve(b, r)
    assert got.status.all_converged
    gap = (got.values[0].double() - want.values[0]).norm(dim=1) / want.values[0].norm(dim=1)
    assert gap.max() < 5e-4


def test_a_batch_equals_a_loop() -> None:
    layer, inputs = nearest_to_an_input()
    layer = layer.double()
    (together,) = layer(*inputs)
    alone = torch.stack([layer(*(x[i] for x in inputs))[0] for i in range(3)])
    torch.testing.assert_close(together, alone, atol=1e-6, rtol=1e-6)


def test_a_saved_layer_selects_and_is_verified_without_its_problem(tmp_path: Path) -> None:
    layer, inputs = nearest_to_an_input()
    oc.save(layer, tmp_path / "x.opteq")
    loaded = oc.load(tmp_path / "x.opteq")
    torch.testing.assert_close(loaded(*[x.float() for x in inputs])[0], layer(*[x.float() for x in inputs])[0])
    report = oc.verify(loaded, *inputs, gradients=False)
    assert report.ok, str(report)
    assert "rebuilt" in report.source


def test_the_exact_point_of_a_hand_made_face() -> None:
    """min x₁ over the unit square, nearest to (9, 0.3): (0, 0.3); to (9, −1): (0, 0)."""
    x, r = cp.Variable(2), cp.Parameter(2)
    problem = cp.Problem(cp.Minimize(x[0]), [x >= 0, x <= 1])
    for at, want in (([9.0, 0.3], [0.0, 0.3]), ([9.0, -1.0], [0.0, 0.0])):
        found = solve_two_stage(problem, SecondObjective(cp.sum_squares(x - r), strong=True), [x], {r: np.array(at)})
        np.testing.assert_allclose(found.outputs[0], want, atol=1e-9)
        assert found.objective == pytest.approx(0.0, abs=1e-9)


class TestAveraging:
    """The iterations themselves, on the projection onto a halfspace of the plane: known limits, known rates."""

    start = torch.tensor([[4.0, 3.0]], dtype=torch.float64)
    target = torch.tensor([[-1.0, 2.0]], dtype=torch.float64)
    limit = torch.tensor([[0.0, 2.0]], dtype=torch.float64)

    def second(self, flat: float = 1.0) -> Second:
        scale = torch.tensor([[1.0, flat]], dtype=torch.float64)
        bounds = torch.tensor([min(1.0, flat)], dtype=torch.float64), torch.ones(1, dtype=torch.float64)
        return Second(lambda z: scale * (z - self.target), *bounds)

    def errors(self, method: AveragingMethod, second: Second) -> list[float]:
        seen: list[float] = []
        project = lambda z: torch.stack([z[:, 0].clamp_min(0.0), z[:, 1]], dim=1)  # noqa: E731
        method.run(project, second, self.start, lambda k, z: seen.append(float((z - self.limit).norm())))
        return seen

    @pytest.mark.parametrize("method", [Anchoring(steps=2000), BiGSAM(steps=2000), SequentialAveraging(steps=20000)])
    def test_it_converges_to_the_selected_fixed_point(self, method: AveragingMethod) -> None:
        errors = self.errors(method, self.second())
        assert errors[-1] < (0.2 if isinstance(method, SequentialAveraging) else 2e-3)
        assert errors[-1] < 0.6 * errors[len(errors) // 10]

    def test_halpern_falls_as_one_over_k(self) -> None:
        errors = self.errors(Anchoring(steps=1000), self.second())
        assert errors[999] == pytest.approx(errors[99] / 10, rel=0.2)

    def test_big_sam_serves_a_second_objective_that_is_no_sphere(self) -> None:
        assert self.errors(BiGSAM(steps=20000), self.second(0.25))[-1] < 2e-3


REFUSED: dict[str, tuple[Callable[[], object], type[Exception], str]] = {
    "unique by the norm bound": (lambda: unit(0.95), CompileError, "solution is unique"),
    "unique by a constant": (lambda: ridge(), CompileError, "solution is unique"),
    "not convex": (lambda: chosen(lambda u: -cp.sum_squares(u)), NotConvexError, "Fix:"),
    "another variable": (lambda: chosen(lambda u: cp.sum_squares(cp.Variable(9))), CompileError, "no variable"),
    "Halpern": (lambda: chosen(lambda u: cp.sum_squares(A @ u), oc.Halpern()), CompileError, "BiGSAM"),
    "BiGSAM": (lambda: chosen(lambda u: cp.sum_squares(A @ u), oc.BiGSAM()), CompileError, "strongly convex"),
    "no quadratic": (lambda: chosen(cp.norm1, oc.SequentialAveraging()), CompileError, "quadratic"),
    "no select": (lambda: oc.compile(least_squares()[0], selection=oc.Path()), CompileError, "select="),
    "bad epsilon": (lambda: oc.Path(epsilon=2.0), InputError, "Fix:"),
    "bad steps": (lambda: oc.BiGSAM(steps=0), InputError, "Fix:"),
    "bad gamma": (lambda: oc.BiGSAM(gamma=2.0), InputError, "Fix:"),
    "smoothing too": (
        lambda: chosen(cp.sum_squares, smoothing=oc.Tikhonov(0.1)),
        CompileError,
        "select= alone",
    ),
    "state that is not the variable": (lambda: on_rows(), CompileError, "forward–backward"),
    "the optimal value": (
        lambda: nearest_to_an_input()[0].double().value(draw(4), draw(9)),
        UnsupportedError,
        "select=",
    ),
}


def chosen(omega: Callable[[cp.Variable], cp.Expression], selection: object = None, **options: object) -> object:
    problem, u, _, _ = least_squares()
    expression = omega(u)
    return oc.compile(problem, select=cp.Minimize(expression), selection=selection, **options)


def unit(norm: float) -> object:
    w, u, x = oc.Weight((4, 4), name="W", norm=norm), cp.Variable(4, nonneg=True), oc.Input(4, name="x")
    problem = cp.Problem(cp.Minimize(0.5 * cp.quad_form(u, cp.psd_wrap(np.eye(4) - w @ w.T)) - x @ u))
    return oc.compile(problem, select=cp.Minimize(cp.sum_squares(u)))


def ridge() -> object:
    u, x = cp.Variable(4), oc.Input(4, name="x")
    problem = cp.Problem(cp.Minimize(cp.sum_squares(u - x) + cp.norm1(u)))
    return oc.compile(problem, select=cp.Minimize(cp.sum_squares(u)))


def on_rows() -> object:
    u = cp.Variable(5)
    problem = cp.Problem(cp.Minimize(C @ u), [u >= 0, u <= 0.6, A[:2, :5] @ u >= -1])
    return oc.compile(problem, select=cp.Minimize(cp.sum_squares(u)), selection=oc.Halpern())


@pytest.mark.parametrize("name", REFUSED)
def test_what_has_no_meaning_is_refused_with_the_remedy(name: str) -> None:
    make, kind, words = REFUSED[name]
    with pytest.raises(kind, match=words):
        make()


def test_samples_without_a_solution_have_a_status_and_leave_the_others_alone() -> None:
    """c in the null space makes the second sample unbounded; a NaN spoils the third."""
    x, u = oc.Input(3, name="x"), cp.Variable(3, name="u")
    problem = cp.Problem(cp.Minimize(0.5 * cp.sum_squares(u[:2]) - x @ u), [u[2] >= 0])
    layer = oc.compile(problem, select=cp.Minimize(cp.sum_squares(u))).double()
    data = torch.tensor([[1.0, 2.0, 0.0], [1.0, 2.0, 1.0], [torch.nan, 0.0, 0.0]], dtype=torch.float64)
    data.requires_grad_()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", oc.SolveWarning)
        solution = layer.solve(data)
    assert [s is oc.Status.CONVERGED for s in solution.status] == [True, False, False]
    torch.testing.assert_close(
        solution.values[0][0], torch.tensor([1.0, 2.0, 0.0], dtype=torch.float64), atol=1e-7, rtol=0
    )
    (grad,) = torch.autograd.grad(solution.values[0][:, :2].sum(), data)
    torch.testing.assert_close(grad[0, :2], torch.ones(2, dtype=torch.float64), atol=1e-5, rtol=0)
    assert bool((grad[1:] == 0).all())


def test_the_plan_says_what_is_selected_and_how() -> None:
    problem, u, _, r = least_squares()
    text = str(oc.explain(problem, select=cp.Minimize(cp.sum_squares(u - r))).plan)
    assert "selection among solutions" in text
    assert "sum_squares(u - r)" in text
    assert "strongly convex" in text
