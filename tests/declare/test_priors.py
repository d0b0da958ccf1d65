"""Priors: their values against NumPy, their convexity against CVXPY, and denoising with each against Clarabel."""

import pkgutil
from collections.abc import Callable, Sequence
from typing import Any

import cvxpy as cp
import numpy as np
import pytest
import torch

import opteq_cvx as oc
from opteq_cvx.errors import InputError

EDGES = [(0, 1), (1, 2), (3, 5), (2, 4)]
EDGE_WEIGHTS = np.array([1.0, 2.0, 0.5, 3.0])
GROUPS = [[0, 1], [2, 3], [4, 5]]
UNEVEN = [[0], [1, 2], [3, 4, 5]]
OVERLAPPING = [[0, 1, 2], [2, 3, 4], [4, 5, 0]]
SLOPE = [3.0, 2.0, 2.0, 1.0, 1.0, 0.0]
LENGTH, ROWS, COLUMNS = 6, 3, 4
P = oc.priors

Term = Callable[[Any], cp.Expression]
Oracle = Callable[[np.ndarray], float]


def by_groups(groups: Sequence[Sequence[int]]) -> Oracle:
    return lambda v: sum(np.sqrt(len(g)) * np.linalg.norm(v[list(g)]) for g in groups)


def by_edges(power: int) -> Oracle:
    pairs = list(zip(EDGES, EDGE_WEIGHTS, strict=True))
    return lambda v: sum(w * np.abs(v[a] - v[b]) ** power / power for (a, b), w in pairs)


def pixel_gradients(v: np.ndarray) -> float:
    """Isotropic total variation, pixel by pixel."""
    total = 0.0
    for i in range(v.shape[0]):
        for j in range(v.shape[1]):
            down = v[i + 1, j] - v[i, j] if i + 1 < v.shape[0] else 0.0
            right = v[i, j + 1] - v[i, j] if j + 1 < v.shape[1] else 0.0
            total += np.hypot(down, right)
    return total


VECTORS: dict[str, tuple[Term, Oracle]] = {
    "sparsity": (P.sparsity, lambda v: np.linalg.norm(v, 1)),
    "sparsity weighted": (lambda u: P.sparsity(u, np.arange(6.0)), lambda v: np.arange(6.0) @ np.abs(v)),
    "elastic_net": (lambda u: P.elastic_net(u, 0.3), lambda v: 0.3 * np.linalg.norm(v, 1) + 0.35 * v @ v),
    "ordered_sparsity": (lambda u: P.ordered_sparsity(u, SLOPE), lambda v: np.sort(np.abs(v))[::-1] @ SLOPE),
    "group_sparsity even": (lambda u: P.group_sparsity(u, GROUPS), by_groups(GROUPS)),
    "group_sparsity uneven": (lambda u: P.group_sparsity(u, UNEVEN), by_groups(UNEVEN)),
    "group_sparsity overlapping": (lambda u: P.group_sparsity(u, OVERLAPPING), by_groups(OVERLAPPING)),
    "fused_sparsity": (
        lambda u: P.fused_sparsity(u, 0.5),
        lambda v: np.linalg.norm(v, 1) + 0.5 * np.linalg.norm(np.diff(v), 1),
    ),
    "ridge": (lambda u: P.ridge(u, 0.5), lambda v: 0.5 * np.sum((v - 0.5) ** 2)),
    "smoothness": (P.smoothness, lambda v: 0.5 * np.sum(np.diff(v) ** 2)),
    "smoothness of order 2": (lambda u: P.smoothness(u, 2), lambda v: 0.5 * np.sum(np.diff(v, 2) ** 2)),
    "trend": (P.trend, lambda v: np.linalg.norm(np.diff(v, 2), 1)),
    "total_variation": (P.total_variation, lambda v: np.linalg.norm(np.diff(v), 1)),
    "graph_smoothness": (lambda u: P.graph_smoothness(u, EDGES, EDGE_WEIGHTS), by_edges(2)),
    "graph_total_variation": (lambda u: P.graph_total_variation(u, EDGES, EDGE_WEIGHTS), by_edges(1)),
}
MATRICES: dict[str, tuple[Term, Oracle]] = {
    "group_sparsity rows": (P.group_sparsity, lambda v: np.linalg.norm(v, axis=1).sum()),
    "group_sparsity columns": (lambda u: P.group_sparsity(u, axis=0), lambda v: np.linalg.norm(v, axis=0).sum()),
    "total_variation_2d": (P.total_variation_2d, pixel_gradients),
    "total_variation_2d anisotropic": (
        lambda u: P.total_variation_2d(u, isotropic=False),
        lambda v: np.abs(np.diff(v, axis=0)).sum() + np.abs(np.diff(v, axis=1)).sum(),
    ),
    "low_rank": (P.low_rank, lambda v: np.linalg.svd(v, compute_uv=False).sum()),
    "graph_smoothness": (
        lambda u: P.graph_smoothness(u, [(0, 1), (1, 2)]),
        lambda v: 0.5 * np.trace(v.T @ np.array([[1.0, -1, 0], [-1, 2, -1], [0, -1, 1]]) @ v),
    ),
}
POSITIVE: dict[str, tuple[Term, Oracle]] = {
    "entropy": (P.entropy, lambda v: np.sum(v * np.log(v))),
    "relative_entropy": (
        lambda u: P.relative_entropy(u, np.full(LENGTH, 0.2)),
        lambda v: np.sum(v * np.log(v / 0.2) - v + 0.2),
    ),
}
SETS: dict[str, tuple[tuple[int, ...], Callable[[Any], list[cp.Constraint]]]] = {
    "nonnegative": ((LENGTH,), P.nonnegative),
    "box": ((LENGTH,), lambda u: P.box(u, -0.3, 0.4)),
    "simplex": ((LENGTH,), P.simplex),
    "simplex of rows": ((ROWS, COLUMNS), lambda u: P.simplex(u, 2.0, axis=1)),
    "l1_ball": ((LENGTH,), P.l1_ball),
    "l2_ball": ((LENGTH,), P.l2_ball),
    "l2_ball of a matrix": ((ROWS, COLUMNS), P.l2_ball),
    "monotone": ((LENGTH,), P.monotone),
    "monotone decreasing": ((ROWS, COLUMNS), lambda u: P.monotone(u, decreasing=True)),
    "semidefinite": ((ROWS, ROWS), P.semidefinite),
    "correlation": ((ROWS, ROWS), P.correlation),
}
TERMS = {
    **{f"{k}|vector": ((LENGTH,), *v) for k, v in VECTORS.items()},
    **{f"{k}|matrix": ((ROWS, COLUMNS), *v) for k, v in MATRICES.items()},
    **{f"{k}|positive": ((LENGTH,), *v) for k, v in POSITIVE.items()},
}


