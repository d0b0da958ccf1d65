"""Notebook reprs: HTML with LaTeX that is well formed, for every problem of the gallery; users' strings are escaped."""

import re
from html.parser import HTMLParser
from pathlib import Path

import cvxpy as cp
import numpy as np
import pytest
import torch
from typing_extensions import override

import opteq_cvx as oc
from opteq_cvx import passes
from opteq_cvx.atoms import Atom, registry
from opteq_cvx.frontend import read
from opteq_cvx.ir import latex
from opteq_cvx.problem_file import read_problem
from opteq_cvx.verify.spelled import spell

PROBLEMS = sorted((Path(__file__).resolve().parents[1] / "problems").glob("*.py"))
VOID = {"br", "img", "hr"}


class Balanced(HTMLParser):
    """Every tag is closed by its own; the text between tags is kept."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.text = ""
        self.feed(source)
        self.close()
        assert self.open == []

    @override
    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        if tag not in VOID:
            self.open.append(tag)

    @override
    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    @override
    def handle_data(self, data: str) -> None:
        self.text += data


def well_formed(formula: str) -> None:
    """Braces and delimiters that resize are in pairs, and the commands are LaTeX's or amsmath's."""
    bare = re.sub(r"\\[{}]", "", formula)
    depth = 0
    for c in bare:
        depth += (c == "{") - (c == "}")
        assert depth >= 0, formula
    assert depth == 0, formula
    for left, right in ((r"\bigl", r"\bigr"), (r"\Bigl", r"\Bigr"), (r"\begin", r"\end"), (r"\langle", r"\rangle")):
        assert formula.count(left) == formula.count(right), formula
    assert "@" not in formula
    assert "Compose" not in formula


@pytest.fixture
def unit() -> oc.EquilibriumLayer:
    """A small OptEq unit in float64."""
    problem, inputs, outputs = read_problem(next(p for p in PROBLEMS if p.stem == "opteq_unit")).declare(
        inputs=3, hidden=4
    )
    return oc.compile(problem, inputs, outputs).double()


@pytest.mark.parametrize("path", PROBLEMS, ids=lambda p: p.stem)
def test_every_problem_has_its_map_in_latex(path: Path) -> None:
    found = oc.explain(*read_problem(path).declare())
    for formula in (found.plan.latex, latex.program(found.program)):
        well_formed(formula)
    assert latex.program(found.program) in found.program._repr_latex_()
    shown = Balanced(found._repr_html_())
    assert found.plan.latex in shown.text  # what the browser hands to the typesetter is the formula itself
    assert {"table", "details"} <= shown.tags


def test_the_map_of_an_opteq_unit_is_the_papers(unit: oc.EquilibriumLayer) -> None:
    assert r"u \leftarrow \mathrm{relu}\bigl(W\,W^\top\,u + U\,x + b - \lambda\bigr)" in unit.plan.latex
    shown = Balanced(unit._repr_html_())
    assert unit.plan.latex in shown.text
    assert all(word in shown.text for word in ("input", "weight", "output", "norm", "[4, 3]", "plan: forward–backward"))


def test_solution_and_report_render(unit: oc.EquilibriumLayer) -> None:
    x = torch.ones(2, 3, dtype=torch.float64)
    assert r"\lVert u - u^\star \rVert" in Balanced(unit.solve(x)._repr_html_()).text
    assert "converged2" in Balanced(unit.solve(x)._repr_html_()).text
    Balanced(unit.solve(x[:0])._repr_html_())
    assert r"\text{distance}" in Balanced(oc.verify(unit, x, gradients=False)._repr_html_()).text


@pytest.mark.parametrize("name", ["<script>alert(1)</script>", "a & b", "$x$", "50%_{#}^~", "\\"])
def test_names_of_the_user_are_escaped(name: str) -> None:
    x, u = oc.Input(2, name=name), cp.Variable(2, name="u")
    found = oc.explain(cp.Problem(cp.Minimize(cp.sum_squares(u - x) + cp.norm1(u))))
    layer = oc.compile(cp.Problem(cp.Minimize(cp.sum_squares(u - x) + cp.norm1(u))))
    for source in (found._repr_html_(), layer._repr_html_(), found.plan._repr_html_()):
        assert "script" not in Balanced(source).tags
    formula = latex.program(found.program)
    well_formed(formula)
    assert "$" not in formula.replace(r"\$", "")
    assert "<" not in formula


NAMED = frozenset({"hinges", "kl_div", "quad_over_lin", "rel_entr"})
"""Atoms that are written as an operator's name: their formula needs the parts of a joined argument."""


