"""The objective of a program at given variables, term by term, and the violation of its constraints."""

from collections.abc import Mapping

import torch
from torch import Tensor

from opteq_cvx.atoms import Atom, Trait, atom
from opteq_cvx.ir.frozen import size
from opteq_cvx.ir.program import Program, Term
from opteq_cvx.maps.affine import affine
from opteq_cvx.maps.evaluate import Environment
from opteq_cvx.maps.peek import known_finite, known_true
from opteq_cvx.splitting.pieces import product

TINY = 1e-10  # the step with which a prox becomes the projection onto the domain; where the value allows it, far less
SLACK = 0.4  # rounding to this power is how far outside, relatively, an iterate may lie


def objective(program: Program, variables: Mapping[str, Tensor], env: Environment) -> Tensor:
    """sign · (offset + Σ ⟨w, f(Kx + b)⟩) over the terms that are functions, (1|B,), as the user wrote it."""
    total = env(program.offset).reshape(-1)
    for term in program.terms:
        if Trait.SET not in atom(term.atom).traits:
            total = total + term_value(term, variables, env)
    return program.sign * total


def violation(program: Program, variables: Mapping[str, Tensor], env: Environment) -> Tensor:
    """The largest violation over the terms that are sets, (1|B,); 0 when there is none."""
    worst = env(program.offset).reshape(-1) * 0.0
    for term in program.terms:
        f = atom(term.atom).from_static(term.static)
        if Trait.SET in f.traits:
            found = f.violation(affine(term.arg, variables, env), term_data(term, env))
            if found is not None and found[0].numel():
                worst = torch.maximum(worst, found.reshape(found.shape[0], size(found.shape[1:])).amax(dim=1))
    return worst


def term_value(term: Term, variables: Mapping[str, Tensor], env: Environment) -> Tensor:
    """⟨w, f(Kx + b)⟩ of one term, (1|B,)."""
    f = atom(term.atom).from_static(term.static)
    x = affine(term.arg, variables, env)
    curved = _curved(term, x, env)
    if curved is not None:
        value, data = curved, {}
    else:
        data = term_data(term, env)
        value = f.value(x, data)
    if Trait.SET not in f.traits and curved is None:
        value = f.value(_inside(f, x, value, data), data)
    if term.weight is not None:
        weight = env(term.weight)
        weight = weight.reshape(weight.shape[0], *(1,) * (value.ndim - weight.ndim), *weight.shape[1:])
        if not known_finite(value):  # a weight of 0 removes the function with its domain
            value = torch.where((weight == 0) & ~torch.isfinite(value.detach()), 0.0, value)
        value = value * weight
    return value.reshape(value.shape[0], size(value.shape[1:])).sum(dim=1)


def _curved(term: Term, x: Tensor, env: Environment) -> Tensor | None:
    """xᵀPx (B, 1) of a quadratic form whose matrix is made of convolutions and never formed; else None."""
    if term.atom != "quad_form" or len(term.arg.shape) != 1:
        return None
    image = product(term.data["P"], x, env)
    return None if image is None else (x * image).sum(dim=1, keepdim=True)


def _inside(f: Atom, x: Tensor, value: Tensor, data: Mapping[str, Tensor]) -> Tensor:
    """x, put onto the domain of f where it lies outside by no more than an iterate's rounding (x of a solved program
    may be -1e-12 where f needs x >= 0); `value` is f(x).

    The smaller the step of the prox, the closer to the boundary, where f may be infinite, or jump (x²/y at the origin):
    of two steps the one whose value is smaller counts.
    """
    if known_true(torch.isfinite(value)):
        return x
    eps, here, found = torch.finfo(x.dtype).eps, x.detach(), x
    least = torch.full_like(value.detach(), torch.inf)
    for step in (TINY, eps * eps):
        onto = f.prox(here, torch.full_like(least, step), data).detach()
        near = (onto - here).abs() <= eps**SLACK * (1.0 + here.abs())
        worth = f.value(onto, data).detach().abs()
        found = torch.where(torch.isfinite(value) | ~(worth < least) | ~near, found, x + (onto - here))
        least = torch.minimum(least, torch.where(worth.isnan(), torch.inf, worth))
    return found


def term_data(term: Term, env: Environment) -> dict[str, Tensor]:
    """The data of a term's atom, aligned with its argument (1|B, *event)."""
    ndim = len(term.arg.shape) + 1
    out = {}
    for key, expr in term.data.items():
        value = env(expr)
        missing = ndim - value.ndim
        out[key] = value.reshape(value.shape[0], *(1,) * missing, *value.shape[1:]) if missing > 0 else value
    return out
