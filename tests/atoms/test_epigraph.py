"""Epigraphs to rounding: their optimality conditions, and the three that are found by sorting."""

import cvxpy as cp
import numpy as np
import pytest
import torch
from torch import Tensor

import opteq_cvx as oc
from opteq_cvx.atoms import Spelling
from opteq_cvx.atoms.calculus import epigraph_prox
from opteq_cvx.atoms.cuts import cut
from opteq_cvx.atoms.epigraph import Epigraph
from opteq_cvx.frontend import read
from opteq_cvx.verify.spelled import case, spell

ACCURACY = 1e-9  # relative to the point
SMOOTH = tuple(s for s in Epigraph.spellings if s.static["f"] in ("exp", "huber", "log_sum_exp", "neg_log", "square"))


@pytest.mark.parametrize("spelling", SMOOTH, ids=lambda s: s.text)
def test_the_projection_meets_its_optimality_conditions(spelling: Spelling, generator: torch.Generator) -> None:
    """x + μ ∇F(x) = v and F(x) = t = s + μ with μ ≥ 0, ∇F by autograd."""
    one = case(Epigraph, spell(spelling, np.random.default_rng(0)))
    data = {k: t.unsqueeze(0) for k, t in one.data.items()}
    sizes = torch.tensor([0.3, 1.0, 10.0, 30.0], dtype=torch.float64).repeat_interleave(20)
    z = torch.randn((80, *one.event), dtype=torch.float64, generator=generator)
    z = z * sizes.reshape(-1, *(1,) * len(one.event)) * (0.1 if one.atom.f == "neg_log" else 1.0)  # μ = t − s cancels
    onto = one.atom.prox(z, torch.ones(1), data)
    x = onto[..., :-1].detach().requires_grad_()
    values = one.atom.whole.value(x, one.atom.own(data))
    (slope,) = torch.autograd.grad(values.sum(), x)
    t, mu = onto[..., -1:], onto[..., -1:] - z[..., -1:]
    out = mu > 0
    scale = 1.0 + torch.linalg.vector_norm(z, dim=-1, keepdim=True)
    error = torch.linalg.vector_norm(x + mu * slope - z[..., :-1], dim=-1, keepdim=True).detach()
    gap = (values.detach() - t) / torch.linalg.vector_norm(slope, dim=-1, keepdim=True).clamp(min=1.0)
    assert (mu >= 0).all()
    assert out.float().mean() > 0.2
    assert float((torch.where(out, error + gap.abs(), torch.relu(gap)) / scale).max()) < ACCURACY


@pytest.mark.parametrize("name", ["abs", "max", "norm_inf"])
@pytest.mark.parametrize("shape", [(7,), (2, 3)])
def test_sorting_finds_the_root(name: str, shape: tuple[int, ...], generator: torch.Generator) -> None:
    """The closed forms against the root of the same equation, points inside and in the polar cone included."""
    axes = tuple(range(-len(shape), 0))
    static = {"f": name, "axes": axes, "shape": shape}
    f = Epigraph(**static, options=() if name == "abs" else (("axes", axes),))
    z = 2.0 * torch.randn((300, int(np.prod(shape)) + 1), dtype=torch.float64, generator=generator)
    z[:100, -1] *= 10.0
    x, t = epigraph_prox(f.whole, z[:, :-1].reshape(-1, *shape), z[:, -1].reshape(-1, *(1 for _ in shape)), {})
    expected = torch.cat([x.flatten(1), t.flatten(1)], dim=-1)
    torch.testing.assert_close(f.prox(z, torch.ones(1), {}), expected, rtol=1e-13, atol=1e-13)


def test_the_cut_leaves_what_it_must(generator: torch.Generator) -> None:
    u = torch.randn((50, 6), dtype=torch.float64, generator=generator)
    u[:10, 2:] = u[:10, :1]
    b = torch.linspace(-20.0, 20.0, 50, dtype=torch.float64).unsqueeze(-1)
    tau = cut(u, b)
    torch.testing.assert_close(torch.relu(u - tau).sum(-1, keepdim=True), tau + b, rtol=1e-13, atol=1e-13)


READ = {
    "norm1(x) <= t": ["epigraph"],
    "norm2(x) <= t": ["soc"],
    "sum(exp(x)) + 1 <= 3 * t": ["epigraph"],
    "log_sum_exp(A @ x) <= t + x[0]": ["epigraph"],
    "exp(x) <= y": ["epigraph"],
    "sum(exp(x)) + norm1(x) <= t": None,
}


@pytest.mark.parametrize("text", READ)
def test_what_is_read_as_one_set(text: str) -> None:
    """None: several functions, which take the conic route."""
    names = {**vars(cp), "x": cp.Variable(3, name="x"), "y": cp.Variable(3, name="y"), "t": cp.Variable(name="t")}
    constraint = eval(text, names | {"A": np.ones((2, 3))})
    program = read(cp.Problem(cp.Minimize(sum(cp.sum(v) for v in constraint.variables())), [constraint])).program
    found = [t.atom for t in program.terms if t.atom != "linear"]
    count = len(constraint.variables())
    assert found == READ[text] if READ[text] is not None else len(program.variables) > count


def weighted_rows(X: cp.Variable, t: cp.Variable, w: cp.Parameter) -> list[cp.Constraint]:
    return [cp.sum(cp.multiply(w, cp.huber(X, 0.3)), axis=0) <= t, cp.sum(cp.logistic(X), axis=1) <= 2]


def test_rows_with_weights_are_solved_and_verified(generator: torch.Generator) -> None:
    X, t = cp.Variable((3, 4), name="X"), cp.Variable(4, name="t")
    Y, w = oc.Input((3, 4), name="Y"), oc.Input((3, 4), name="w", nonneg=True)
    problem = cp.Problem(cp.Minimize(cp.sum_squares(X - Y) + cp.sum_squares(t)), weighted_rows(X, t, w))
    layer = oc.compile(problem).double()

    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, dtype=torch.float64, generator=generator)

    assert oc.verify(layer, draw(1, 3, 4), draw(1, 3, 4).abs()).ok
