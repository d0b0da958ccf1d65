"""Program → CVXPY: for layers loaded from disk, and as the reference exporter for cvxpylayers.

Every ParamExpr becomes a fresh `cp.Parameter` whose value torch computes and differentiates; every affine map
with parameters gets a variable of its own, y == K x + b; a quadratic form xᵀPx becomes ‖Bx‖² with B =
chol(P)ᵀ, or an eigenvalue factor, without derivative, where P is singular. What results is DPP for every atom
whose own CVXPY form is.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import cvxpy as cp
import torch
from torch import Tensor

from opteq_cvx.errors import CompileError, NotConvexError, message
from opteq_cvx.ir.frozen import Array, FrozenDict, size
from opteq_cvx.ir.linmap import Identity
from opteq_cvx.ir.param import Apply, Const, ParamExpr, is_zero
from opteq_cvx.ir.program import Affine, Program, Term
from opteq_cvx.verify.convexity import EIGENVALUE_SLACK, SMALLEST
from opteq_cvx.verify.cvx import add, broadcast, has_parameters, matmul, multiply, reshape, total, vec
from opteq_cvx.verify.linear import apply
from opteq_cvx.verify.meanings import HALF, NONNEGATIVE, Argument, Meaning, meaning

Evaluate = Callable[[ParamExpr], Tensor]
"""Gives a ParamExpr its value for one sample, (1, *shape), in float64; a `maps.evaluate.Environment` is
one."""

SINGULAR = 1e-9
"""λ_min / λ_max of a quadratic form below which its Cholesky factor is not differentiated."""


@dataclass(frozen=True, slots=True)
class Hoisted:
    """A fresh parameter, the expression it stands for, and whether it holds that matrix's factor B, BᵀB =
    P."""

    parameter: cp.Parameter
    expr: ParamExpr
    factor: bool = False


@dataclass(frozen=True, slots=True)
class Rebuilt:
    """A CVXPY problem equivalent to a Program at any parameter values.

    Attributes:
        problem: Over `cp.Parameter`s with values; solve it with `verify.exact`, or hand it to cvxpylayers.
        outputs: One variable per output of the program, in its own shape, then one per imaginary part.
        hoisted: What each parameter of `problem` stands for.
        dpp: Whether `problem` is DPP, so that cvxpylayers takes it.
    """

    problem: cp.Problem
    outputs: tuple[cp.Variable, ...]
    hoisted: tuple[Hoisted, ...]
    dpp: bool

    def tensors(self, env: Evaluate) -> tuple[Tensor, ...]:
        """The value of each hoisted parameter, without batch axis, differentiable in what `env` holds.

        Raises:
            NotConvexError: a quadratic form or a weight is negative at these values.
        """
        return tuple(_value(h, env) for h in self.hoisted)

    def values(self, env: Evaluate) -> dict[cp.Parameter, Array]:
        """The same as NumPy arrays, keyed by parameter."""
        tensors = self.tensors(env)
        return {h.parameter: t.detach().cpu().numpy() for h, t in zip(self.hoisted, tensors, strict=True)}

    def smooth(self, env: Evaluate) -> bool:
        """Whether every factor is a Cholesky factor at these values, so that `tensors` is differentiable."""
        return all(_regular(env(h.expr)[0]) for h in self.hoisted if h.factor)


def rebuild(program: Program, env: Evaluate) -> Rebuilt:
    """Write `program` in CVXPY, with the values of `env` in its parameters.

    Raises:
        NotConvexError: a quadratic form or a weight is negative at these values.
        UnsupportedError: an atom has no CVXPY form (`verify.meanings`).
    """
    return _Builder(program, env).build()


@dataclass
class _Builder:
    """The parameters, variables and constraints made so far."""

    program: Program
    env: Evaluate
    hoisted: dict[tuple[int, str], Hoisted] = field(default_factory=dict)
    constraints: list[cp.Constraint] = field(default_factory=list)
    variables: dict[str, cp.Variable] = field(default_factory=dict)

    def build(self) -> Rebuilt:
        """Variables, terms, outputs, in this order."""
        self.variables = {v.name: cp.Variable(size(v.shape), name=v.name) for v in self.program.variables}
        cost = add([total(self.leaf(self.program.offset)), *(self.term(t) for t in with_squares(self.program.terms))])
        wanted = self.program.outputs
        flat = (*(o.value for o in wanted), *(o.imaginary for o in wanted if o.imaginary is not None))
        outputs = tuple(self.output(value) for value in flat)
        goal = cp.Minimize(cost) if self.program.sign > 0 else cp.Maximize(-cost)
        problem = cp.Problem(goal, self.constraints)
        return Rebuilt(problem, outputs, tuple(self.hoisted.values()), _dpp(problem))

    def leaf(self, expr: ParamExpr, kind: str = "") -> cp.Expression:
        """The constant or the parameter that stands for `expr`; `kind` "nonneg" for weights, "factor" for
        matrices."""
        if isinstance(expr, Const):
            if kind == "factor":
                entry = Hoisted(cp.Parameter(expr.shape), expr, factor=True)
                return cp.Constant(_value(entry, self.env).numpy())
            if kind == "nonneg" and expr.dense().size and float(expr.dense().min()) < 0.0:
                raise _negative(expr.dense().min())
            return cp.Constant(expr.value)
        key = (id(expr), kind)
        if key not in self.hoisted:
            parameter = cp.Parameter(expr.shape, nonneg=kind == "nonneg")
            entry = Hoisted(parameter, expr, kind == "factor")
            parameter.value = _value(entry, self.env).detach().cpu().numpy()
            self.hoisted[key] = entry
        return self.hoisted[key].parameter

    def detach(self, x: cp.Expression, sign: str = "") -> cp.Expression:
        """A fresh variable equal to x where x holds parameters (or where it must carry a sign)."""
        if not sign and not has_parameters(x):
            return x
        y = cp.Variable(x.shape, nonneg=sign == "nonneg", nonpos=sign == "nonpos")
        self.constraints.append(y == x)
        return y

    def affine(self, value: Affine) -> cp.Expression:
        """Σ K_v v + b, flat in C order."""
        parts = [apply(m, self.variables[name], self.leaf, self.detach) for name, m in value.parts]
        if not is_zero(value.offset) or not parts:
            parts.append(vec(self.leaf(value.offset)))
        return add(parts)

    def output(self, value: Affine) -> cp.Variable:
        """A variable equal to an affine expression, in its own shape."""
        y = cp.Variable(value.shape)
        self.constraints.append(vec(y) == self.affine(value))
        return y

    def term(self, term: Term) -> cp.Expression:
        """⟨weight, f(argument)⟩; a set adds its constraints and contributes 0."""
        flat = self.detach(self.affine(term.arg))
        if term.atom == "quad_form":  # xᵀPx is ‖Bx‖²: B moves into the argument
            rows = matmul(reshape(flat, (-1, term.arg.shape[-1])), self.leaf(term.data["P"], "factor").T)
            flat = self.detach(vec(rows))
            data = {}
        else:
            starts = NONNEGATIVE.get(term.atom, ())
            kinds = {name: "nonneg" if name.startswith(starts) else "" for name in term.data}
            data = {name: self.leaf(expr, kinds[name]) for name, expr in term.data.items()}
        found = meaning(term.atom, Argument(flat, term.arg.shape), term.static, data)
        for sign in ("nonneg", "nonpos"):
            if _convex(found):
                break
            signed = self.detach(flat, sign)
            found = meaning(term.atom, Argument(signed, term.arg.shape), term.static, data)
        if not _convex(found):
            raise CompileError(
                message(
                    f"CVXPY does not see that atom {term.atom!r} is convex",
                    "a DCP form",
                    "report it",
                    term.origin,
                )
            )
        if isinstance(found, list):
            self.constraints.extend(found)
            return cp.Constant(0.0)
        if term.weight is None:
            return total(found)
        weight = self.leaf(term.weight, "nonneg")
        if weight.size == 1:
            return multiply(reshape(weight, ()), total(found))
        full = weight if weight.size == found.size else broadcast(weight, term.arg.shape)
        return total(multiply(vec(full), found))


def with_squares(terms: Sequence[Term]) -> tuple[Term, ...]:
    """Each activation's f on a whole variable together with a ½‖u‖² on it: f alone may have no cone form."""
    squares = {t.arg.parts[0][0]: t for t in terms if t.atom == "square" and _whole(t) and _half(t.weight)}
    taken: set[int] = set()
    out: list[Term] = []
    for term in terms:
        square = squares.get(term.arg.parts[0][0]) if term.atom.startswith("activation_") and _whole(term) else None
        if square is not None and term.weight is None and id(square) not in taken:
            taken.add(id(square))
            term = replace(term, static=FrozenDict({**term.static, HALF: True}))
        out.append(term)
    return tuple(t for t in out if id(t) not in taken)


