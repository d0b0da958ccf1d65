"""Any CVXPY solver as a layer: call rules, gradients by two nudged solves, statuses, and training with it."""

import cvxpy as cp
import numpy as np
import pytest
import torch
from torch import Tensor

import opteq_cvx as oc
from opteq_cvx.bridge.black_box import BlackBoxLayer
from opteq_cvx.errors import GradientWarning, InputError, OrderError, SolveWarning, UnsupportedError
from opteq_cvx.status import Status
from opteq_cvx.train.data import load_data
from tests.layer.cases import CASES, Case

BY_NAME = {c.name: c for c in CASES}


def both(case: Case, count: int, **options: object) -> tuple[oc.EquilibriumLayer, BlackBoxLayer, list[Tensor]]:
    """The compiled layer, the solver as a layer with the same weights, and inputs."""
    problem, inputs, outputs = case.make()
    compiled = oc.compile(problem, inputs=inputs, outputs=outputs, tolerance=1e-11).double()
    box = BlackBoxLayer(problem, inputs=inputs, outputs=outputs, **options).double()
    box.load_state_dict(compiled.state_dict())
    rng = np.random.default_rng(3)
    columns = zip(*[case.draw(rng) for _ in range(count)], strict=True)
    return compiled, box, [torch.tensor(np.stack(c)).requires_grad_() for c in columns]


def gradients(layer: torch.nn.Module, inputs: list[Tensor]) -> tuple[tuple[Tensor, ...], oc.Solution]:
    solution = layer.solve(*inputs)
    g = torch.Generator().manual_seed(0)
    loss = sum((torch.randn(v.shape, generator=g, dtype=v.dtype) * v).sum() for v in solution.values)
    return torch.autograd.grad(loss, [*inputs, *layer.parameters()]), solution


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)
def test_certified_gradients_are_those_of_the_compiled_layer(case: Case) -> None:
    compiled, box, inputs = both(case, 3)
    want, reference = gradients(compiled, inputs)
    got, solution = gradients(box, inputs)
    assert solution.status.all_converged
    assert solution.stats.certified is not None
    assert solution.stats.certified.all()
    for a, b in zip(solution.values, reference.values, strict=True):
        torch.testing.assert_close(a, b, atol=1e-7, rtol=1e-7)
    torch.testing.assert_close(solution.objective, reference.objective, atol=1e-7, rtol=1e-7)
    for a, b in zip(got, want, strict=True):
        assert (a - b).norm() <= 2e-6 * b.norm() + 1e-9


CONES = {
    "second order": "sum_squares(x - b), [SOC(h, x)]",
    "norm": "sum_squares(x - b), [norm(x) <= h]",
    "semidefinite": "sum_squares(S - bmat([[b[0], b[1]], [b[1], b[2]]])), [S >> 0.1 * h * np.eye(2)]",
    "exponential": "sum_squares(x - b), [sum(exp(x)) <= 3 * h]",
    "exponential cone": "sum_squares(x - b) + sum(t), [ExpCone(x, multiply(h, np.ones(4)), t)]",
    "power cone": "sum_squares(x - b) + sum(t) + sum(y), [PowCone3D(t, y, multiply(h, x), 0.3 * np.ones(4))]",
}


@pytest.mark.parametrize("text", CONES.values(), ids=CONES.keys())
def test_multipliers_of_every_cone_carry_the_parameters_of_constraints(text: str) -> None:
    b, h = oc.Input(4, name="b"), oc.Input(name="h", nonneg=True)
    x, y, t = (cp.Variable(4, name=k) for k in "xyt")
    names = {k: getattr(cp, k) for k in dir(cp)} | {"b": b, "h": h, "x": x, "y": y, "t": t, "np": np}
    names |= {"S": cp.Variable((2, 2), symmetric=True, name="S")}
    cost, constraints = eval(f"({text})", names)
    problem = cp.Problem(cp.Minimize(cost), constraints)
    g = torch.Generator().manual_seed(1)
    points = [torch.randn(1, 4, generator=g).double() + 0.5, torch.tensor([1.3]).double()]
    found = []
    for layer in (oc.compile(problem, tolerance=1e-10), BlackBoxLayer(problem, gradient_tolerance=float("inf"))):
        inputs = [p.clone().requires_grad_() for p in points]
        outputs = layer.double()(*inputs)
        g = torch.Generator().manual_seed(2)
        vs = [torch.randn(o.shape, generator=g).double() for o in outputs]
        found.append(torch.autograd.grad(outputs, inputs, vs))
    for want, got in zip(*found, strict=True):
        assert (got - want).norm() <= 1e-3 * want.norm() + 1e-6


