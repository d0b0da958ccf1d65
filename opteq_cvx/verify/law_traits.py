"""The law that an atom's traits tell the truth."""

from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch import Tensor

from opteq_cvx.atoms.contract import Atom, Trait
from opteq_cvx.verify.law_tools import ROUND, full, lead, normal, points, steps
from opteq_cvx.verify.spelled import Case, cases


def traits_tell_the_truth(cls: type[Atom]) -> None:
    """Declared traits hold; set, cone, homogeneous, even, separable, linear are declared where they hold."""
    implied = {
        Trait.CONE: Trait.SET,
        Trait.INTERVAL: Trait.SET,
        Trait.LINEAR: Trait.QUADRATIC,
        Trait.QUADRATIC: Trait.SMOOTH,
    }
    for special, general in implied.items():
        if special in cls.traits and general not in cls.traits:
            raise AssertionError(f"{cls.__name__} is {special.name} and must be {general.name}")
    found = {trait: [holds(case) for case in cases(cls)] for trait, holds in _TRUTH.items()}
    for trait, holds in found.items():
        declared = trait in cls.traits
        if declared and not all(holds):
            raise AssertionError(f"{cls.__name__} is declared {trait.name} and is not")
        if not declared and trait not in _OPTIONAL and holds and all(holds):
            raise AssertionError(f"{cls.__name__} is {trait.name} and does not say so")


def _is_set(case: Case) -> bool:
    atom, data, one = case.atom, lead(case.data, 1), full(case, 1.0)
    v = normal(case, (10,))
    x = atom.prox(v, one, data)
    again = atom.prox(x, one, data)
    violation = atom.violation(x, data)
    return (
        torch.allclose(x, again, rtol=ROUND, atol=ROUND)
        and torch.allclose(x, atom.prox(v, 10 * one, data), rtol=ROUND, atol=ROUND)
        and violation is not None
        and float(violation.max()) <= 1e-8
        and bool((atom.value(x, data) == 0).all())
    )


def _is_cone(case: Case) -> bool:
    v, one, data = normal(case, (10,)), full(case, 1.0), lead(case.data, 1)
    x = case.atom.prox(v, one, data)
    scaled = torch.allclose(case.atom.prox(3 * v, one, data), 3 * x, rtol=ROUND, atol=ROUND)
    return scaled and _is_set(case)


def _is_homogeneous(case: Case) -> bool:
    x, data = points(case, (10,)), lead(case.data, 1)
    f = case.atom.value(x, data)
    if Trait.SET in case.atom.traits:
        return False
    return all(torch.allclose(case.atom.value(s * x, data), s * f, rtol=ROUND, atol=ROUND) for s in (0.0, 0.5, 3.0))


def _is_even(case: Case) -> bool:
    v, step, data = normal(case, (10,)), steps(case, (10,)), lead(case.data, 1)
    minus = case.atom.prox(-v, step, data)
    return torch.allclose(minus, -case.atom.prox(v, step, data), rtol=ROUND, atol=ROUND)


def _is_separable(case: Case) -> bool:
    if case.reduced != case.event:
        return False
    v, step = normal(case, (2,)), steps(case)
    n = int(np.prod(case.event, dtype=int))
    mixed = v[:1].repeat(n, *(1,) * len(case.event)).reshape(n, n)
    mixed = mixed + torch.diag((v[1] - v[0]).reshape(-1))
    out = case.atom.prox(mixed.reshape(n, *case.event), step, lead(case.data, 1)).reshape(n, n)
    both = case.atom.prox(v, step, lead(case.data, 1)).reshape(2, n)
    return torch.allclose(out, both[:1] + torch.diag(both[1] - both[0]), rtol=ROUND, atol=ROUND)


def _is_quadratic(case: Case) -> bool:
    x, h, data = points(case, (10,)), normal(case, (10,), seed=9), lead(case.data, 1)

    def second(x: Tensor) -> Tensor:
        f = case.atom.value
        return f(x + h, data) - 2 * f(x, data) + f(x - h, data)

    return torch.allclose(second(x), second(x + 5.0), rtol=1e-7, atol=1e-7)


def _is_linear(case: Case) -> bool:
    x, y, data = points(case, (10,)), normal(case, (10,)), lead(case.data, 1)
    f = case.atom.value
    return torch.allclose(f(2 * x - 3 * y, data), 2 * f(x, data) - 3 * f(y, data), rtol=ROUND, atol=ROUND)


def _is_smooth(case: Case) -> bool:
    """f is finite everywhere, and (v − x)/t is its gradient at x = prox(v)."""
    v, step, data = normal(case, (20,)), steps(case, (20,)), lead(case.data, 1)
    x = case.atom.prox(v, step, data)
    if not case.atom.value(100 * v, data).isfinite().all():
        return False
    at = x.detach().clone().requires_grad_()
    (gradient,) = torch.autograd.grad(case.atom.value(at, data).sum(), at)
    if not torch.allclose(gradient, (v - x) / step, rtol=1e-5, atol=1e-6):
        return False
    kinks = case.atom.kinks(v[0], full(case, 1.0), case.data)
    jumps = [case.atom.value(k + 1e-5, case.data) + case.atom.value(k - 1e-5, case.data) for k in kinks]
    return all(bool(((j - 2 * case.atom.value(k, case.data)) <= 1e-7).all()) for j, k in zip(jumps, kinks, strict=True))


def _is_strongly_convex(case: Case) -> bool:
    v, h, data = normal(case, (50,)), normal(case, (50,), seed=8), lead(case.data, 1)
    one = full(case, 1.0)
    moved = case.atom.prox(v + h, one, data) - case.atom.prox(v, one, data)
    rate = moved.reshape(50, -1).norm(dim=-1) / h.reshape(50, -1).norm(dim=-1)
    return float(rate.max()) <= 1 - 1e-3


_TRUTH: Mapping[Trait, Callable[[Case], bool]] = {
    Trait.SET: _is_set,
    Trait.CONE: _is_cone,
    Trait.INTERVAL: lambda case: _is_set(case) and _is_separable(case),
    Trait.HOMOGENEOUS: _is_homogeneous,
    Trait.EVEN: _is_even,
    Trait.SEPARABLE: _is_separable,
    Trait.QUADRATIC: _is_quadratic,
    Trait.LINEAR: _is_linear,
    Trait.SMOOTH: _is_smooth,
    Trait.STRONGLY_CONVEX: _is_strongly_convex,
}
_OPTIONAL = frozenset({Trait.SMOOTH, Trait.STRONGLY_CONVEX, Trait.QUADRATIC})
