"""What each iteration promises beyond the common laws."""

import pytest
import torch
from torch import Tensor

from opteq_cvx.errors import InputError
from opteq_cvx.iterate.accelerated import Accelerated
from opteq_cvx.iterate.anderson import Anderson
from opteq_cvx.iterate.contract import Stop
from opteq_cvx.iterate.halpern import Halpern
from opteq_cvx.iterate.plain import Plain
from tests.iterate.maps import Unit, affine_solution, symmetric


def project(z: Tensor) -> Tensor:
    """Onto the box [−1, 1]."""
    return z.clamp(-1.0, 1.0)


def rotation(angle: float) -> Tensor:
    c, s = torch.cos(torch.tensor(angle)).item(), torch.sin(torch.tensor(angle)).item()
    return torch.tensor([[c, s], [-s, c]], dtype=torch.float64)


def test_mann_converges_where_picard_turns_in_circles() -> None:
    unit = Unit(rotation(2.0), torch.ones(1, 2, dtype=torch.float64), lambda a: a)
    stop = Stop(tolerance=1e-9, max_steps=500)
    assert not Plain().run(unit.restrict, torch.zeros(1, 2).double(), stop).converged.any()
    found = Plain(relaxation=0.5).run(unit.restrict, torch.zeros(1, 2).double(), stop)
    torch.testing.assert_close(found.z, affine_solution(unit), atol=1e-8, rtol=0)


def test_acceleration_pays_on_ill_conditioned_units(generator: torch.Generator) -> None:
    unit = Unit(
        symmetric(30, 0.9995, generator), torch.randn(6, 30, dtype=torch.float64, generator=generator), lambda a: a
    )
    stop = Stop(tolerance=1e-8, max_steps=100000)
    steps = {
        name: int(it.run(unit.restrict, torch.zeros_like(unit.c), stop).steps.max())
        for name, it in {"plain": Plain(), "momentum": Accelerated(), "anderson": Anderson()}.items()
    }
    assert steps["momentum"] < steps["plain"] / 10
    assert steps["anderson"] < steps["plain"] / 50


def test_momentum_restarts_are_per_sample(generator: torch.Generator) -> None:
    """An easy and a hard sample: the easy one's restarts must not slow the hard one."""
    M, c = symmetric(20, 0.999, generator), torch.randn(2, 20, dtype=torch.float64, generator=generator)
    stop = Stop(tolerance=1e-9, max_steps=100000)
    both = Accelerated().run(Unit(M, c).restrict, torch.zeros_like(c), stop)
    for i in range(2):
        alone = Accelerated().run(Unit(M, c[i : i + 1]).restrict, torch.zeros(1, 20).double(), stop)
        assert int(alone.steps) == int(both.steps[i])


def expanding(angle: float) -> Unit:
    """A nonexpansive map without contraction except by a box: extrapolation is easily fooled here."""
    return Unit(
        0.999 * rotation(angle), torch.tensor([[0.3, 0.2], [2.0, -1.0], [-5.0, 4.0]], dtype=torch.float64), project
    )


