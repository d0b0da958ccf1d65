"""Activations in CVXPY: the convex f whose prox is σ, and ψ* = f + ½‖u‖², where σ(a) minimizes ψ*(u) − ⟨a, u⟩.

Each is a CVXPY atom, convex by declaration, with values by NumPy. CVXPY solves it where its
epigraph has a cone form: ψ* of tanh, sigmoid, softmax by entropy, of softsign by a logarithm, of a/√(1 + a²)
by a second-order cone, of the piecewise ones by squares and bounds. The network needs no cone form.
"""

import inspect
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import cvxpy as cp
import numpy as np
import torch
from cvxpy.atoms.atom import Atom
from cvxpy.reductions.dcp2cone.canonicalizers import CANON_METHODS
from torch import Tensor
from typing_extensions import override

from opteq_cvx.activations import ACTIVATIONS, Activation, table
from opteq_cvx.errors import UnsupportedError, message
from opteq_cvx.ir.frozen import Array

CVX: Any = cp
SOLVED = 1e-6  # how far outside the domain a solver's point may be to have a value
Parts = tuple[cp.Expression, list[cp.Constraint]]


@dataclass(frozen=True, slots=True)
class DeclaredActivation:
    """What `activation` returns.

    Attributes:
        row: σ, its slope, f, the primitive and the Lipschitz constant, on tensors.
        options: the row's options, defaults filled in.
    """

    row: Activation
    options: Mapping[str, float]

    @property
    def name(self) -> str:
        """The activation's name."""
        return self.row.name

    def __call__(self, u: Any) -> cp.Expression:
        """ψ*(u) = f(u) + ½‖u‖², summed: minimize ψ*(u) − ⟨Wz + b, u⟩ to get u = σ(Wz + b)."""
        return _summed(ActivationAtom(u, self.name, dict(self.options), True))

    def f(self, u: Any) -> cp.Expression:
        """f(u), summed: σ = prox_f."""
        return _summed(ActivationAtom(u, self.name, dict(self.options), False))


def activation(name: str, **options: float) -> DeclaredActivation:
    """The convex function behind an activation, to declare with: `activation("tanh")(u) - (W @ x + b) @ u`.

    Args:
        name: identity, linear (slope·a), relu, hardtanh, relu6, leaky_relu, soft_threshold, hard_sigmoid, tanh,
            sigmoid, softplus, log_sigmoid, squareplus, softsign, algebraic (a/√(1 + a²)), arctan, tanhshrink, elu,
            celu; along the last axis softmax, sparsemax and group_shrink. Torch's names work too (softshrink,
            hardsigmoid, prelu).
        options: slope, threshold, alpha, beta, mu, bound, lower, upper, as the activation has them.

    Raises:
        CompileError: σ is the prox of no convex function, an unknown name, or options outside their range.

    Source: Combettes, Pesquet, arXiv 1808.07526, section 2.
    """
    row = table(name, **options)
    defaults = {k: p.default for k, p in inspect.signature(ACTIVATIONS[row.name]).parameters.items()}
    return DeclaredActivation(row, {k: float(v) for k, v in {**defaults, **options}.items()})


def _summed(x: cp.Expression) -> cp.Expression:
    total: cp.Expression = x if x.shape == () else CVX.sum(x)
    return total


