"""Splittings with options: the same solution whatever is set, kept in files, shown in plans, refused out of range."""

from collections.abc import Callable
from pathlib import Path

import cvxpy as cp
import numpy as np
import pytest
import torch
from torch import Tensor

import opteq_cvx as oc
from opteq_cvx.errors import CompileError, InputError
from opteq_cvx.splitting.asked import SplittingChoice
from opteq_cvx.verify.exact import solve_exact

A = np.random.default_rng(0).normal(size=(7, 5))


def rows() -> cp.Problem:
    """Terms on combinations of coordinates: neither closed form nor forward–backward."""
    x, b = cp.Variable(5, name="x"), oc.Input(7, name="b")
    return cp.Problem(cp.Minimize(0.5 * cp.sum_squares(x - 0.1) + cp.norm1(A @ x - b)), [cp.sum(x) == 1, x >= -1])


def groups() -> cp.Problem:
    """Two groups of proxes that overlap."""
    x, b = cp.Variable((3, 4), name="X"), oc.Input((3, 4), name="b")
    cost = 0.5 * cp.sum_squares(x - b) + 0.3 * cp.sum(cp.norm2(x, axis=1))
    return cp.Problem(cp.Minimize(cost), [cp.sum(x, axis=0) == 1, x <= 2])


def single() -> cp.Problem:
    """One prox."""
    x, b = cp.Variable(5, name="x"), oc.Input(5, name="b")
    return cp.Problem(cp.Minimize(0.5 * cp.sum_squares(x - b) + 0.2 * cp.norm1(x)))


ASKED: list[tuple[Callable[[], cp.Problem], SplittingChoice, str]] = [
    (rows, oc.DouglasRachford(), ""),
    (rows, oc.DouglasRachford(relaxation=1.0), "relaxation=1.0"),
    (rows, oc.DouglasRachford(rho=10.0, adaptive=False), "rho=10.0, adaptive=False"),
    (rows, oc.DouglasRachford(newton=False), "newton=False"),
    (rows, oc.PDHG(), ""),
    (rows, oc.PDHG(primal_weight=5.0, adaptive=False), "primal_weight=5.0, adaptive=False"),
    (groups, oc.DavisYin(), ""),
    (groups, oc.DavisYin(relaxation=0.5), "relaxation=0.5"),
    (groups, oc.DavisYin(adaptive=False, newton=False), "adaptive=False, newton=False"),
    (single, oc.ForwardBackward(), ""),
    (single, oc.ClosedForm(), ""),
]


def named(value: object) -> str:
    """For test ids that every process writes alike."""
    return getattr(value, "__name__", str(value) or "defaults")


def exact(problem: cp.Problem, data: Tensor) -> np.ndarray:
    (b,), (x,) = problem.parameters(), problem.variables()
    return np.stack([solve_exact(problem, [x], {b: value}).outputs[0] for value in data.numpy()])


@pytest.mark.parametrize(("make", "choice", "words"), ASKED, ids=named)
def test_options_change_the_path_and_not_the_solution(
    make: Callable[[], cp.Problem], choice: SplittingChoice, words: str, tmp_path: Path
) -> None:
    layer = oc.compile(make(), splitting=choice, tolerance=1e-8, max_steps=50_000).double()
    shape = layer.program.parameters[0].shape
    data = torch.randn(3, *shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    solution = layer.solve(data)
    assert solution.status.all_converged
    np.testing.assert_allclose(solution.values[0].numpy(), exact(make(), data), atol=2e-6)
    assert dict(layer.plan.lines).get("options", "") == words
    oc.save(layer, tmp_path / "l.opteq")
    again = oc.load(tmp_path / "l.opteq")
    assert again.options.splitting == choice
    torch.testing.assert_close(again(data)[0], solution.values[0], rtol=0, atol=0)


def test_options_reach_the_map() -> None:
    data = torch.randn(3, 7, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    steps = {
        choice: int(oc.compile(rows(), splitting=choice, tolerance=1e-8).double().solve(data).stats.steps.max())
        for choice in (oc.DouglasRachford(), oc.DouglasRachford(rho=1e-2, adaptive=False, newton=False))
    }
    assert min(steps, key=lambda c: steps[c]) == oc.DouglasRachford()
    assert len(set(steps.values())) == 2


@pytest.mark.parametrize(
    "make",
    [
        lambda: oc.DouglasRachford(relaxation=2.0),
        lambda: oc.DouglasRachford(relaxation=0.0),
        lambda: oc.DouglasRachford(rho=-1.0),
        lambda: oc.DouglasRachford(rho=float("nan")),
        lambda: oc.DavisYin(relaxation=1.0),
        lambda: oc.PDHG(primal_weight=float("inf")),
    ],
)
def test_numbers_out_of_range_are_refused(make: Callable[[], SplittingChoice]) -> None:
    with pytest.raises(InputError, match=r"Expected: a (positive )?number"):
        make()


@pytest.mark.parametrize(
    ("make", "choice", "words"),
    [
        (rows, oc.ClosedForm(), "closed-form"),
        (rows, oc.ForwardBackward(), "forward-backward"),
        (rows, oc.DavisYin(relaxation=0.5), "davis-yin"),
    ],
)
def test_what_does_not_fit_is_refused(make: Callable[[], cp.Problem], choice: SplittingChoice, words: str) -> None:
    with pytest.raises(CompileError, match=words):
        oc.compile(make(), splitting=choice)
