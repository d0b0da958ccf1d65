"""Level sets to rounding: their optimality conditions, where they are empty, and what is read as one."""

from typing import Any

import cvxpy as cp
import numpy as np
import pytest
import torch
from torch import Tensor

import opteq_cvx as oc
from opteq_cvx.atoms import Atom, Data, Spelling, atom
from opteq_cvx.atoms.calculus import Summed, level_prox
from opteq_cvx.atoms.level_set import LevelSet, R, W, matrix, total
from opteq_cvx.frontend import read
from opteq_cvx.status import Status
from opteq_cvx.verify.law_recognized import spellings_are_recognized
from opteq_cvx.verify.laws import Law, finite_everywhere, firmly_nonexpansive, prox_is_cvxpys, value_is_cvxpys
from opteq_cvx.verify.spelled import case, spell

ACCURACY = 1e-9  # relative to the point: what a level set is asked for in float64
SMOOTH = ("exp", "huber", "kl_div", "log_sum_exp", "logistic", "neg_entr", "neg_log", "neg_log_det", "power", "square")
"""Functions whose slope is autograd's; at kinks the generated laws compare with an exact solver."""


def entries(text: str, f: str, **more: Any) -> Spelling:
    """A function of each entry below its own level."""
    level = {"r": ((5,), {"pos": True})}
    return total(text, f, parameters=level, **{**more, "static": {"axes": (), **more.get("static", {})}})


MORE = (
    total("sum(logistic(x)) <= r", "logistic"),
    total("sum(entr(x)) >= 0.5 + r", "neg_entr", "-0.5 - r", draw=(0.1, 3.0)),
    total("sum(inv_pos(x)) <= r", "power", static={"options": (("p", -1.0),)}, draw=(0.1, 3.0)),
    total("w @ square(pos(x)) <= r", "square_pos", parameters=W, data={"weight": "w"}),
    total("w @ abs(x) <= r", "abs", parameters=W, data={"weight": "w"}),
    total("sum(pos(x)) <= r", "pos"),
    total("sum(square(pos(x))) <= r", "square_pos"),
    entries("square(x) <= r", "square"),
    entries("power(x, 3) <= r", "power", static={"options": (("p", 3.0),)}, draw=(0.0, 3.0)),
    entries("power(x, 4) <= r", "power", static={"options": (("p", 4.0),)}),
    entries("inv_pos(x) <= r", "power", static={"options": (("p", -1.0),)}, draw=(0.1, 3.0)),
    total("sum_largest(x, 2) <= r", "sum_largest", static={"options": (("axes", (-1,)), ("k", 2.0))}),
    total("dotsort(abs(x), [3, 2, 1]) <= r", "sorted_l1", data={"w": "np.array([3.0, 2.0, 1.0])"}),
    matrix("w * normNuc(x) <= r", "norm_nuc", parameters={"w": ((), {"pos": True}), **R}, data={"weight": "w"}),
    matrix("sigma_max(x) <= r", "sigma_max"),
    matrix("lambda_max((x + x.T) / 2) <= r", "lambda_max", variables={"x": (3, 3)}, arg="(x + x.T) / 2"),
)
"""Functions beside those of the atom's own spellings."""

ENDING = ("power(x, 3) <= r",)
"""Those whose domain ends where the function is finite: points beyond it move with slope 0; the laws know them."""

LEVELS = tuple(s for s in (*LevelSet.spellings, *MORE) if s.static["f"] in SMOOTH and s.text not in ENDING)


class More(LevelSet):
    """The same atom with more spellings; the laws on derivatives take long and hold for all alike."""

    spellings = MORE


@pytest.mark.parametrize(
    "law",
    [spellings_are_recognized, value_is_cvxpys, prox_is_cvxpys, firmly_nonexpansive, finite_everywhere],
    ids=lambda law: law.__name__,
)
def test_more_functions_obey_the_laws(law: Law, monkeypatch: pytest.MonkeyPatch) -> None:
    if law is spellings_are_recognized:
        monkeypatch.setattr(LevelSet, "spellings", MORE)
    law(LevelSet if law is spellings_are_recognized else More)


