"""Tied programs: the verdict, and the layer's values against the composition of layers iterated in NumPy."""

import cvxpy as cp
import numpy as np
import pytest
import torch

import opteq_cvx as oc
from opteq_cvx.activations import ACTIVATIONS
from opteq_cvx.declare import Tied
from opteq_cvx.errors import CompileError, InputError, NotConvexError, SolveWarning, UnsupportedError
from opteq_cvx.maps.evaluate import Environment
from opteq_cvx.plan import make_plan
from opteq_cvx.ties.equilibrium import Verdict
from tests.ties.units import K, N, average_point, cycle_point, numbers, sigma, unit

SAMPLES = 3


def inputs(seed: int = 0) -> torch.Tensor:
    return torch.as_tensor(np.random.default_rng(100 + seed).normal(size=(SAMPLES, K)))


def verdict(declared: Tied) -> Verdict:
    found = oc.explain(declared).plan.inclusion
    assert found is not None
    return found.verdict


def solve(declared: Tied, values: torch.Tensor) -> np.ndarray:
    layer = oc.compile(declared, tolerance=1e-11).double()
    layer.write_back()  # the weights were rounded to float32 on the way
    solution = layer.solve(values)
    assert solution.status.all_converged
    return solution.values[0].detach().numpy()


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_a_unit_and_its_explicit_program_compile_to_one_map(name: str) -> None:
    """The tied unit, the explicit convex program, and z ← Wᵀσ(Wz + c) have one fixed point, and one step."""
    x = oc.Input(K, name="x")
    one = unit(1, x, name=name)
    tied = oc.compile(one, outputs=[one.u], tolerance=1e-11).double()
    explicit = oc.compile(one.explicit(), outputs=[one.u], tolerance=1e-11).double()
    assert tied.plan.inclusion is not None
    assert tied.plan.inclusion.verdict is Verdict.VARIATIONAL
    values = inputs()
    tied.write_back()
    (u,), (v,) = tied(values), explicit(values)
    torch.testing.assert_close(u, v, rtol=1e-9, atol=1e-9)
    start = torch.rand(SAMPLES, 4, dtype=torch.float64)
    steps = []
    for layer in (tied, explicit):
        weights = {k: layer.weights.value(k).unsqueeze(0) for k in layer.weights.names}
        env = Environment({**weights, "x": values}, torch.float64, "cpu")
        splitting = layer.plan.splitting
        theta = splitting.theta(env)
        steps.append(splitting.step(start, theta, splitting.prepare(theta)))
    if name not in ("hard_sigmoid", "linear"):  # f has a quadratic of its own: the two forms take different steps
        torch.testing.assert_close(steps[0], steps[1], rtol=1e-12, atol=1e-12)
    for i in range(SAMPLES):
        ((W, c, _),) = numbers([one], x, values[i].numpy())
        z = cycle_point([(W, c, name)])
        np.testing.assert_allclose(u[i].detach().numpy(), sigma(name, W @ z + c), atol=1e-9)


@pytest.mark.parametrize("count", [2, 3, 4])
@pytest.mark.parametrize("name", ["relu", "tanh"])
def test_a_cycle_is_the_fixed_point_of_the_composition(count: int, name: str) -> None:
    x = oc.Input(K, name="x")
    units = [unit(k, x, name=name) for k in range(count)]
    deep = oc.cycle(units)
    assert verdict(deep) is (Verdict.VARIATIONAL if count == 2 else Verdict.MONOTONE)
    values = inputs()
    found = solve(deep, values)
    for i in range(SAMPLES):
        np.testing.assert_allclose(found[i], cycle_point(numbers(units, x, values[i].numpy())), atol=1e-9)


@pytest.mark.parametrize("alpha", [0.5, 0.1])
def test_averaged_layers(alpha: float) -> None:
    x = oc.Input(K, name="x")
    units = [unit(k, x) for k in range(3)]
    deep = oc.cycle(units, alpha=alpha)
    assert verdict(deep) is Verdict.MONOTONE
    values = inputs()
    found = solve(deep, values)
    for i in range(SAMPLES):
        np.testing.assert_allclose(found[i], cycle_point(numbers(units, x, values[i].numpy()), alpha), atol=1e-9)


def test_a_parallel_average_is_variational_with_weights_as_scaling() -> None:
    x = oc.Input(K, name="x")
    omega = [0.2, 0.3, 0.5]
    units = [unit(k, x) for k in range(3)]
    wide = oc.average(units, omega)
    plan = oc.explain(wide).plan
    assert plan.inclusion is not None
    assert plan.inclusion.verdict is Verdict.VARIATIONAL
    np.testing.assert_allclose(plan.inclusion.scaling, np.array(omega) / omega[0])
    values = inputs()
    found = solve(wide, values)
    for i in range(SAMPLES):
        np.testing.assert_allclose(found[i], average_point(numbers(units, x, values[i].numpy()), omega), atol=1e-9)