@pytest.mark.parametrize("name", TERMS)
def test_a_term_is_convex_and_has_the_stated_value(name: str) -> None:
    shape, term, oracle = TERMS[name]
    u = cp.Variable(shape)
    expression = term(u)
    assert expression.is_convex()
    assert expression.shape == ()
    rng = np.random.default_rng(0)
    for _ in range(3):
        u.value = rng.uniform(0.1, 1.0, shape) if "positive" in name else rng.normal(size=shape)
        assert float(expression.value) == pytest.approx(oracle(u.value), rel=1e-12)


@pytest.mark.parametrize("name", TERMS)
def test_denoising_with_a_term_agrees_with_the_exact_solver(name: str) -> None:
    shape, term, _ = TERMS[name]
    x, u = oc.Input(shape, name="x"), cp.Variable(shape, name="u")
    lam = oc.Weight(name="lam", nonneg=True, init=0.4)
    layer = oc.compile(cp.Problem(cp.Minimize(0.5 * cp.sum_squares(u - x) + lam * term(u))))
    report = oc.verify(layer, sample(shape), cvxpylayers=False)
    assert report.ok, str(report)


@pytest.mark.parametrize("name", SETS)
def test_projecting_onto_a_set_agrees_with_the_exact_solver(name: str) -> None:
    shape, constraints = SETS[name]
    u = cp.Variable(shape, name="u", symmetric="semidefinite" in name or "correlation" in name)
    x = oc.Input(shape, name="x")
    layer = oc.compile(cp.Problem(cp.Minimize(0.5 * cp.sum_squares(u - x)), constraints(u)))
    report = oc.verify(layer, sample(shape), cvxpylayers=False)
    assert report.ok, str(report)


def sample(shape: tuple[int, ...]) -> torch.Tensor:
    return torch.randn(2, *shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64)


def test_the_laplacian_is_that_of_the_graph() -> None:
    root = P.incidence(EDGES, LENGTH, EDGE_WEIGHTS, root=True).toarray()
    adjacency = np.zeros((LENGTH, LENGTH))
    for (a, b), w in zip(EDGES, EDGE_WEIGHTS, strict=True):
        adjacency[a, b] = adjacency[b, a] = w
    np.testing.assert_allclose(root.T @ root, np.diag(adjacency.sum(0)) - adjacency, atol=1e-12)


def test_every_public_prior_is_in_a_table() -> None:
    used = {name.split("|")[0].split(" ")[0] for name in (*TERMS, *SETS)}
    assert used == set(P.__all__) - {"incidence"}
    assert pkgutil.resolve_name("opteq_cvx:priors") is P


@pytest.mark.parametrize(
    "bad",
    [
        lambda u: P.elastic_net(u, 1.5),
        lambda u: P.group_sparsity(u),
        lambda u: P.group_sparsity(u, [[0, 6]]),
        lambda u: P.smoothness(u, 6),
        lambda u: P.total_variation_2d(u),
        lambda u: P.low_rank(u),
        lambda u: P.graph_smoothness(u, [(0, 6)]),
        lambda u: P.graph_smoothness(u, [(0, 1)], [-1.0]),
        lambda u: P.graph_smoothness(u, [(0, 1)], [1.0, 2.0]),
    ],
)
def test_misuse_is_told_with_its_remedy(bad: Callable[[cp.Variable], object]) -> None:
    with pytest.raises(InputError, match="Fix:"):
        bad(cp.Variable(LENGTH))
