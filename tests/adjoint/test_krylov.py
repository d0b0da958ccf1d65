"""Every linear solver against a dense solve of the same system."""

import pytest
import torch
from torch import Tensor
from typing_extensions import override

from opteq_cvx.adjoint.krylov.automatic import Automatic
from opteq_cvx.adjoint.krylov.cg import CG
from opteq_cvx.adjoint.krylov.contract import Linear, LinearSolver, System
from opteq_cvx.adjoint.krylov.direct import Direct
from opteq_cvx.adjoint.krylov.gmres import GMRES
from opteq_cvx.adjoint.krylov.lsmr import LSMR
from opteq_cvx.adjoint.krylov.neumann import Neumann
from opteq_cvx.splitting.linearization import AutogradLinearization, Linearization, SymmetricLinearization

D, B = 15, 6
TOL = 1e-10
GENERAL = [GMRES(), GMRES(restart=5), LSMR(), Direct(), Neumann(), Automatic()]
FORMS = ["projector", "diagonal", "operator", "matrix_free"]


class Dense(Linearization):
    """J given as (B, d, d)."""

    def __init__(self, J: Tensor) -> None:
        self.J = J

    @override
    def matvec(self, x: Tensor) -> Tensor:
        return (self.J @ x[:, :, None])[:, :, 0]

    @override
    def rmatvec(self, x: Tensor) -> Tensor:
        return (self.J.mT @ x[:, :, None])[:, :, 0]


def dense_system(J: Tensor, transposed: bool) -> System:
    return System(Dense(J), transposed, lambda rows: Dense(J[rows]))


def contraction(generator: torch.Generator, norm: float = 0.7) -> Tensor:
    J = torch.randn(B, D, D, dtype=torch.float64, generator=generator)
    return norm * J / torch.linalg.matrix_norm(J, 2)[:, None, None]


def matrix_of(J: Tensor, transposed: bool) -> Tensor:
    A = torch.eye(D, dtype=J.dtype) - J
    return A.mT if transposed else A


def assert_solves(found: Linear, J: Tensor, v: Tensor, transposed: bool, tolerance: float = TOL) -> None:
    wanted = torch.linalg.solve(matrix_of(J, transposed), v[:, :, None])[:, :, 0]
    size = v.norm(dim=1)
    assert found.converged.all()
    assert (found.residual <= tolerance).all()
    torch.testing.assert_close(found.w, wanted, atol=100 * tolerance * float(size.max()), rtol=0)
    gap = (matrix_of(J, transposed) @ found.w[:, :, None])[:, :, 0] - v
    assert (gap.norm(dim=1) <= 10 * tolerance * size).all()


@pytest.mark.parametrize("transposed", [True, False])
@pytest.mark.parametrize("solver", GENERAL, ids=repr)
def test_general(solver: LinearSolver, transposed: bool, generator: torch.Generator) -> None:
    J = contraction(generator)
    v = torch.logspace(-5, 5, B, dtype=torch.float64)[:, None] * torch.randn(
        B, D, dtype=torch.float64, generator=generator
    )
    before = v.clone()
    found = solver.solve(dense_system(J, transposed), v, tolerance=TOL, max_steps=500)
    assert torch.equal(v, before)
    for i in range(B):  # each at its own scale
        alone = Linear(*(t[i : i + 1] for t in (found.w, found.residual, found.steps, found.converged)))
        assert_solves(alone, J[i : i + 1], v[i : i + 1], transposed)


def structured(form: str, generator: torch.Generator) -> tuple[SymmetricLinearization, Tensor]:
    """A J = D M and its dense self."""
    M = torch.randn(1, D, D, dtype=torch.float64, generator=generator)
    M = M + M.mT
    M = 0.95 * M / torch.linalg.matrix_norm(M, 2)
    weights = torch.rand(B, D, dtype=torch.float64, generator=generator)
    if form == "projector":
        mask = (weights > 0.4).to(M.dtype)
        return SymmetricLinearization(matrix=M, diagonal=mask, projector=True), mask[:, :, None] * M
    if form == "diagonal":
        return SymmetricLinearization(matrix=M, diagonal=weights), weights[:, :, None] * M
    if form == "matrix_free":
        free = SymmetricLinearization(apply_matrix=lambda x: x @ M[0], diagonal=weights)
        return free, weights[:, :, None] * M
    root = torch.randn(B, D, D - 4, dtype=torch.float64, generator=generator)
    operator = root @ root.mT
    operator = operator / torch.linalg.matrix_norm(operator, 2)[:, None, None]
    apply = SymmetricLinearization(matrix=M, apply_diagonal=lambda x: (operator @ x[:, :, None])[:, :, 0])
    return apply, operator @ M


