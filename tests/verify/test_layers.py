"""cvxpylayers through the exporter, against a gradient known in closed form; and its absence."""

import sys

import numpy as np
import pytest
import torch

from opteq_cvx.errors import MissingExtraError, UnsupportedError
from opteq_cvx.verify.layers import Reference
from tests.verify.programs import ridge, unit


def _tensors(values: dict[str, np.ndarray]) -> dict[str, torch.Tensor]:
    return {k: torch.from_numpy(np.array(v)) for k, v in values.items()}


def test_gradients_of_ridge_regression() -> None:
    program, values = ridge()
    v = torch.from_numpy(np.random.default_rng(2).normal(size=4))
    leaves = {k: t.requires_grad_() for k, t in _tensors(values).items()}
    A, b, mu = leaves["A"], leaves["b"], leaves["mu"]
    x = torch.linalg.solve(A.T @ A + mu * torch.eye(4, dtype=torch.float64), A.T @ b)
    truth = torch.autograd.grad(v @ x, [A, b, mu])
    found = Reference(program).gradient(_tensors(values), [v])
    np.testing.assert_allclose(found.outputs[0], x.detach(), atol=1e-9)
    for name, gradient in zip(("A", "b", "mu"), truth, strict=True):
        np.testing.assert_allclose(found.gradients[name], gradient, atol=1e-7)


def test_one_reference_serves_many_samples() -> None:
    program, values = unit()
    reference = Reference(program)
    v = [torch.ones(6, dtype=torch.float64)]
    first = reference.gradient(_tensors(values), v)
    second = reference.gradient(_tensors({**values, "x": -values["x"]}), v)
    again = Reference(program).gradient(_tensors({**values, "x": -values["x"]}), v)
    assert not torch.allclose(first.outputs[0], second.outputs[0])
    for name, gradient in again.gradients.items():
        np.testing.assert_allclose(second.gradients[name], gradient, atol=1e-7)


def test_a_singular_form_is_refused() -> None:
    program, values = unit()
    values["W"] = np.diag([1.0, 0.5, 0.5, 0.5, 0.5, 0.5])
    with pytest.raises(UnsupportedError, match="singular"):
        Reference(program).gradient(_tensors(values), [torch.ones(6, dtype=torch.float64)])


def test_its_absence_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [m for m in sys.modules if m.split(".")[0] == "cvxpylayers"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "meta_path", [_Blocked(), *sys.meta_path])
    program, values = ridge()
    with pytest.raises(MissingExtraError, match="reference"):
        Reference(program).gradient(_tensors(values), [torch.ones(4, dtype=torch.float64)])


class _Blocked:
    """An import finder that knows no cvxpylayers."""

    def find_spec(self, name: str, path: object = None, target: object = None) -> None:
        if name.split(".")[0] == "cvxpylayers":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
