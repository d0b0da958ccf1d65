"""Laws of atoms about derivatives: against finite differences, and the convention at kinks."""

import warnings

import torch
from torch import Tensor

from opteq_cvx.atoms.contract import Atom, Data, Trait
from opteq_cvx.verify.law_tools import SLOPE, close, full, lead, normal, require, steps
from opteq_cvx.verify.spelled import Case, cases


def gradients(cls: type[Atom]) -> None:
    """The derivatives of the prox in point, step and data, to second order, reverse, forward and batched.

    Second derivatives are compared along random directions of points, steps, data and cotangents: a wrong entry shows
    in them, at a fifth of the time.
    """
    for case in cases(cls):
        v, step = normal(case, (2,), seed=3).requires_grad_(), steps(case, (2,)).requires_grad_()
        names = list(case.data)
        data = [case.data[k].expand(2, *case.data[k].shape).clone().requires_grad_() for k in names]

        def prox(v: Tensor, step: Tensor, *data: Tensor, case: Case = case, names: list[str] = names) -> Tensor:
            return case.atom.prox(v, step, dict(zip(names, data, strict=True)))

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's forward mode compiles with its own deprecated functions
            torch.autograd.gradcheck(
                prox, (v, step, *data), check_forward_ad=True, check_batched_grad=True, rtol=1e-4, atol=1e-6
            )
            torch.autograd.gradgradcheck(prox, (v, step, *data), rtol=1e-3, atol=1e-5, fast_mode=True)


def derivative_at_kinks(cls: type[Atom]) -> None:
    """At a kink the derivative is the smallest one-sided one; functions entry by entry name all kinks."""
    for case in cases(cls):
        step = full(case, 0.75)  # exact in binary: kinks are hit to the last bit
        if Trait.SEPARABLE in cls.traits:
            _scalar_kinks(case, step)
        else:
            _vector_kinks(case, step)


def _scalar_kinks(case: Case, step: Tensor, h: float = 1e-6) -> None:
    atom, data, zero = case.atom, case.data, torch.zeros(case.event, dtype=torch.float64)
    kinks = atom.kinks(zero, step, data)
    for point in kinks:
        finite = point.isfinite()
        at = torch.where(finite, point, 0.0)
        x = atom.prox(at, step, data)
        right = (atom.prox(at + h, step, data) - x) / h
        left = (x - atom.prox(at - h, step, data)) / h
        slope = torch.where(finite, _slope(case, at, step, data), 0.0)
        close(slope, torch.where(finite, torch.minimum(left, right), 0.0), case, "derivative at a kink", SLOPE)
    grid = torch.linspace(-6.0, 6.0, 6002, dtype=torch.float64).reshape(-1, *(1,) * len(case.event))
    grid = grid.expand(-1, *case.event).contiguous()
    jumps = _slope(case, grid, step, lead(data, 1)).diff(dim=0).abs() > 0.2
    for point in kinks:
        jumps &= ~((grid[:-1] <= point) & (point <= grid[1:]))
    require(not jumps.any(), case, "the derivative jumps where `kinks` names no kink")


def _slope(case: Case, at: Tensor, step: Tensor, data: Data) -> Tensor:
    at = at.detach().clone().requires_grad_()
    (slope,) = torch.autograd.grad(case.atom.prox(at, step, data).sum(), at)
    return slope


def _vector_kinks(case: Case, step: Tensor, h: float = 1e-6, count: int = 64) -> None:
    for point in case.atom.kinks(normal(case, seed=4), step, case.data):
        here = _jacobians(case, point.unsqueeze(0), step)[0]
        close(here, here.mT, case, "symmetry of the derivative at a kink")
        around = _jacobians(case, point + h * normal(case, (count,), seed=5), step)
        least = float(torch.linalg.eigvalsh(around - here).min())
        require(least >= -SLOPE, case, f"a one-sided derivative at a kink is smaller by {-least:.1e}")
        nearest = float((around - here).abs().amax((-2, -1)).min())
        require(nearest <= SLOPE, case, "the derivative at a kink is no one-sided derivative")


def _jacobians(case: Case, at: Tensor, step: Tensor) -> Tensor:
    """The Jacobians of the prox (count, n, n) at points (count, *event)."""
    at = at.detach().clone().requires_grad_()
    x = case.atom.prox(at, step, lead(case.data, 1)).reshape(at.shape[0], -1)
    rows = [torch.autograd.grad(x[:, i].sum(), at, retain_graph=True)[0] for i in range(x.shape[1])]
    return torch.stack(rows, dim=1).reshape(at.shape[0], x.shape[1], x.shape[1])
