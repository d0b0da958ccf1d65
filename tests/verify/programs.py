"""Programs written by hand in the IR, for tests that must not depend on the frontend."""

import numpy as np
import torch

from opteq_cvx.ir.frozen import FrozenDict
from opteq_cvx.ir.linmap import Identity, LeftMul
from opteq_cvx.ir.param import Apply, Leaf, Stage, add, broadcast_to, const, neg
from opteq_cvx.ir.program import Affine, Origin, Output, Program, Term, Variable
from opteq_cvx.maps.evaluate import Environment

ORIGIN = Origin("objective[0]", "by hand")


def unit(n: int = 6, m: int = 4) -> tuple[Program, dict[str, np.ndarray]]:
    """An OptEq unit: ½uᵀ(I − WWᵀ)u − (Ux)ᵀu + lam‖u‖₁ over u ≥ 0, and values of its parameters."""
    x = Leaf("x", (m,), Stage.INPUT)
    W = Leaf("W", (n, n), Stage.WEIGHT, FrozenDict(norm=0.95))
    U = Leaf("U", (n, m), Stage.WEIGHT)
    lam = Leaf("lam", (), Stage.WEIGHT, FrozenDict(nonneg=True))
    gram = Apply("matmul", (W, Apply("transpose", (W,), (n, n))), (n, n))
    P = add(const(np.eye(n)), neg(gram))
    c = Apply("matmul", (U, x), (n,))
    u = Affine((("u", Identity((n,))),), const(np.zeros(n)))
    row = Apply("reshape", (neg(c),), (1, n), FrozenDict(order="C"))
    pulled = Affine((("u", LeftMul(row, (n,))),), const([0.0]))
    zero_inf = FrozenDict(lower=const(0.0), upper=const(np.inf))
    terms = (
        Term("quad_form", u, ORIGIN, weight=const(0.5), data=FrozenDict(P=P)),
        Term("linear", pulled, ORIGIN),
        Term("abs", u, ORIGIN, weight=broadcast_to(lam, (n,))),
        Term("box", u, ORIGIN, data=zero_inf),
    )
    program = Program((Variable("u", (n,)),), (x, W, U, lam), terms, const(0.0), (Output("u", u),))
    rng = np.random.default_rng(0)
    w = rng.normal(size=(n, n))
    values = {
        "x": rng.normal(size=m),
        "W": 0.9 * w / np.linalg.norm(w, 2),
        "U": rng.normal(size=(n, m)),
        "lam": np.array(0.1),
    }
    return program, values


def ridge(rows: int = 7, n: int = 4) -> tuple[Program, dict[str, np.ndarray]]:
    """‖Ax − b‖² + mu‖x‖²: its solution is a linear system's, so everything about it is known."""
    A = Leaf("A", (rows, n), Stage.WEIGHT)
    b = Leaf("b", (rows,), Stage.INPUT)
    mu = Leaf("mu", (), Stage.WEIGHT, FrozenDict(nonneg=True))
    x = Affine((("x", Identity((n,))),), const(np.zeros(n)))
    fit = Affine((("x", LeftMul(A, (n,))),), neg(b))
    terms = (Term("square", fit, ORIGIN), Term("square", x, ORIGIN, weight=broadcast_to(mu, (n,))))
    program = Program((Variable("x", (n,)),), (b, A, mu), terms, const(0.0), (Output("x", x),))
    rng = np.random.default_rng(1)
    return program, {"b": rng.normal(size=rows), "A": rng.normal(size=(rows, n)), "mu": np.array(0.7)}


def ridge_solution(values: dict[str, np.ndarray]) -> np.ndarray:
    """(AᵀA + mu I)⁻¹Aᵀb."""
    A, b = values["A"], values["b"]
    return np.linalg.solve(A.T @ A + values["mu"] * np.eye(A.shape[1]), A.T @ b)


def environment(values: dict[str, np.ndarray]) -> Environment:
    """The values with one leading batch axis."""
    tensors = {k: torch.from_numpy(np.array(v)).unsqueeze(0) for k, v in values.items()}
    return Environment(tensors, torch.float64, torch.device("cpu"))
