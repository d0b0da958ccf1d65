"""Jacobians of proxes of matrices, as Newton steps use them, against differences, also where spectra coincide."""

from typing import Any

import pytest
import torch
from torch import Tensor

from opteq_cvx.atoms import Atom, atom, registry
from opteq_cvx.atoms.lifting import Lifting

OF_EIGENVALUES: dict[str, tuple[str, dict[str, Any], dict[str, float]]] = {
    "psd": ("psd", {}, {}),
    "lambda_max": ("lambda_max", {}, {}),
    "lambda_sum_largest": ("lambda_sum_largest", {"k": 2.0}, {}),
    "neg_log_det": ("neg_log_det", {}, {}),
    "neg_von_neumann_entr": ("neg_von_neumann_entr", {}, {}),
    "tr_inv": ("tr_inv", {}, {}),
    "level of −log det": ("level_set", {"f": "neg_log_det", "axes": (-2, -1)}, {"level": -1.0}),
    "level of λ_max": ("level_set", {"f": "lambda_max", "axes": (-2, -1)}, {"level": 0.6}),
}
OF_SINGULAR_VALUES: dict[str, tuple[str, dict[str, Any], dict[str, float]]] = {
    "norm_nuc": ("norm_nuc", {}, {}),
    "sigma_max": ("sigma_max", {}, {}),
    "level of norm_nuc": ("level_set", {"f": "norm_nuc", "axes": (-2, -1)}, {"level": 1.3}),
}
VALUES = ([2.0, 1.1, -0.4, -1.0], [2.0, 2.0, -1.0, -1.0], [3.0, 3.0 + 1e-9, 3.0, -2.0], [2.0] * 4, [-3.0] * 4)
LENGTHS = ([2.0, 1.4, 0.9, 0.3], [2.0, 2.0, 0.3, 0.3], [2.0, 2.0 + 1e-9, 0.3, 0.0], [2.0] * 3 + [0.0], [1e-9] * 4)
STEP = 0.45
H, CLOSE = 1e-6, 2e-8  # central differences with this step are accurate to about 1e-9


def drawn(values: list[float], shape: tuple[int, int], generator: torch.Generator) -> Tensor:
    """A matrix with these singular values, or symmetric with these eigenvalues where it is square."""
    left, right = (
        torch.linalg.qr(torch.randn(n, n, dtype=torch.float64, generator=generator)).Q[:, : min(shape)] for n in shape
    )
    right = left if shape[0] == shape[1] else right
    return left @ torch.diag(torch.tensor(values, dtype=torch.float64)) @ right.mT


def agrees(row: tuple[str, dict[str, Any], dict[str, float]], v: Tensor) -> None:
    """The Jacobian times a direction is the difference of the prox, and it is symmetric."""
    f: Atom = atom(row[0]).from_static(row[1])
    data = {k: torch.full((1, 1, 1), number, dtype=v.dtype) for k, number in row[2].items()}
    step = torch.full((1, 1, 1), STEP, dtype=v.dtype)
    found = f.jacobian(v, step, data)
    assert found is not None
    assert found.shape == (*v.shape[:-2], v[0].numel(), v[0].numel())
    torch.testing.assert_close(found, found.mT, rtol=1e-9, atol=1e-9)
    for i in range(v[0].numel()):
        h = torch.zeros_like(v)
        h.flatten(1)[:, i] = H
        difference = (f.prox(v + h, step, data) - f.prox(v - h, step, data)).flatten(1) / (2 * H)
        torch.testing.assert_close(found[..., i], difference, rtol=0.0, atol=CLOSE)


@pytest.mark.parametrize("name", OF_EIGENVALUES)
def test_jacobian_of_a_function_of_eigenvalues(name: str, generator: torch.Generator) -> None:
    agrees(OF_EIGENVALUES[name], torch.stack([drawn(values, (4, 4), generator) for values in VALUES]))


@pytest.mark.parametrize("shape", [(4, 6), (5, 4), (4, 4)], ids=str)
@pytest.mark.parametrize("name", OF_SINGULAR_VALUES)
def test_jacobian_of_a_function_of_singular_values(
    name: str, shape: tuple[int, int], generator: torch.Generator
) -> None:
    agrees(OF_SINGULAR_VALUES[name], torch.stack([drawn(values, shape, generator) for values in LENGTHS]))


def test_every_function_of_spectra_is_in_the_tables() -> None:
    names = {row[0] for row in (*OF_EIGENVALUES.values(), *OF_SINGULAR_VALUES.values())}
    assert {cls.name for cls in registry() if issubclass(cls, Lifting)} <= names