@pytest.mark.parametrize("angle", [0.3, 1.1, 2.0, 2.9])
def test_anderson_is_never_worse_than_plain(angle: float) -> None:
    unit = expanding(angle)
    for budget in (5, 20, 60, 200):
        stop = Stop(tolerance=0.0, max_steps=budget, check_every=1)
        plain = Plain().run(unit.restrict, torch.zeros_like(unit.c), stop)
        mixed = Anderson(memory=5).run(unit.restrict, torch.zeros_like(unit.c), stop)
        # an undone step costs one evaluation: compare with plain at half the budget
        half = Plain().run(unit.restrict, torch.zeros_like(unit.c), Stop(tolerance=0.0, max_steps=max(1, budget // 2)))
        assert (mixed.residual <= half.residual + 1e-15).all(), (plain.residual, mixed.residual)


class Fooling:
    """T(z) = z − h·g(z), g the gradient of a Huber-like function with tiny curvature changes: secants mislead."""

    def __init__(self, batch: int, generator: torch.Generator) -> None:
        self.center = 10 * torch.randn(batch, 6, dtype=torch.float64, generator=generator)
        self.weight = torch.logspace(-3, 0, 6, dtype=torch.float64)

    def restrict(self, rows: Tensor | None):  # type: ignore[no-untyped-def]
        center = self.center if rows is None else self.center[rows]
        return lambda z: z - self.weight * torch.clamp(z - center, -0.01, 0.01) * 0.9


def test_anderson_survives_kinks(generator: torch.Generator) -> None:
    fooling = Fooling(16, generator)
    stop = Stop(tolerance=1e-9, max_steps=3000)
    found = Anderson().run(fooling.restrict, torch.zeros_like(fooling.center), stop)
    plain = Plain().run(fooling.restrict, torch.zeros_like(fooling.center), stop)
    assert (found.residual <= 1.001 * plain.residual).all()  # steps that were undone cost evaluations
    assert torch.isfinite(found.z).all()


def test_anderson_gives_way_to_plain_steps_when_it_stalls() -> None:
    """An oracle that answers every extrapolated point with a slightly smaller residual, but never lets it converge."""
    matrix = symmetric(8, 0.95, torch.Generator().manual_seed(1))
    noise = torch.Generator().manual_seed(2)

    def T(z: Tensor) -> Tensor:
        jitter = 1e-5 * torch.randn(z.shape, dtype=z.dtype, generator=noise)
        return z @ matrix + 1.0 + jitter * (z @ matrix + 1.0 - z).norm(dim=1, keepdim=True)

    found = Anderson(memory=8).run(lambda rows: T, torch.zeros(4, 8).double(), Stop(tolerance=1e-9, max_steps=2000))
    assert found.converged.all()


def test_anderson_more_memory_than_dimensions() -> None:
    unit = Unit(torch.tensor([[0.9]], dtype=torch.float64), torch.ones(5, 1, dtype=torch.float64), lambda a: a)
    found = Anderson(memory=10).run(unit.restrict, torch.zeros(5, 1).double(), Stop(tolerance=1e-12, max_steps=50))
    torch.testing.assert_close(found.z, torch.full((5, 1), 10.0).double(), atol=1e-10, rtol=0)
    assert int(found.steps.max()) <= 6  # a secant step is exact here


def test_halpern_finds_the_projection_of_its_anchor(generator: torch.Generator) -> None:
    """T averages with the projection on {a'z = 1}: of the fixed points the one nearest to the anchor is wanted."""
    a = torch.nn.functional.normalize(torch.randn(5, dtype=torch.float64, generator=generator), dim=0)

    def T(z: Tensor) -> Tensor:
        return z - 1.7 * (z @ a - 1.0)[:, None] * a

    anchor = torch.randn(3, 5, dtype=torch.float64, generator=generator)
    wanted = anchor - ((anchor @ a - 1.0)[:, None] * a)
    stop = Stop(tolerance=1e-4, max_steps=20000, check_every=50)
    own = Halpern().run(lambda rows: T, anchor, stop)
    given = Halpern(anchor=anchor).run(lambda rows: T, torch.zeros(3, 5).double(), stop)
    one = Halpern(anchor=anchor[1]).run(lambda rows: T, torch.zeros(3, 5).double(), stop)
    atol = 1e-2  # the distance, like the residual, falls as 1/k, with a larger factor
    torch.testing.assert_close(own.z, wanted, atol=atol, rtol=0)
    torch.testing.assert_close(given.z, wanted, atol=atol, rtol=0)
    torch.testing.assert_close(one.z, wanted[1].expand(3, 5), atol=atol, rtol=0)
    plain = Plain().run(lambda rows: T, torch.zeros(3, 5).double(), stop)
    assert (plain.z - wanted).norm(dim=1).min() > 0.1  # the plain iteration forgets the anchor


def test_halpern_rate(generator: torch.Generator) -> None:
    """‖z_k − T(z_k)‖ ≤ 2‖z_0 − z*‖/(k + 1), tight. Source: Lieder 2021."""
    unit = Unit(rotation(2.5), torch.randn(20, 2, dtype=torch.float64, generator=generator), lambda a: a)
    start, answer = torch.zeros(20, 2).double(), affine_solution(unit)
    for budget in (3, 17, 120):
        found = Halpern().run(unit.restrict, start, Stop(tolerance=0.0, max_steps=budget, check_every=1))
        residual = found.residual * found.z.norm(dim=1).clamp_min(1.0)
        assert (residual <= 2 * answer.norm(dim=1) / budget + 1e-12).all()


def test_halpern_refuses_a_wrong_anchor() -> None:
    with pytest.raises(InputError, match=r"Halpern\(anchor=.*\(4,\).*Expected.*\(3,\).*Fix"):
        Halpern(anchor=torch.zeros(4)).run(
            lambda rows: torch.relu, torch.zeros(2, 3), Stop(tolerance=1e-3, max_steps=5)
        )
