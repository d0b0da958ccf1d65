"""Gradients against differences of the exact solver, in one random direction."""

from typing import Any

import numpy as np
import torch

from opteq_cvx.verify.differences import difference
from opteq_cvx.verify.exact import solve_exact
from tests.fuzz.program import Made

SLOPE = 1e-3  # gradients against differences of the exact solver


def differentiated(made: Made, layer: Any, arrays: list[torch.Tensor], order: list[int]) -> str:
    """One directional derivative of a random functional of the solution, against differences of the exact solver."""
    rng = np.random.default_rng(0)
    problem, b = made.problem, made.builder
    tensors = [a.clone().requires_grad_() for a in arrays]
    solution = layer.solve(*tensors, tolerance=1e-10)
    if not solution.status.all_converged:
        return "unchecked: not converged at 1e-10"
    variables = problem.variables()
    seeds = {v.name(): rng.normal(size=v.shape) for v in variables}
    total = sum((solution.variables[k][0] * torch.tensor(s)).sum() for k, s in seeds.items())
    if not total.requires_grad:  # the solution depends on no input: a constant of the objective may
        grads: tuple[torch.Tensor | None, ...] = (None,) * len(tensors)
    else:
        grads = torch.autograd.grad(total, tensors, allow_unused=True)
    moves = []
    for i, a in zip(order, arrays, strict=True):
        move = rng.normal(size=a.shape[1:])
        attributes = b.inputs[i].attributes
        if attributes.get("PSD") or attributes.get("symmetric"):
            move = move + move.T
        moves.append(move)
    slope = sum(float((g[0].numpy() * m).sum()) for g, m in zip(grads, moves, strict=True) if g is not None)

    def phi(t: float) -> float:
        values = {b.inputs[i]: np.asarray(a[0].numpy() + t * m) for i, a, m in zip(order, arrays, moves, strict=True)}
        found = solve_exact(problem, variables, values)
        if not found.outputs:
            return float("nan")
        return sum(float((o * seeds[v.name()]).sum()) for o, v in zip(found.outputs, variables, strict=True))

    estimate = difference(phi, scale=0.1, target=1e-6)
    if not estimate.usable or estimate.error > 1e-4 * max(1.0, abs(estimate.value)):
        return f"unchecked: {estimate.note or 'differences too rough'}"
    if abs(slope - estimate.value) > SLOPE * max(1.0, abs(estimate.value)):
        error = solution.stats.gradient_error
        claim = "" if error is None else f", own estimate {float(error.max()):.0e}"
        return f"wrong gradient: {slope:.6g}, differences {estimate.value:.6g} ± {estimate.error:.0e}{claim}"
    return "right"
