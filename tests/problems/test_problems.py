"""Every problem file compiles, solves, differentiates and agrees with the exact solver."""

from pathlib import Path

import pytest
import torch

import opteq_cvx as oc
from opteq_cvx.problem_file import ProblemFile, read_problem

FILES = sorted((Path(__file__).resolve().parents[2] / "problems").glob("*.py"))
SMALL = 6


@pytest.fixture(params=FILES, ids=lambda path: path.stem)
def problem(request: pytest.FixtureRequest) -> ProblemFile:
    """One problem file."""
    return read_problem(request.param)


def small(problem: ProblemFile) -> dict[str, int]:
    """Its sizes, all small and none equal; images of few pixels."""
    if "pixels" in problem.sizes:
        return {"inputs": 1, "pixels": 5, "channels": 2}
    return {name: SMALL + k for k, name in enumerate(problem.sizes)}


def test_it_says_what_it_is(problem: ProblemFile) -> None:
    assert "argmin" in problem.summary
    assert problem.source
    assert all(isinstance(size, int) and size > 0 for size in problem.sizes.values())


def test_declarations_are_independent(problem: ProblemFile) -> None:
    first, second = (problem.declare(**small(problem))[0] for _ in range(2))
    assert not {id(p) for p in first.parameters()} & {id(p) for p in second.parameters()}


def test_cvxpy_alone_accepts_it(problem: ProblemFile) -> None:
    declared = problem.declare(**small(problem))[0]
    assert declared.is_dcp()


def test_samples_fit_the_inputs_and_follow_the_generator(problem: ProblemFile) -> None:
    sizes = small(problem)
    draw = [problem.sample(3, torch.Generator().manual_seed(s), **sizes) for s in (0, 0, 1)]
    for parameter, tensor in zip(problem.declare(**sizes)[1], draw[0], strict=True):
        assert tuple(tensor.shape) == (3, *parameter.shape)
        assert tensor.dtype == torch.float64
    assert all(torch.equal(a, b) for a, b in zip(draw[0], draw[1], strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(draw[0], draw[2], strict=True))


def test_it_agrees_with_the_exact_solver_and_its_gradients(problem: ProblemFile) -> None:
    sizes = small(problem)
    declared = problem.declare(**sizes)
    several = isinstance(declared[0], oc.Tied)  # gradients of tied programs take an exact solve of each: below
    values = problem.sample(2, torch.Generator().manual_seed(0), **sizes)
    report = oc.verify(oc.compile(*declared), *values, gradients=not several)
    assert report.ok, str(report)


@pytest.mark.slow
def test_gradients_of_tied_programs_agree_with_differences(problem: ProblemFile) -> None:
    sizes = small(problem)
    declared = problem.declare(**sizes)
    if not isinstance(declared[0], oc.Tied):
        pytest.skip("one program: checked with its values above")
    report = oc.verify(oc.compile(*declared), *problem.sample(1, torch.Generator().manual_seed(0), **sizes))
    assert report.ok, str(report)


def test_every_weight_receives_a_gradient(problem: ProblemFile) -> None:
    sizes = small(problem)
    layer = oc.compile(*problem.declare(**sizes)).double()
    outputs = layer(*problem.sample(8, torch.Generator().manual_seed(0), **sizes))
    sum(output.square().sum() for output in outputs).backward()
    dead = [k for k, p in layer.named_parameters() if p.grad is None or not bool(p.grad.abs().sum() > 0)]
    assert dead == []
