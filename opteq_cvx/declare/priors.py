"""The field's usual priors, written in CVXPY: what is known of a solution, as terms and constraints of its program.

A term is a convex expression to add to the objective with a weight, a set is a list of constraints. Both are plain
CVXPY: exact, in any problem, solvable without this package. Variables may be affine expressions.

    fit = 0.5 * cp.sum_squares(u - x)
    cp.Problem(cp.Minimize(fit + lam * oc.priors.total_variation(u)), oc.priors.nonnegative(u))
"""

from collections.abc import Sequence
from typing import Any

import cvxpy as cp
import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from opteq_cvx.errors import InputError, message

CVX: Any = cp
Numbers = npt.ArrayLike
Edges = Sequence[tuple[int, int]] | npt.NDArray[np.integer[Any]]
Sets = list[cp.Constraint]

__all__ = [
    "box",
    "correlation",
    "elastic_net",
    "entropy",
    "fused_sparsity",
    "graph_smoothness",
    "graph_total_variation",
    "group_sparsity",
    "incidence",
    "l1_ball",
    "l2_ball",
    "low_rank",
    "monotone",
    "nonnegative",
    "ordered_sparsity",
    "relative_entropy",
    "ridge",
    "semidefinite",
    "simplex",
    "smoothness",
    "sparsity",
    "total_variation",
    "total_variation_2d",
    "trend",
]


# --- sparsity ------------------------------------------------------------------------------------------------


def sparsity(u: Any, weights: Any = None) -> cp.Expression:
    """Few nonzero entries: ‖u‖₁, or Σ wᵢ|uᵢ| with `weights` ≥ 0 of the shape of u.

    Source: Tibshirani, *Regression shrinkage and selection via the lasso*, J. R. Stat. Soc. B 58, 1996; weights:
    Candès, Wakin, Boyd, *Enhancing sparsity by reweighted ℓ1 minimization*, 2008.
    """
    return _sum(CVX.abs(u)) if weights is None else _sum(CVX.multiply(weights, CVX.abs(u)))


def elastic_net(u: Any, mix: float = 0.5) -> cp.Expression:
    """Few nonzero entries, correlated ones together: a‖u‖₁ + ½(1 − a)‖u‖², a = `mix` in [0, 1].

    Source: Zou, Hastie, *Regularization and variable selection via the elastic net*, 2005.
    """
    if not 0 <= mix <= 1:
        raise InputError(message(f"elastic_net(mix={mix})", "a number in [0, 1]", "pass e.g. mix=0.5"))
    return _of(mix * sparsity(u) + 0.5 * (1.0 - mix) * CVX.sum_squares(u))


def ordered_sparsity(u: Any, weights: Numbers) -> cp.Expression:
    """SLOPE: Σ w₍ᵢ₎|u|₍ᵢ₎, the largest entry weighed most; `weights` ≥ 0, one per entry.

    Source: Bogdan, van den Berg, Sabatti, Su, Candès, *SLOPE*, Ann. Appl. Stat. 9, 2015.
    """
    return _of(CVX.dotsort(CVX.abs(u), np.asarray(weights, dtype=np.float64)))


def group_sparsity(u: Any, groups: Sequence[Sequence[int]] | None = None, axis: int = 1) -> cp.Expression:
    """Few nonzero groups: Σ_g √|g| ‖u_g‖₂.

    Args:
        u: a vector with `groups` of its indices (they may overlap), or a matrix (..., rows, columns).
        groups: None: the rows of a matrix (`axis=1`) or its columns (`axis=0`) are the groups, without the factor √|g|.
        axis: over which the norm is taken where `groups` is None.

    Source: Yuan, Lin, *Model selection and estimation in regression with grouped variables*, J. R. Stat. Soc. B 68,
    2006, eq. 2.1.
    """
    if groups is None:
        _need(u, 2, "group_sparsity", "pass groups= for a vector")
        return _sum(CVX.norm(u, 2, axis=axis))
    size = int(np.prod(u.shape))
    for g in groups:
        if not len(g) or min(g) < 0 or max(g) >= size:
            raise InputError(message(f"the group {list(g)[:8]}", f"indices from 0 to {size - 1}", "correct the group"))
    flat = u if u.ndim == 1 else CVX.vec(u, order="C")
    lengths = {len(g) for g in groups}
    if len(lengths) == 1:  # one matrix of groups: one prox for all of them
        stacked = CVX.reshape(flat[np.concatenate([np.asarray(g) for g in groups])], (len(groups), -1), order="C")
        return _of(float(np.sqrt(lengths.pop())) * CVX.sum(CVX.norm(stacked, 2, axis=1)))
    parts = [float(np.sqrt(len(g))) * CVX.norm(flat[np.asarray(g)], 2) for g in groups]
    return _of(sum(parts[1:], parts[0]))


