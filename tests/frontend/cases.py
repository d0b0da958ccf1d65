"""Problems as text, over one set of variables and parameters with values where every function is defined."""

from typing import Any

import cvxpy as cp
import numpy as np

import opteq_cvx as oc

MINIMIZE = (
    "sum_squares(A @ x - c)",
    "lam * norm1(x)",
    "norm1(lam * x)",
    "norm1(mu * x)",
    "mu**2 * norm1(x)",
    "quad_form(x, psd_wrap(np.eye(5) - W @ W.T))",
    "0.5 * quad_form(x, P) - (U @ z + b) @ x",
    "quad_form(G @ x - c, np.diag([1.0, 2.0, 3.0]))",
    "quad_form(X[:, :1], psd_wrap(P[:3, :3]))",
    "-quad_form(x, -P)",
    "sum(huber(x - b, lam))",
    "sum(huber(X))",
    "norm(x - b)",
    "norm(X, 'fro')",
    "sum(norm(X, axis=0))",
    "w[:3] @ norm(X, axis=1)",
    "mixed_norm(X, 2, 1)",
    "max(x) + max(X) + sum(max(X, axis=1))",
    "norm(x) ** 2 + sum(square(norm(X, axis=1))) + square(norm(X, 'fro')) + square(abs(s))",
    "abs(norm(x)) + lam * sum(abs(square(y)))",
    "sum_largest(x, 2) + sum_largest(x, 2.5) + sum(sum_largest(X, 2, axis=0))",
    "log_sum_exp(X) + sum(log_sum_exp(X, axis=1))",
    "-sum(log(x))",
    "-w @ log(x)",
    "nu * sum(log(x))",
    "-sum(entr(x))",
    "-sum(sqrt(x)) - sum(power(x, 0.3))",
    "-geo_mean(x) - geo_mean(y, [1, 2, 0, 1, 1])",
    "-geo_mean(y, [0, 0, 1, 0, 0])",
    "-log_det(S) + trace(S)",
    "-min(x) - sum(minimum(x, y, 1))",
    "-sum(min(X, axis=0)) - sum_smallest(x, 2)",
    "sum(kl_div(x, y)) + sum(rel_entr(x, w)) + sum(kl_div(s, x))",
    "sum(maximum(x, b, 0)) + sum(maximum(x, s))",
    "sum(pos(x - b)) + sum(neg(y - 1)) + sum(scalene(x, 2, 3))",
    "sum(square(pos(x))) + sum_squares(norm(X, axis=0))",
    "lambda_max(S) + norm(X, 2) + normNuc(X)",
    "-lambda_min(S) + lambda_sum_largest(S, 2)",
    "matrix_frac(x, P + np.eye(5)) + tr_inv(S)",
    "tv(x) + tv(X)",
    "var(x) + std(y) + mean(x)",
    "cvar(x, 0.8) + ptp(x)",
    "w @ abs(x)",
    "sum(multiply(w, square(x)))",
    "trace(Am @ X) + vec(X, order='F') @ v12 + sum(X[1:, ::2])",
    "x @ b + b @ x + x.T @ b + s * mu + x[2] - x[-1]",
    "cumsum(x)[3] + sum(cumsum(X, axis=0)) + sum(cumsum(X, axis=1) @ X0[0])",
    "sum_squares(kron(K, X)) + sum_squares(kron(X, K))",
    "sum_squares(convolve(kc, x)) + sum_squares(convolve(kp, x))",
    "quad_over_lin(x, s) + quad_over_lin(X, lam + 1) + quad_over_lin(x, 4)",
    "sum(power(x, 3)) + sum(power(x, 1.5)) + sum(power(x, 4))",
    "sum(inv_pos(x)) + sum(power(x, 1)) + sum(x**2)",
    "sum(power(x, 0)) * mu - sum(log1p(sqrt(x)))",
    "pnorm(x, 3) + norm(x, 'inf') + sum(norm(X, 'inf', axis=1))",
    "norm(X, 1) - pnorm(y, 0.5)",
    "sum(pnorm(X[0], 2.5)) + sum(max(T, axis=(0, 2)))",
    "exp(s) + sum(exp(x)) + sum(logistic(x)) + sum(xexp(p)) - sum(log1p(x))",
    "sum_squares(hstack([x, lam * y, b])) + norm1(vstack([x, y]))",
    "sum_squares(bmat([[X, X0], [X0, 2 * X]]))",
    "sum_squares(X[0] - X[1]) + sum(abs(x)[1:3]) + abs(x)[2] * lam + 3",
    "sum(multiply(v12[:6], reshape(abs(X), (2, 6), order='F')[0]))",
    "sum(reshape(abs(X), (6, 2), order='C') @ w[:2])",
    "sum(multiply(w, abs(x)) / (lam + 1)) + w @ (abs(x) + square(y))",
    "lam * (norm1(x) + sum_squares(y) - sum(log(x))) + mu * s + 7 + norm1(b)",
    "sum_squares(T @ B) + sum(norm1(T, axis=1)) + sum_squares(transpose(T, (2, 0, 1)))",
    "sum_squares(B3 @ T) + sum(T[..., 1]) + sum_squares(T @ B3T) + sum_squares(X @ B3T)",
    "sum_squares(T @ b[:4]) + sum_squares(b[:3] @ T) + sum_squares(Am @ T[0])",
    "sum_squares(X - c[:, None]) + sum_squares(X + z) + sum_squares(T - X)",
    "sum(cummax(x)) + dotsort(x, [1, 2, 3])",
    "norm1(b) * norm1(x) + exp(mu) * norm1(y) + pnorm(b, 3) * norm(x) + norm1(x / (lam + 1))",
    "lambda_max(P) * sum(x) + log_det(P) + max(b) * s + sum_largest(b, 2) * s + geo_mean(w) * x[0]",
    "sum(multiply(b, x)) + b[1] * x[1] + b[1:3] @ x[2:4] + sum(multiply(hstack([b, c]), hstack([x, c])))",
    "sum_squares(diag(x) @ b) + sum_squares(diag(S)) + sum(upper_tri(S)) + trace(S)",
    "sum_squares(diag(S, 1)) + sum_squares(diff(x, 2)) + sum_squares(partial_trace(S, (2, 2)))",
    "sum_squares(vec_to_upper_tri(X[0, :3]))",
    "sum_squares(stack([x, y])) + sum_squares(concatenate([X, X0], axis=1)) + sum_squares(swapaxes(T, 0, 2))",
    "sum_squares(outer(x, b)) + sum_squares(einsum('ij,jk->ik', Am, X)) + sum_squares(x @ W)",
    "sum_squares(np.eye(5) @ x) + sum_squares(2 * np.eye(5) @ x) + sum_squares(sp.eye_array(5) @ x - b)",
    "sum_squares(D @ x) + norm1(x @ D) + sum_squares(-(-(x)))",
    "sum_squares(X[[0, 2]]) + sum_squares(X[X0 > 0]) + sum_squares(x[[0, 0, 1]]) + sum(X[::-1, 0])",
    "sum(abs(x)[[0, 0, 3]]) + sum(multiply(w[[1, 1]], abs(x)[[2, 2]]))",
    "sum_squares(nonneg_wrap(x)) + sum(psd_wrap(S))",
    "loggamma(s) + sum(inv_prod(x)) + harmonic(x)",
    "sum(abs(kron(K0, abs(X))))",
    "-sum(log_normcdf(x))",
    "sum(D @ abs(x)) + sum(cumsum(abs(x))) + sum(convolve(np.abs(kc), square(x)))",
    "w @ (abs(x) + 2 * y + b) + w @ (square(x) + 1)",
    "sum(multiply(multiply(c[:, None], X0), X)) + quad_over_lin(b, lam + 1) * s",
)
"""Objectives: every supported spelling, DPP or not."""