def _whole(term: Term) -> bool:
    """Whether the argument is one variable itself."""
    parts = term.arg.parts
    return len(parts) == 1 and isinstance(parts[0][1], Identity) and is_zero(term.arg.offset)


def _half(weight: ParamExpr | None) -> bool:
    return isinstance(weight, Const) and bool((weight.dense() == 0.5).all())


def _dpp(problem: Any) -> bool:
    return bool(problem.is_dcp(dpp=True))


def _convex(found: Meaning) -> bool:
    if isinstance(found, list):
        return all(c.is_dcp() for c in found)
    return bool(found.is_convex())


def _negative(least: float) -> NotConvexError:
    return NotConvexError(message(f"a weight is {least:.3g}", "nonnegative weights", "declare it nonneg=True"))


def _value(entry: Hoisted, env: Evaluate) -> Tensor:
    """The value of one hoisted parameter; infinite bounds, which `meanings` drops, become 0."""
    value = env(entry.expr)[0].to(torch.float64)
    if entry.factor:
        return _factor(value, _scale(entry.expr, env))
    if entry.parameter.attributes["nonneg"] and value.numel() and float(value.detach().min()) < 0.0:
        raise _negative(float(value.detach().min()))
    return torch.where(torch.isinf(value), torch.zeros_like(value), value)


