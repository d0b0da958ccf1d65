"""Solvers for wide batches that share a matrix, steps in float32 and reduced systems, against dense solves."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from opteq_cvx.adjoint.krylov import support
from opteq_cvx.adjoint.krylov.automatic import Automatic
from opteq_cvx.adjoint.krylov.cg import CG
from opteq_cvx.adjoint.krylov.contract import System
from opteq_cvx.adjoint.krylov.richardson import Richardson, suits
from opteq_cvx.adjoint.krylov.support import Support
from opteq_cvx.splitting.linearization import SymmetricLinearization


def wide_system(
    generator: torch.Generator, projector: bool, top: float, transposed: bool, rate: float | None
) -> tuple[System, Tensor, Tensor]:
    """A system large enough for steps in float32, its right side with rows of every size, and its matrices."""
    batch, d = 90, 60
    root = torch.randn(d, d, dtype=torch.float64, generator=generator)
    M = root @ root.T
    M = top * M / torch.linalg.matrix_norm(M, 2)
    D_ = torch.rand(batch, d, dtype=torch.float64, generator=generator)
    D_ = (D_ > 0.2).double() if projector else D_
    v = torch.randn(batch, d, dtype=torch.float64, generator=generator)
    v = v * torch.logspace(-30, 30, batch, dtype=torch.float64)[:, None]
    v[3] = 0.0

    def restrict(rows: Tensor) -> SymmetricLinearization:
        return SymmetricLinearization(matrix=M[None], diagonal=D_[rows], projector=projector)

    J = D_[:, :, None] * M
    eye = torch.eye(d, dtype=torch.float64)
    return System(restrict(torch.arange(batch)), transposed, restrict, rate), v, eye - (J.mT if transposed else J)


@pytest.mark.parametrize("projector", [True, False])
@pytest.mark.parametrize("top", [0.9, 0.9999])
def test_steps_in_float32_reach_the_accuracy_of_float64(
    generator: torch.Generator, projector: bool, top: float
) -> None:
    """Large enough for refinement; rows of every size, one of them zero; the hard one needs the finish in float64."""
    system, v, A = wide_system(generator, projector, top, True, None)
    found = CG().solve(system, v, tolerance=1e-11, max_steps=2000)
    assert found.converged.all()
    wanted = torch.linalg.solve(A, v[:, :, None])[:, :, 0]
    size = v.norm(dim=1, keepdim=True).clamp_min(1e-300)
    torch.testing.assert_close(found.w / size, wanted / size, atol=1e-10 / (1 - top), rtol=0)
    gap = (A @ found.w[:, :, None])[:, :, 0] - v
    assert (gap.norm(dim=1) <= 2e-11 * size[:, 0]).all()


@pytest.mark.parametrize("projector", [True, False])
@pytest.mark.parametrize("transposed", [True, False])
@pytest.mark.parametrize("rate", [0.85, 0.95])  # what is certified may be larger than what is true
def test_richardson_reaches_the_accuracy_of_float64(
    generator: torch.Generator, projector: bool, transposed: bool, rate: float
) -> None:
    system, v, A = wide_system(generator, projector, 0.85, transposed, rate)
    assert suits(system, v, 1e-11)
    found = Richardson().solve(system, v, tolerance=1e-11, max_steps=300)
    assert found.converged.all()
    size = v.norm(dim=1, keepdim=True).clamp_min(1e-300)
    wanted = torch.linalg.solve(A, v[:, :, None])[:, :, 0]
    torch.testing.assert_close(found.w / size, wanted / size, atol=1e-9, rtol=0)
    assert found.w[3].abs().max() == 0.0
    assert found.steps[3] == 0
    assert int(found.steps.max()) < 70


@pytest.mark.parametrize("projector", [True, False])
@pytest.mark.parametrize("transposed", [True, False])
def test_richardson_reaches_the_accuracy_of_float32(
    generator: torch.Generator, projector: bool, transposed: bool
) -> None:
    system, v, A = wide_system(generator, projector, 0.8, transposed, 0.9)
    form = system.jacobian
    assert isinstance(form, SymmetricLinearization)
    assert form.matrix is not None
    assert form.diagonal is not None
    low = SymmetricLinearization(matrix=form.matrix.float(), diagonal=form.diagonal.float(), projector=projector)
    single, v = replace(system, jacobian=low), v / v.norm(dim=1, keepdim=True).clamp_min(1e-300)
    assert suits(single, v.float(), 1e-5)
    found = Richardson().solve(single, v.float(), tolerance=1e-5, max_steps=300)
    assert found.converged.all()
    assert found.w.dtype is torch.float32
    wanted = torch.linalg.solve(A, v[:, :, None])[:, :, 0]
    torch.testing.assert_close(found.w.double(), wanted, atol=1e-4, rtol=0)


def test_richardson_owns_up_where_the_rate_was_wrong(generator: torch.Generator) -> None:
    """Certified 0.5, in truth 0.99999: not solved in time, said so, and the default goes on with another solver."""
    system, v, A = wide_system(generator, True, 0.99999, True, 0.5)
    found = Richardson().solve(system, v, tolerance=1e-12, max_steps=40)
    assert not found.converged[v.norm(dim=1) > 0].all()
    repeated = Automatic().solve(system, v, tolerance=1e-11, max_steps=40)
    assert repeated.converged.all()
    gap = (A @ repeated.w[:, :, None])[:, :, 0] - v
    assert (gap.norm(dim=1) <= 1e-10 * v.norm(dim=1)).all()


def test_richardson_is_for_certified_wide_systems_within_the_reach_of_float32(generator: torch.Generator) -> None:
    system, v, _ = wide_system(generator, True, 0.8, True, 0.9)
    assert suits(system, v, 1e-8)
    assert not suits(replace(system, rate=None), v, 1e-8)
    assert not suits(replace(system, rate=0.99), v, 1e-8)
    assert not suits(system, v[:4], 1e-8)
    assert not suits(system, v.float(), 1e-8)
    assert not suits(system, v[:4].float(), 1e-4)
    assert not suits(system, v, 1e-3)


@pytest.mark.parametrize("projector", [True, False])
@pytest.mark.parametrize("transposed", [True, False])
@pytest.mark.parametrize("top", [0.9, 0.999999])
@pytest.mark.parametrize("shared", [True, False])
def test_support_is_exact_whatever_the_conditioning(
    generator: torch.Generator, projector: bool, transposed: bool, top: float, shared: bool
) -> None:
    system, v, A = wide_system(generator, projector, top, transposed, None)
    if not shared:
        form = system.jacobian
        assert isinstance(form, SymmetricLinearization)
        assert form.matrix is not None
        many = form.matrix.expand(v.shape[0], -1, -1).clone()
        form = SymmetricLinearization(matrix=many, diagonal=form.diagonal, projector=projector)
        system = System(form, transposed, system.restrict)
    found = Support().solve(system, v, tolerance=1e-10, max_steps=10)
    assert found.converged.all()
    size = v.norm(dim=1, keepdim=True).clamp_min(1e-300)
    wanted = torch.linalg.solve(A, v[:, :, None])[:, :, 0]
    torch.testing.assert_close(found.w / size, wanted / size, atol=1e-9 / (1 - top) ** 0.5, rtol=1e-9)
    assert found.w[3].abs().max() == 0.0


def test_support_owns_up_where_the_reduced_matrix_is_not_positive(generator: torch.Generator) -> None:
    system, v, _ = wide_system(generator, True, 1.5, True, None)
    form = system.jacobian
    assert isinstance(form, SymmetricLinearization)
    assert form.diagonal is not None
    form.diagonal[:5] = 0.0  # nothing to solve there
    found = Support().solve(system, v, tolerance=1e-10, max_steps=10)
    assert found.converged[:5].all()
    torch.testing.assert_close(found.w[:5], v[:5])
    assert not found.converged[5:].any()
    assert torch.isfinite(found.w).all()


def test_support_is_taken_where_it_is_cheap_and_steps_are_not() -> None:
    M = torch.eye(60, dtype=torch.float64)[None] * 0.5
    few, v = torch.zeros(90, 60, dtype=torch.float64), torch.ones(90, 60, dtype=torch.float64)
    few[:, :5] = 1.0

    def system(d: Tensor, rate: float | None) -> System:
        return System(SymmetricLinearization(matrix=M, diagonal=d), True, lambda rows: None, rate)  # type: ignore[arg-type, return-value]

    assert support.suits(system(few, None), v)
    assert support.suits(system(few, 0.99), v)
    assert not support.suits(system(few, 0.5), v)
    wide = torch.ones(90, 2000, dtype=torch.float64)
    form = SymmetricLinearization(matrix=torch.eye(2000, dtype=torch.float64)[None], diagonal=wide)
    assert not support.suits(System(form, True, lambda rows: form), wide)