def test_units_without_norms_get_their_margin_from_the_values() -> None:
    """No bound by construction: the inclusion is solved by Peaceman–Rachford, the margin recomputed."""
    x = oc.Input(K, name="x")
    rng = np.random.default_rng(0)
    units = []
    for k in range(3):
        W = oc.Weight((4, N), name=f"W{k}", init=rng.normal(size=(4, N)) / 4)
        units.append(oc.unit(W, oc.Weight((4, K), name=f"U{k}") @ x, "tanh", name=f"u{k}"))
    deep = oc.cycle(units)
    layer = oc.compile(deep, tolerance=1e-11).double()
    assert layer.plan.name == "Peaceman–Rachford"
    layer.write_back()
    values = inputs()
    solution = layer.solve(values)
    assert solution.status.all_converged
    for i in range(SAMPLES):
        expected = cycle_point(numbers(units, x, values[i].numpy()))
        np.testing.assert_allclose(solution.values[0][i].detach().numpy(), expected, atol=1e-9)
        assert solution.stats.distance_bound is not None
    with torch.no_grad():
        layer.weights.raw("W0").mul_(40.0)
        layer.weights.raw("W1").mul_(40.0)
    with pytest.warns(SolveWarning):
        again = layer.solve(values)
    assert set(again.status) == {oc.Status.NOT_CONVEX}


def skew(*, certify: bool = True, strength: float = 3.0) -> tuple[cp.Problem, dict[cp.Parameter, cp.Expression]]:
    """monDEQ with a skew part far outside the unit ball, W = (1 − m)I − AᵀA + B − Bᵀ."""
    rng = np.random.default_rng(3)
    x, u, z = oc.Input(K, name="x"), cp.Variable(4, name="u"), cp.Parameter(4, name="z")
    A = oc.Weight((4, 4), name="A", init=rng.normal(size=(4, 4)))
    B = oc.Weight((4, 4), name="B", init=strength * rng.normal(size=(4, 4)))
    W = 0.5 * np.eye(4) - A.T @ A + B - B.T
    U = oc.Weight((4, K), name="U", init=rng.normal(size=(4, K)))
    return cp.Problem(cp.Minimize(oc.activation("relu")(u) - (z + U @ x) @ u)), {z: W @ u}


def test_a_skew_tie_is_monotone_by_construction() -> None:
    problem, ties = skew()
    layer = oc.compile(problem, ties=ties, tolerance=1e-12).double()
    found = layer.plan.inclusion
    assert found is not None
    assert found.verdict is Verdict.MONOTONE
    assert "at least 0.5 by construction" in str(layer.plan)
    values = inputs()
    solution = layer.solve(values)
    assert solution.status.all_converged
    A, B, U = (layer.weights.numpy(k) for k in "ABU")
    W = 0.5 * np.eye(4) - A.T @ A + B - B.T
    u = solution.values[0].detach().numpy()
    np.testing.assert_allclose(u, np.maximum(u @ W.T + values.numpy() @ U.T, 0.0), atol=1e-9)


def test_what_is_not_certified_is_refused() -> None:
    u, z = cp.Variable(2, name="u"), cp.Parameter(2, name="z")
    expanding = cp.Problem(cp.Minimize(0.5 * cp.sum_squares(u - z - 1)))
    with pytest.raises(NotConvexError, match=r"not certified: the margin .* is -2"):
        oc.compile(expanding, ties={z: 3 * u})
    layer = oc.compile(expanding, ties={z: 3 * u}, certify=False, tolerance=1e-9)
    solution = layer.solve()
    assert solution.status.all_converged  # the only fixed point u = 3u + 1
    np.testing.assert_allclose(solution.values[0].detach().numpy(), -0.5, atol=1e-4)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda u, z: ([u >= z], cp.sum_squares(u)), "z enters"),
        (lambda u, z: ([], cp.sum_squares(u) + cp.norm1(cp.multiply(cp.abs(z), u))), "z enters"),
        (lambda u, z: ([], cp.sum_squares(u) - cp.multiply(z, z) @ u), "not affine"),
        (lambda u, z: ([], cp.norm1(u - z)), "z enters"),
    ],
)
def test_ties_that_are_no_tilts_are_refused(make: object, words: str) -> None:
    u, z = cp.Variable(2, name="u"), cp.Parameter(2, name="z")
    constraints, cost = make(u, z)  # type: ignore[operator]
    with pytest.raises(CompileError, match=words):
        oc.compile(cp.Problem(cp.Minimize(cost), constraints), ties={z: 0.1 * u})


