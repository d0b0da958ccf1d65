"""The heavy ball on proximal-gradient steps: the answer of an independent solve, few steps, and a safe way back."""

import math

import pytest
import torch
from torch import Tensor

from opteq_cvx.descent import SharedSteps, Steps
from opteq_cvx.iterate.contract import Iterate, Restrict, Stop
from opteq_cvx.iterate.heavy_ball import Tuner
from opteq_cvx.iterate.inertial import Inertial
from opteq_cvx.iterate.plain import Plain
from tests.iterate.maps import Unit, affine_solution, relu_solution, symmetric

D, B = 12, 24


@pytest.fixture
def unit(generator: torch.Generator) -> Unit:
    scale = torch.logspace(-3, 0.5, B, dtype=torch.float64)[:, None]
    return Unit(symmetric(D, 0.9, generator), scale * torch.randn(B, D, dtype=torch.float64, generator=generator))


def run(unit: Unit, *, tolerance: float = 1e-9, max_steps: int = 400, margin: float = 0.1) -> Iterate:
    stop = Stop(tolerance=tolerance, max_steps=max_steps, margin=torch.full((1,), margin))
    return Inertial().run(unit.steps, torch.zeros_like(unit.c), stop)


@pytest.mark.parametrize("linear", [True, False])
def test_answer_in_fewer_steps_than_any_method_of_one_term(linear: bool, unit: Unit) -> None:
    if linear:
        unit.act = lambda a: a
    found = run(unit)
    assert found.converged.all()
    want = affine_solution(unit) if linear else relu_solution(unit)
    torch.testing.assert_close(found.z, want, atol=3.1e-8, rtol=0)
    plain = Plain().run(unit.restrict, torch.zeros_like(unit.c), Stop(tolerance=1e-9, max_steps=400, margin=None))
    assert int(found.steps.max()) <= 0.4 * int(plain.steps.max())


def test_residual_is_that_of_the_state_and_the_start_is_left_alone(unit: Unit) -> None:
    start = torch.ones_like(unit.c)
    found = Inertial().run(unit.steps, start, Stop(tolerance=1e-2, max_steps=7, margin=torch.full((1,), 0.1)))
    gap = (found.z - unit.restrict(None)(found.z)).norm(dim=1) / found.z.norm(dim=1).clamp_min(1.0)
    torch.testing.assert_close(found.residual, gap, atol=1e-14, rtol=1e-9)
    assert torch.equal(start, torch.ones_like(start))


@pytest.mark.parametrize("max_steps", [1, 2, 6, 9, 10])
def test_max_steps_counts_evaluations(max_steps: int, unit: Unit) -> None:
    found = run(unit, tolerance=0.0, max_steps=max_steps)
    assert len(unit.calls) == max_steps
    assert found.steps.tolist() == [max_steps] * B


def test_start_at_the_solution_costs_one_evaluation(unit: Unit) -> None:
    unit.act = lambda a: a
    found = Inertial().run(unit.steps, affine_solution(unit), Stop(tolerance=1e-6, max_steps=100))
    assert found.steps.tolist() == [1] * B


def test_batch_equals_loop(unit: Unit) -> None:
    together = run(unit)
    for i in range(B):
        alone = run(Unit(unit.M, unit.c[i : i + 1]))
        torch.testing.assert_close(alone.z[0], together.z[i], atol=1e-8, rtol=0)


def test_bad_samples_leave_the_others_alone(unit: Unit) -> None:
    clean = run(unit)
    unit.c[3], unit.c[7, 2], unit.c[20] = torch.nan, torch.inf, -torch.inf
    found = run(unit)
    assert not found.finite[[3, 7]].any()
    assert torch.isfinite(found.z).all()
    good = torch.ones(B, dtype=torch.bool)
    good[[3, 7, 20]] = False
    torch.testing.assert_close(found.z[good], clean.z[good], atol=1e-8, rtol=0)


def test_early_steps_in_float32_reach_the_same_answer(unit: Unit) -> None:
    unit.c[0] = 1e60  # overflows float32: starts again
    coarse = Unit(unit.M.float(), unit.c.float())
    stop = Stop(tolerance=1e-10, max_steps=400, margin=torch.full((1,), 0.1))
    found = Inertial().run_mixed(coarse.steps(None), unit.steps, torch.zeros_like(unit.c), stop)
    assert found.converged.all()
    assert found.z.dtype is torch.float64
    want = relu_solution(unit)
    torch.testing.assert_close(found.z[0], want[0], atol=0, rtol=1e-9)
    torch.testing.assert_close(found.z[1:], want[1:], atol=3e-9, rtol=0)
    assert coarse.calls
    assert len(unit.calls) < int(found.steps.max())