class ActivationAtom(Atom):
    """f, or ψ* = f + ½u² with `half`, entry by entry (softmax and others of rows: a number for each row)."""

    def __init__(self, u: Any, name: str, options: dict[str, float], half: bool) -> None:
        self.activation, self.options, self.half = name, options, half
        super().__init__(u)

    @override
    def get_data(self) -> Any:
        return [self.activation, self.options, self.half]

    @override
    def name(self) -> str:
        given = "".join(f", {k}={v:g}" for k, v in self.options.items())
        tail = "" if self.half else ".f"
        return f"activation({self.activation!r}{given}){tail}({self.args[0]})"

    @property
    def row(self) -> Activation:
        """The functions on tensors."""
        return table(self.activation, **self.options)

    @override
    def shape_from_args(self) -> tuple[int, ...]:
        shape = tuple(self.args[0].shape)
        return shape[:-1] if self.row.vector else shape

    def numeric(self, values: list[Any]) -> Array:
        """The value."""
        u = self._snapped(torch.as_tensor(np.array(values[0], dtype=np.float64)))
        f = self.row.f(u)
        if self.half:
            squares = 0.5 * u * u
            f = f + (squares.sum(-1, keepdim=True) if self.row.vector else squares)
        return f.numpy().reshape(self.shape)

    def _snapped(self, u: Tensor) -> Tensor:
        """A point that a solver left just outside the domain, moved onto it."""
        row = self.row
        inside = u.clamp(row.lower, row.upper)
        u = torch.where((u - inside).abs() <= SOLVED, inside, u)
        if not row.simplex:
            return u
        total = u.sum(-1, keepdim=True)
        return torch.where((total - 1.0).abs() <= SOLVED * u.shape[-1], u / total, u)

    @override
    def sign_from_args(self) -> tuple[bool, bool]:
        return False, False

    @override
    def is_atom_convex(self) -> bool:
        return True

    @override
    def is_atom_concave(self) -> bool:
        return False

    @override
    def is_incr(self, idx: int) -> bool:
        return False

    @override
    def is_decr(self, idx: int) -> bool:
        return False

    @override
    def _grad(self, values: list[Any]) -> list[Any]:
        return [None]

    @override
    def _domain(self) -> list[cp.Constraint]:
        low, high, u = self.row.lower, self.row.upper, self.args[0]
        bounds = ([u >= low] if math.isfinite(low) else []) + ([u <= high] if math.isfinite(high) else [])
        return [*bounds, CVX.sum(u, axis=-1) == 1] if self.row.simplex else bounds


# --- cone forms: value and constraints of ψ* or f at an affine u --------------------------------------------


def _canonical(expr: Any) -> Parts:
    """A CVXPY function of an affine expression in cone form."""
    kind: Any = type(expr)
    value, constraints = CANON_METHODS[kind](expr, expr.args, None)
    return value, list(constraints)


def _entropies(*points: Any) -> Parts:
    """Σ p ln p, entry by entry."""
    found = [_canonical(CVX.entr(p)) for p in points]
    values: list[Any] = [v for v, _ in found]
    return -sum(values[1:], values[0]), [c for _, more in found for c in more]


def _half_square(u: Any) -> Parts:
    value, constraints = _canonical(CVX.square(u))
    return 0.5 * value, constraints


def _bounded(low: str | float, high: str | float) -> Callable[..., Parts]:
    def form(u: Any, options: Mapping[str, float]) -> Parts:
        ends = [options[e] if isinstance(e, str) else e for e in (low, high)]
        sides = [u >= ends[0]] if math.isfinite(ends[0]) else []
        return cp.Constant(np.zeros(u.shape)), sides + ([u <= ends[1]] if math.isfinite(ends[1]) else [])

    return form


def _linear(u: Any, options: Mapping[str, float]) -> Parts:
    value, constraints = _half_square(u)
    return (1.0 / options["slope"] - 1.0) * value, constraints


def _sparsemax(u: Any, options: Mapping[str, float]) -> Parts:
    return cp.Constant(np.zeros(u.shape[:-1])), [u >= 0, CVX.sum(u, axis=-1) == 1]


def _group(u: Any, options: Mapping[str, float]) -> Parts:
    value, constraints = _canonical(CVX.norm(u, 2, axis=-1) if u.ndim > 1 else CVX.norm(u, 2))
    return options["threshold"] * value, constraints


def _leaky(u: Any, options: Mapping[str, float]) -> Parts:
    below = CVX.Variable(u.shape, nonneg=True)
    value, constraints = _half_square(below)
    return (1.0 - options["slope"]) / options["slope"] * value, [*constraints, below >= -u]


def _threshold(u: Any, options: Mapping[str, float]) -> Parts:
    size = CVX.Variable(u.shape, nonneg=True)
    return options["threshold"] * size, [size >= u, size >= -u]


