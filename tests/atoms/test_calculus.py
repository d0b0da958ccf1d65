"""Prox calculus against CVXPY's argmin and against identities that do not use the formula."""

import cvxpy as cp
import numpy as np
import pytest
import torch
from torch import Tensor

from opteq_cvx.atoms import atom
from opteq_cvx.atoms.calculus import (
    conjugate_prox,
    envelope,
    epigraph_prox,
    interval_after,
    normal_prox,
    normal_value,
    tight_frame_prox,
)

TIGHT = {"tol_gap_abs": 1e-12, "tol_gap_rel": 1e-12, "tol_feas": 1e-12}
N = 6


def tensor(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def draw(generator: torch.Generator, *shape: int) -> Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=generator)


def argmin(x: cp.Variable, objective: cp.Expression, constraints: list[cp.Constraint] | None = None) -> Tensor:
    cp.Problem(cp.Minimize(objective), constraints or []).solve(solver=cp.CLARABEL, **TIGHT)
    return torch.as_tensor(np.asarray(x.value))


FUNCTIONS = {"abs": cp.norm1, "square": cp.sum_squares}


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("b", [-1.7, 0.4])
@pytest.mark.parametrize("t", [0.1, 1.0, 10.0])
def test_normal_form_is_cvxpys_argmin(name: str, b: float, t: float, generator: torch.Generator) -> None:
    v, c, d = 2 * draw(generator, N), draw(generator, N), draw(generator, N)
    a, g = tensor(0.8), tensor(0.6)
    f = atom(name).from_static({})
    x = normal_prox(f, v, tensor(t), {}, a=a, b=tensor(b), c=c, d=d, g=g)
    u = cp.Variable(N)
    h = 0.8 * FUNCTIONS[name](b * u - c.numpy()) + d.numpy() @ u + 0.3 * cp.sum_squares(u)
    theirs = argmin(u, t * h + 0.5 * cp.sum_squares(u - v.numpy()))
    torch.testing.assert_close(x, theirs, rtol=1e-6, atol=1e-6)
    u.value = x.numpy()
    ours = normal_value(f, x, {}, a=a, b=tensor(b), c=c, d=d, g=g).sum()
    torch.testing.assert_close(ours.item(), float(h.value), rtol=1e-10, atol=1e-10)


def test_normal_form_of_a_cone_ignores_the_weight(generator: torch.Generator) -> None:
    v, c = draw(generator, N), draw(generator, N)
    f = atom("nonneg").from_static({})
    x = normal_prox(f, v, tensor(2.0), {}, a=tensor(5.0), b=tensor(-2.0), c=c, g=tensor(0.5))
    u = cp.Variable(N)
    objective = 0.5 * cp.sum_squares(u) + 0.5 * cp.sum_squares(u - v.numpy())
    theirs = argmin(u, objective, [-2 * u - c.numpy() >= 0])
    torch.testing.assert_close(x, theirs, rtol=1e-6, atol=1e-6)


def test_normal_form_takes_a_diagonal_slope(generator: torch.Generator) -> None:
    v, b = draw(generator, N), draw(generator, N)
    x = normal_prox(atom("abs").from_static({}), v, tensor(0.5), {}, b=b)
    u = cp.Variable(N)
    theirs = argmin(u, 0.5 * cp.norm1(cp.multiply(b.numpy(), u)) + 0.5 * cp.sum_squares(u - v.numpy()))
    torch.testing.assert_close(x, theirs, rtol=1e-6, atol=1e-6)


def test_normal_form_is_differentiable_in_all_six_parameters(generator: torch.Generator) -> None:
    f = atom("abs").from_static({})
    inputs = [draw(generator, 2, N) for _ in range(3)]
    scalars = [tensor(0.7), tensor(1.1), tensor(-0.9), tensor(0.4)]

    def prox(v: Tensor, c: Tensor, d: Tensor, t: Tensor, a: Tensor, b: Tensor, g: Tensor) -> Tensor:
        return normal_prox(f, v, t, {}, a=a, b=b, c=c, d=d, g=g)

    leaves = tuple(p.requires_grad_() for p in (*inputs, *scalars))
    torch.autograd.gradcheck(prox, leaves)
    torch.autograd.gradgradcheck(prox, leaves)


def test_normal_parameters_may_differ_between_samples(generator: torch.Generator) -> None:
    f = atom("abs").from_static({})
    v, t, a = draw(generator, 3, N), tensor(0.1, 1.0, 2.0)[:, None], tensor(1.0, 2.0, 3.0)[:, None]
    many = normal_prox(f, v, t, {}, a=a)
    for i in range(3):
        torch.testing.assert_close(many[i], normal_prox(f, v[i], t[i], {}, a=a[i]))


def test_conjugate_of_the_l1_norm_is_the_unit_box(generator: torch.Generator) -> None:
    v = 3 * draw(generator, N)
    for s in (0.1, 1.0, 10.0):
        x = conjugate_prox(atom("abs").from_static({}), v, tensor(s), {})
        torch.testing.assert_close(x, v.clamp(-1, 1))