def test_progress_sees_every_check(unit: Unit) -> None:
    seen: list[int] = []
    stop = Stop(tolerance=1e-9, max_steps=400)
    found = Inertial().run(
        unit.steps, torch.zeros_like(unit.c), stop, history=True, progress=lambda step, _: seen.append(step)
    )
    assert found.history is not None
    assert found.history.shape == (len(seen), B)
    assert seen[0] == 1
    assert seen[-1] == int(found.steps.max())


@pytest.mark.parametrize(("top", "many"), [(0.3, 14), (0.9, 60), (0.999, 600)])
def test_tuner_finds_the_slowest_mode(top: float, many: int, generator: torch.Generator) -> None:
    """The λ that the rate of a linear iteration shows is the largest eigenvalue, under whatever momentum it is seen."""
    unit = Unit(symmetric(D, top, generator), torch.randn(B, D, dtype=torch.float64, generator=generator), lambda a: a)
    tuner, steps = Tuner(1.0), unit.steps(None)
    tuner.rho = tuner.now = 0.2 * top  # too little: a real root, which shows λ
    move, z, before = steps.heavy(tuner.a, tuner.b), unit.c.clone(), unit.c.clone()
    want = affine_solution(unit)
    for _ in range(many):
        z, before = move(z, before), z
    tuner.observe((z - want).norm(dim=1), 4)
    for _ in range(4):
        z, before = move(z, before), z
    assert tuner.observe((z - want).norm(dim=1), 4)
    assert tuner.rho == pytest.approx(top, rel=5e-3)
    assert tuner.b == pytest.approx(((1 - math.sqrt(1 - top)) / (1 + math.sqrt(1 - top))) ** 2, rel=0.05)


def test_a_residual_that_grows_brings_plain_steps_and_less_momentum() -> None:
    tuner = Tuner(0.99)
    tuner.observe(torch.tensor([1.0, 0.5]), 1)
    assert tuner.observe(torch.tensor([2.0, 0.1]), 4)
    assert (tuner.a, tuner.b) == (1.0, 0.0)
    limit = tuner.limit
    assert 0.74 <= limit < 0.99
    for _ in range(40):  # never below the ρ up to which the method always converges
        tuner.observe(torch.tensor([float(3 + _), 0.1]), 4)
    assert tuner.limit == pytest.approx(0.74)


def test_a_zigzag_between_faces_still_ends(generator: torch.Generator) -> None:
    """Contractions of rate 0.9999 through narrow boxes, where momentum overshoots from face to face."""
    M = symmetric(40, 0.9999, generator)
    c = torch.randn(64, 40, dtype=torch.float64, generator=generator)
    unit = Unit(M, c, lambda a: a.clamp(-0.05, 0.05))
    found = run(unit, tolerance=1e-9, max_steps=4000, margin=1e-4)
    assert found.converged.all()
    gap = (found.z - (found.z @ M + c).clamp(-0.05, 0.05)).norm(dim=1)
    assert (gap <= 1e-12).all()


def test_shared_steps_are_steps(unit: Unit, generator: torch.Generator) -> None:
    def soft(a: float) -> object:
        return lambda v: v.sign() * (v.abs() - 0.1 * a).clamp_min(0.0)

    one = SharedSteps(unit.M, unit.c, soft)  # type: ignore[arg-type]
    two = Steps(lambda z: z @ unit.M + unit.c, soft)  # type: ignore[arg-type]
    z, y = (torch.randn(B, D, dtype=torch.float64, generator=generator) for _ in range(2))
    torch.testing.assert_close(one(z), two(z), atol=1e-14, rtol=0)
    expected = soft(1.7)(z + 1.7 * (z @ unit.M + unit.c - z) + 0.3 * (z - y))  # type: ignore[operator]
    for steps in (one, two):
        torch.testing.assert_close(steps.heavy(1.7, 0.3)(z, y.clone()), expected, atol=1e-13, rtol=0)


