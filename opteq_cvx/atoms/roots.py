"""Functions defined by an equation: solved without gradient, differentiated by the implicit function theorem.

The solver is Newton's method inside a bracket; it stops early on the CPU only, so that a GPU is never waited
for. Derivatives are formulas of the solution, never unrolled steps: exact, of any order, in reverse and
forward mode, under vmap.
Source: Press et al., *Numerical Recipes*, section 9.4 (safeguard).
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from typing_extensions import override

from opteq_cvx.atoms.primitives import underived
from opteq_cvx.ir.frozen import Shape

STEPS = 100
"""Most steps of `newton`: enough to bisect wide brackets down to where Newton's method converges."""

QUICK = 10
"""Steps from a given start that are tried without bisection first."""


class Implicit(ABC):
    """x(θ), given by a solver and by the two products with its derivative."""

    @abstractmethod
    def solve(self, *inputs: Tensor) -> Tensor:
        """x at θ; its own derivative is not used."""

    @abstractmethod
    def push(self, x: Tensor, inputs: tuple[Tensor, ...], tangents: tuple[Tensor, ...]) -> Tensor:
        """(∂x/∂θ) dθ at the solution x."""

    @abstractmethod
    def pull(self, x: Tensor, inputs: tuple[Tensor, ...], grad: Tensor) -> tuple[Tensor, ...]:
        """(∂x/∂θ)ᵀ grad, one for each input."""

    def __call__(self, *inputs: Tensor) -> Tensor:
        """x(θ), differentiable."""
        x: Tensor = _Solve.apply(self, *inputs)  # type: ignore[no-untyped-call]
        return x


class _Solve(torch.autograd.Function):
    @staticmethod
    @override
    def forward(rule: Implicit, *inputs: Tensor) -> Tensor:
        return rule.solve(*inputs)

    @staticmethod
    @override
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.rule = inputs[0]
        ctx.save_for_backward(output, *inputs[1:])
        ctx.save_for_forward(output, *inputs[1:])

    @staticmethod
    @override
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, *inputs = ctx.saved_tensors
        return (None, *ctx.rule.pull(x, tuple(inputs), grad))

    @staticmethod
    @override
    def jvp(ctx: Any, _: None, *tangents: Tensor | None) -> Tensor:
        x, *inputs = ctx.saved_tensors
        given = tuple(torch.zeros_like(i) if d is None else d for i, d in zip(inputs, tangents, strict=True))
        pushed: Tensor = ctx.rule.push(x, tuple(inputs), given)
        return pushed

    @staticmethod
    @override
    def vmap(info: Any, in_dims: tuple[int | None, ...], rule: Implicit, *inputs: Tensor) -> tuple[Tensor, int]:
        """The mapped axis becomes the first batch axis of every input."""
        moved = [
            i.unsqueeze(0).expand(info.batch_size, *i.shape) if d is None else i.movedim(d, 0)
            for i, d in zip(inputs, in_dims[1:], strict=True)
        ]
        return rule(*moved), 0


class Entrywise(Implicit):
    """A function entry by entry of inputs that broadcast: `partials` are its derivatives by each input.

    Where nothing is derived, `solve` gets the inputs as they are: a step of one entry is not worked on at full size.
    """

    @abstractmethod
    def partials(self, x: Tensor, *inputs: Tensor) -> tuple[Tensor, ...]:
        """∂x/∂θ for each input, differentiable formulas of x and θ."""

    @override
    def push(self, x: Tensor, inputs: tuple[Tensor, ...], tangents: tuple[Tensor, ...]) -> Tensor:
        first, *rest = (p * d for p, d in zip(self.partials(x, *inputs), tangents, strict=True))
        return sum(rest, first)

    @override
    def pull(self, x: Tensor, inputs: tuple[Tensor, ...], grad: Tensor) -> tuple[Tensor, ...]:
        return tuple(p * grad for p in self.partials(x, *inputs))

    @override
    def __call__(self, *inputs: Tensor) -> Tensor:
        if underived(*inputs):
            return self.solve(*inputs)
        shape = _joint_shape(inputs)
        return Implicit.__call__(self, *(i.expand(shape) for i in inputs))


