"""Values and gradients against closed forms, central differences and unrolling; failed samples; the error estimate."""

import math

import pytest
import torch
from torch import Tensor

from opteq_cvx.adjoint.implicit import Implicit
from opteq_cvx.adjoint.krylov.cg import CG
from opteq_cvx.adjoint.krylov.contract import LinearSolver
from opteq_cvx.adjoint.krylov.direct import Direct
from opteq_cvx.adjoint.krylov.gmres import GMRES
from opteq_cvx.adjoint.krylov.lsmr import LSMR
from opteq_cvx.adjoint.krylov.neumann import Neumann
from opteq_cvx.adjoint.record import GradientRecord
from opteq_cvx.adjoint.truncated import Truncated
from opteq_cvx.adjoint.unrolled import Unrolled
from tests.adjoint.setting import equilibrate, function, parameters
from tests.adjoint.toys import Kind, Unit

D, B = 7, 5
KINDS: list[Kind] = ["identity", "relu", "tanh", "softmax"]
SOLVERS = [None, CG(), GMRES(), GMRES(restart=3), LSMR(), Direct(), Neumann()]


def named(solver: LinearSolver | None) -> str:
    return repr(solver)


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("solver", SOLVERS, ids=named)
def test_affine_closed_form(solver: LinearSolver | None, symmetric: bool, generator: torch.Generator) -> None:
    """z = c (I − M)⁻¹: dL/dc = g (I − M)⁻ᵀ, dL/dM = Σ_b z_bᵀ (dL/dc)_b."""
    if isinstance(solver, CG) and not symmetric:
        pytest.skip("conjugate gradients are for symmetric systems")
    M, c = parameters(D, B, generator, symmetric=symmetric)
    g = torch.randn(B, D, dtype=torch.float64, generator=generator)
    inverse = torch.linalg.inv(torch.eye(D, dtype=torch.float64) - M[0])
    m, x = M.clone().requires_grad_(), c.clone().requires_grad_()
    z = equilibrate(Unit(D, "identity", symmetric=symmetric), m, x, Implicit(solver=solver)).z
    torch.testing.assert_close(z.detach(), c @ inverse, atol=1e-11, rtol=0)
    dM, dc = torch.autograd.grad(z, (m, x), g)
    torch.testing.assert_close(dc, g @ inverse.T, atol=1e-10, rtol=0)
    torch.testing.assert_close(dM[0], (c @ inverse).T @ (g @ inverse.T), atol=1e-9, rtol=0)


def test_affine_second_order(generator: torch.Generator) -> None:
    """d²/dc dM of ⟨g, z⟩ in a direction E: g N E N for N = (I − M)⁻¹, dense."""
    M, c = parameters(D, B, generator, symmetric=False)
    g, E = (torch.randn(s, dtype=torch.float64, generator=generator) for s in ((B, D), (1, D, D)))
    N = torch.linalg.inv(torch.eye(D, dtype=torch.float64) - M[0])
    m, x = M.clone().requires_grad_(), c.clone().requires_grad_()
    z = function(Unit(D, "identity", symmetric=False))(m, x)
    (dc,) = torch.autograd.grad(z, x, g, create_graph=True)
    (mixed,) = torch.autograd.grad(dc, m, torch.ones_like(dc))
    # ⟨1, g Nᵀ⟩ moves with M by ⟨1, g Nᵀ Eᵀ Nᵀ⟩
    torch.testing.assert_close((mixed * E).sum(), (g @ (N @ E[0] @ N).T).sum(), atol=1e-9, rtol=1e-9)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("each", [True, False])
def test_unrolling_agrees(kind: Kind, symmetric: bool, each: bool, generator: torch.Generator) -> None:
    unit = Unit(D, kind, symmetric=symmetric)
    theta = parameters(D, B, generator, symmetric=symmetric, each=each)
    g = torch.randn(B, D, dtype=torch.float64, generator=generator)
    answers = []
    for mode in (Implicit(), Unrolled(steps=200), Unrolled(steps=200, checkpoint=15)):
        m, x = (t.clone().requires_grad_() for t in theta)
        z = function(unit, mode)(m, x)
        answers.append((z.detach(), *torch.autograd.grad(z, (m, x), g)))
    for other in answers[1:]:
        for a, b in zip(answers[0], other, strict=True):
            torch.testing.assert_close(a, b, atol=1e-9, rtol=1e-9)