@pytest.mark.parametrize("transposed", [True, False])
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("solver", [CG(), Automatic(), GMRES()], ids=repr)
def test_symmetric_forms(solver: LinearSolver, form: str, transposed: bool, generator: torch.Generator) -> None:
    jacobian, J = structured(form, generator)
    v = torch.randn(B, D, dtype=torch.float64, generator=generator)
    before = v.clone()
    system = System(jacobian, transposed, lambda rows: jacobian)
    found = solver.solve(system, v, tolerance=1e-12, max_steps=500)
    assert torch.equal(v, before)
    assert_solves(found, J, v, transposed, 1e-12 if isinstance(solver, GMRES) else 1e-11)
    if isinstance(solver, CG):
        assert int(found.steps.max()) <= D + 3


@pytest.mark.parametrize("form", FORMS)
def test_products_and_dense_agree(form: str, generator: torch.Generator) -> None:
    jacobian, J = structured(form, generator)
    x = torch.randn(B, D, dtype=torch.float64, generator=generator)
    torch.testing.assert_close(jacobian.matvec(x), (J @ x[:, :, None])[:, :, 0])
    torch.testing.assert_close(jacobian.rmatvec(x), (J.mT @ x[:, :, None])[:, :, 0])
    torch.testing.assert_close(jacobian.dense(B, x), J)


@pytest.mark.parametrize("nonlinear", [True, False])
def test_linearization_by_autograd(nonlinear: bool, generator: torch.Generator) -> None:
    M = torch.randn(D, D, dtype=torch.float64, generator=generator)
    z, x = (torch.randn(B, D, dtype=torch.float64, generator=generator) for _ in range(2))

    def T(z: Tensor) -> Tensor:
        return torch.softmax(z @ M, -1) if nonlinear else z @ M

    J = torch.stack([torch.autograd.functional.jacobian(lambda u: T(u[None])[0], row) for row in z])
    with torch.no_grad():
        found = AutogradLinearization(T, z)
        torch.testing.assert_close(found.matvec(x), (J @ x[:, :, None])[:, :, 0])
        torch.testing.assert_close(found.rmatvec(x), (J.mT @ x[:, :, None])[:, :, 0])
        torch.testing.assert_close(found.matvec(2 * x), (J @ (2 * x)[:, :, None])[:, :, 0])  # the graph is kept
        torch.testing.assert_close(found.dense(B, z), J)
        constant = AutogradLinearization(lambda u: torch.ones_like(u), z)
        assert (constant.matvec(x) == 0).all()
        assert (constant.rmatvec(x) == 0).all()


def test_cg_assumes_symmetry_of_an_unknown_jacobian(generator: torch.Generator) -> None:
    J = contraction(generator)
    J = (J + J.mT) / 2
    v = torch.randn(B, D, dtype=torch.float64, generator=generator)
    for transposed in (True, False):
        found = CG().solve(dense_system(J, transposed), v, tolerance=TOL, max_steps=100)
        assert_solves(found, J, v, transposed)


@pytest.mark.parametrize("solver", [CG(), *GENERAL], ids=repr)
def test_zero_right_hand_side_and_neighbours(solver: LinearSolver, generator: torch.Generator) -> None:
    """Zero rows give zero, rows that hold NaN hurt nobody, and a result does not depend on who else is there."""
    J = contraction(generator)
    J = (J + J.mT) / 2
    v = torch.randn(B, D, dtype=torch.float64, generator=generator)
    v[1], v[4, 3] = 0.0, torch.nan
    found = solver.solve(dense_system(J, True), v, tolerance=TOL, max_steps=300)
    assert (found.w[1] == 0).all()
    assert bool(found.converged[1])
    assert float(found.residual[1]) == 0.0
    assert not bool(found.converged[4])
    for i in (0, 2, 3, 5):
        rows = slice(i, i + 1)
        alone = solver.solve(dense_system(J[rows], True), v[rows], tolerance=TOL, max_steps=300)
        torch.testing.assert_close(found.w[i], alone.w[0], atol=1e-9, rtol=0)
        assert bool(found.converged[i])
        assert_solves(alone, J[rows], v[rows], True)


