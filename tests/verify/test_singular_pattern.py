"""Systems that are singular by their pattern never reach SuperLU, which corrupts memory on some of them."""

import importlib
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp

polish = importlib.import_module("opteq_cvx.verify.polish")


def stored(dense: np.ndarray[Any, Any]) -> sp.csc_array:
    """All entries, zeros too."""
    n = dense.shape[0]
    return sp.csc_array((dense.T.ravel(), np.tile(np.arange(n), n), np.arange(0, n * n + 1, n)), shape=(n, n))


@pytest.mark.parametrize("lost", [[3], [0, 5, 7]])
def test_the_step_is_that_of_least_norm(lost: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: object) -> None:
        raise AssertionError("SuperLU was asked")

    monkeypatch.setattr(polish.spla, "splu", never)
    rng = np.random.default_rng(0)
    dense = rng.normal(size=(8, 8))
    dense[lost] = 0.0
    right = dense @ rng.normal(size=8)
    step = polish._solve(stored(dense), right, 1.0)
    np.testing.assert_allclose(step, np.linalg.pinv(dense) @ right, atol=1e-12)


def test_stored_zeros_of_a_regular_matrix_do_no_harm() -> None:
    rng = np.random.default_rng(1)
    dense = np.where(rng.random((8, 8)) < 0.4, 0.0, 1e-3 * rng.normal(size=(8, 8))) + np.eye(8)
    right = 1e-3 * rng.normal(size=8)
    np.testing.assert_allclose(polish._solve(stored(dense), right, 1.0), np.linalg.solve(dense, right), rtol=1e-12)
