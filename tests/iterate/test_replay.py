"""Recorded blocks of steps: the same numbers as step by step. The recording is feigned where there is no device: what
was recorded runs again when it is replayed, on the tensors it was recorded with, and on nothing else."""

import cvxpy as cp
import jaxtyping
import numpy as np
import pytest
import torch
from torch import Tensor

import opteq_cvx as oc
from opteq_cvx.iterate import replay
from opteq_cvx.iterate.contract import Iteration, Stop
from opteq_cvx.iterate.inertial import Inertial
from opteq_cvx.iterate.plain import Plain
from opteq_cvx.iterate.rule import Rule
from tests.iterate.maps import Unit, relu_solution, symmetric

RECORDED: list[tuple[Iteration, Iteration]] = [
    (Plain(graphs=True), Plain()),
    (Plain(relaxation=0.7, graphs=True), Plain(relaxation=0.7)),
    (Inertial(graphs=True), Inertial()),
]


class Feigned:
    """Stands for `replay.record`: outputs hold nothing until they are replayed, as those of a CUDA graph."""

    def __init__(self) -> None:
        self.recordings = self.replays = 0

    def __call__(self, run: "replay.Callable[[], tuple[Tensor, ...]]") -> "replay.Recording":
        self.recordings += 1
        outputs = tuple(torch.full_like(out, torch.nan) for out in run())

        def again() -> None:
            self.replays += 1
            for out, now in zip(outputs, run(), strict=True):
                out.copy_(now)

        return again, outputs


@pytest.fixture
def feigned(monkeypatch: pytest.MonkeyPatch) -> Feigned:
    found = Feigned()
    monkeypatch.setattr(replay, "recordable", lambda z: True)
    monkeypatch.setattr(replay, "record", found)
    monkeypatch.setattr("opteq_cvx.iterate.inertial.heavy", lambda z: False)  # as on a device
    return found


@pytest.fixture
def unit(generator: torch.Generator) -> Unit:
    scale = torch.logspace(-3, 0.5, 24, dtype=torch.float64)[:, None]
    return Unit(symmetric(12, 0.9, generator), scale * torch.randn(24, 12, dtype=torch.float64, generator=generator))


@pytest.mark.parametrize(("recorded", "eager"), RECORDED, ids=["picard", "mann", "inertial"])
@pytest.mark.parametrize("buffered", [False, True], ids=["fresh", "buffered"])
def test_the_numbers_are_those_of_eager_steps(
    recorded: Iteration, eager: Iteration, buffered: bool, unit: Unit, feigned: Feigned
) -> None:
    stop = Stop(tolerance=1e-9, max_steps=5000, margin=torch.full((1,), 0.1))
    restrict = unit.buffered if buffered else unit.restrict
    found = recorded.run(restrict, torch.zeros_like(unit.c), stop)
    assert 0 < feigned.recordings < feigned.replays
    wanted = eager.run(restrict, torch.zeros_like(unit.c), stop)
    # a product may round by where its factors lie
    torch.testing.assert_close(found.z, wanted.z, atol=1e-11, rtol=1e-11)
    torch.testing.assert_close(found.z, relu_solution(unit), atol=3.1e-8, rtol=0)


def test_work_that_cannot_be_recorded_goes_on_step_by_step(
    unit: Unit, feigned: Feigned, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(run: object) -> "replay.Recording":
        raise RuntimeError("operation not permitted when stream is capturing\nand more")

    monkeypatch.setattr(replay, "record", refuse)
    unit.c = unit.c[:4]  # so few are not compacted, as nothing is on a device
    stop = Stop(tolerance=1e-9, max_steps=5000)
    with pytest.warns(UserWarning, match="run one by one: operation not permitted when stream is capturing$") as seen:
        found = Inertial(graphs=True).run(unit.restrict, torch.zeros_like(unit.c), stop)
    assert len(seen) == 1
    wanted = Inertial().run(unit.restrict, torch.zeros_like(unit.c), stop)
    torch.testing.assert_close(found.z, wanted.z, atol=1e-11, rtol=1e-11)


class Ring(Rule):
    """As Anderson's history: a position of its own."""

    def advance(self, z: Tensor, image: Tensor) -> Tensor:
        return image

    def take(self, rows: Tensor) -> None:
        """Nothing is kept."""


def test_rules_without_named_tensors_are_not_recorded(unit: Unit, feigned: Feigned) -> None:
    steps = replay.block(Ring(), unit.restrict(None), unit.c, graphs=True)
    assert not isinstance(steps, replay.Replayed)


def declared(iteration: Iteration | None) -> oc.EquilibriumLayer:
    root, x = np.random.default_rng(0).normal(size=(6, 6)), oc.Input(6, name="x")
    u = cp.Variable(6, name="u")
    cost = 0.5 * cp.quad_form(u, np.eye(6) + root @ root.T) + x @ u + cp.norm1(u[:3]) + 0.2 * cp.norm(u[3:])
    return oc.compile(cp.Problem(cp.Minimize(cost)), tolerance=1e-6, iteration=iteration)


@pytest.mark.parametrize(("recorded", "eager"), RECORDED, ids=["picard", "mann", "inertial"])
def test_whole_layers(recorded: Iteration, eager: Iteration, feigned: Feigned, generator: torch.Generator) -> None:
    x = torch.randn(5, 6, dtype=torch.float64, generator=generator)
    layer = declared(recorded).double()
    report = oc.verify(layer, x)
    assert report.ok
    assert feigned.replays > 0
    wanted = declared(eager).double().solve(x).values[0]
    torch.testing.assert_close(layer.solve(x).values[0], wanted, atol=1e-11, rtol=1e-11)


def test_compiled_layers_are_exact(generator: torch.Generator) -> None:
    """Traced by dynamo, run without code generation; several solves and batch sizes by one layer."""
    layer = declared(oc.Compiled(inner=oc.Anderson(), backend="eager")).double()
    for batch in (3, 3, 5):
        assert oc.verify(layer, torch.randn(batch, 6, dtype=torch.float64, generator=generator)).ok


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*torch.jit.script_method.*:DeprecationWarning")  # torch's compiler uses it
def test_generated_code_is_exact(generator: torch.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # torch's compiler cannot trace the checks
    layer = declared(oc.Compiled()).double()
    assert oc.verify(layer, torch.randn(3, 6, dtype=torch.float64, generator=generator)).ok


@pytest.mark.gpu
@pytest.mark.parametrize("recorded", [r for r, _ in RECORDED], ids=["picard", "mann", "inertial"])
def test_graphs_on_a_device(recorded: Iteration, generator: torch.Generator) -> None:
    x = torch.randn(64, 6, dtype=torch.float64, generator=generator)
    found = declared(recorded).double().cuda().solve(x.cuda()).values[0]
    torch.testing.assert_close(found.cpu(), declared(None).double().solve(x).values[0], atol=1e-5, rtol=1e-5)