@pytest.mark.parametrize("solver", [CG(), *GENERAL], ids=repr)
def test_tolerance_per_sample(solver: LinearSolver, generator: torch.Generator) -> None:
    J = contraction(generator, 0.95)
    J = (J + J.mT) / 2
    v = torch.randn(B, D, dtype=torch.float64, generator=generator)
    goals = torch.logspace(-12, -1, B, dtype=torch.float64)
    found = solver.solve(dense_system(J, True), v, tolerance=goals, max_steps=2000)
    assert found.converged.all()
    assert (found.residual <= goals).all()
    if not isinstance(solver, Direct):
        assert int(found.steps[0]) > int(found.steps[-1])


@pytest.mark.parametrize("solver", [LSMR(), Direct(), Automatic()], ids=repr)
@pytest.mark.parametrize("transposed", [True, False])
def test_singular_systems(solver: LinearSolver, transposed: bool, generator: torch.Generator) -> None:
    """Minimum-norm least squares, by an SVD; consistent systems are solved, inconsistent ones are reported."""
    A = torch.randn(B, D, D, dtype=torch.float64, generator=generator)
    u, s, v = torch.linalg.svd(A)
    s = s / s[:, :1]
    s[:, -3:] = 0.0
    s[:, :-3] = s[:, :-3].clamp_min(0.1)
    A = u @ torch.diag_embed(s) @ v
    J = torch.eye(D, dtype=torch.float64) - A
    matrix = A.mT if transposed else A
    right = torch.randn(B, D, dtype=torch.float64, generator=generator)
    right[:3] = (matrix[:3] @ right[:3, :, None])[:, :, 0]
    wanted = (torch.linalg.pinv(matrix, rtol=1e-8) @ right[:, :, None])[:, :, 0]
    found = solver.solve(dense_system(J, transposed), right, tolerance=1e-10, max_steps=2000)
    first = 3 if isinstance(solver, Automatic) else 0  # of the consistent ones it may return another solution
    torch.testing.assert_close(found.w[first:], wanted[first:], atol=1e-6, rtol=1e-6)
    gap = (matrix @ found.w[:, :, None])[:, :, 0] - right
    assert (gap[:3].norm(dim=1) <= 1e-9 * right[:3].norm(dim=1)).all()
    assert found.converged.tolist() == [True] * 3 + [False] * 3


def test_cg_reports_negative_curvature(generator: torch.Generator) -> None:
    """M with an eigenvalue above 1: the system is not positive definite, and CG must not claim it."""
    q, _ = torch.linalg.qr(torch.randn(D, D, dtype=torch.float64, generator=generator))
    values = torch.linspace(0.0, 0.9, D, dtype=torch.float64)
    values[0] = 3.0
    M = ((q * values) @ q.T)[None]
    jacobian = SymmetricLinearization(matrix=M, diagonal=torch.ones(B, D, dtype=torch.float64), projector=True)
    v = torch.randn(B, D, dtype=torch.float64, generator=generator)
    v[2] = q[:, 3]  # never meets that direction, but for rounding
    system = System(
        jacobian, True, lambda rows: SymmetricLinearization(matrix=M, diagonal=jacobian.diagonal[rows], projector=True)
    )  # type: ignore[index]
    found = CG().solve(system, v, tolerance=1e-10, max_steps=200)
    assert found.converged.tolist() == [i == 2 for i in range(B)]
    assert torch.isfinite(found.w).all()
    repeated = Automatic().solve(system, v, tolerance=1e-10, max_steps=200)
    assert_solves(repeated, M.expand(B, D, D), v, True)


def test_max_steps_is_kept_and_said(generator: torch.Generator) -> None:
    J = contraction(generator, 0.99)
    J = (J + J.mT) / 2
    v = torch.randn(B, D, dtype=torch.float64, generator=generator)
    for solver in (CG(), GMRES(), LSMR(), Neumann()):
        found = solver.solve(dense_system(J, True), v, tolerance=1e-12, max_steps=4)
        assert not found.converged.any()
        assert int(found.steps.max()) == 4
        gap = (matrix_of(J, True) @ found.w[:, :, None])[:, :, 0] - v
        ratio = gap.norm(dim=1) / v.norm(dim=1)
        # two of the solvers improve w once more after they measured
        assert (ratio <= 1.001 * found.residual).all()
        assert (ratio >= 0.1 * found.residual).all()


@pytest.mark.parametrize("solver", [CG(), *GENERAL], ids=repr)
def test_float32(solver: LinearSolver, generator: torch.Generator) -> None:
    J = contraction(generator)
    J = ((J + J.mT) / 2).float()
    v = torch.randn(B, D, generator=generator)
    found = solver.solve(dense_system(J, True), v, tolerance=1e-5, max_steps=300)
    assert found.w.dtype == torch.float32
    assert found.converged.all()
    assert_solves(found, J, v, True, 1e-5)