def points(spelling: Spelling, event: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Near and far ones, very far ones too where the slope stays finite."""
    unlimited = spelling.static["f"] in ("exp", "huber", "logistic", "log_sum_exp", "square")
    sizes = torch.tensor([0.3, 1.0, 3.0, 10.0, 1e4 if unlimited else 20.0], dtype=torch.float64).repeat_interleave(20)
    unit = torch.randn((100, *event), dtype=torch.float64, generator=generator)
    unit = unit.abs() if spelling.static["f"] == "kl_div" else unit
    return unit * sizes.reshape(-1, *(1,) * len(event))


@pytest.mark.parametrize("spelling", LEVELS, ids=lambda s: s.text)
def test_the_projection_meets_its_optimality_conditions(spelling: Spelling, generator: torch.Generator) -> None:
    """v − x = μ g with μ ≥ 0, g the slope of F at x by autograd, and F(x) = c: then x is off by at most |e| + δ/|g|."""
    one = case(atom("level_set"), spell(spelling, np.random.default_rng(0)))
    data, axes = {k: t.unsqueeze(0) for k, t in one.data.items()}, one.atom.axes
    v = points(spelling, one.event, generator)
    v = (v + v.mT) / 2 if one.atom.f == "neg_log_det" else v
    x = one.atom.prox(v, torch.ones(1), data).detach().requires_grad_()
    values = one.atom.whole.value(x, one.atom.own(data))
    (slope,) = torch.autograd.grad(values.sum(), x)
    x, values = x.detach(), values.detach()

    def inner(a: Tensor, b: Tensor) -> Tensor:
        return (a * b).sum(axes, keepdim=True) if axes else a * b

    size, moved = inner(slope, slope).clamp(min=1e-300), v - x
    scale = 1.0 + inner(v, v).sqrt()
    out = inner(moved, moved).sqrt() > 1e-13 * scale  # a matrix inside comes back from its decomposition
    mu = torch.where(out, inner(moved, slope) / size, 0.0)
    error = inner(moved - mu * slope, moved - mu * slope).sqrt()
    gap = torch.where(out, (values - data["level"]).abs() / size.sqrt(), torch.relu(values - data["level"]))
    inside = slope.isfinite()  # x may underflow to the end of a domain, where the slope is infinite
    known = inside.all(-1) if axes else inside
    for _ in range(inside.ndim - 2 if axes else 0):
        known = known.all(-1)
    assert (out & (mu > 0))[known].any()
    assert ((mu * size.sqrt() / scale)[known] > -ACCURACY).all()
    assert float(((error + gap) / scale)[known].max()) < ACCURACY
    assert known.float().mean() > 0.5


def test_the_ball_as_a_level_set_is_the_ball(generator: torch.Generator) -> None:
    """Closed forms: ‖x‖² ≤ c, |x| ≤ c, Σ|x| ≤ c and eˣ ≤ c."""
    v = 3 * torch.randn((200, 6), dtype=torch.float64, generator=generator)
    one = torch.ones((1, 1), dtype=torch.float64)
    square = atom("level_set").from_static({"f": "square", "axes": (-1,)})
    l2 = atom("l2_ball").from_static({}).prox(v, one, {"radius": 1.7**0.5 * one})
    torch.testing.assert_close(square.prox(v, one, {"level": 1.7 * one}), l2, rtol=1e-14, atol=1e-14)
    absolute = atom("level_set").from_static({"f": "abs", "axes": (-1,)})
    l1 = atom("l1_ball").from_static({}).prox(v, one, {"radius": 1.7 * one})
    torch.testing.assert_close(absolute.prox(v, one, {"level": 1.7 * one}), l1, rtol=1e-14, atol=1e-14)
    entries = atom("level_set").from_static({"f": "exp"})
    x = entries.prox(v, one, {"level": 1.7 * one})
    torch.testing.assert_close(x, v.clamp(max=torch.log(1.7 * one).item()), rtol=1e-14, atol=1e-14)


def test_matrices_are_their_values(generator: torch.Generator) -> None:
    """Nuclear and spectral balls are the l1 ball and the clip of singular values."""
    v = torch.randn((30, 4, 3), dtype=torch.float64, generator=generator)
    one = torch.ones((1, 1, 1), dtype=torch.float64)
    left, values, right = torch.linalg.svd(v, full_matrices=False)
    l1 = atom("l1_ball").from_static({}).prox(values, one[0], {"radius": one[0]})
    for name, onto in {"norm_nuc": l1, "sigma_max": values.clamp(max=1.0)}.items():
        ball = atom("level_set").from_static({"f": name, "axes": (-2, -1)})
        expected = (left * onto.unsqueeze(-2)) @ right
        torch.testing.assert_close(ball.prox(v, one, {"level": one}), expected, rtol=1e-13, atol=1e-13)


def test_a_level_below_the_infimum_violates(generator: torch.Generator) -> None:
    v = torch.randn((3, 4), dtype=torch.float64, generator=generator)
    for name, least in {"neg_entr": -4 / torch.e, "huber": 0.0}.items():
        f = atom("level_set").from_static({"f": name, "axes": (-1,)})
        level = torch.full((1, 1), least - 0.5, dtype=torch.float64)
        data = {"level": level, "M": torch.ones(1, 1, dtype=torch.float64)} if name == "huber" else {"level": level}
        violation = f.violation(f.prox(v, level, data), data)
        torch.testing.assert_close(violation, torch.full_like(violation, 0.5), rtol=1e-6, atol=1e-6)


def test_the_projection_of_a_batch_with_points_inside_and_outside(generator: torch.Generator) -> None:
    f, v = atom("exp").from_static({}), torch.randn(50, dtype=torch.float64, generator=generator)
    level = torch.ones(50, dtype=torch.float64)
    x = level_prox(f, v, level, {})
    assert torch.equal(x[v < 0], v[v < 0])
    torch.testing.assert_close(x[v >= 0], torch.zeros_like(x[v >= 0]), rtol=0, atol=1e-15)


def test_a_jacobian_evaluates_the_prox_once(monkeypatch: pytest.MonkeyPatch, generator: torch.Generator) -> None:
    counted, plain = [0], type(atom("exp").from_static({})).prox

    def prox(self: Atom, v: Tensor, step: Tensor, data: Data) -> Tensor:
        counted[0] += 1
        return plain(self, v, step, data)

    monkeypatch.setattr(atom("exp"), "prox", prox)
    v = torch.randn(4, dtype=torch.float64, generator=generator, requires_grad=True)
    x = Summed(atom("exp").from_static({}), (-1,))
    onto = level_prox(x, v, torch.ones(1, dtype=torch.float64), {})
    first = torch.autograd.grad(onto[0], v, retain_graph=True)[0]
    before = counted[0]
    rest = [torch.autograd.grad(onto[i], v, retain_graph=True)[0] for i in range(1, 4)]
    assert counted[0] == before
    jacobian = torch.stack([first, *rest])
    torch.testing.assert_close(jacobian, jacobian.mT, rtol=1e-12, atol=1e-12)


@pytest.mark.filterwarnings("ignore::opteq_cvx.errors.SolveWarning")
def test_samples_with_empty_level_sets_are_infeasible() -> None:
    x, r = cp.Variable(3, name="x"), oc.Input(name="r")
    problem = cp.Problem(cp.Minimize(cp.sum_squares(x - 1)), [cp.sum(cp.logistic(x)) <= r])
    solution = oc.compile(problem).double().solve(torch.tensor([1.0, -0.5], dtype=torch.float64))
    assert list(solution.status) == [Status.CONVERGED, Status.PRIMAL_INFEASIBLE]


READ = {
    "sum(exp(x)) + 1 <= 3": ["level_set"],
    "3 * sum(exp(x)) <= 2": ["level_set"],
    "sum(exp(x)) + norm1(x) <= 3": None,
    "sum(exp(x)) + x[0] <= 3": ["epigraph"],
    "np.arange(1, 4) @ square(x) <= 3": None,
    "square(x) <= x[0] + 2": None,
    "norm1(x) <= 1": ["l1_ball"],
    "max(x) <= 1": ["box"],
    "norm_inf(x) <= 1": ["box"],
    "sum(exp(x)) <= 3 - square(x[0])": None,
}


@pytest.mark.parametrize("text", READ)
def test_what_is_read_as_one_set(text: str) -> None:
    """None: the conic route, of several functions of the variable or where it is faster."""
    x = cp.Variable(3, name="x")
    names = {**vars(cp), "np": np, "x": x}
    program = read(cp.Problem(cp.Minimize(cp.sum(x)), [eval(text, names)])).program
    found = [t.atom for t in program.terms if t.atom != "linear"]
    assert found == READ[text] if READ[text] is not None else len(program.variables) > 1