def _joint_shape(inputs: Sequence[Tensor]) -> Shape:
    """By NumPy: torch's own rule imports SymPy at its first call, which takes a second. (Broadcasting the tensors
    together would lift each to the level of the outermost transform, where functorch loses it.)"""
    shapes = [tuple(i.shape) for i in inputs]
    return tuple(torch.broadcast_shapes(*shapes) if torch.compiler.is_compiling() else np.broadcast_shapes(*shapes))


# --- solvers, without derivative ---------------------------------------------------------------------------


def newton(
    residual: Callable[[Tensor], tuple[Tensor, Tensor]],
    low: Tensor,
    high: Tensor,
    start: Tensor | None = None,
    scale: Tensor | float = 0.0,
) -> Tensor:
    """The root of an increasing function in [low, high], finite bounds, entry by entry, to rounding.

    A step that leaves the bracket, or is not half the last one, is replaced by a bisection; after two of these in a row
    any step inside is taken, as with a root at the bracket's end every step is about half of it. NaN stays NaN. Two
    small steps in a row end it too: the first one leaves an error of its square, the second one is the noise of the
    residual. From a given start the CPU tries plain steps first, of a third of the operations.

    Args:
        residual: x to the function and its slope.
        low: lower bounds.
        high: upper bounds.
        start: where to begin, the middle by default.
        scale: of the numbers that the residual subtracts: the root is asked for to rounding of |x| + scale.
    """
    middle = low + 0.5 * (high - low)
    x, ended = (middle, False) if start is None else _plain(residual, low, high, start, scale)
    if ended:
        return x
    x = torch.where(x.isfinite(), x, middle)
    last = high - low
    rounding = 2.0 * torch.finfo(x.dtype).eps
    small = torch.finfo(x.dtype).eps ** 0.6  # a relative step whose square is far below rounding
    near = torch.zeros_like(x, dtype=torch.bool)
    bisect = free = near
    for _ in range(STEPS):
        g, slope = residual(x)
        low, high = torch.where(g <= 0, x, low), torch.where(g >= 0, x, high)
        step = torch.where(g == 0, 0.0, g / slope)
        to = x - step
        tiny = small * (x.abs() + scale)
        slow = (2.0 * step.abs() > last) & (step.abs() > tiny) & ~free
        before, bisect = bisect, slow | (to < low) | (to > high) | (step.isnan() & ~g.isnan())
        free = before & bisect
        to = torch.where(bisect, low + 0.5 * (high - low), to)
        last = (to - x).abs()
        x = to
        was_near, near = near, ~bisect & (last <= tiny)
        if may_stop(x, (last > rounding * (x.abs() + scale)) & ~(near & was_near)):
            break
    return x


def _plain(
    residual: Callable[[Tensor], tuple[Tensor, Tensor]], low: Tensor, high: Tensor, x: Tensor, scale: Tensor | float
) -> tuple[Tensor, bool]:
    """A few of Newton's steps, kept in the bracket, and whether all entries have ended; none where none may be asked.

    An entry that stays at an end is one whose root is there or beyond: the function increases.
    """
    if x.device.type != "cpu" or torch.compiler.is_compiling():
        return x, False
    eps = torch.finfo(x.dtype).eps
    rounding, small = 2.0 * eps, eps**0.6
    near = None
    for _ in range(QUICK):
        g, slope = residual(x)
        to = torch.minimum(torch.maximum(x - g / slope, low), high)
        size, limit = (to - x).abs(), x.abs() + scale
        x = to
        was_near, near = near, size <= small * limit
        ended = size <= rounding * limit if was_near is None else (size <= rounding * limit) | (near & was_near)
        if bool(ended.all()):
            return x, True
    return x, False


def may_stop(x: Tensor, moves: Tensor) -> bool:
    """Whether no entry moves; asked on the CPU only, where the answer is at hand."""
    if x.device.type == "meta":
        return True
    return x.device.type == "cpu" and not torch.compiler.is_compiling() and not bool(moves.any())


