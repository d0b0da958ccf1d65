"""How a tied parameter may be written: every affine form against dense linear algebra on CVXPY's own values."""

from typing import Any

import cvxpy as cp
import numpy as np
import pytest
import torch

import opteq_cvx as oc
from opteq_cvx.errors import CompileError

Z = (2, 3)
RNG = np.random.default_rng(5)
NAMES: dict[str, Any] = vars(cp) | {
    "np": np, "oc": oc, "c": RNG.normal(size=Z), "row": RNG.normal(size=3), "A": RNG.normal(size=(4, 2)),
    "v": RNG.normal(size=2), "k": RNG.normal(size=2), "p": cp.Parameter(Z, pos=True, name="p", value=np.full(Z, 1.5)),
    "P": cp.Parameter((2, 2), name="P", value=RNG.normal(size=(2, 2))),
}  # fmt: skip

FORMS = (
    "z",
    "-z + c",
    "2 * z",
    "multiply(c, z)",
    "multiply(row, z)",
    "multiply(p, z)",
    "z / 3",
    "z / p",
    "A @ z",
    "P @ z",
    "z @ row",
    "v @ z",
    "row @ z.T",
    "z.T",
    "transpose(z) + 1",
    "vec(z, order='F')",
    "vec(z, order='C')",
    "reshape(z, (3, 2), order='F')",
    "reshape(z, (3, 2), order='C')",
    "z[:, 1]",
    "z[1, 2]",
    "z[[0, 1, 0], [2, 2, 1]]",
    "sum(z)",
    "sum(z, axis=0)",
    "sum(z, axis=1, keepdims=True)",
    "broadcast_to(sum(z, axis=0), (4, 3))",
    "hstack([z[0], z[1, :2]])",
    "vstack([z, c])",
    "diag(z[0])",
    "trace(z[:, :2])",
    "diff(z, axis=1)",
    "cumsum(z, axis=0)",
    "convolve(k, z[1])",
    "kron(P, z)",
    "z + p",
    "z[0] + sum(z)",
    "hstack([z[0], p[1], -z[1]])",
    "upper_tri(z[:, :2] @ P)",
    "concatenate([z, 2 * z], axis=0)",
)


def matrix_of(text: str, z: cp.Parameter) -> tuple[np.ndarray, np.ndarray, tuple[int, ...]]:
    """(F, f, shape) with form(z) = F z + f in C order, from CVXPY's values at unit vectors."""
    form = eval(text, NAMES | {"z": z})

    def value(at: np.ndarray) -> np.ndarray:
        z.value = at.reshape(Z)
        return np.asarray(form.value, dtype=float).reshape(-1)

    base = value(np.zeros(6))
    return np.stack([value(e) - base for e in np.eye(6)], axis=1), base, form.shape


WAYS = [*zip(FORMS, ("tilt", "square") * len(FORMS), strict=False), *((t, "quadratic form") for t in FORMS[:4])]


@pytest.mark.parametrize(("text", "way"), WAYS)
def test_an_affine_form_of_a_tied_parameter(text: str, way: str) -> None:
    """u = form(z) and z = M u + m: the equilibrium solves (I − F M) u = F m + f."""
    z = cp.Parameter(Z, name="z")
    f_matrix, f, shape = matrix_of(text, z)
    n = max(int(np.prod(shape)), 1)
    rng = np.random.default_rng(len(text))
    m_matrix = rng.normal(size=(6, n))
    m_matrix *= 0.4 / max(np.linalg.norm(m_matrix, 2) * np.linalg.norm(f_matrix, 2), 1e-9)
    m = rng.normal(size=6)
    u = cp.Variable(shape, name="u")
    form = eval(text, NAMES | {"z": z})
    if way == "tilt":
        cost = 0.5 * cp.sum_squares(u) - cp.sum(cp.multiply(form, u))
    elif way == "square":
        cost = cp.sum(cp.multiply(rng.uniform(0.8, 1.2, size=shape), cp.square(u - form)))
    else:
        flat = cp.vec(u - form, order="C")
        root = np.eye(n) + 0.1 * rng.normal(size=(n, n))
        cost = cp.quad_form(flat, root @ root.T)
    flat_u = cp.reshape(u, (n,), order="C")
    tie = cp.reshape(m_matrix @ flat_u + m, Z, order="C")
    problem = cp.Problem(cp.Minimize(cost))
    given = [q for q in problem.parameters() if q is not z]
    layer = oc.compile(problem, given, [u], ties={z: tie}, tolerance=1e-11).double()
    solution = layer.solve(*[torch.as_tensor(q.value) for q in given])
    assert solution.status.all_converged
    expected = np.linalg.solve(np.eye(n) - f_matrix @ m_matrix, f_matrix @ m + f)
    np.testing.assert_allclose(solution.values[0].detach().numpy().reshape(-1), expected, atol=1e-8)


@pytest.mark.parametrize("text", FORMS)
def test_a_tied_target_of_an_affine_form_of_the_variable(text: str) -> None:
    """min ½‖u‖² + ½‖G u + g − z‖² and z = M u + m: (I + GᵀG − GᵀM) u = Gᵀ(m − g)."""
    g_matrix, g, shape = matrix_of(text, cp.Parameter(Z, name="z"))
    n = max(int(np.prod(shape)), 1)
    rng = np.random.default_rng(len(text))
    m_matrix = rng.normal(size=(n, 6))
    m_matrix *= 0.4 / max(np.linalg.norm(m_matrix, 2) * np.linalg.norm(g_matrix, 2), 1e-9)
    m = rng.normal(size=n)
    u, z = cp.Variable(Z, name="u"), cp.Parameter(shape, name="z")
    cost = 0.5 * cp.sum_squares(u) + 0.5 * cp.sum_squares(eval(text, NAMES | {"z": u}) - z)
    tie = cp.reshape(m_matrix @ cp.reshape(u, (6,), order="C") + m, shape, order="C")
    problem = cp.Problem(cp.Minimize(cost))
    given = [q for q in problem.parameters() if q is not z]
    layer = oc.compile(problem, given, [u], ties={z: tie}, tolerance=1e-11).double()
    solution = layer.solve(*[torch.as_tensor(q.value) for q in given])
    assert solution.status.all_converged
    system = np.eye(6) + g_matrix.T @ (g_matrix - m_matrix)
    expected = np.linalg.solve(system, g_matrix.T @ (m - g))
    np.testing.assert_allclose(solution.values[0].detach().numpy().reshape(-1), expected, atol=1e-8)


@pytest.mark.parametrize(
    "text", ["square(z)", "abs(z)", "multiply(z, z)", "p / z", "exp(z)", "maximum(z, p)", "z @ z.T"]
)
def test_what_is_not_affine_in_a_tied_parameter_is_refused_by_name(text: str) -> None:
    z = cp.Parameter(Z, name="z", value=np.ones(Z))
    form = eval(text, NAMES | {"z": z})
    u = cp.Variable(form.shape, name="u")
    problem = cp.Problem(cp.Minimize(0.5 * cp.sum_squares(u) - cp.sum(cp.multiply(form, u))))
    tie = cp.broadcast_to(0.1 * cp.sum(u), Z)
    with pytest.raises(CompileError, match=r"z enters .* not affine"):
        oc.compile(problem, [q for q in problem.parameters() if q is not z], ties={z: tie})