@pytest.mark.parametrize("cls", [c for c in registry() if not c.name.startswith("activation_")], ids=lambda c: c.name)
def test_every_atom_is_written_as_a_formula(cls: type[Atom]) -> None:
    rng = np.random.default_rng(0)
    for spelling in cls.spellings:
        spelled = spell(spelling, rng)
        program = passes.run(read(spelled.problem(), list(spelled.parameters.values())).program)
        shown = latex.program(program)
        well_formed(shown)
        name = cls.name.replace("_", r"\_")
        assert cls.name in NAMED or rf"\operatorname{{{name}}}" not in shown


def test_names_become_symbols() -> None:
    shown = {"W": "W", "lam": r"\lambda", "W1": "W_{1}", "u_f": "u_{f}", "cost": r"\mathrm{cost}", "z_u_f": "z_{u,f}"}
    assert {k: latex.name(k) for k in shown} == shown


def test_products_keep_their_order_and_parentheses() -> None:
    A, B, x = oc.Weight((3, 3), name="A"), oc.Weight((3, 3), name="B"), cp.Variable(3, name="x")
    y = oc.Input(3, name="y")
    problem = cp.Problem(cp.Minimize(0.5 * cp.sum_squares((A + B) @ x - 2 * y)), [x <= np.ones(3)])
    text = latex.program(oc.explain(problem).program)
    assert r"\tfrac12\,\lVert (A + B)\,x - 2\,y \rVert^2" in text


SHOWN = {
    "sum(norm2(X, axis=1))": r"\lVert X \rVert_{2,1}",
    "norm2(x)": r"\lVert x \rVert_2",
    "-sum(entr(x))": r"\langle x, \ln(x) \rangle",
    "sum_squares(sum(X, axis=1) - x)": r"\lVert X\,\mathbf 1 - x \rVert^2",
    "sum_squares(sum(X, axis=0) - x)": r"\lVert \mathbf 1^\top X - x \rVert^2",
    "pnorm(x, 3)": r"\lVert x \rVert_{3}",
    "-pnorm(x, 0.5)": r"-\lVert x \rVert_{0.5}",
    "norm(x)**3": r"\lVert x \rVert_2^{3}",
    "norm(X, 1)": r"\max_i \lVert (X)_i \rVert_1",
    "sum(x**3)": r"\mathbf 1^\top (x)^{3}",
    "sum_largest(x, 2)": r"\textstyle\sum_{i \le 2} (x)_{[i]}",
    "sum_squares(diag(X))": r"\lVert \operatorname{diag}(X) \rVert^2",
}


@pytest.mark.parametrize(("text", "formula"), SHOWN.items(), ids=SHOWN.keys())
def test_functions_are_written_as_the_field_does(text: str, formula: str) -> None:
    names = {k: getattr(cp, k) for k in dir(cp)} | {"x": cp.Variable(3, name="x"), "X": cp.Variable((3, 3), name="X")}
    shown = latex.program(oc.explain(cp.Problem(cp.Minimize(eval(text, names)))).program)
    well_formed(shown)
    assert formula in shown


def test_a_box_cut_by_a_plane_is_one_set() -> None:
    x = cp.Variable(3, name="x")
    cost = cp.sum_squares(x - oc.Input(3, name="y"))
    shown = oc.explain(cp.Problem(cp.Minimize(cost), [x >= 0, x <= 1, cp.sum(x) <= 2])).plan.latex
    assert r"\iota\{0 \le x \le 1,\ \mathbf 1^\top x \le 2\}" in shown