def wright_omega(z: Tensor) -> Tensor:
    """ω(z) > 0 with ω + ln ω = z, the Lambert function W(eᶻ), to rounding; ω(−inf) = 0.

    Source: Lawrence, Corless, Jeffrey, *Algorithm 917: Complex double-precision evaluation of the Wright ω
    function*, ACM TOMS 38, 2012: one step of their iteration has order four.
    """
    small = z.clamp(min=-40.0)  # below, ω = eᶻ to rounding
    large = z.clamp(min=1.0)
    middle = 1.0 + 0.5 * (z - 1.0) + (z - 1.0) ** 2 / 16.0
    power = torch.exp(small.clamp(max=0.0))
    w = torch.where(
        z > 3.0,
        large - large.log() * (1.0 - 1.0 / large),
        torch.where(z < -1.5, power / (1.0 + power), middle),
    )
    for _ in range(2):
        w = _order_four(small, w)
    return torch.where(z > -40.0, w, torch.where(z.isnan(), z, z.exp()))


def _order_four(z: Tensor, w: Tensor) -> Tensor:
    r = z - w - w.log()
    u, q = r / (1.0 + w), 1.0 + w + 2.0 / 3.0 * r  # q without its factor 1 + w, whose square overflows
    return w * (1.0 + u * (q - 0.5 * u) / (q - u))


def next_omega(z: Tensor, omega: Tensor, step: Tensor) -> Tensor:
    """ω(z) from ω(z − step), for small steps: its tangent, and one step of order four."""
    slope = omega / (1.0 + omega)
    w = _order_four(z, (omega + slope * step).clamp_min(torch.finfo(z.dtype).tiny))
    return torch.where(z > -40.0, w, torch.where(z.isnan(), z, z.exp()))


def exp_root(v: Tensor, t: Tensor) -> Tensor:
    """x with x + t·eˣ = v, for t ≥ 0: v − ω(v + ln t), or ln(ω/t) where that subtraction would cancel."""
    log_t = t.log()
    omega = wright_omega(v + log_t)
    near = omega > 1.0
    x = torch.where(near, torch.where(near, omega, 1.0).log() - torch.where(near, log_t, 0.0), v - omega)
    power = t * x.exp()
    better = x - (x + power - v) / (1.0 + power)  # what the rounding of ln t did
    return torch.where(better.isfinite(), better, x)


def grow_root(v: Tensor, k: Tensor, q: float) -> Tensor:
    """x ≥ 0 with x + k·x^q = v, for k ≥ 0, q > 0; 0 where v ≤ 0. A quadratic equation for q = 2 and q = ½."""
    v = torch.where(v <= 0, 0.0, v)
    if q == 2.0:
        return 2.0 * v / (1.0 + torch.hypot(torch.ones_like(k), 2.0 * k.sqrt() * v.sqrt()))
    if q == 0.5:
        below = k + torch.hypot(k, 2.0 * v.sqrt())
        return (2.0 * v / torch.where(below > 0, below, 1.0)) ** 2
    k = k.clamp(min=torch.finfo(k.dtype).tiny)
    high = torch.minimum(v, (v / k) ** (1.0 / q))
    low = torch.minimum(0.5 * v, (0.5 * v / k) ** (1.0 / q))  # one of the two terms is at least v/2
    return newton(lambda x: (x + k * x**q - v, 1.0 + k * q * x ** (q - 1.0)), low, high)


def fall_root(v: Tensor, k: Tensor, q: float) -> Tensor:
    """x ≥ 0 with x − k·x^q = v, for k ≥ 0, q < 0; max(v, 0) where k = 0."""
    middle = k ** (1.0 / (1.0 - q))  # x at v = 0
    positive = torch.where(v <= 0, 0.0, v)
    low = torch.where(v >= 0, torch.maximum(v, middle), (k / (middle - v)) ** (-1.0 / q))
    x = newton(lambda x: (x - k * x**q - v, 1.0 - k * q * x ** (q - 1.0)), low, positive + middle, low)
    return torch.where(k > 0, x, torch.where(k == 0, positive, k))
