"""What cvxpylayers' public tests check of its layer, anew: closed forms and exact optimality conditions."""

import cvxpy as cp
import pytest
import torch
from cvxpy import error
from torch import Tensor

import opteq_cvx as oc
from opteq_cvx.bridge import CvxpyLayer

TIGHT = {"eps": 1e-10}
VALUE = 1e-6
SLOPE = 1e-5


@pytest.fixture(autouse=True)
def _double() -> object:
    """Float64 tensors, as cvxpylayers' users have them."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def close(found: Tensor, expected: Tensor, tolerance: float = VALUE) -> None:
    torch.testing.assert_close(found, expected, atol=tolerance, rtol=tolerance)


def same_gradients(found: Tensor, expected: Tensor, inputs: list[Tensor]) -> None:
    """The gradients of one random functional agree."""
    seed = torch.randn(found.shape)
    ours = torch.autograd.grad((found * seed).sum(), inputs, retain_graph=True)
    theirs = torch.autograd.grad((expected * seed).sum(), inputs)
    for a, b in zip(ours, theirs, strict=True):
        close(a, b, SLOPE)


def leaf(*shape: int) -> Tensor:
    return torch.randn(*shape, requires_grad=True)


def least_squares() -> CvxpyLayer:
    x, a, b = cp.Variable(4), cp.Parameter((6, 4), name="A"), cp.Parameter(6, name="b")
    problem = cp.Problem(cp.Minimize(cp.sum_squares(a @ x - b) + cp.sum_squares(x)))
    return CvxpyLayer(problem, parameters=[a, b], variables=[x], solver_args=TIGHT)


def ridge(a: Tensor, b: Tensor) -> Tensor:
    return torch.linalg.solve(a.mT @ a + torch.eye(4), (a.mT @ b.unsqueeze(-1))).squeeze(-1)


def test_least_squares_is_the_normal_equations() -> None:
    a, b = leaf(6, 4), leaf(6)
    (x,) = least_squares()(a, b)
    close(x, ridge(a, b))
    same_gradients(x, ridge(a, b), [a, b])


def test_first_argument_may_be_batched_and_the_second_shared() -> None:
    a, b = leaf(5, 6, 4), leaf(6)
    (x,) = least_squares()(a, b)
    assert x.shape == (5, 4)
    close(x, ridge(a, b.expand(5, 6)))
    same_gradients(x, ridge(a, b.expand(5, 6)), [a, b])  # the shared one's is the sum


def test_second_argument_may_be_batched_and_the_first_shared() -> None:
    a, b = leaf(6, 4), leaf(3, 6)
    (x,) = least_squares()(a, b)
    close(x, ridge(a, b))
    same_gradients(x, ridge(a, b), [a, b])


def test_batch_of_one_keeps_its_axis() -> None:
    a, b = leaf(1, 6, 4), leaf(1, 6)
    (x,) = least_squares()(a, b)
    assert x.shape == (1, 4)
    (alone,) = least_squares()(a[0], b[0])
    assert alone.shape == (4,)
    close(x[0], alone)


def test_no_gradient_where_none_is_asked_for() -> None:
    with torch.no_grad():
        (x,) = least_squares()(leaf(6, 4), leaf(6))
    assert not x.requires_grad


def test_second_derivatives_are_those_of_the_closed_form() -> None:
    a, b = leaf(6, 4), leaf(6)
    layer = least_squares()
    seconds = []
    for x in (layer(a, b)[0], ridge(a, b)):
        (first,) = torch.autograd.grad(x.square().sum(), a, create_graph=True)
        seconds.append(torch.autograd.grad(first.square().sum(), [a, b]))
    for ours, theirs in zip(*seconds, strict=True):
        close(ours, theirs, SLOPE)


def test_logistic_regression_is_stationary() -> None:
    n, m = 4, 20
    w, features, lam = cp.Variable(n), cp.Parameter((m, n)), cp.Parameter(nonneg=True)
    cost = cp.sum(cp.logistic(features @ w)) / m + lam * cp.sum_squares(w)
    layer = CvxpyLayer(cp.Problem(cp.Minimize(cost)), [features, lam], [w], solver_args=TIGHT)
    data, strength = leaf(m, n), torch.tensor(0.1, requires_grad=True)

    def slope(w: Tensor) -> Tensor:
        return data.mT @ torch.sigmoid(data @ w) / m + 2 * strength * w

    (found,) = layer(data, strength)
    close(slope(found), torch.zeros(n))
    solution = found.detach()
    hessian = torch.autograd.functional.jacobian(slope, solution)
    newton = solution - torch.linalg.solve(hessian.detach(), slope(solution))  # dw/dθ = −H⁻¹ ∂slope/∂θ
    same_gradients(found, newton, [data, strength])


def test_entropy_maximization_is_softmax() -> None:
    x, theta = cp.Variable(5), cp.Parameter(5)
    problem = cp.Problem(cp.Maximize(theta @ x + cp.sum(cp.entr(x))), [cp.sum(x) == 1])
    layer = CvxpyLayer(problem, [theta], [x], solver_args=TIGHT)
    value = leaf(3, 5)
    (found,) = layer(value)
    close(found, value.softmax(dim=-1))
    same_gradients(found, value.softmax(dim=-1), [value])


def test_limited_multi_label_projection_is_a_shifted_sigmoid() -> None:
    y, x, k = cp.Variable(6), cp.Parameter(6), 2
    cost = -x @ y - cp.sum(cp.entr(y)) - cp.sum(cp.entr(1 - y))
    layer = CvxpyLayer(cp.Problem(cp.Minimize(cost), [cp.sum(y) == k]), [x], [y], solver_args=TIGHT)
    value = leaf(6)
    shift = torch.zeros(())
    for _ in range(60):
        s = torch.sigmoid(value + shift)
        shift = shift - (s.sum() - k) / (s * (1 - s)).sum()
    (found,) = layer(value)
    close(found, torch.sigmoid(value + shift))
    same_gradients(found, torch.sigmoid(value + shift), [value])


def test_semidefinite_program_is_an_eigenvector() -> None:
    X, c = cp.Variable((3, 3), symmetric=True), cp.Parameter((3, 3), symmetric=True)
    problem = cp.Problem(cp.Minimize(cp.trace(c @ X)), [X >> 0, cp.trace(X) == 1])
    layer = CvxpyLayer(problem, [c], [X], solver_args=TIGHT)
    raw = leaf(2, 3, 3)
    matrix = raw + raw.mT
    v = torch.linalg.eigh(matrix).eigenvectors[..., :1]
    (found,) = layer(matrix)
    close(found, v @ v.mT)
    same_gradients(found, v @ v.mT, [raw])


def test_second_order_cone_program_is_a_projection_in_a_batch() -> None:
    x, p, r = cp.Variable(4), cp.Parameter(4), cp.Parameter(nonneg=True)
    layer = CvxpyLayer(cp.Problem(cp.Minimize(cp.norm(x - p)), [cp.norm(x) <= r]), [p, r], [x], solver_args=TIGHT)
    center, radius = leaf(4, 4), torch.rand(4, requires_grad=True)
    expected = center * (radius / center.norm(dim=-1)).clamp_max(1.0).unsqueeze(-1)
    (found,) = layer(center, radius)
    close(found, expected)
    same_gradients(found, expected, [center, radius])


def test_equality_constrained_quadratic_with_a_parametric_form() -> None:
    x, p, a = cp.Variable(3), cp.Parameter((3, 3), PSD=True), cp.Parameter(3)
    problem = cp.Problem(cp.Minimize(cp.quad_form(x, p)), [a @ x == 1])
    layer = CvxpyLayer(problem, [p, a], [x], solver_args=TIGHT)
    half, normal = leaf(3, 3), leaf(3)
    matrix = half @ half.mT + torch.eye(3)
    direction = torch.linalg.solve(matrix, normal)
    (found,) = layer(matrix, normal)
    close(found, direction / (normal @ direction))
    same_gradients(found, direction / (normal @ direction), [half, normal])


def test_variables_may_have_three_axes_and_come_in_any_order() -> None:
    x, y, c = cp.Variable((2, 3, 4)), cp.Variable(2), cp.Parameter((2, 3, 4))
    problem = cp.Problem(cp.Minimize(cp.sum_squares(x - c) + cp.sum_squares(y - 1)), [x >= 0])
    value = leaf(5, 2, 3, 4)
    found_y, found_x = CvxpyLayer(problem, [c], [y, x], solver_args=TIGHT)(value)
    close(found_x, value.relu())
    close(found_y, torch.ones(5, 2))


def test_geometric_program_in_a_batch() -> None:
    x, y, z = (cp.Variable(pos=True) for _ in range(3))
    a, b = cp.Parameter(pos=True), cp.Parameter(pos=True)
    problem = cp.Problem(cp.Minimize(1 / (x * y * z)), [a * (x * y + x * z + y * z) <= b])
    layer = CvxpyLayer(problem, [a, b], [x, y, z], gp=True, solver_args=TIGHT)
    first, second = (torch.rand(3) + 0.5).requires_grad_(), torch.tensor(1.3, requires_grad=True)
    expected = (second / (3 * first)).sqrt()
    found = layer(first, second)
    for each in found:
        close(each, expected)
    same_gradients(found[1], expected, [first, second])


def test_failed_samples_do_not_touch_the_others() -> None:
    x, p = cp.Variable(2), cp.Parameter(2)
    problem = cp.Problem(cp.Minimize(cp.sum_squares(x)), [x >= p, cp.sum(x) <= 1])
    layer = CvxpyLayer(problem, [p], [x], solver_args=TIGHT)
    lower = torch.tensor([[0.2, 0.3], [2.0, 2.0], [-1.0, 0.5]], requires_grad=True)
    with pytest.warns(oc.SolveWarning, match="1 of 3 samples"):
        (found,) = layer(lower)
    close(found[[0, 2]], lower[[0, 2]].relu())
    (grad,) = torch.autograd.grad(found.sum(), lower)
    assert (grad[1] == 0).all()


def test_float32_stays_float32() -> None:
    (x,) = least_squares()(torch.randn(6, 4).float(), torch.randn(6).float(), solver_args={"eps": 1e-5})
    assert x.dtype is torch.float32


def test_arguments_of_one_call_override_the_constructors() -> None:
    a, b = leaf(6, 4), leaf(6)
    layer = least_squares()
    with pytest.warns(oc.SolveWarning, match="max_steps"):
        CvxpyLayer(*_lasso(), solver_args=TIGHT)(leaf(8), solver_args={"max_iters": 1})
    (x,) = layer(a, b, solver_args={"tolerance": 1e-8, "max_iters": 500})
    close(x, ridge(a, b))


def test_warm_start_takes_fewer_steps() -> None:
    layer, value = CvxpyLayer(*_lasso(), solver_args=TIGHT), leaf(3, 8)
    layer(value, warm_start=True)
    with oc.record() as log:
        (again,) = layer(value, warm_start=True)
        (fresh,) = layer(value)
    close(again, fresh)
    warm, cold = (int(entry.stats.steps.max()) for entry in log)
    assert warm < cold
    (other,) = layer(leaf(2, 8), warm_start=True)  # another batch size starts afresh
    assert other.shape == (2, 5)


def _lasso() -> tuple[cp.Problem, list[cp.Parameter], list[cp.Variable]]:
    torch.manual_seed(3)
    x, b = cp.Variable(5), cp.Parameter(8)
    return cp.Problem(cp.Minimize(cp.sum_squares(torch.randn(8, 5).numpy() @ x - b) + cp.norm1(x))), [b], [x]


def test_verbose_prints_the_plan(capsys: pytest.CaptureFixture[str]) -> None:
    CvxpyLayer(*_lasso(), verbose=True)
    assert "plan: " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"solver": "SCS"}, "compiled network is the solver"),
        ({"canon_backend": "SCIPY"}, "nothing to canonicalize"),
        ({"solver_args": {"acceleration_lookback": 0}}, "acceleration_lookback"),
    ],
)
def test_what_cannot_be_honored_is_refused_with_a_reason(arguments: dict[str, object], words: str) -> None:
    with pytest.raises(oc.InputError, match=words):
        CvxpyLayer(*_lasso(), **arguments)


def test_misuse_is_refused_in_words() -> None:
    problem, parameters, variables = _lasso()
    with pytest.raises(oc.InputError, match="no variable of the problem"):
        CvxpyLayer(problem, parameters, [cp.Variable(5)])
    with pytest.raises(oc.CompileError, match="neither an input nor a weight"):
        CvxpyLayer(problem, [], variables)
    with pytest.raises(error.DGPError):
        CvxpyLayer(problem, parameters, variables, gp=True)
    layer = CvxpyLayer(problem, parameters, variables)
    with pytest.raises(oc.InputError, match="2 inputs"):
        layer(leaf(8), leaf(8))
    with pytest.raises(oc.InputError, match="shape"):
        layer(leaf(7))


def test_dual_variables_may_be_listed_like_variables() -> None:
    x, p = cp.Variable(3), cp.Parameter(3)
    total, sign = cp.sum(x) == 1, x >= 0
    problem = cp.Problem(cp.Minimize(cp.sum_squares(x - p)), [total, sign])
    layer = CvxpyLayer(problem, [p], [x, total.dual_variables[0], sign.dual_variables[0]], solver_args=TIGHT)
    value = leaf(4, 3)
    found, nu, mu = layer(value)
    close(2 * (found - value) + nu[:, None] - mu, torch.zeros(4, 3))
    close(found * mu, torch.zeros(4, 3))
    assert (mu >= -VALUE).all()


def test_multipliers_of_a_geometric_program_are_elasticities() -> None:
    x, y, area = cp.Variable(pos=True), cp.Variable(pos=True), cp.Parameter(pos=True)
    limit = x * y >= area
    layer = CvxpyLayer(cp.Problem(cp.Minimize(x + y), [limit]), [area], [x, limit], gp=True, solver_args=TIGHT)
    side, elasticity = layer(torch.tensor([4.0, 9.0]))
    close(side, torch.tensor([2.0, 3.0]))
    close(elasticity, torch.full((2,), 0.5))  # the optimal value is 2 √area
