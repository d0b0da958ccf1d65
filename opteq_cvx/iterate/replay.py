"""Blocks of steps between two checks: one by one, or recorded once as a CUDA graph and queued as one launch after that.

A step of a small program is a few kernels of some microseconds each, less than the host needs to queue them; a graph of
all of them costs the host one call. Steps are recorded per solve, since the tensors of a solve are its own.

Source: CUDA C++ Programming Guide, *CUDA graphs*; `torch.cuda.CUDAGraph`.
"""

import warnings
from collections.abc import Callable

import torch
from torch import Tensor

from opteq_cvx.descent import Map
from opteq_cvx.iterate.rule import Rule

Block = Callable[[Tensor, int], tuple[Tensor, Tensor]]
"""(z_k, count) ↦ (z_{k+count−1}, T(z_{k+count−1})): `count` evaluations of T."""

Recording = tuple[Callable[[], None], tuple[Tensor, ...]]
"""What runs the recorded work again, and the tensors that it writes its results to."""


def block(rule: Rule, apply: Map, z: Tensor, *, graphs: bool) -> Block:
    """Blocks of steps of `rule` with T = `apply`; `graphs` asks for recorded ones, which a CUDA device has."""
    plain = eager(rule, apply)
    return Replayed(rule, plain) if graphs and rule.carried is not None and recordable(z) else plain


def eager(rule: Rule, apply: Map) -> Block:
    """Step by step."""

    def run(z: Tensor, count: int) -> tuple[Tensor, Tensor]:
        for _ in range(count - 1):
            z = rule.advance(z, apply(z))
        return z, apply(z)

    return run


class Replayed:
    """As `eager`; a block of the same length and phase is recorded the second time, and queued whole from then on.

    The first runs step by step: libraries set themselves up in it, which a recording may not do. Work that cannot be
    recorded, such as a prox that looks at its values, goes on step by step, with one warning.
    """

    def __init__(self, rule: Rule, plain: Block) -> None:
        self.rule, self.plain = rule, plain
        self.names = rule.carried or ()
        self.seen: set[object] = set()
        self.recorded: dict[object, tuple[tuple[Tensor, ...], Recording]] = {}
        self.possible = True

    def __call__(self, z: Tensor, count: int) -> tuple[Tensor, Tensor]:
        """(z_{k+count−1}, its image), new tensors."""
        key = (count, self.rule.phase())
        if key in self.recorded:
            for static, now in zip(self.recorded[key][0], (z, *self.state()), strict=True):
                static.copy_(now)
        elif key not in self.seen or not self.possible or not self.record(key, z, count):
            self.seen.add(key)
            return self.plain(z, count)
        replay, outputs = self.recorded[key][1]
        replay()
        last, image, *state = (out.clone() for out in outputs)
        self.load(state)
        return last, image

    def record(self, key: object, z: Tensor, count: int) -> bool:
        """Record a block; whether that could be done."""
        before = self.state()
        inputs = tuple(t.clone() for t in (z, *before))

        def run() -> tuple[Tensor, ...]:
            self.load(inputs[1:])
            return (*self.plain(inputs[0], count), *self.state())

        try:
            self.recorded[key] = inputs, record(run)
        except RuntimeError as error:
            self.possible = False
            why = str(error).split("\n")[0]
            warnings.warn(f"steps could not be recorded as a CUDA graph and run one by one: {why}", stacklevel=2)
        finally:
            self.load(before)
        return self.possible

    def state(self) -> tuple[Tensor, ...]:
        """The rule's tensors."""
        return tuple(getattr(self.rule, name) for name in self.names)

    def load(self, tensors: tuple[Tensor, ...] | list[Tensor]) -> None:
        """Give the rule these tensors."""
        for name, tensor in zip(self.names, tensors, strict=True):
            setattr(self.rule, name, tensor)


def recordable(z: Tensor) -> bool:
    """Whether work on the device of z can be recorded."""
    return z.device.type == "cuda"


def record(run: Callable[[], tuple[Tensor, ...]]) -> Recording:
    """Record what `run` queues, without running it; other threads may go on using the device meanwhile."""
    graph, stream = torch.cuda.CUDAGraph(), torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        graph.capture_begin(capture_error_mode="thread_local")
        try:
            outputs = run()
        finally:
            graph.capture_end()
    torch.cuda.current_stream().wait_stream(stream)
    return graph.replay, outputs
