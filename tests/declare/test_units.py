"""Shapes of equilibria: branches against one joint program, and what cannot be tied."""

from collections.abc import Callable

import cvxpy as cp
import numpy as np
import pytest
import torch

import opteq_cvx as oc
from opteq_cvx.declare import Tied, Unit
from opteq_cvx.errors import InputError

EXACT = dict.fromkeys(("tol_gap_abs", "tol_gap_rel", "tol_feas"), 1e-11)
RNG = np.random.default_rng(0)


def unit(m: int = 3, n: int = 4) -> Unit:
    W = RNG.normal(size=(m, n))
    return oc.unit(0.5 * W / np.linalg.norm(W, 2), RNG.normal(size=m))


def test_branches_minimize_one_program_in_which_the_links_are_mutual() -> None:
    """Three branches, the last of them linked to none: ½uᵀ(I − S)u − cᵀu over u ≥ 0, by Clarabel."""
    units = [unit(3), unit(2), unit(2), unit(4)]
    links = {(0, 1): 0.1 * RNG.normal(size=(3, 2)), (0, 2): 0.1 * RNG.normal(size=(3, 2))}
    layer = oc.compile(oc.branches(units, links), tolerance=1e-11).double()
    blocks = [[np.zeros((a.u.size, b.u.size)) for b in units] for a in units]
    for k, one in enumerate(units):
        blocks[k][k] = one.W.value @ one.W.value.T
    for (b, d), link in links.items():
        blocks[b][d], blocks[d][b] = link, link.T
    S, c = np.block(blocks), np.concatenate([one.c.value for one in units])
    u = cp.Variable(len(c))
    exact = 0.5 * cp.quad_form(u, cp.psd_wrap(np.eye(len(c)) - S)) - c @ u
    cp.Problem(cp.Minimize(exact), [u >= 0]).solve(solver=cp.CLARABEL, **EXACT)
    found = np.concatenate([t.detach().numpy() for t in layer()])
    np.testing.assert_allclose(found, u.value, atol=1e-6)


def test_a_declaration_knows_its_parameters_and_whether_it_is_convex() -> None:
    x, u, v = oc.Input(2, name="x"), cp.Variable(2, name="u"), cp.Variable(2, name="v")
    p, q = cp.Parameter(2, name="p"), cp.Parameter(2, name="q")
    one = cp.Problem(cp.Minimize(cp.sum_squares(u) - (p + x) @ u))
    two = cp.Problem(cp.Minimize(cp.sum_squares(v) - q @ v))
    game = oc.tied([one, two], {p: v, q: u + x})
    assert [p.name() for p in game.parameters()] == ["x"]
    assert [o.name() for o in game.outputs] == ["u", "v"]
    assert game.is_dcp()
    assert not oc.tied([one, cp.Problem(cp.Minimize(cp.sqrt(v[0])))], {p: v}).is_dcp()


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: oc.unit(np.ones((2, 3)), np.ones(3)), r"W of shape \(2, 3\) and c of shape \(3,\)"),
        (lambda: oc.unit(np.ones(3), np.ones(3)), r"W \(m, n\) and c \(m,\)"),
        (lambda: oc.cycle([unit()], alpha=0.0), r"alpha=0\.0.*\(0, 1\]"),
        (lambda: oc.cycle([unit()], alpha=1.5), r"alpha=1\.5"),
        (lambda: oc.cycle([]), "no unit"),
        (lambda: oc.cycle([one := unit(), one]), "one unit twice"),
        (lambda: oc.average([]), "no unit"),
        (lambda: oc.average([unit(), unit()], [0.5, -0.5]), "2 positive numbers"),
        (lambda: oc.average([unit(), unit()], [1.0]), "2 positive numbers"),
        (lambda: oc.average([unit(), unit(n=5)]), r"units of widths \[4, 5\]"),
        (lambda: oc.branches([unit(), unit()], {(1, 0): np.eye(3)}), r"the link \(1, 0\).*b < d < 2"),
        (lambda: oc.branches([unit(), unit()], {(0, 2): np.eye(3)}), r"the link \(0, 2\)"),
        (lambda: oc.branches([unit(3), unit(2)], {(0, 1): np.ones((2, 3))}), r"shape \(2, 3\).*\(3, 2\)"),
    ],
)
def test_what_does_not_fit_is_refused(make: Callable[[], Tied], words: str) -> None:
    with pytest.raises(InputError, match=f"(?s){words}"):
        make()


def test_an_average_weighs_equally_by_default() -> None:
    units = [unit(), unit()]
    (found,), (expected,) = (oc.compile(oc.average(units, w), tolerance=1e-11).double()() for w in (None, [0.5, 0.5]))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-9)