def test_a_tied_bound_without_certificate() -> None:
    """A generalized game: the capacity of a player is what the other leaves; solved only where asked for."""
    x = oc.Input(2, name="x")
    u, v = cp.Variable(2, name="u"), cp.Variable(2, name="v")
    p, q = cp.Parameter(2, name="p"), cp.Parameter(2, name="q")
    one = cp.Problem(cp.Minimize(0.5 * cp.sum_squares(u) - x @ u), [u >= 0, u <= 1 - 0.5 * p])
    two = cp.Problem(cp.Minimize(cp.sum_squares(v) - cp.sum(v)), [v <= q])
    ties = {p: v, q: 0.5 * u}
    with pytest.raises(CompileError, match="certify=False"):
        oc.compile([one, two], ties=ties)
    layer = oc.compile([one, two], ties=ties, outputs=[u, v], certify=False, tolerance=1e-12).double()
    assert "not certified" in str(layer.plan)
    values = torch.tensor([[2.0, 0.3], [0.9, -1.0]], dtype=torch.float64, requires_grad=True)
    solution = layer.solve(values)
    assert solution.status.all_converged
    first, second = (t.detach().numpy() for t in solution.values)
    np.testing.assert_allclose(first, np.clip(values.detach().numpy(), 0.0, 1 - 0.5 * second), atol=1e-10)
    np.testing.assert_allclose(second, np.minimum(0.5, 0.5 * first), atol=1e-10)
    assert torch.autograd.gradcheck(lambda t: layer(t), (values,))
    report = oc.verify(layer, values, gradients=False)
    assert report.ok, str(report)
    assert "not certified" in str(report)


def test_misuse_of_ties() -> None:
    u, v, z = cp.Variable(2, name="u"), cp.Variable(3, name="v"), cp.Parameter(2, name="z")
    one = cp.Problem(cp.Minimize(cp.sum_squares(u) - z @ u))
    with pytest.raises(CompileError, match="gives \\(3,\\) to a parameter of shape"):
        oc.compile(one, ties={z: v})
    with pytest.raises(CompileError, match="no variable of the problem"):
        oc.compile(one, ties={z: v[:2]})
    with pytest.raises(CompileError, match="is convex"):
        oc.compile(one, ties={z: cp.square(u)})
    with pytest.raises(CompileError, match="one role"):
        oc.compile(one, [z], ties={z: 0.1 * u})
    with pytest.raises(CompileError, match="belongs to two problems"):
        oc.compile([one, cp.Problem(cp.Minimize(cp.sum_squares(u)))], ties={z: 0.1 * u})
    with pytest.raises(CompileError, match="binds the Weight"):
        oc.compile(one, ties={oc.Weight(2, name="w"): u})
    with pytest.raises(CompileError, match="holds 'z' itself"):
        oc.compile(one, ties={z: z + u})
    x = oc.Input(K, name="x")
    narrow, wide = unit(0, x, n=5), unit(1, x, n=6)
    with pytest.raises(InputError, match="one width"):
        oc.cycle([narrow, wide])


def test_an_inclusion_has_no_objective_and_no_energy() -> None:
    x = oc.Input(K, name="x")
    layer = oc.compile(oc.cycle([unit(k, x) for k in range(3)])).double()
    assert torch.isnan(layer.solve(inputs()).objective).all()
    with pytest.raises(UnsupportedError, match="no objective"):
        layer.value(inputs())
    energetic = oc.compile(oc.cycle([unit(k, x) for k in range(3)]), adjoint=oc.EquilibriumPropagation()).double()
    with pytest.raises(UnsupportedError, match="no energy"):
        energetic(inputs())
    variational = oc.compile(oc.cycle([unit(k, x) for k in range(2)]), adjoint=oc.EquilibriumPropagation()).double()
    variational(inputs())[0].sum().backward()


@pytest.mark.parametrize("count", [1, 2, 3])
def test_ties_are_saved_and_printed(count: int, tmp_path: object) -> None:
    x = oc.Input(K, name="x")
    layer = oc.compile(oc.cycle([unit(k, x) for k in range(count)])).double()
    path = f"{tmp_path}/layer.opteq"
    oc.save(layer, path)
    loaded = oc.load(path)
    torch.testing.assert_close(loaded(inputs()), layer(inputs()), rtol=0, atol=0)
    assert len(loaded.plan.source.ties) == count
    assert str(loaded.plan) == str(layer.plan)
    assert "z_u0 = W" in str(make_plan(loaded.plan.source))


@pytest.mark.parametrize("count", [1, 2, 3])
def test_gradients_of_every_order(count: int) -> None:
    x = oc.Input(K, name="x")
    layer = oc.compile(oc.cycle([unit(k, x, name="tanh") for k in range(count)]), tolerance=1e-13).double()
    values = inputs()[:1].requires_grad_()

    def function(v: torch.Tensor) -> torch.Tensor:
        return layer(v)[0]

    assert torch.autograd.gradcheck(function, (values,), fast_mode=True)
    assert torch.autograd.gradgradcheck(function, (values,), fast_mode=True)


def test_gradients_of_peaceman_rachford_in_the_weights() -> None:
    problem, ties = skew(strength=1.0)
    layer = oc.compile(problem, ties=ties, tolerance=1e-13).double()
    names = list(layer.weights.names)
    raws = [layer.weights.raw(n).detach().clone().requires_grad_() for n in names]
    keys = [k for k, _ in layer.named_parameters()]
    values = inputs()

    def function(*params: torch.Tensor) -> torch.Tensor:
        return torch.func.functional_call(layer, dict(zip(keys, params, strict=True)), (values,))[0]

    assert torch.autograd.gradcheck(function, tuple(raws), fast_mode=True)