def fused_sparsity(u: Any, ratio: Any = 1.0) -> cp.Expression:
    """Few nonzero entries and few jumps: ‖u‖₁ + ρ Σ|uᵢ₊₁ − uᵢ|, ρ = `ratio` ≥ 0.

    Source: Tibshirani, Saunders, Rosset, Zhu, Knight, *Sparsity and smoothness via the fused lasso*, 2005.
    """
    return _of(sparsity(u) + ratio * total_variation(u))


# --- smoothness ----------------------------------------------------------------------------------------------


def ridge(u: Any, center: Any = 0.0) -> cp.Expression:
    """Small entries, or entries near `center`: ½‖u − r‖².

    Source: Hoerl, Kennard, *Ridge regression*, Technometrics 12, 1970.
    """
    return _of(0.5 * CVX.sum_squares(u - center))


def smoothness(u: Any, order: int = 1) -> cp.Expression:
    """A smooth sequence: ½‖Dᵏu‖², Dᵏ the differences of `order` k along the first axis.

    Source: Whittaker, *On a new method of graduation*, 1923; k = 2: Hodrick, Prescott, 1997.
    """
    return _of(0.5 * CVX.sum_squares(_differences(u, order, "smoothness")))


def trend(u: Any, order: int = 2) -> cp.Expression:
    """A piecewise polynomial of degree k − 1: ‖Dᵏu‖₁; k = `order` = 2 is ℓ1 trend filtering.

    Source: Kim, Koh, Boyd, Gorinevsky, *ℓ1 trend filtering*, SIAM Rev. 51, 2009, eq. 4.
    """
    return _of(CVX.norm1(_differences(u, order, "trend")))


def total_variation(u: Any) -> cp.Expression:
    """A piecewise constant sequence: Σ|uᵢ₊₁ − uᵢ| (along the first axis).

    Source: Rudin, Osher, Fatemi, *Nonlinear total variation based noise removal algorithms*, Physica D 60, 1992.
    """
    return _of(CVX.norm1(_differences(u, 1, "total_variation")))


def total_variation_2d(u: Any, *, isotropic: bool = True) -> cp.Expression:
    """A piecewise constant image (rows, columns): Σ √(∂₁u² + ∂₂u²), or Σ|∂₁u| + |∂₂u| where not `isotropic`.

    Isotropic: forward differences, zero across the border, as in the source.
    Source: Chambolle, *An algorithm for total variation minimization and applications*, J. Math. Imaging Vis. 20,
    2004, section 2.
    """
    _need(u, 2, "total_variation_2d", "reshape it to (rows, columns)")
    down, right = u[1:, :] - u[:-1, :], u[:, 1:] - u[:, :-1]
    if not isotropic:
        return _of(CVX.norm1(down) + CVX.norm1(right))
    inner = CVX.vstack([CVX.vec(down[:, :-1], order="C"), CVX.vec(right[:-1, :], order="C")])
    return _of(CVX.sum(CVX.norm(inner, 2, axis=0)) + CVX.norm1(down[:, -1]) + CVX.norm1(right[-1, :]))


def graph_smoothness(u: Any, edges: Edges, weights: Numbers | None = None) -> cp.Expression:
    """Neighbors alike: ½ Σ_{(a,b)} w_ab ‖u_a − u_b‖² = ½ tr(uᵀLu), L the graph's Laplacian.

    Args:
        u: (nodes,) or (nodes, features).
        edges: pairs of nodes, each undirected edge once.
        weights: w ≥ 0, one per edge; None: 1.

    Source: Zhu, Ghahramani, Lafferty, *Semi-supervised learning using Gaussian fields and harmonic functions*, 2003.
    """
    return _of(0.5 * CVX.sum_squares(incidence(edges, u.shape[0], weights, root=True) @ u))


def graph_total_variation(u: Any, edges: Edges, weights: Numbers | None = None) -> cp.Expression:
    """Neighbors mostly equal: Σ_{(a,b)} w_ab ‖u_a − u_b‖₁. Arguments as `graph_smoothness`.

    Source: Wang, Sharpnack, Smola, Tibshirani, *Trend filtering on graphs*, J. Mach. Learn. Res. 17, 2016, section 2.
    """
    return _of(CVX.norm1(incidence(edges, u.shape[0], weights) @ u))