def _regular(P: Tensor) -> bool:
    values = torch.linalg.eigvalsh(0.5 * (P + P.mT).detach())
    return bool(values[0] > SINGULAR * values[-1])


def _scale(expr: ParamExpr, env: Evaluate) -> float:
    """The largest entry among the terms of a sum: what the rounding errors of I − W Wᵀ are relative to."""
    if isinstance(expr, Apply) and expr.op in ("add", "neg"):
        return max(_scale(arg, env) for arg in expr.args)
    value = env(expr).detach()
    return float(value.abs().max()) if value.numel() else 0.0


def _factor(P: Tensor, scale: float) -> Tensor:
    """B with BᵀB = P: the transposed Cholesky factor, or √λ Vᵀ without gradient where P is singular."""
    P = 0.5 * (P + P.mT)
    if _regular(P):
        lower: Tensor = torch.linalg.cholesky(P)
        return lower.mT
    values, vectors = torch.linalg.eigh(P.detach())
    if float(values[0]) < -EIGENVALUE_SLACK * max(scale, SMALLEST):
        found = f"a quadratic form has the eigenvalue {float(values[0]):.3g}"
        raise NotConvexError(message(found, "λ_min ≥ 0", "bound it by construction (norm=, PSD=True)"))
    factor: Tensor = values.clamp(min=0.0).sqrt().unsqueeze(-1) * vectors.mT
    return factor