def test_it_is_called_as_a_compiled_layer() -> None:
    _, box, (g, h) = both(BY_NAME["inequalities"], 4)
    (want,) = box(g, h)
    torch.testing.assert_close(box(g, h=h)[0], want)
    torch.testing.assert_close(box(g.reshape(2, 2, 6, 3), h.reshape(2, 2, 6))[0], want.reshape(2, 2, 3))
    torch.testing.assert_close(box(g[0], h[0])[0], want[0])
    assert box(g.float(), h.float())[0].dtype == torch.float32
    assert box(g[:0], h[:0])[0].shape == (0, 3)
    with pytest.raises(InputError, match="missing input 'h'"):
        box(g)


def test_a_shared_input_gets_the_sum_over_the_batch() -> None:
    _, box, (g, h) = both(BY_NAME["inequalities"], 3)
    shared = g[0].detach().requires_grad_()
    together = torch.autograd.grad(box(shared, h)[0].sum(), shared)[0]
    alone = sum(torch.autograd.grad(box(shared, row)[0].sum(), shared)[0] for row in h)
    torch.testing.assert_close(together, alone, atol=1e-7, rtol=1e-7)


def test_bad_samples_have_a_status_and_no_gradient() -> None:
    _, box, inputs = both(BY_NAME["box_qp"], 4)
    p_half, q, low, high = (t.detach().clone() for t in inputs)
    q[1, 0], low[2] = torch.nan, 10.0
    q.requires_grad_()
    with pytest.warns(SolveWarning, match="2 of 4 samples failed"):
        solution = box.solve(p_half, q, low, high)
    expected = [Status.CONVERGED, Status.NON_FINITE_INPUT, Status.PRIMAL_INFEASIBLE, Status.CONVERGED]
    assert list(solution.status) == expected
    (grad,) = torch.autograd.grad(solution.values[0].sum(), q)
    assert torch.isfinite(grad).all()
    assert (grad[[1, 2]] == 0).all()
    assert solution.objective[2] == torch.inf


def test_the_active_set_must_not_change_or_beta_is_halved() -> None:
    _, bold, inputs = both(BY_NAME["lasso"], 4, beta=3.0, max_halvings=0)
    with pytest.warns(GradientWarning, match="active sets that change"):
        _, solution = gradients(bold, inputs)
    assert solution.stats.certified is not None
    assert not solution.stats.certified.all()
    compiled, careful, _ = both(BY_NAME["lasso"], 4, beta=3.0, max_halvings=10)
    want, _ = gradients(compiled, inputs)
    got, solution = gradients(careful, inputs)
    assert solution.stats.certified is not None
    assert solution.stats.certified.all()
    for a, b in zip(got, want, strict=True):
        assert (a - b).norm() <= 1e-5 * b.norm()


@pytest.mark.parametrize(
    ("solver", "options", "accuracy"),
    [("OSQP", {"eps_abs": 1e-9, "eps_rel": 1e-9, "polish": True}, 1e-5), ("SCS", {"eps": 1e-9}, 1e-3)],
)
def test_other_solvers_serve_as_well(solver: str, options: dict[str, object], accuracy: float) -> None:
    if solver not in cp.installed_solvers():
        pytest.skip(f"{solver} is not installed")
    case = BY_NAME["portfolio"]
    compiled, box, inputs = both(case, 2, solver=solver, solver_options=options)
    (want, *_), _ = gradients(compiled, inputs)
    (got, *_), _ = gradients(box, inputs)
    assert (got - want).norm() <= accuracy * want.norm()