@pytest.mark.parametrize("costly", [False, True])
@pytest.mark.parametrize("coarse", [False, True])
def test_a_start_at_zero_needs_no_product(costly: bool, coarse: bool, unit: Unit) -> None:
    """The same states, one product fewer; from elsewhere nothing changes. Costly steps are looked at more often."""

    def solve(start: Tensor, *, told: bool) -> tuple[Iterate, int]:
        products = list[int]()

        def restrict(rows: Tensor | None, dtype: torch.dtype = torch.float64) -> Steps:
            c, m = (unit.c if rows is None else unit.c[rows]).to(dtype), unit.M.to(dtype)

            def gradient(z: Tensor) -> Tensor:
                products.append(len(z))
                return torch.addmm(c, z, m)

            return Steps(gradient, lambda a: torch.relu, at_zero=c if told else None, costly=costly)

        stop = Stop(tolerance=1e-9, max_steps=400, margin=torch.full((1,), 0.1))
        if coarse:
            return Inertial().run_mixed(restrict(None, torch.float32), restrict, start, stop), len(products)
        return Inertial().run(restrict, start, stop), len(products)

    (known, few), (plain, many) = (solve(torch.zeros_like(unit.c), told=told) for told in (True, False))
    assert few == many - 1
    assert torch.equal(known.steps, plain.steps)
    torch.testing.assert_close(known.z, plain.z, atol=1e-12, rtol=0)
    torch.testing.assert_close(known.z, relu_solution(unit), atol=3.1e-8, rtol=0)
    assert solve(torch.ones_like(unit.c), told=True)[1] == solve(torch.ones_like(unit.c), told=False)[1]


def test_costly_steps_are_not_made_in_vain(unit: Unit) -> None:
    """Where a step costs more than a look at it, a loose tolerance is met by fewer steps."""
    steps = []
    for costly in (False, True):

        def restrict(rows: Tensor | None, costly: bool = costly) -> Steps:
            c = unit.c if rows is None else unit.c[rows]
            return Steps(lambda z: torch.addmm(c, z, unit.M), lambda a: torch.relu, costly=costly)

        stop = Stop(tolerance=0.1, max_steps=400, margin=torch.full((1,), 0.1))
        found = Inertial().run(restrict, torch.zeros_like(unit.c), stop)
        assert found.converged.all()
        steps.append(float(found.steps.double().mean()))
    assert steps[1] < steps[0]


def with_newton(unit: Unit, calls: list[int], spoil: float | None = None) -> Restrict:
    """The steps of a relu unit with exact Newton steps, or with useless ones."""

    def restrict(rows: Tensor | None) -> Steps:
        c = unit.c if rows is None else unit.c[rows]

        def newton(z: Tensor, budget: float) -> Tensor | None:
            calls.append(z.shape[0])
            if spoil is not None:
                return torch.full_like(z, spoil)
            d = (z @ unit.M + c > 0).to(z)
            gap = torch.relu(z @ unit.M + c) - z
            eye = torch.eye(D, dtype=z.dtype)
            return z + torch.linalg.solve(eye - d[:, :, None] * unit.M, gap[:, :, None]).squeeze(2)

        return SharedSteps(unit.M, c, lambda a: torch.relu, newton)

    return restrict


def test_newton_finishes_what_steps_approach_slowly(generator: torch.Generator) -> None:
    unit = Unit(symmetric(D, 0.99999, generator), torch.randn(B, D, dtype=torch.float64, generator=generator))
    stop, calls = Stop(tolerance=1e-12, max_steps=100_000), list[int]()
    found = Inertial().run(with_newton(unit, calls), torch.zeros_like(unit.c), stop)
    alone = Inertial().run(unit.steps, torch.zeros_like(unit.c), stop)
    assert found.converged.all()
    assert calls
    assert int(found.steps.max()) < 0.5 * int(alone.steps.max())
    want = relu_solution(unit)
    torch.testing.assert_close(found.z, want, atol=0, rtol=1e-6)


@pytest.mark.parametrize("spoil", [torch.nan, torch.inf, 1e30, 0.0])
def test_useless_newton_steps_change_nothing(spoil: float, unit: Unit) -> None:
    unit.M = unit.M * (0.999 / 0.9)
    calls: list[int] = []
    found = Inertial().run(
        with_newton(unit, calls, spoil), torch.zeros_like(unit.c), Stop(tolerance=1e-11, max_steps=3000)
    )
    assert calls
    assert found.converged.all()
    torch.testing.assert_close(found.z, relu_solution(unit), atol=1e-6, rtol=0)


def test_a_history_has_its_checks_where_the_options_say(generator: torch.Generator) -> None:
    unit = Unit(symmetric(D, 0.999, generator), torch.randn(B, D, dtype=torch.float64, generator=generator))
    stop, calls, seen = Stop(tolerance=1e-9, max_steps=4000, check_every=7), list[int](), list[int]()
    found = Inertial().run(
        with_newton(unit, calls),
        torch.zeros_like(unit.c),
        stop,
        history=True,
        progress=lambda step, _: seen.append(step),
    )
    assert found.converged.all()
    assert found.history is not None
    assert len(found.history) == len(seen)
    assert seen == [1 + 7 * k for k in range(len(seen))]
    assert not calls
