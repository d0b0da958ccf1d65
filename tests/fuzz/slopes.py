"""Gradients against differences of the exact solver, in one random direction."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from opteq_cvx.verify.differences import Difference, difference
from opteq_cvx.verify.exact import solve_exact
from tests.fuzz.program import Made

SLOPE = 1e-3  # gradients against differences of the exact solver
SCALES = (0.1, 1e-3)  # of the steps
BESIDE = 1e-3  # how far to the side a derivative that seems wrong is looked at again


def differentiated(made: Made, layer: Any, arrays: list[torch.Tensor], order: list[int]) -> str:
    """One directional derivative of a random functional of the solution, against differences of the exact solver.

    Where pieces meet so that their kinks cancel (as in max(t, 0) − max(−t, 0) at 0) the rule of the kinks need not give
    the derivative of the whole. A derivative that is wrong there only is right beside the point.
    """
    found = _at(made, layer, arrays, order)
    if not found.startswith("wrong"):
        return found
    rng, aside = np.random.default_rng(1), []
    for i, a in zip(order, arrays, strict=True):
        move = torch.as_tensor(made.builder.inputs[i].project(rng.normal(size=a.shape[1:])), dtype=a.dtype)
        aside.append(a + BESIDE * move)
    return f"unchecked: right beside the point, at it {found}" if _at(made, layer, aside, order) == "right" else found


def _at(made: Made, layer: Any, arrays: list[torch.Tensor], order: list[int]) -> str:
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

    return judged(slope, phi, solution.stats.gradient_error)


def judged(slope: float, phi: Callable[[float], float], claimed: torch.Tensor | None) -> str:
    """A derivative at 0 against differences of φ; where they differ, against finer ones, too.

    A kink nearer than the step puts differences wrong, smoothly so where the steps shrink: only two scales that agree
    with each other, and not with the derivative, show it to be wrong.
    """
    found: list[Difference] = []
    for scale in SCALES:
        estimate = difference(phi, scale=scale, target=1e-6)
        if found and not (sure(estimate) or estimate.kink):
            break  # too fine for the exact solver: the first one stands
        if not sure(estimate):
            return f"unchecked: {estimate.note or 'differences too rough'}"
        if close(slope, estimate.value):
            return "right"
        found.append(estimate)
    estimate = found[-1]
    if not close(found[0].value, estimate.value):
        return "unchecked: differences of two scales differ"
    claim = "" if claimed is None else f", own estimate {float(claimed.max()):.0e}"
    return f"wrong gradient: {slope:.6g}, differences {estimate.value:.6g} ± {estimate.error:.0e}{claim}"


def sure(estimate: Difference) -> bool:
    """Whether a difference can judge a derivative."""
    return estimate.usable and estimate.error <= 1e-4 * max(1.0, abs(estimate.value))


def close(slope: float, expected: float) -> bool:
    """Whether a derivative is the expected one."""
    return abs(slope - expected) <= SLOPE * max(1.0, abs(expected))