def incidence(edges: Edges, nodes: int, weights: Numbers | None = None, *, root: bool = False) -> sp.csr_array:
    """The weighted incidence matrix (edges, nodes): row (a, b) is w(e_a − e_b), or √w(e_a − e_b) with `root`.

    Raises:
        InputError: an edge that names no node, or negative weights.
    """
    pairs = np.asarray(edges, dtype=np.int64).reshape(-1, 2)
    if pairs.size and (pairs.min() < 0 or pairs.max() >= nodes):
        raise InputError(message("an edge with an unknown node", f"nodes from 0 to {nodes - 1}", "correct the edges"))
    w = np.ones(len(pairs)) if weights is None else np.asarray(weights, dtype=np.float64)
    if w.shape != (len(pairs),) or (w < 0).any():
        expected = f"{len(pairs)} nonnegative numbers"
        raise InputError(message(f"edge weights of shape {w.shape}", expected, "pass one weight ≥ 0 for each edge"))
    values = np.sqrt(w) if root else w
    rows = np.arange(len(pairs))
    entries = (np.concatenate([values, -values]), (np.concatenate([rows, rows]), pairs.T.reshape(-1)))
    return sp.csr_array(sp.coo_array(entries, shape=(len(pairs), nodes)))


# --- spectra and distributions -------------------------------------------------------------------------------


def low_rank(U: Any) -> cp.Expression:
    """A matrix of low rank: Σ σᵢ(U), the nuclear norm.

    Source: Fazel, Hindi, Boyd, *A rank minimization heuristic*, 2001; Recht, Fazel, Parrilo, SIAM Rev. 52, 2010.
    """
    _need(U, 2, "low_rank", "reshape it to a matrix")
    return _of(CVX.normNuc(U))


def entropy(p: Any) -> cp.Expression:
    """Spread-out probabilities: Σ pᵢ ln pᵢ, the negative entropy. Source: Jaynes, *Information theory*, 1957."""
    return _of(-CVX.sum(CVX.entr(p)))


def relative_entropy(p: Any, reference: Any) -> cp.Expression:
    """Close to a reference distribution: Σ pᵢ ln(pᵢ/qᵢ) − pᵢ + qᵢ. Source: Kullback, Leibler, 1951."""
    return _sum(CVX.kl_div(p, reference))


# --- sets ----------------------------------------------------------------------------------------------------


def nonnegative(u: Any) -> Sets:
    """u ≥ 0. Source: Lee, Seung, *Learning the parts of objects by non-negative matrix factorization*, 1999."""
    return [u >= 0]


def box(u: Any, lower: Any, upper: Any) -> Sets:
    """lower ≤ u ≤ upper. Source: Parikh, Boyd, *Proximal Algorithms*, 2014, section 6.2.4."""
    return [u >= lower, u <= upper]


def simplex(u: Any, total: Any = 1.0, axis: int | None = None) -> Sets:
    """u ≥ 0, Σu = total; along `axis` each row or column of its own. Source: Held, Wolfe, Crowder, 1974."""
    return [u >= 0, CVX.sum(u, axis=axis) == total]


def l1_ball(u: Any, radius: Any = 1.0) -> Sets:
    """‖u‖₁ ≤ radius. Source: Tibshirani 1996, the constrained lasso."""
    return [CVX.norm1(u) <= radius]


def l2_ball(u: Any, radius: Any = 1.0) -> Sets:
    """‖u‖₂ ≤ radius (Frobenius for a matrix). Source: Parikh, Boyd, *Proximal Algorithms*, 2014, section 6.5.1."""
    return [CVX.norm(u, 2 if u.ndim < 2 else "fro") <= radius]


def monotone(u: Any, *, decreasing: bool = False) -> Sets:
    """u₁ ≤ u₂ ≤ …, or ≥ with `decreasing`, along the first axis. Source: Barlow et al. 1972 (isotonic regression)."""
    steps = _differences(u, 1, "monotone")
    return [steps <= 0] if decreasing else [steps >= 0]


def semidefinite(U: Any) -> Sets:
    """U ⪰ 0, for U symmetric. Source: Vandenberghe, Boyd, *Semidefinite programming*, SIAM Rev. 38, 1996."""
    _need(U, 2, "semidefinite", "reshape it to a square matrix")
    return [U >> 0]


def correlation(U: Any) -> Sets:
    """A correlation matrix: U ⪰ 0 with ones on the diagonal. Source: Higham, *Nearest correlation matrix*, 2002."""
    return [*semidefinite(U), CVX.diag(U) == 1]


# --- shared --------------------------------------------------------------------------------------------------


def _of(expression: Any) -> cp.Expression:
    out: cp.Expression = expression
    return out


def _sum(x: Any) -> cp.Expression:
    return _of(CVX.sum(x))


def _need(u: Any, ndim: int, name: str, fix: str) -> None:
    if u.ndim != ndim:
        raise InputError(message(f"{name} of an expression of shape {tuple(u.shape)}", f"{ndim} axes", fix, u))


def _differences(u: Any, order: int, name: str) -> Any:
    """Differences along the first axis."""
    if order < 1 or u.ndim < 1 or u.shape[0] <= order:
        found, expected = f"{name} of order {order} on shape {tuple(u.shape)}", f"1 ≤ order < {u.shape[:1]}"
        raise InputError(message(found, expected, "lower the order, or pass a longer sequence", u))
    for _ in range(order):
        u = u[1:] - u[:-1]
    return u
