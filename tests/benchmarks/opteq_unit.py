"""Forward + backward of the trainable OptEq layer against cvxpylayers with its default backend, in one run.

    python -m tests.benchmarks.opteq_unit [--threads N]

The layer is u = argmin_{u ≥ 0} ½uᵀ(I − WWᵀ)u − ⟨Ux + b, u⟩ with ‖W‖ ≤ 0.95; gradients go to W, U, b and x. cvxpylayers
gets the same program with ½‖Bu‖², B = chol(I − WWᵀ)ᵀ computed and differentiated by torch. Errors are relative, in the
maximum norm, against the solution refined on its active set by dense linear algebra.
"""

import argparse
from collections.abc import Callable

import cvxpy as cp
import numpy as np
import torch
from torch import Tensor

import opteq_cvx as oc
from tests.benchmarks.harness import Row, publish, raced

BATCH = 128
NORM = 0.95
Answer = tuple[Tensor, list[Tensor]]


def declare(n: int, tolerance: float) -> oc.EquilibriumLayer:
    """The layer of DESIGN section 1 with as many inputs as units, its W scaled up to the bound."""
    rng = np.random.default_rng(0)
    w = rng.normal(size=(n, n))
    x = oc.Input(n, name="x")
    weight = oc.Weight((n, n), name="W", norm=NORM, init=0.999 * NORM * w / np.linalg.norm(w, 2))
    u_in = oc.Weight((n, n), name="U", init=rng.normal(size=(n, n)) / np.sqrt(n))
    b = oc.Weight(n, name="b", init=rng.normal(size=n))
    u = cp.Variable(n, nonneg=True, name="u")
    energy = 0.5 * cp.quad_form(u, cp.psd_wrap(np.eye(n) - weight @ weight.T)) - (u_in @ x + b) @ u
    return oc.compile(cp.Problem(cp.Minimize(energy)), outputs=[u], tolerance=tolerance)


def exact(w: Tensor, u_in: Tensor, b: Tensor, x: Tensor, v: Tensor) -> Answer:
    """Solution and gradients by the active set: many Picard steps, then dense systems on the support."""
    n = w.shape[0]
    c = x @ u_in.T + b
    gram, u = w @ w.T, torch.zeros_like(c)
    for _ in range(2000):
        u = torch.relu(u @ gram + c)
    adjoint = torch.zeros_like(u)
    for i in range(u.shape[0]):
        on = u[i] > 0
        block = (torch.eye(n, dtype=w.dtype) - gram)[on][:, on]
        u[i, on] = torch.linalg.solve(block, c[i, on])
        adjoint[i, on] = torch.linalg.solve(block, v[i, on])
    grad_gram = adjoint.T @ u
    return u, [(grad_gram + grad_gram.T) @ w, adjoint.T @ x, adjoint.sum(0), adjoint @ u_in]


def ours(n: int, x: Tensor, v: Tensor, tolerance: float) -> tuple[Callable[[], Answer], oc.EquilibriumLayer]:
    """Our layer's forward and backward, with gradients in the free parameters behind the weights."""
    layer = declare(n, tolerance).to(x.dtype)
    names = ("W", "U", "b")

    def run() -> Answer:
        layer.zero_grad()
        point = x.clone().requires_grad_()
        (u,) = layer(point)
        u.backward(v)
        assert point.grad is not None
        return u.detach(), [*(layer.weights.raw(k).grad for k in names), point.grad]

    return run, layer


def effective(layer: oc.EquilibriumLayer, x: Tensor, v: Tensor) -> Answer:
    """Values and gradients in the effective W, U, b and x, for the comparison of accuracy."""
    weights = {k: layer.weights.value(k).detach().requires_grad_() for k in ("W", "U", "b")}
    point = x.clone().requires_grad_()
    factors = oc.Factors({k: t.unsqueeze(0) for k, t in weights.items()}, None)
    (u,) = layer(point, prepared=factors)
    grads = torch.autograd.grad(u, [*weights.values(), point], v)
    return u.detach(), list(grads)


def theirs(n: int, w: Tensor, u_in: Tensor, b: Tensor, x: Tensor, v: Tensor) -> Callable[[], Answer]:
    """The same through cvxpylayers, default backend and settings."""
    from cvxpylayers.torch import CvxpyLayer

    factor, c, u = cp.Parameter((n, n)), cp.Parameter(n), cp.Variable(n, nonneg=True)
    problem = cp.Problem(cp.Minimize(0.5 * cp.sum_squares(factor @ u) - c @ u))
    layer = CvxpyLayer(problem, parameters=[factor, c], variables=[u])

    def run() -> Answer:
        leaves = [t.detach().clone().requires_grad_() for t in (w, u_in, b, x)]
        eye = torch.eye(n, dtype=w.dtype)
        root = torch.linalg.cholesky(eye - leaves[0] @ leaves[0].T).T
        (value,) = layer(root, leaves[3] @ leaves[1].T + leaves[2])
        value.backward(v)
        return value.detach(), [t.grad for t in leaves if t.grad is not None]

    return run


def error(got: Answer, want: Answer) -> tuple[float, float]:
    """Relative errors in the maximum norm: of the values, and the worst of the gradients."""
    value = float((got[0] - want[0]).abs().max() / want[0].abs().max())
    grads = [float((g - t).abs().max() / t.abs().max()) for g, t in zip(got[1], want[1], strict=True)]
    return value, max(grads)


def main() -> None:
    """Measure n = 100 and 200."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--sizes", type=int, nargs="+", default=[100, 200])
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    rows = []
    for n in options.sizes:
        g = torch.Generator().manual_seed(0)
        x, v = (torch.randn(BATCH, n, generator=g, dtype=torch.float64) for _ in range(2))
        run, layer = ours(n, x, v, 1e-9)
        w, u_in, b = (layer.weights.value(k).detach() for k in ("W", "U", "b"))
        want = exact(w, u_in, b, x, v)
        peer = theirs(n, w, u_in, b, x, v)
        size = f"n={n}"
        answer = peer()
        mine, other = raced([run, peer], [10, 1])
        accuracy = error(effective(layer, x, v), want)
        rows.append(Row("OptEq layer", "opteq_cvx", size, BATCH, "float64", *mine, *accuracy))
        rows.append(Row("OptEq layer", "cvxpylayers (DIFFCP)", size, BATCH, "float64", *other, *error(answer, want)))
    publish("opteq_unit", rows)


if __name__ == "__main__":
    main()