def test_a_second_derivative_raises() -> None:
    _, box, (y, lam) = both(BY_NAME["lasso"], 1)
    (first,) = torch.autograd.grad(box(y, lam)[0].pow(2).sum(), y, create_graph=True)
    with pytest.raises(OrderError):
        torch.autograd.grad(first.sum(), y)


def test_what_cannot_be_differentiated_is_refused() -> None:
    h = cp.Parameter(3, nonneg=True, name="h")
    x = cp.Variable(3, bounds=[0, h], name="x")
    with pytest.raises(UnsupportedError, match=r"bounds of variable 'x'.*Fix: write them as constraints"):
        BlackBoxLayer(cp.Problem(cp.Minimize(cp.sum_squares(x - 1))), inputs=[h])
    with pytest.raises(InputError, match="Fix:"):
        BlackBoxLayer(cp.Problem(cp.Minimize(cp.sum_squares(x - 1))), inputs=[h], beta=0.0)


def test_the_problem_keeps_its_own_parameter_values_and_gets_trained_ones_when_asked() -> None:
    w, b, x = oc.Weight(3, name="w", init=1.0), oc.Input(3, name="b"), cp.Variable(3, name="x")
    b.value = np.full(3, 7.0)
    box = BlackBoxLayer(cp.Problem(cp.Minimize(cp.sum_squares(x - b - w)))).double()
    box.weights.set("w", np.array([1.0, 2.0, 3.0]))
    torch.testing.assert_close(box(torch.zeros(3).double())[0].detach(), torch.tensor([1.0, 2.0, 3.0]).double())
    np.testing.assert_allclose(b.value, 7.0)
    np.testing.assert_allclose(w.value, 1.0)
    box.write_back()
    np.testing.assert_allclose(w.value, [1.0, 2.0, 3.0])


@pytest.mark.filterwarnings("ignore::opteq_cvx.errors.GradientWarning")  # samples that pass a kink
def test_training_through_the_black_box_follows_the_implicit_gradient() -> None:
    """A small OptEq layer on a few digits: a handful of steps, the same losses, the same predictions."""
    data = load_data("digits")
    x, y = data.train.x[:8].double() / 16, data.train.y[:8]

    def model(black_box: bool) -> tuple[torch.nn.Module, torch.nn.Module, torch.nn.Module]:
        rng = np.random.default_rng(0)
        s = oc.Input(8, name="s")
        w = oc.Weight((8, 8), name="W", norm=0.9, init=rng.normal(size=(8, 8)) / 6)
        b = oc.Weight(8, name="b", init=rng.normal(size=8))
        u = cp.Variable(8, nonneg=True, name="u")
        cost = 0.5 * cp.quad_form(u, cp.psd_wrap(np.eye(8) - w @ w.T)) - (s + b) @ u
        problem = cp.Problem(cp.Minimize(cost))
        layer = BlackBoxLayer(problem) if black_box else oc.compile(problem, tolerance=1e-9)
        torch.manual_seed(0)
        return torch.nn.Linear(64, 8).double(), layer.double(), torch.nn.Linear(8, 10).double()

    losses, predictions = [], []
    for black_box in (False, True):
        before, layer, after = model(black_box)
        parameters = [p for part in (before, layer, after) for p in part.parameters()]
        optimizer, history = torch.optim.Adam(parameters, lr=5e-2), []
        for _ in range(4):
            optimizer.zero_grad()
            logits = after(layer(before(x))[0])
            loss = torch.nn.functional.cross_entropy(logits, y)
            loss.backward()
            optimizer.step()
            history.append(loss.item())
        losses.append(history)
        predictions.append(logits.argmax(-1))
    assert losses[0][-1] < 0.9 * losses[0][0]
    np.testing.assert_allclose(losses[1], losses[0], rtol=1e-4)
    assert bool((predictions[0] == predictions[1]).all())
