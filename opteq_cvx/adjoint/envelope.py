"""The optimal value as a function of the parameters: its gradient holds solution and multipliers, no adjoint solve."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from typing_extensions import override

from opteq_cvx.adjoint.fold import vectorize
from opteq_cvx.adjoint.problem import mend
from opteq_cvx.adjoint.pull import forward_again, pull, push
from opteq_cvx.ir.layout import Layout
from opteq_cvx.ir.program import Program
from opteq_cvx.maps.evaluate import Environment
from opteq_cvx.splitting.contract import Certificate, Prepared, Splitting
from opteq_cvx.splitting.flat import split
from opteq_cvx.splitting.objective import term_value
from opteq_cvx.splitting.saddle import Saddle
from opteq_cvx.splitting.structure import SMOOTH


@dataclass(frozen=True, slots=True, eq=False)
class Worth:
    """ℒ of a program at a saddle point as a function of its parameters' values, in the order of `names`."""

    program: Program
    splitting: Splitting
    names: tuple[str, ...]

    def environment(self, values: tuple[Tensor, ...]) -> Environment:
        """The parameters' values, (1|B, *shape) each."""
        return Environment(dict(zip(self.names, values, strict=True)), values[0].dtype, values[0].device)

    def saddle(self, z: Tensor, values: tuple[Tensor, ...], prepared: tuple[Tensor, ...]) -> Saddle:
        """Solution and multipliers at the state z (B, d)."""
        theta = self.splitting.theta(self.environment(values))
        return self.splitting.saddle(z, theta, Prepared(prepared, Certificate()))

    def __call__(self, point: Saddle, values: tuple[Tensor, ...]) -> Tensor:
        """sign · ℒ (B,): smooth terms at x, the others through their proxes."""
        env, program = self.environment(values), self.program
        variables = split(point.x, Layout.of(program))
        total = env(program.offset).reshape(-1) + point.proximal(self.splitting.theta(env))
        for term in program.terms:
            if term.atom in (*SMOOTH, "linear"):
                total = total + term_value(term, variables, env)
        return program.sign * total


class Envelope(torch.autograd.Function):
    """V(θ) = ℒ(x*, y*; θ), ∇V = ∂_θℒ: exact to first order in the accuracy of the solve.

    apply(worth, count, z, failed, *values, *prepared): V (B,), differentiable in the first `count` of the last tensors.
    z carries its own derivative: only second derivatives use it. Failed samples have a zero gradient.
    Source: envelope theorem; Danskin 1967.
    """

    @override
    @staticmethod
    def forward(worth: Worth, count: int, z: Tensor, failed: Tensor, *tensors: Tensor) -> Tensor:
        values, prepared = tensors[:count], tensors[count:]
        return worth(worth.saddle(z, values, prepared), values)

    @override
    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        ctx.worth, ctx.count, *tensors = inputs
        ctx.save_for_backward(*tensors)
        ctx.save_for_forward(*tensors)

    @override
    @staticmethod
    def backward(ctx: Any, *cotangents: Any) -> Any:
        failed = ctx.saved_tensors[1]
        g = cotangents[0].masked_fill(failed, 0.0)
        values, image = linearized(ctx.worth, ctx.count, ctx.saved_tensors)
        rest = len(ctx.saved_tensors) - 2 - ctx.count
        return None, None, None, None, *pull(image, values, g), *[None] * rest

    @override
    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Any:
        with forward_again(ctx) as saved:
            values, image = linearized(ctx.worth, ctx.count, saved)
            moves = tangents[4 : 4 + ctx.count]
            full = [torch.zeros_like(t) if move is None else move for t, move in zip(values, moves, strict=True)]
            return push(image, values, full).masked_fill(saved[1], 0.0)

    @override
    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], *arguments: Any) -> Any:
        worth, count, *tensors = arguments

        def apply(merged: list[Tensor]) -> tuple[Tensor, ...]:
            return (envelope(worth, count, *merged),)

        (v,), (dim,) = vectorize(apply, info.batch_size, tensors, in_dims[2:], full=2)
        return v, dim


envelope: Callable[..., Tensor] = Envelope.apply


def linearized(worth: Worth, count: int, saved: tuple[Tensor, ...]) -> tuple[tuple[Tensor, ...], Callable[..., Tensor]]:
    """The parameters' values and ℒ as a function of them, free of what failed samples hold."""
    z, failed, *tensors = saved
    z, *tensors = mend(failed, [z, *tensors])
    values, prepared = tuple(tensors[:count]), tuple(tensors[count:])
    point = worth.saddle(z, values, prepared)
    return values, lambda *chosen: worth(point, chosen)
