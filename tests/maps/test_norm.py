"""norm_bound: never below the spectral norm, also where it is not exact."""

import math

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from torch import Tensor

from opteq_cvx.ir.frozen import freeze_index
from opteq_cvx.ir.linmap import Compose, Diagonal, Gather, LeftMul, LinearMap, Sparse, SumMap
from opteq_cvx.ir.param import Leaf, Stage, const
from opteq_cvx.maps import norm as module
from opteq_cvx.maps.evaluate import Environment
from opteq_cvx.maps.operator import dense, matrix_norm_bound, norm_bound

N = 30
W, V = Leaf("W", (N, N), Stage.WEIGHT), Leaf("V", (N, N), Stage.WEIGHT)
UPPER = freeze_index([*range(N), *[-1] * N])
LOWER = freeze_index([*[-1] * N, *range(N)])

LOOSE: dict[str, tuple[LinearMap, float]] = {
    # name: (map, a ceiling for bound / norm, from the size of random factors)
    "coefficient": (LeftMul(W, (N,)), 4.0),
    "sparse": (Sparse(sp.csr_array(np.triu(np.ones((N, N)))), (N,), (N,)), 1.7),
    "sparse coefficient": (LeftMul(const(sp.csr_array(np.triu(np.ones((N, N))))), (N,)), 1.7),
    "product": (Compose((LeftMul(W, (N,)), LeftMul(V, (N,)))), 16.0),
    "sum": (SumMap((LeftMul(W, (N,)), LeftMul(V, (N,)))), 8.0),
    "stack": (
        SumMap(
            (
                Compose((Gather(UPPER, (N,)), LeftMul(W, (N,)))),
                Compose((Diagonal(const(-1.0), (2 * N,)), Gather(LOWER, (N,)), LeftMul(V, (N,)))),
            )
        ),
        5.0,
    ),
}


def environment(rows: int, dtype: torch.dtype = torch.float64) -> Environment:
    """Random W and V."""
    values = {name: torch.randn(rows, N, N, dtype=dtype) for name in ("W", "V")}
    return Environment(values, dtype, "cpu")


def norms(linear: LinearMap, env: Environment) -> Tensor:
    """The spectral norms by singular values, in float64."""
    return torch.linalg.matrix_norm(dense(linear, env).double(), ord=2)


@pytest.mark.parametrize("name", LOOSE)
@pytest.mark.parametrize("rows", [1, 4])
def test_bounds_where_nothing_is_exact(name: str, rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the exact branch shut, the inequalities alone stay above the norm, and within a known factor."""
    monkeypatch.setattr(module, "EXACT_SIDE", 8)
    linear, ceiling = LOOSE[name]
    env = environment(rows)
    bound, norm = norm_bound(linear, env), norms(linear, env)
    assert (bound >= norm).all()
    assert (bound <= ceiling * norm).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e30])
def test_exact_norms_are_rounded_up(dtype: torch.dtype, scale: float) -> None:
    """The bound is above the norm by little more than the dtype's rounding, at any scale."""
    a = torch.randn(20, 17, 40, dtype=dtype) * scale
    bound, norm = matrix_norm_bound(a), torch.linalg.matrix_norm(a.double(), ord=2)
    assert bound.dtype == dtype
    assert (bound.double() >= norm).all()
    assert (bound.double() <= norm * (1 + 4 * torch.finfo(dtype).eps + 1e-11)).all()


def test_a_stack_of_orthogonal_maps() -> None:
    """‖[Q1; Q2]‖ = √2, not 2, even where the sum of squares is all that is known."""
    linear, _ = LOOSE["stack"]
    q = torch.linalg.qr(torch.randn(2, N, N, dtype=torch.float64))[0]
    env = Environment({"W": q[:1], "V": q[1:]}, torch.float64, "cpu")
    assert float(norm_bound(linear, env)) == pytest.approx(math.sqrt(2), rel=1e-10)


def test_a_sample_that_is_not_finite_has_no_bound() -> None:
    """NaN and infinity give +∞ for their sample only."""
    values = torch.eye(N, dtype=torch.float64).repeat(3, 1, 1)
    values[1, 0, 0], values[2, 3, 4] = math.nan, math.inf
    env = Environment({"W": values, "V": values}, torch.float64, "cpu")
    bound = norm_bound(LeftMul(W, (N,)), env)
    assert float(bound[0]) == pytest.approx(1.0)
    assert torch.isinf(bound[1:]).all()
    diagonal = norm_bound(Diagonal(W, (N, N)), env)
    assert float(diagonal[0]) == pytest.approx(1.0)
    assert torch.isinf(diagonal[1:]).all()


def test_it_carries_no_gradient() -> None:
    """The bound decides a step, which has no gradient."""
    value = torch.randn(1, N, N, dtype=torch.float64, requires_grad=True)
    env = Environment({"W": value, "V": value}, torch.float64, "cpu")
    assert not norm_bound(LOOSE["sum"][0], env).requires_grad
