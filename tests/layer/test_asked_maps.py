"""Where the options of splittings go in the maps; every one against Clarabel, with gradients; what is refused."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import cvxpy as cp
import numpy as np
import pytest
import torch
from torch import Tensor

import opteq_cvx as oc
from opteq_cvx.splitting import asked, newton
from opteq_cvx.splitting.asked import SplittingChoice
from opteq_cvx.splitting.contract import Splitting
from opteq_cvx.splitting.douglas_rachford import DouglasRachford
from opteq_cvx.splitting.matrix_free import FactoredForwardBackward
from opteq_cvx.splitting.thin_douglas_rachford import ThinDouglasRachford
from tests.layer.test_asked import named

N = 8
TIGHT = dict.fromkeys(("tol_gap_abs", "tol_gap_rel", "tol_feas"), 1e-9)
Made = tuple[cp.Problem, cp.Parameter, cp.Variable]


def lasso() -> Made:
    """Every splitting but the closed form has it."""
    rng = np.random.default_rng(0)
    y, x = oc.Input(6, name="y"), cp.Variable(N, name="x")
    a = oc.Weight((6, N), name="A", init=rng.normal(size=(6, N)) / 3)
    cost = 0.5 * cp.sum_squares(a @ x - y) + 0.05 * cp.sum_squares(x) + 0.1 * cp.norm1(x)
    return cp.Problem(cp.Minimize(cost), [x <= 0.4]), y, x


def two_groups() -> Made:
    """A simplex and a norm of part of it."""
    y, x = oc.Input(N, name="y"), cp.Variable(N, name="x")
    cost = 0.5 * cp.sum_squares(x - y) + 0.3 * cp.norm(x[:5]) + 0.1 * cp.sum_squares(cp.diff(x))
    return cp.Problem(cp.Minimize(cost), [x >= 0, cp.sum(x) == 1]), y, x


def constrained() -> Made:
    """Equations and inequalities."""
    rng = np.random.default_rng(1)
    y, x = oc.Input(N, name="y"), cp.Variable(N, name="x")
    g, h = rng.normal(size=(5, N)), rng.normal(size=(2, N))
    return cp.Problem(cp.Minimize(cp.sum_squares(x - y) + cp.sum(x)), [g @ x <= 0.5, h @ x == 0.2]), y, x


ASKED: list[tuple[Callable[[], Made], SplittingChoice]] = [
    (lasso, oc.ForwardBackward(step=0.5)),
    (lasso, oc.ForwardBackward(matrix="factors", step=0.7)),
    (lasso, oc.ForwardBackward(matrix="dense", newton=False)),
    (lasso, oc.DouglasRachford(factor="woodbury")),
    (lasso, oc.DavisYin(step=1.7, relaxation=0.6)),
    (lasso, oc.PDHG(primal_weight=4.0)),
    (two_groups, oc.DavisYin(step=0.5)),
    (two_groups, oc.DavisYin(relaxation=0.95, adaptive=False)),
    (two_groups, oc.DouglasRachford(factor="woodbury", rho=1.0, scaling_rounds=0)),
    (constrained, oc.DouglasRachford(relaxation=1.9)),
    (constrained, oc.DouglasRachford(rho=0.01, sigma=1e-3)),
    (constrained, oc.DouglasRachford(scaling_rounds=0, adaptive=False)),
    (constrained, oc.DouglasRachford(factor="woodbury", newton=False)),
    (constrained, oc.PDHG(primal_weight=0.2, adaptive=False)),
]


def data(y: cp.Parameter, count: int = 2) -> Tensor:
    return torch.randn(count, *y.shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64)


def options(splitting: Any) -> SplittingChoice:
    found: SplittingChoice = splitting.options
    return found


def ready(make: Callable[[], Made], choice: SplittingChoice) -> tuple[Splitting, tuple[Tensor, ...], Any]:
    """The map, θ and what is prepared, for drawn data."""
    problem, y, _ = make()
    layer = oc.compile(problem, splitting=choice).double()
    map_: Any = layer.plan.splitting
    found: list[Any] = []
    with pytest.MonkeyPatch.context() as patch:
        prepare = type(map_).prepare

        def keep(self: Any, theta: Any, factors: Any = None) -> Any:
            made = prepare(self, theta, factors)
            found[:] = [theta, made]
            return made

        patch.setattr(type(map_), "prepare", keep)
        layer(data(y))
    theta, prepared = found
    return map_, tuple(t.detach() for t in theta), prepared


@pytest.mark.parametrize(("make", "choice"), ASKED, ids=named)
def test_every_option_leads_to_the_solution_and_its_gradient(
    make: Callable[[], Made], choice: SplittingChoice, tmp_path: Path
) -> None:
    """Values against Clarabel, gradients against the plan's own choice; shown and saved."""
    problem, y, x = make()
    layer = oc.compile(problem, splitting=choice, tolerance=1e-10, max_steps=100_000).double()
    assert options(layer.plan.splitting) == choice
    assert dict(layer.plan.lines)["options"] == choice.changed
    assert str(oc.explain(make()[0], splitting=choice).plan) == str(layer.plan)
    batch = data(y).requires_grad_()
    solution = layer.solve(batch)
    assert solution.status.all_converged
    for row, found in zip(batch.detach(), solution.values[0], strict=True):
        y.value = row.numpy()
        problem.solve(solver="CLARABEL", ignore_dpp=True, **TIGHT)
        np.testing.assert_allclose(found.detach().numpy(), x.value, atol=1e-5)
    chosen = oc.compile(make()[0], tolerance=1e-10).double()
    seed = torch.randn(2, N, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    grads = [torch.autograd.grad(one(batch)[0], [batch, *one.parameters()], seed) for one in (layer, chosen)]
    for one, two in zip(*grads, strict=True):
        torch.testing.assert_close(one, two, atol=1e-6, rtol=1e-6)
    oc.save(layer, tmp_path / "layer.opteq")
    again = oc.load(tmp_path / "layer.opteq")
    assert again.options.splitting == choice == options(again.plan.splitting)
    assert str(again.plan) == str(layer.plan)


@pytest.mark.parametrize("name", [n for n in asked.CHOICES if n != "closed-form"])
def test_a_name_stands_for_the_defaults(name: Any) -> None:
    found = oc.explain(lasso()[0], splitting=name).plan
    assert str(found) == str(oc.explain(lasso()[0], splitting=asked.CHOICES[name]()).plan)
    assert "options" not in dict(found.lines)


@pytest.mark.parametrize(
    ("cls", "values", "match"),
    [
        (oc.DouglasRachford, {"rho": True}, "rho=True.*positive number"),
        (oc.DouglasRachford, {"rho": "0.1"}, "rho='0.1'"),
        (oc.DouglasRachford, {"sigma": -1e-6}, "sigma=-1e-06.*positive"),
        (oc.DouglasRachford, {"scaling_rounds": -1}, r"scaling_rounds=-1.*at least 0"),
        (oc.DouglasRachford, {"scaling_rounds": 2.5}, r"scaling_rounds=2\.5"),
        (oc.DouglasRachford, {"factor": "cholesky"}, "factor='cholesky'.*'dense', 'woodbury' or None.*leave it out"),
        (oc.DouglasRachford, {"newton": 1}, "newton=1.*True or False"),
        (oc.ForwardBackward, {"step": 1.5}, r"step=1\.5.*\(0, 1\]"),
        (oc.ForwardBackward, {"step": 0.0}, r"step=0\.0"),
        (oc.ForwardBackward, {"matrix": "free"}, "matrix='free'.*'dense', 'factors' or None"),
        (oc.DavisYin, {"step": 2.0}, r"step=2\.0.*\(0, 2\)"),
        (oc.DavisYin, {"adaptive": None}, "adaptive=None.*True or False"),
        (oc.PDHG, {"primal_weight": -1.0}, r"primal_weight=-1\.0.*positive"),
    ],
)
def test_values_out_of_range_are_refused(cls: Any, values: dict[str, object], match: str) -> None:
    made = cls()
    for key, value in values.items():  # around the run-time checks of types, which tests have and users do not
        object.__setattr__(made, key, value)
    with pytest.raises(oc.InputError, match=match):
        made.__post_init__()


@pytest.mark.parametrize(
    ("splitting", "match"),
    [
        (oc.DavisYin(step=0.5), r'"davis-yin" with step=0\.5 does not fit'),
        (oc.DouglasRachford(factor="woodbury"), r"with factor=woodbury does not fit.*not semidefinite"),
        (oc.ForwardBackward(step=0.5), r'"forward-backward" with step=0\.5 does not fit'),
    ],
    ids=named,
)
def test_what_does_not_fit_is_refused_with_its_options(splitting: SplittingChoice, match: str) -> None:
    x, p = cp.Variable(4, name="x"), oc.Input((4, 4), name="P", symmetric=True)
    cost = cp.quad_form(x, cp.psd_wrap(p)) + cp.norm1(cp.cumsum(x))
    with pytest.raises(oc.CompileError, match=match):
        oc.compile(cp.Problem(cp.Minimize(cost)), splitting=splitting)


def test_factors_that_are_absent_are_refused() -> None:
    x, p = cp.Variable(4, name="x"), oc.Input((4, 4), name="P", symmetric=True)
    problem = cp.Problem(cp.Minimize(cp.quad_form(x, cp.psd_wrap(p)) + cp.norm1(x)))
    with pytest.raises(oc.CompileError, match=r"matrix=factors does not fit: the quadratic shows no factors"):
        oc.compile(problem, splitting=oc.ForwardBackward(matrix="factors"))


@pytest.mark.parametrize(
    ("splitting", "match"),
    [
        (oc.DouglasRachford, r"splitting=DouglasRachford, a class.*write oc\.DouglasRachford\(\)"),
        ("admm", "splitting='admm'.*one of closed-form.*leave it out"),
        (oc.Plain(), r"splitting=Plain\(.*DouglasRachford\(rho=1\.0\)"),
        (3, "splitting=3"),
    ],
)
def test_what_is_no_splitting_is_refused(splitting: object, match: str) -> None:
    with pytest.raises(oc.CompileError, match=match):
        asked.choice(splitting)


def test_a_file_with_a_value_out_of_range_is_refused(tmp_path: Path) -> None:
    choice = oc.DouglasRachford()
    object.__setattr__(choice, "rho", -1.0)
    layer = oc.compile(lasso()[0], splitting=choice)
    oc.save(layer, tmp_path / "layer.opteq")
    with pytest.raises(oc.FileError, match="rho"):
        oc.load(tmp_path / "layer.opteq")


def test_the_step_of_forward_backward_is_a_share_of_the_largest_curvature() -> None:
    for matrix in ("dense", "factors"):
        map_, theta, prepared = ready(lasso, oc.ForwardBackward(step=0.25, matrix=matrix))
        whole = ready(lasso, oc.ForwardBackward(matrix=matrix))[2]
        assert isinstance(map_, FactoredForwardBackward) is (matrix == "factors")
        torch.testing.assert_close(prepared.tensors[0], 0.25 * whole.tensors[0])
        if matrix == "dense":
            largest = torch.linalg.eigvalsh(theta[0])[:, -1]
            torch.testing.assert_close(0.25 / prepared.tensors[0], largest, rtol=1e-3, atol=0)


@pytest.mark.parametrize("factor", ["dense", "woodbury"])
def test_relaxation_is_the_length_of_the_step_and_rho_sigma_scale(factor: Any) -> None:
    """T_α(z) = z + α (T₁(z) − z); without rounds of equilibration R is ρ, and 1,000 ρ for equations."""
    map_, theta, prepared = ready(constrained, oc.DouglasRachford(factor=factor))
    assert isinstance(map_, DouglasRachford if factor == "dense" else ThinDouglasRachford)
    z = torch.randn(2, map_.dimension, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    for alpha in (0.5, 1.0, 1.9):
        other = ready(constrained, oc.DouglasRachford(factor=factor, relaxation=alpha))[0]
        assert f"{alpha:.4g}(Kx̃ + b − w)" in str(oc.explain(constrained()[0], splitting=options(other)).plan)
        found = other.step(z, theta, prepared) - z
        torch.testing.assert_close(found * 1.6, alpha * (map_.step(z, theta, prepared) - z))
    heavy = ready(constrained, oc.DouglasRachford(factor=factor, rho=0.7, sigma=1e-4))[2]
    torch.testing.assert_close(heavy.tensors[0], 100 * prepared.tensors[0])
    torch.testing.assert_close(heavy.tensors[1], 7 * prepared.tensors[1])
    flat = ready(constrained, oc.DouglasRachford(factor=factor, scaling_rounds=0))[2].tensors[1][0]
    torch.testing.assert_close(flat / flat.min(), torch.tensor([1.0] * 5 + [1e3] * 2, dtype=torch.float64))


def test_the_step_of_davis_yin_is_bounded_and_its_relaxation_a_share() -> None:
    map_, theta, prepared = ready(two_groups, oc.DavisYin(step=1.5, relaxation=0.4))
    gamma, high = prepared.tensors
    torch.testing.assert_close(gamma, (1.5 / high).clamp_max(1.0))
    twice = ready(two_groups, oc.DavisYin(step=1.5, relaxation=0.8))[0]
    z = torch.randn(2, map_.dimension, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    n = map_.dimension // 2

    def moved(splitting: Splitting) -> Tensor:
        """The change of (x + γy)/√γ, in which λ is linear."""
        after = splitting.step(z, theta, prepared)
        return (after[:, :n] + after[:, n:]) - (z[:, :n] + z[:, n:])

    torch.testing.assert_close(2 * moved(map_), moved(twice))


@pytest.mark.parametrize(
    ("make", "choice"),
    [
        (lasso, oc.ForwardBackward(newton=False, matrix="dense")),
        (constrained, oc.DouglasRachford(newton=False)),
        (constrained, oc.DouglasRachford(newton=False, factor="woodbury")),
        (two_groups, oc.DavisYin(newton=False)),
    ],
    ids=named,
)
def test_without_newton_there_are_no_newton_steps(make: Callable[[], Made], choice: SplittingChoice) -> None:
    def never(*_: object, **__: object) -> None:
        raise AssertionError("a Newton step")

    problem, y, _ = make()
    layer = oc.compile(problem, splitting=choice, tolerance=1e-9, max_steps=50_000).double()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(newton, "finish", never)
        patch.setattr("opteq_cvx.splitting.forward_backward.ForwardBackward._newton", never)
        assert layer.solve(data(y)).status.all_converged


@pytest.mark.parametrize(
    ("make", "cls"),
    [
        (constrained, partial(oc.DouglasRachford, rho=1e-6)),
        (constrained, partial(oc.DouglasRachford, rho=1e-6, factor="woodbury")),
        (two_groups, oc.DavisYin),
        (constrained, partial(oc.PDHG, primal_weight=1e-3)),
    ],
)
def test_what_is_not_adaptive_keeps_its_map(make: Callable[[], Made], cls: Any) -> None:
    """After plain steps from a start that is far from balance."""
    for adaptive in (False, True):
        map_, theta, prepared = ready(make, cls(adaptive=adaptive))
        z, advance = map_.start(2, theta), map_.runner(theta, prepared)
        for _ in range(20):
            z = advance(z)
        assert (map_.rebalance(z, theta, prepared) is not None) is adaptive
