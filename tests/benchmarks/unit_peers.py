"""The OptEq unit u = argmin_{u ≥ 0} ½uᵀ(I − WWᵀ)u − ⟨Ux + b, u⟩ by every peer that installs.

Each function takes the leaves (W, U, b, x) and the cotangent v and returns a run: values and gradients in the leaves.
Their facts: qpth returns the mean over the batch of a shared input's gradient, so its inputs are expanded; cvxpylayers
with MOREAU drops "variable lies in a cone", so the sign is written 2u ≥ 0, on a problem of its own.
"""

from collections.abc import Callable

import cvxpy as cp
import torch
from torch import Tensor

Answer = tuple[Tensor, list[Tensor]]
Leaves = tuple[Tensor, Tensor, Tensor, Tensor]
Run = Callable[[], Answer]
Solve = Callable[[Tensor, Tensor], Tensor]
"""u from (W, c), c = Ux + b (B, n), differentiable."""


def through(solve: Solve, leaves: Leaves, v: Tensor) -> Run:
    """Forward and backward of a differentiable solve."""

    def run() -> Answer:
        w, u_in, b, x = (t.detach().clone().requires_grad_() for t in leaves)
        u = solve(w, x @ u_in.T + b)
        u.backward(v.to(u.dtype))
        return u.detach(), [t.grad for t in (w, u_in, b, x) if t.grad is not None]

    return run


def root(w: Tensor) -> Tensor:
    """B with BᵀB = I − WWᵀ."""
    return torch.linalg.cholesky(torch.eye(w.shape[0], dtype=w.dtype) - w @ w.T).T


def cvxpylayers(leaves: Leaves, v: Tensor, solver: str) -> Run:
    """cvxpylayers with ½‖Bu‖², B computed and differentiated by torch."""
    from cvxpylayers.torch import CvxpyLayer

    n = leaves[0].shape[0]
    factor, c, u = cp.Parameter((n, n)), cp.Parameter(n), cp.Variable(n)
    problem = cp.Problem(cp.Minimize(0.5 * cp.sum_squares(factor @ u) - c @ u), [2 * u >= 0])
    layer = CvxpyLayer(problem, parameters=[factor, c], variables=[u], solver=solver)
    return through(lambda w, c: layer(root(w), c)[0], leaves, v)


def qpth(leaves: Leaves, v: Tensor) -> Run:
    """qpth's interior point on the batch."""
    from qpth.qp import QPFunction

    batch, n = v.shape
    eye, zero, none = torch.eye(n, dtype=v.dtype), torch.zeros(batch, n, dtype=v.dtype), torch.empty(0, dtype=v.dtype)
    signs = (-eye).expand(batch, n, n)

    def solve(w: Tensor, c: Tensor) -> Tensor:
        p = (eye - w @ w.T).expand(batch, n, n)
        u: Tensor = QPFunction(verbose=-1, eps=1e-12)(p, -c, signs, zero, none, none)
        return u

    return through(solve, leaves, v)


def qplayer(leaves: Leaves, v: Tensor) -> Run:
    """proxsuite's QPLayer."""
    from proxsuite.torch.qplayer import QPFunction

    batch, n = v.shape
    eye = torch.eye(n, dtype=v.dtype)
    low, high = torch.zeros(batch, n, dtype=v.dtype), torch.full((batch, n), 1e20, dtype=v.dtype)
    none, nothing = torch.empty(0, n, dtype=v.dtype), torch.empty(batch, 0, dtype=v.dtype)

    def solve(w: Tensor, c: Tensor) -> Tensor:
        p = (eye - w @ w.T).expand(batch, n, n)
        layer = QPFunction(structural_feasibility=True, maxIter=1000, eps=1e-9)
        u: Tensor = layer(p, -c, none, nothing, eye, low, high)[0]
        return u

    return through(solve, leaves, v)


def torchdeq(leaves: Leaves, v: Tensor, tolerance: float) -> Run:
    """torchdeq's Picard iteration of the same map, exact implicit gradients by the same iteration."""
    from torchdeq import get_deq

    deq = get_deq(
        f_solver="fixed_point_iter",
        b_solver="fixed_point_iter",
        f_max_iter=1000,
        b_max_iter=1000,
        f_tol=tolerance,
        b_tol=tolerance,
        f_stop_mode="rel",
        b_stop_mode="rel",
        ift=True,
    )

    def solve(w: Tensor, c: Tensor) -> Tensor:
        gram = w @ w.T
        out, _ = deq(lambda u: torch.relu(u @ gram + c), torch.zeros_like(c))
        last: Tensor = out[-1]
        return last

    return through(solve, leaves, v)


def hand_loop(leaves: Leaves, v: Tensor, tolerance: float) -> Run:
    """What a good engineer writes by hand: Gram matrix once, addmm and relu, a conjugate-gradient adjoint."""

    def run() -> Answer:
        w, u_in, b, x = leaves
        c, gram = x @ u_in.T + b, w @ w.T
        u = torch.relu(c)
        for step in range(5000):
            new = torch.addmm(c, u, gram).relu_()
            done = step % 5 == 4 and bool((new - u).norm() <= tolerance * new.norm())
            u = new
            if done:
                break
        on = (u > 0).to(u)
        y, r = torch.zeros_like(v), on * v
        p, rr = r, (r * r).sum(-1, keepdim=True)
        stop = tolerance * rr.sqrt()
        for _ in range(5000):
            q = p - on * (p @ gram)
            a = rr / (p * q).sum(-1, keepdim=True).clamp_min(1e-300 if v.dtype == torch.float64 else 1e-30)
            y, r = y + a * p, r - a * q
            new = (r * r).sum(-1, keepdim=True)
            if bool((new.sqrt() <= stop).all()):
                break
            p, rr = r + (new / rr.clamp_min(1e-300 if v.dtype == torch.float64 else 1e-30)) * p, new
        h = y.T @ u
        return u, [(h + h.T) @ w, y.T @ x, y.sum(0), y @ u_in]

    return run