@pytest.mark.parametrize("kind", KINDS)
def test_central_differences(kind: Kind, generator: torch.Generator) -> None:
    unit = Unit(D, kind)
    theta = parameters(D, B, generator)
    g, *moves = (torch.randn(s, dtype=torch.float64, generator=generator) for s in ((B, D), (1, D, D), (B, D)))
    f, h = function(unit), 1e-6
    m, x = (t.clone().requires_grad_() for t in theta)
    grads = torch.autograd.grad(f(m, x), (m, x), g)
    ahead, behind = (f(*(t + s * h * e for t, e in zip(theta, moves, strict=True))) for s in (1, -1))
    wanted = ((ahead - behind) * g).sum() / (2 * h)
    found = sum((a * e).sum() for a, e in zip(grads, moves, strict=True))
    torch.testing.assert_close(found, wanted, atol=1e-6, rtol=1e-6)


def test_shared_gradient_is_the_sum_over_the_batch(generator: torch.Generator) -> None:
    unit = Unit(D, "tanh")
    M, c = parameters(D, B, generator)
    m = M.clone().requires_grad_()
    (shared,) = torch.autograd.grad(function(unit)(m, c).sin().sum(), m)
    copies = M.expand(B, D, D).clone().requires_grad_()
    (each,) = torch.autograd.grad(function(unit)(copies, c).sin().sum(), copies)
    assert shared.shape == M.shape
    torch.testing.assert_close(shared[0], each.sum(0), atol=1e-11, rtol=0)


def test_everything_shared(generator: torch.Generator) -> None:
    """θ has no batch, the state has: z is repeated, gradients are sums."""
    unit = Unit(D, "tanh")
    M, c = parameters(D, 1, generator)
    x = c.clone().requires_grad_()
    z = equilibrate(unit, M, x, batch=3).z
    (three,) = torch.autograd.grad(z.sum(), x)
    (one,) = torch.autograd.grad(equilibrate(unit, M, x).z.sum(), x)
    torch.testing.assert_close(three, 3 * one)


# -- failed samples ----------------------------------------------------------------------------------------------------


def poisoned(c: Tensor) -> Tensor:
    bad = c.clone()
    bad[1], bad[3, 2] = math.nan, math.inf
    return bad


@pytest.mark.parametrize("mode", [Implicit(), Truncated(), Unrolled(steps=100)], ids=repr)
@pytest.mark.parametrize("kind", ["tanh", "softmax"])
@pytest.mark.parametrize("structured", [True, False])
def test_poison_does_not_spread(
    mode: Implicit | Truncated | Unrolled, kind: Kind, structured: bool, generator: torch.Generator
) -> None:
    unit = Unit(D, kind, structured=structured)
    M, c = parameters(D, B, generator)
    valid = torch.tensor([True, False, True, False, True])
    m, x = M.clone().requires_grad_(), poisoned(c).requires_grad_()
    found = equilibrate(unit, m, x, mode, valid=valid)
    dM, dc = torch.autograd.grad(found.z.sin().sum(), (m, x))
    keep = valid.nonzero().squeeze(1)
    clean, y = M.clone().requires_grad_(), c[keep].clone().requires_grad_()
    solo = equilibrate(unit, clean, y, mode)
    wanted_M, wanted_c = torch.autograd.grad(solo.z.sin().sum(), (clean, y))
    assert found.failed.tolist() == (~valid).tolist()
    torch.testing.assert_close(found.z[keep], solo.z, atol=1e-10, rtol=0)
    torch.testing.assert_close(dM, wanted_M, atol=1e-9, rtol=1e-9)
    torch.testing.assert_close(dc[keep], wanted_c, atol=1e-9, rtol=1e-9)
    assert (dc[~valid] == 0).all()
    assert torch.isfinite(found.z).all()


def test_poison_is_found_without_being_told(generator: torch.Generator) -> None:
    M, c = parameters(D, B, generator)
    m, x = M.clone().requires_grad_(), poisoned(c)
    x[3] = c[3]
    found = equilibrate(Unit(D, "tanh"), m, x)
    (dM,) = torch.autograd.grad(found.z.sum(), m)
    assert found.finite.tolist() == [True, False, True, True, True]
    assert torch.isfinite(dM).all()
    assert dM.abs().sum() > 0


@pytest.mark.parametrize("mode", [Implicit(), Truncated()], ids=repr)
def test_all_failed_gives_zero(mode: Implicit | Truncated, generator: torch.Generator) -> None:
    M, c = parameters(D, B, generator)
    m, x = M.clone().requires_grad_(), torch.full_like(c, math.nan).requires_grad_()
    found = equilibrate(Unit(D, "tanh"), m, x, mode)
    grads = torch.autograd.grad(found.z.sum(), (m, x))
    assert found.failed.all()
    assert all((g == 0).all() for g in grads)
    n = (math.nan * M).requires_grad_()
    (dn,) = torch.autograd.grad(equilibrate(Unit(D, "tanh"), n, c, mode).z.sum(), n)
    assert (dn == 0).all()