AFFINE = (
    "convolve(kc, x)",
    "convolve(kp, x)",
    "kron(K, X)",
    "kron(X, K)",
    "cumsum(x)",
    "cumsum(X, axis=0) - cumsum(X, axis=1)",
    "cumsum(T, axis=0)",
    "reshape(X, (2, 6), order='F')",
    "reshape(X, (2, 6), order='C')",
    "reshape(T, (4, 6), order='F').T",
    "vec(X.T, order='F') - vec(X, order='C')",
    "A @ x - c",
    "x @ W + W @ x",
    "Am @ X @ Am",
    "U @ X[0] + mu * x",
    "T @ B",
    "B3 @ T",
    "B3 @ X",
    "X @ B3T",
    "T @ b[:4]",
    "b[:3] @ T",
    "X / (lam + w[0]) + X0",
    "multiply(c[:, None], X)",
    "bmat([[X, X0], [2 * X, -X]])",
    "hstack([x, s, b, y[::-1]])",
    "vstack([X, z, X[0]])",
    "stack([x, b, y], axis=1)",
    "concatenate([T, T], axis=2)",
    "transpose(T, (2, 0, 1)) + swapaxes(T, 0, 2)[:, :1, :1]",
    "diag(x) + diag(y[:4], 1) + diag(y[1:], -1)",
    "diag(S) + diag(Am @ X)",
    "diag(S, 1) - diag(S, -1)",
    "upper_tri(S)",
    "vec_to_upper_tri(x[:3], strict=True)",
    "partial_trace(S, (2, 2)) + partial_transpose(S, (2, 2))[:2, :2]",
    "outer(x, b) + outer(b, x)",
    "einsum('ij,jk->ik', Am, X)",
    "X[[0, 2]][:, [1, 1, 3]]",
    "X[X0 > 0]",
    "X[::-1, 0] + sum(X, axis=1) - mean(X, axis=1)",
    "sum(X, axis=0, keepdims=True) + X",
    "trace(S) + s + x @ b + c @ A @ x",
    "diff(x, 2)",
    "X - c[:, None] + z",
    "scalar_product(x, b) * np.ones(2)",
    "cumsum(X, axis=None) - cumsum(X.T, axis=None)",
    "cumsum(s) + cumsum(T, axis=-1)[0, 0]",
    "b[:3] @ X + X.T @ c",
    "X @ z - X @ np.arange(4.0)",
    "T @ np.arange(20.0).reshape(4, 5) + np.ones((2, 1, 3)) @ T @ B",
)
"""Affine expressions, to be compared entry by entry."""

