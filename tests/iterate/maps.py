"""Batched maps with a known fixed point, in the form a driver wants them: restrict(rows) -> T."""

import itertools
from dataclasses import dataclass, field

import torch
from torch import Tensor

from opteq_cvx.descent import Heavy, Map, SharedSteps, Steps


@dataclass
class Unit:
    """T(z) = act(z M + c), M (d, d), c (B, d); counts the rows it was applied to."""

    M: Tensor
    c: Tensor
    act: Map = torch.relu
    calls: list[int] = field(default_factory=list)

    def restrict(self, rows: Tensor | None) -> Map:
        c = self.c if rows is None else self.c[rows]

        def T(z: Tensor) -> Tensor:
            self.calls.append(z.shape[0])
            return self.act(torch.addmm(c, z, self.M))

        return T

    def steps(self, rows: Tensor | None) -> Steps:
        """The same as a proximal-gradient step, for `act` a projection; counts as `restrict` does."""
        c = self.c if rows is None else self.c[rows]
        out = SharedSteps(self.M, c, lambda a: self.act)
        gradient, heavy = out.gradient, out.heavy

        def counted(z: Tensor) -> Tensor:
            self.calls.append(z.shape[0])
            return gradient(z)

        def momentum(a: float, b: float) -> Heavy:
            step = heavy(a, b)

            def move(z: Tensor, before: Tensor) -> Tensor:
                self.calls.append(z.shape[0])
                return step(z, before)

            return move

        out.gradient, out.heavy = counted, momentum  # type: ignore[method-assign]
        return out

    def buffered(self, rows: Tensor | None) -> Map:
        """The same, writing into two buffers of its own in turn, as fast splittings do."""
        c = self.c if rows is None else self.c[rows]
        buffers = (torch.empty_like(c), torch.empty_like(c))

        turns = itertools.cycle(buffers)

        def T(z: Tensor) -> Tensor:
            return next(turns).copy_(self.act(torch.addmm(c, z, self.M)))

        return T


def affine_solution(unit: Unit) -> Tensor:
    """z = z M + c by a dense solve."""
    d = unit.M.shape[0]
    identity = torch.eye(d, dtype=unit.M.dtype)
    return torch.linalg.solve((identity - unit.M).T, unit.c.T).T


def relu_solution(unit: Unit) -> Tensor:
    """z = relu(z M + c), M symmetric with ‖M‖ < 1: the minimizer of ½zᵀ(I − M)z − cᵀz over z ≥ 0, by an active set."""
    rows = []
    quadratic = torch.eye(unit.M.shape[0], dtype=unit.M.dtype) - unit.M
    for c in unit.c:
        passive = torch.zeros_like(c, dtype=torch.bool)
        z = torch.zeros_like(c)
        while True:  # Lawson and Hanson
            slack = c - quadratic @ z
            slack[passive] = -torch.inf
            if slack.max() <= 1e-12:
                break
            passive[slack.argmax()] = True
            while True:
                trial = torch.zeros_like(c)
                trial[passive] = torch.linalg.solve(quadratic[passive][:, passive], c[passive])
                if trial[passive].min() > 0:
                    z = trial
                    break
                low = passive & (trial <= 0)
                step = (z[low] / (z[low] - trial[low])).min()
                z = z + step * (trial - z)
                passive &= z > 1e-14
                z = torch.where(passive, z, 0.0)
        rows.append(z)
    return torch.stack(rows)


def symmetric(d: int, largest: float, generator: torch.Generator, smallest: float = 0.0) -> Tensor:
    """A random symmetric matrix with eigenvalues spread over [smallest, largest], both attained."""
    basis, _ = torch.linalg.qr(torch.randn(d, d, dtype=torch.float64, generator=generator))
    values = torch.linspace(smallest, largest, d, dtype=torch.float64)
    return (basis * values) @ basis.T
