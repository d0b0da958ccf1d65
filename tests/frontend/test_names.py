"""The table of CVXPY's classes is complete and alive in the installed version."""

import inspect
import pkgutil
from importlib import import_module

import cvxpy as cp
import pytest
from cvxpy.atoms.atom import Atom

from opteq_cvx.frontend import names

BASES = {"LogicExpression", "_NaryLogicExpression"}  # not marked abstract, but they compute nothing


def shipped() -> list[type]:
    """Every concrete atom class of CVXPY, by walking its modules."""
    found: set[type] = set()
    for module in pkgutil.walk_packages(cp.atoms.__path__, "cvxpy.atoms."):
        for cls in vars(import_module(module.name)).values():
            if (
                inspect.isclass(cls)
                and issubclass(cls, Atom)
                and not inspect.isabstract(cls)
                and cls.__name__ not in BASES
            ):
                found.add(cls)
    return sorted(found, key=lambda cls: f"{cls.__module__}.{cls.__name__}")


def test_walk_finds_the_atoms() -> None:
    assert len(shipped()) > 90


def test_every_row_is_alive() -> None:
    assert names.MISSING == ()


def test_classes_that_the_installed_version_lacks_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    gone = (("cvxpy.atoms.norm1", "norm2"), ("cvxpy.atoms.moved", "norm1"))
    rows = [("cvxpy.atoms.norm1", "norm1", names.TABLE[cp.atoms.norm1]), *((m, n, None) for m, n in gone)]
    monkeypatch.setattr(names, "ROWS", rows)
    table, missing = names._resolve()
    assert (list(table), missing) == ([cp.atoms.norm1], tuple(f"{m}.{n}" for m, n in gone))


@pytest.mark.parametrize("cls", shipped(), ids=lambda cls: cls.__name__)
def test_every_atom_is_named(cls: type) -> None:
    assert cls in names.TABLE


def test_every_constraint_class_is_a_constraint() -> None:
    assert all(issubclass(cls, cp.constraints.constraint.Constraint) for cls in names.CONSTRAINTS)


def test_hidden_parameters_are_found() -> None:
    m, p = cp.Parameter(nonneg=True), cp.Parameter(pos=True)
    x = cp.Variable(2)
    assert names.hidden(cp.huber(x, m)) == (m,)
    assert names.hidden(cp.power(x, p)) == (p,)
    assert names.hidden(cp.power(x, 2)) == ()


def test_an_axis_is_an_attribute_of_its_function() -> None:
    expr = cp.sum_largest(cp.Variable((2, 3)), 2, axis=1)
    row = names.entry(expr)
    assert row is not None
    assert (row.op, row.attrs(expr)) == ("sum_largest", {"k": 2.0, "axis": 1, "keepdims": False})