def test_conjugate_prox_with_step_zero_is_the_identity_with_finite_gradient(
    generator: torch.Generator,
) -> None:
    v = draw(generator, N).requires_grad_()
    step = tensor(0.0).requires_grad_()
    x = conjugate_prox(atom("square").from_static({}), v, step, {})
    torch.testing.assert_close(x, v)
    assert all(g.isfinite().all() for g in torch.autograd.grad(x.sum(), (v, step)))


def test_envelope_of_the_l1_norm_is_huber(generator: torch.Generator) -> None:
    v = 3 * draw(generator, N)
    for t in (0.3, 2.0):
        expected = cp.huber(v.numpy(), t).value / (2 * t)
        ours = envelope(atom("abs").from_static({}), v, tensor(t), {})
        torch.testing.assert_close(ours, torch.as_tensor(expected))


def test_interval_last_is_cvxpys_argmin_and_interval_first_is_not(generator: torch.Generator) -> None:
    f, v, t = atom("abs").from_static({}), 3 * draw(generator, 40), tensor(1.0)
    lower, upper = tensor(0.3), tensor(2.0)
    x = interval_after(f, v, t, {}, lower, upper)
    u = cp.Variable(40)
    theirs = argmin(u, cp.norm1(u) + 0.5 * cp.sum_squares(u - v.numpy()), [u >= 0.3, u <= 2.0])
    torch.testing.assert_close(x, theirs, rtol=1e-6, atol=1e-6)
    assert (f.prox(v.clamp(lower, upper), t, {}) - theirs).abs().max() > 0.1


def test_tight_frame_is_cvxpys_argmin(generator: torch.Generator) -> None:
    q, _ = torch.linalg.qr(draw(generator, N, 4))
    A = 1.5 * q.mT  # A Aᵀ = 2.25 I
    v, b, t = draw(generator, N), draw(generator, 4), 0.7
    f = atom("abs").from_static({})
    x = tight_frame_prox(
        f, v, tensor(t), {}, lambda x: x @ A.mT, lambda y: y @ A, torch.tensor(2.25, dtype=torch.float64), b
    )
    u = cp.Variable(N)
    theirs = argmin(u, t * cp.norm1(A.numpy() @ u - b.numpy()) + 0.5 * cp.sum_squares(u - v.numpy()))
    torch.testing.assert_close(x, theirs, rtol=1e-6, atol=1e-6)


EPIGRAPHS = {
    "square": (lambda x: cp.square(x), {}, True),
    "exp": (lambda x: cp.exp(x), {}, True),
    "huber": (lambda x: cp.huber(x, 0.7), {"M": 0.7}, True),
    "logistic": (lambda x: cp.logistic(x), {}, True),
    "neg_log": (lambda x: -cp.log(x), {}, True),
    "neg_entr": (lambda x: -cp.entr(x), {}, True),
    "norm2": (lambda x: cp.norm2(x), {}, False),
    "max": (lambda x: cp.max(x), {}, False),
    "log_sum_exp": (lambda x: cp.log_sum_exp(x), {}, False),
}


@pytest.mark.filterwarnings("ignore:Solution may be inaccurate")
@pytest.mark.parametrize("name", EPIGRAPHS)
def test_epigraph_is_cvxpys_projection(name: str, generator: torch.Generator) -> None:
    function, numbers, separable = EPIGRAPHS[name]
    f = atom(name).from_static({})
    data = {k: tensor(number) for k, number in numbers.items()}
    v = 2 * draw(generator, N)
    s = draw(generator, N if separable else 1)
    x, r = epigraph_prox(f, v, s, data)
    u, t = cp.Variable(N), cp.Variable(s.shape[0])
    goal = cp.sum_squares(u - v.numpy()) + cp.sum_squares(t - s.numpy())
    bound = function(u) <= (t if separable else t[0])
    cp.Problem(cp.Minimize(goal), [bound]).solve(solver=cp.CLARABEL, tol_gap_abs=1e-10, tol_gap_rel=1e-10)
    torch.testing.assert_close(x, torch.as_tensor(u.value), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(r, torch.as_tensor(t.value), rtol=1e-5, atol=1e-5)
    assert (f.value(x, data) - r).max() < 1e-12
    again = epigraph_prox(f, x, r + 1e-9, data)
    torch.testing.assert_close(again[0], x, rtol=0, atol=1e-8)


@pytest.mark.parametrize("name", ["square", "exp", "huber", "norm2"])
def test_epigraph_is_differentiable_twice(name: str, generator: torch.Generator) -> None:
    _, numbers, separable = EPIGRAPHS[name]
    f = atom(name).from_static({})
    data = {k: tensor(number).requires_grad_() for k, number in numbers.items()}
    v = (2 * draw(generator, 2, 4)).requires_grad_()
    s = (0.5 * draw(generator, 2, 4 if separable else 1)).requires_grad_()

    def both(v: Tensor, s: Tensor, *more: Tensor) -> tuple[Tensor, Tensor]:
        return epigraph_prox(f, v, s, dict(zip(data, more, strict=True)))

    torch.autograd.gradcheck(both, (v, s, *data.values()))
    torch.autograd.gradgradcheck(both, (v, s, *data.values()))