def test_unconverged_samples_have_zero_gradient(generator: torch.Generator) -> None:
    M, c = parameters(D, B, generator, norm=0.95)
    x = (torch.tensor([1e-14, 1.0, 1e-14, 1.0, 1.0], dtype=torch.float64)[:, None] * c).requires_grad_()
    found = equilibrate(Unit(D, "tanh"), M, x, tolerance=1e-10, max_steps=12)
    assert found.failed.tolist() == [False, True, False, True, True]
    (dc,) = torch.autograd.grad(found.z.sum(), x)
    assert ((dc.abs().sum(1) == 0) == found.failed).all()
    dz = torch.func.jvp(
        lambda t: equilibrate(Unit(D, "tanh"), M, t, tolerance=1e-10, max_steps=12).z, (x.detach(),), (c,)
    )[1]
    assert ((dz.abs().sum(1) == 0) == found.failed).all()


# -- the record --------------------------------------------------------------------------------------------------------


def test_record_is_written_once(generator: torch.Generator) -> None:
    M, c = parameters(D, B, generator)
    record = GradientRecord()
    x = c.clone().requires_grad_()
    z = equilibrate(Unit(D, "tanh"), M, x, record=record).z
    assert record.error is None
    torch.autograd.grad(z.sum(), x, retain_graph=True)
    first = record.error
    assert first is not None
    assert first.residual.shape == first.steps.shape == first.solved.shape == first.estimate.shape == (B,)
    assert first.solved.all()
    torch.autograd.grad(z.square().sum(), x)
    assert record.error is first


@pytest.mark.parametrize("loose", [1e-2, 1e-4, 1e-6])
def test_estimate_follows_the_error(loose: float, generator: torch.Generator) -> None:
    """The adjoint alone is loose; the true relative error of w is within the estimate, up to a factor."""
    M, c = parameters(40, B, generator, norm=0.99)
    g = torch.randn(B, 40, dtype=torch.float64, generator=generator)
    grads, record = [], GradientRecord()
    for tolerance in (loose, 1e-13):
        x = c.clone().requires_grad_()
        slot = record if tolerance == loose else GradientRecord()
        z = equilibrate(Unit(40, "tanh"), M, x, Implicit(tolerance=tolerance), record=slot).z
        grads.append(torch.autograd.grad(z, x, g)[0])
    assert record.error is not None
    error = (grads[0] - grads[1]).norm(dim=1) / grads[1].norm(dim=1)
    assert error.max() > 1e-6 * loose  # a loose solve: it aims at 1e-4 · loose where no modulus is certified
    assert (error <= 20 * record.error.estimate).all()
    assert (record.error.estimate <= 1e3 * loose).all()


def test_adjoint_tolerance_follows_the_forward(generator: torch.Generator) -> None:
    M, c = parameters(40, B, generator, norm=0.99)
    steps = []
    for tolerance in (1e-3, 1e-6, 1e-12):
        record, x = GradientRecord(), c.clone().requires_grad_()
        z = equilibrate(Unit(40, "tanh"), M, x, tolerance=tolerance, record=record).z
        z.sum().backward()
        assert record.error is not None
        assert float(record.error.residual.max()) <= tolerance
        steps.append(int(record.error.steps.max()))
    assert steps[0] < steps[1] < steps[2]


def test_singular_and_inconsistent_is_said(generator: torch.Generator) -> None:
    """T(z) = z M + c with an eigenvalue 1: the adjoint system has no solution unless g avoids that direction."""
    q, _ = torch.linalg.qr(torch.randn(D, D, dtype=torch.float64, generator=generator))
    values = torch.tensor([1.0, *[0.5] * (D - 1)], dtype=torch.float64)
    M = ((q * values) @ q.T)[None]
    c = torch.randn(2, D, dtype=torch.float64, generator=generator) @ (
        torch.eye(D).double() - torch.outer(q[:, 0], q[:, 0])
    )
    for solver in (None, Direct(), LSMR()):
        record, x = GradientRecord(), c.clone().requires_grad_()
        z = equilibrate(Unit(D, "identity"), M, x, Implicit(solver=solver), record=record).z
        g = torch.stack([q[:, 1], q[:, 0] + q[:, 1]])
        (dc,) = torch.autograd.grad(z, x, g)
        assert record.error is not None
        assert record.error.solved.tolist() == [True, False], solver
        torch.testing.assert_close(dc, torch.stack([2 * q[:, 1]] * 2), atol=1e-8, rtol=0)  # minimum norm
