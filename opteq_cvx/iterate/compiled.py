"""Any iteration on a map that `torch.compile` has compiled."""

from dataclasses import dataclass, field

import torch
from torch import Tensor
from typing_extensions import override

from opteq_cvx.descent import Map
from opteq_cvx.iterate.contract import Iterate, Iteration, Progress, Restrict, Stop
from opteq_cvx.iterate.plain import Plain


@dataclass(frozen=True, slots=True, kw_only=True)
class Compiled(Iteration):
    """`inner` with T compiled by `torch.compile`: its kernels fused, the first solve slower by many seconds.

    The compiled code serves later solves of the same layer, whose tensors are its arguments; a new size of batch
    compiles once more. The iteration sees T as a black box: `Inertial` takes Nesterov's steps here, not the heavy
    ball's. Off by default: on the CPU it does not win for the programs of this repository (docs/howto/device.md).

    Args:
        inner: the iteration.
        mode: of `torch.compile`; "reduce-overhead" queues CUDA graphs where T can be recorded.
        backend: of `torch.compile`.

    Raises:
        torch._dynamo.exc.TorchDynamoException: at the first solve, where the backend cannot compile, as on machines
            without a C++ compiler.
    """

    inner: Iteration = field(default_factory=Plain)
    mode: str | None = None
    backend: str = "inductor"

    @override
    def run(
        self,
        restrict: Restrict,
        z0: Tensor,
        stop: Stop,
        *,
        history: bool = False,
        progress: Progress | None = None,
    ) -> Iterate:
        def compiled(rows: Tensor | None) -> Map:
            map_ = restrict(rows)
            step: Map = torch.compile(lambda z: map_(z), mode=self.mode, backend=self.backend)
            return lambda z: step(z).clone() if self.mode is not None else step(z)

        return self.inner.run(compiled, z0, stop, history=history, progress=progress)