MAXIMIZE = (
    "sum(log(x)) - lam * norm1(y)",
    "geo_mean(x) + min(y) - sum_squares(x - b) + mu * s + 2",
    "quad_form(x, psd_wrap(W @ W.T)) * (-1) + b @ x",
    "log_det(S) + sum(entr(x))",
)

CONSTRAINTS = (
    "A @ x == c",
    "x >= b",
    "x <= 2",
    "b <= x",
    "-x <= b",
    "X[0, 1:3] <= 0.1",
    "X.T >= 0.5",
    "2 * x <= 1",
    "lam * x <= y",
    "A @ x >= c",
    "x - y >= mu",
    "norm(x) <= lam",
    "2 * norm(x) <= lam",
    "lam * norm(x) <= s",
    "sum_squares(x) <= s",
    "log(x) >= -1",
    "norm1(x) + norm(y) <= 2 * s + mu",
    "-(norm1(x) + norm(y)) >= -2 * s - mu",
    "abs(x) <= 0.5",
    "max(x) <= s",
    "norm(X, axis=0) <= z",
    "sqrt(s) >= x[0]",
    "exp(x) + y <= 2 + b",
    "NonPos(x - b)",
    "NonNeg(A @ x - c)",
    "Zero(x - b)",
    "x == y",
    "s == mu",
    "x[1:3] == 1",
)


def world() -> dict[str, Any]:
    """CVXPY's names, and the variables and parameters of all cases, with values."""
    rng = np.random.default_rng(3)

    def weight(name: str, *shape: int, **attributes: Any) -> oc.Weight:
        made = oc.Weight(shape, name=name, **attributes)
        made.value = rng.uniform(0.2, 1.2, shape) * (-1 if attributes.get("nonpos") else 1)
        return made

    def variable(name: str, *shape: int, **attributes: Any) -> cp.Variable:
        made = cp.Variable(shape, name=name, **attributes)
        made.value = rng.uniform(0.3, 1.4, shape)
        return made

    S = cp.Variable((4, 4), name="S", symmetric=True)
    R = rng.standard_normal((4, 4))
    S.value = R @ R.T + np.eye(4)
    z = oc.Input(4, name="z")
    z.value = rng.uniform(0.2, 1.0, 4)
    P = oc.Weight((5, 5), name="P", PSD=True, seed=1)
    W = oc.Weight((5, 5), name="W", norm=0.9, seed=2)
    unsigned = {name: oc.Weight(shape, name=name, seed=i) for i, (name, shape) in enumerate(UNSIGNED.items())}
    sp = __import__("scipy.sparse", fromlist=["sparse"])
    return {
        **{k: getattr(cp, k) for k in dir(cp) if not k.startswith("_")},
        "nonneg_wrap": cp.atoms.affine.wraps.nonneg_wrap,
        "harmonic": lambda x: -cp.harmonic_mean(x),
        "np": np,
        "sp": sp,
        "S": S,
        "z": z,
        "P": P,
        "W": W,
        **unsigned,
        "x": variable("x", 5),
        "y": variable("y", 5),
        "p": variable("p", 3, nonneg=True),
        "s": variable("s"),
        "X": variable("X", 3, 4),
        "T": variable("T", 2, 3, 4),
        "lam": weight("lam", nonneg=True),
        "w": weight("w", 5, nonneg=True),
        "nu": weight("nu", nonpos=True),
        "kc": rng.standard_normal(3),
        "v12": rng.uniform(0, 1, 12),
        "G": rng.standard_normal((3, 5)),
        "X0": rng.standard_normal((3, 4)),
        "D": np.diag([1.0, 2, 3, 4, 5]),
        "K0": np.abs(rng.standard_normal((2, 2))),
    }


UNSIGNED = {
    "A": (3, 5),
    "b": (5,),
    "c": (3,),
    "mu": (),
    "U": (5, 4),
    "Am": (4, 3),
    "K": (2, 2),
    "kp": (3,),
    "B": (4, 5),
    "B3": (2, 5, 3),
    "B3T": (2, 4, 2),
}


def values_of(problem: cp.Problem) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """(variables by name, parameters by name), as they stand."""
    variables = {v.name(): np.asarray(v.value) for v in problem.variables()}
    return variables, {p.name(): np.asarray(p.value) for p in problem.parameters()}