def _hard_sigmoid(u: Any, options: Mapping[str, float]) -> Parts:
    value, constraints = _half_square(u)
    return 5.0 * value - 3.0 * u, [*constraints, u >= 0, u <= 1]


def _squareplus(u: Any, options: Mapping[str, float]) -> Parts:
    value, constraints = _canonical(CVX.log(u))
    return -options["mu"] * value, constraints


ALONE: Mapping[str, Callable[[Any, Mapping[str, float]], Parts]] = {
    "identity": _bounded(-math.inf, math.inf),
    "linear": _linear,
    "relu": _bounded(0.0, math.inf),
    "hardtanh": _bounded("lower", "upper"),
    "relu6": _bounded(0.0, 6.0),
    "leaky_relu": _leaky,
    "soft_threshold": _threshold,
    "hard_sigmoid": _hard_sigmoid,
    "squareplus": _squareplus,
    "sparsemax": _sparsemax,
    "group_shrink": _group,
}
"""f alone."""


def _tanh(u: Any, options: Mapping[str, float]) -> Parts:
    value, constraints = _entropies(1 + u, 1 - u)
    return 0.5 * value, constraints


def _softmax(u: Any, options: Mapping[str, float]) -> Parts:
    value, constraints = _entropies(u)
    return CVX.sum(value, axis=-1), [*constraints, CVX.sum(u, axis=-1) == 1]


def _softsign(u: Any, options: Mapping[str, float]) -> Parts:
    size = CVX.Variable(u.shape, nonneg=True)
    value, constraints = _canonical(CVX.log(1 - size))
    return -size - value, [*constraints, size >= u, size >= -u]


def _algebraic(u: Any, options: Mapping[str, float]) -> Parts:
    height = CVX.Variable(u.shape)
    sides = CVX.vstack([CVX.vec(height, order="C"), CVX.vec(u, order="C")])
    return -height, [cp.SOC(cp.Constant(np.ones(u.size)), sides, axis=0)]


def _exponential(scaled: bool) -> Callable[..., Parts]:
    """½p² + g(q) over p + q = u, p ≥ 0 ≥ q: both have slope 0 at 0, so that one of them vanishes."""

    def form(u: Any, options: Mapping[str, float]) -> Parts:
        alpha = options["alpha"]
        p, q = CVX.Variable(u.shape, nonneg=True), CVX.Variable(u.shape, nonpos=True)
        square, first = _half_square(p)
        entropy, second = _entropies(alpha + q)
        curve = entropy - (alpha + q) * math.log(alpha) - q
        return square + (alpha if scaled else 1.0) * curve, [*first, *second, p + q == u]

    return form


WITH_SQUARE: Mapping[str, Callable[[Any, Mapping[str, float]], Parts]] = {
    "tanh": _tanh,
    "sigmoid": lambda u, options: _entropies(u, 1 - u),
    "softmax": _softmax,
    "softsign": _softsign,
    "algebraic": _algebraic,
    "elu": _exponential(False),
    "celu": _exponential(True),
}
"""ψ* where f alone has no cone form."""


def _canonicalize(expr: ActivationAtom, args: list[Any], solver_context: object = None) -> Parts:
    name, u = expr.activation, args[0]
    if name in ALONE:
        value, constraints = ALONE[name](u, expr.options)
        if not expr.half:
            return value, constraints
        square, more = _half_square(u)
        square = CVX.sum(square, axis=-1) if expr.row.vector else square
        return value + square, [*constraints, *more]
    if expr.half and name in WITH_SQUARE:
        return WITH_SQUARE[name](u, expr.options)
    fix = "compile it instead of solving it by CVXPY"
    if name in WITH_SQUARE:
        fix += f", or write activation({name!r})(u), which is f(u) + 0.5 * sum_squares(u)"
    raise UnsupportedError(message(f"{expr.name()} has no cone form", "a function that CVXPY can solve", fix))


CANON_METHODS[ActivationAtom] = _canonicalize
