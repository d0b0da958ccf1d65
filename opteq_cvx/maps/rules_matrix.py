"""Rules of matrix functions: quadratic forms, singular values, eigenvalues, determinants, inverses."""

import torch
from torch import Tensor

from opteq_cvx.ir.param import Apply
from opteq_cvx.maps.combine import flat, regroup
from opteq_cvx.maps.rule import Rule, Rules, elementwise
from opteq_cvx.maps.rules_reduction import sum_of_largest

ASYMMETRY = 1e-8
"""CVXPY's `tr_inv` is +∞ where the argument differs from its transpose by more than this."""
MARGIN = 64.0
"""How many units of rounding, of the largest entry, `cholesky` adds to the diagonal."""


def _symmetric(x: Tensor) -> Tensor:
    return (x + x.mT) / 2


def _eigenvalues(x: Tensor) -> Tensor:
    values: Tensor = torch.linalg.eigvalsh(_symmetric(x))
    return values


def _quad_form(node: Apply, x: Tensor, p: Tensor) -> Tensor:
    row = flat(x).unsqueeze(1)
    return regroup((row @ p * row).sum(dim=(1, 2)), node.shape)


def _matrix_frac(node: Apply, x: Tensor, p: Tensor) -> Tensor:
    columns = x.unsqueeze(-1) if x.ndim == 2 else x
    return regroup((torch.linalg.solve(p, columns) * columns).sum(dim=(1, 2)), node.shape)


def _log_det(node: Apply, x: Tensor) -> Tensor:
    sign, logarithm = torch.linalg.slogdet(_symmetric(x))
    return torch.where(sign > 0, logarithm, -torch.inf)


def _tr_inv(node: Apply, x: Tensor) -> Tensor:
    values = _eigenvalues(x)
    symmetric = torch.linalg.matrix_norm(x - x.mT) < ASYMMETRY
    inside = symmetric & (values > 0).all(dim=-1)
    safe = torch.where(inside.unsqueeze(-1), values, 1.0)
    return torch.where(inside, safe.reciprocal().sum(dim=-1), torch.inf)


def _singular_values(x: Tensor) -> Tensor:
    values: Tensor = torch.linalg.svdvals(x)
    return values


def _largest(node: Apply, x: Tensor) -> Tensor:
    return sum_of_largest(_eigenvalues(x), float(node.attrs["k"]))


def _smallest(node: Apply, x: Tensor) -> Tensor:
    return -sum_of_largest(-_eigenvalues(x), float(node.attrs["k"]))


def _gen_lambda_max(node: Apply, a: Tensor, b: Tensor) -> Tensor:
    factor = torch.linalg.cholesky(_symmetric(b))
    half = torch.linalg.solve_triangular(factor, _symmetric(a), upper=False)
    return _eigenvalues(torch.linalg.solve_triangular(factor, half.mT, upper=False))[..., -1]


def _condition_number(node: Apply, x: Tensor) -> Tensor:
    values = _eigenvalues(x)
    return values[..., -1] / values[..., 0]


def _von_neumann_entr(node: Apply, x: Tensor) -> Tensor:
    return regroup(torch.special.entr(_eigenvalues(x)).sum(dim=-1), node.shape)


def _quantum_rel_entr(node: Apply, x: Tensor, y: Tensor) -> Tensor:
    w1, v = torch.linalg.eigh(_symmetric(x))
    w2, w = torch.linalg.eigh(_symmetric(y))
    weights = (w1.unsqueeze(-2) @ (v.mT @ w).square()).squeeze(-2)
    return regroup(-torch.special.entr(w1).sum(dim=-1) - torch.xlogy(weights, w2).sum(dim=-1), node.shape)


def _eye_minus_inv(node: Apply, x: Tensor) -> Tensor:
    eye = torch.eye(x.shape[-1], dtype=x.dtype, device=x.device)
    inverse: Tensor = torch.linalg.inv(eye - x)
    return inverse


def _gmatmul(node: Apply, a: Tensor, x: Tensor) -> Tensor:
    logarithm = x.log().unsqueeze(-1) if x.ndim == 2 else x.log()
    return regroup((a @ logarithm).exp(), node.shape)


def _dist_ratio(node: Apply, x: Tensor, a: Tensor, b: Tensor) -> Tensor:
    return regroup(flat(x - a).norm(dim=1) / flat(x - b).norm(dim=1), node.shape)


def _cholesky(node: Apply, x: Tensor) -> Tensor:
    """The lower factor of a semidefinite matrix, moved into the interior by rounding; NaN where it is indefinite."""
    n = x.shape[-1]
    scale = x.diagonal(dim1=-2, dim2=-1).abs().amax(dim=-1).detach()[..., None, None]
    shift = MARGIN * torch.finfo(x.dtype).eps * scale * torch.eye(n, dtype=x.dtype, device=x.device)
    lower, info = torch.linalg.cholesky_ex(_symmetric(x) + shift)
    return torch.where(info[..., None, None] == 0, lower, torch.nan)


def _inverse_factor(node: Apply, x: Tensor) -> Tensor:
    """L⁻¹ with LLᵀ = x, L lower triangular; NaN where x is not positive definite."""
    lower, info = torch.linalg.cholesky_ex(_symmetric(x))
    safe = torch.where(info[..., None, None] == 0, lower, torch.nan)
    inverse: Tensor = torch.linalg.solve_triangular(
        safe, torch.eye(x.shape[-1], dtype=x.dtype, device=x.device), upper=False
    )
    return inverse


_nuclear: Rule = elementwise(lambda x: _singular_values(x).sum(dim=-1))

RULES: Rules = {
    "cholesky": _cholesky,
    "inverse_factor": _inverse_factor,
    "quad_form": _quad_form,
    "matrix_frac": _matrix_frac,
    "log_det": _log_det,
    "tr_inv": _tr_inv,
    "norm_nuc": _nuclear,
    "normNuc": _nuclear,
    "sigma_max": elementwise(lambda x: _singular_values(x)[..., 0]),
    "lambda_max": elementwise(lambda x: _eigenvalues(x)[..., -1]),
    "lambda_min": elementwise(lambda x: _eigenvalues(x)[..., 0]),
    "lambda_sum_largest": _largest,
    "lambda_sum_smallest": _smallest,
    "gen_lambda_max": _gen_lambda_max,
    "condition_number": _condition_number,
    "pf_eigenvalue": elementwise(lambda x: torch.linalg.eigvals(x).abs().amax(dim=-1)),
    "von_neumann_entr": _von_neumann_entr,
    "quantum_rel_entr": _quantum_rel_entr,
    "eye_minus_inv": _eye_minus_inv,
    "gmatmul": _gmatmul,
    "dist_ratio": _dist_ratio,
}
