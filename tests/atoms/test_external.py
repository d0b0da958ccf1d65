"""An atom in one file outside the package: registered on import, checked by the same laws, compiled like ours."""

import importlib.util
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import cvxpy as cp
import numpy as np
import pytest
import torch

import opteq_cvx as oc
from opteq_cvx import atoms
from opteq_cvx.ir.param import const

SOURCE = '''"""The cubic penalty |x|³, entry by entry."""

from dataclasses import dataclass

import torch

from opteq_cvx.atoms import Atom, Recognized, Spelling, Trait, register


@register
@dataclass(frozen=True, slots=True)
class Cubic(Atom):
    """f(x) = |x|³; the prox solves x + 3t x² = |v| for x ≥ 0."""

    name = "cubic"
    formula = "|x|³"
    cost = "O(n)"
    source = "optimality: x + 3t x² = |v|"
    traits = frozenset({Trait.SEPARABLE, Trait.EVEN})
    spellings = (Spelling(text="sum(power(abs(x), 3)) / 3", weight="1 / 3"),)

    @classmethod
    def recognize(cls, node):
        if node.op != "power" or node.attrs.get("p") != 3.0 or node.args[0].op != "abs":
            return None
        x = node.args[0].args[0].affine
        return None if x is None else Recognized(x)

    def value(self, x, data):
        return x.abs() ** 3

    def prox(self, v, step, data):
        return 2.0 * v / (1.0 + torch.sqrt(1.0 + 12.0 * step * v.abs()))
'''


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """A module of the user's, imported from a file of its own."""
    monkeypatch.setattr(atoms, "_third_party", [])
    path = tmp_path / "my_atom.py"
    path.write_text(SOURCE)
    spec = importlib.util.spec_from_file_location("my_atom", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "my_atom", module)
    spec.loader.exec_module(module)
    return module


def test_it_is_registered_and_obeys_the_laws(own: ModuleType) -> None:
    assert atoms.atom("cubic") is own.Cubic
    oc.check_atom(own.Cubic)


def test_a_wrong_formula_in_it_is_found(own: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(own.Cubic, "prox", lambda self, v, step, data: v / (1.0 + step * v.abs()))
    with pytest.raises(AssertionError, match="Cubic"):
        oc.check_atom(own.Cubic)


def assert_programs_use_it() -> None:
    """A penalty of |x|³ is the atom's, and the solution Clarabel's."""
    y, x = cp.Parameter(4, name="y"), cp.Variable(4, name="x")
    problem = cp.Problem(cp.Minimize(cp.sum_squares(x - y) + 2 * cp.sum(cp.power(cp.abs(x), 3))))
    layer = oc.compile(problem, [y], [x], tolerance=1e-10)
    assert "cubic" in str(layer.plan)
    y.value = np.array([-2.0, 0.0, 0.3, 1.5])
    (ours,) = layer(torch.as_tensor(y.value))
    problem.solve(solver=cp.CLARABEL, tol_gap_abs=1e-9, tol_gap_rel=1e-9, tol_feas=1e-9)
    np.testing.assert_allclose(ours.detach().numpy(), x.value, atol=1e-6)


def test_programs_use_it_before_our_own(own: ModuleType) -> None:
    assert_programs_use_it()


def test_what_is_recognized_may_be_a_multiple_of_the_atom(own: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """The atom is |x|³/6 here: the expression |x|³ is six of it."""
    recognize, prox = own.Cubic.recognize, own.Cubic.prox
    monkeypatch.setattr(own.Cubic, "recognize", lambda node: multiple(recognize(node), 6.0))
    monkeypatch.setattr(own.Cubic, "value", lambda self, x, data: x.abs() ** 3 / 6.0)
    monkeypatch.setattr(own.Cubic, "prox", lambda self, v, step, data: prox(self, v, step / 6.0, data))
    assert_programs_use_it()


def multiple(hit: atoms.Recognized | None, factor: float) -> atoms.Recognized | None:
    return None if hit is None else replace(hit, scale=const(factor))
