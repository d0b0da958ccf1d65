"""How much of CVXPY is recognized directly: its own table of atoms, and the classes of `cvxpy.atoms`.

`direct`: the program has the user's variables only, every term an atom's. `conic`: the term compiles through
auxiliary variables and cones. `refused`: it does not compile, `crashed`: nor says why. The counts may only rise
(coverage.json; `pytest tests/atoms/test_coverage.py --regenerate` raises them).
"""

import inspect
import json
import pkgutil
import warnings
from collections import Counter
from collections.abc import Iterator
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

import cvxpy as cp
import numpy as np
import pytest
from cvxpy.atoms.affine.affine_atom import AffAtom
from cvxpy.atoms.atom import Atom

from opteq_cvx import passes
from opteq_cvx.atoms import registry
from opteq_cvx.errors import OpteqError
from opteq_cvx.frontend import read
from opteq_cvx.verify.spelled import spell

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # it writes matrices as nested lists
    TABLE = import_module("cvxpy.tests.test_constant_atoms")
FLOOR = Path(__file__).with_name("coverage.json")


MORE = (
    "dotsort(x, [1, 2, 3])",
    "tr_inv(S)",
    "-von_neumann_entr(S)",
    "quantum_rel_entr(S, R)",
    "perspective(square(s), t)",
    "matrix_frac(x, E)",
    "norm(x)**3",
    "mixed_norm(S, 2, 'inf')",
    "suppfunc(z, [z >= -1, z <= 1])(x)",
    "-sum(log1p(x))",
    "norm(S, 'nuc') + sigma_max(S)",
    "mixed_norm(S, 2, 1)",
    "tv(x) + tv(S)",
    "std(x) + var(x)",
    "ptp(x) + cvar(x, 0.5)",
    "sum(scalene(x, 1, 2))",
    "-sum(log_normcdf(x))",
    "sum(loggamma(x))",
    "inv_prod(x) - harmonic_mean(x)",
    "-lambda_sum_smallest(S, 2) - sum_smallest(x, 2)",
    "sum_largest(abs(x), 2) + max(abs(x))",
    "length(x)",
)
"""Functions of CVXPY that its table lacks."""


def shipped() -> set[str]:
    """The names of the nonlinear atom classes that CVXPY ships."""
    found: set[str] = set()
    for module in pkgutil.walk_packages(cp.atoms.__path__, "cvxpy.atoms."):
        for cls in vars(import_module(module.name)).values():
            if inspect.isclass(cls) and issubclass(cls, Atom) and not issubclass(cls, AffAtom):
                found.add(cls.__name__)
    return found


def status(problem: cp.Problem, inputs: list[cp.Parameter] | None = None) -> str:
    """How the frontend and the passes take a problem."""
    try:
        program = passes.run(read(problem, inputs).program)
    except OpteqError:
        return "refused"
    except (KeyError, TypeError):
        return "crashed"
    own = {v.name() for v in problem.variables()}
    return "direct" if {v.name for v in program.variables} <= own else "conic"


def rows() -> Iterator[tuple[str, cp.Expression, cp.Problem]]:
    """CVXPY's table as problems over variables: a label, the atom's expression, the problem."""
    for (function, _, args, _), sense in (*TABLE.atoms_minimize, *TABLE.atoms_maximize):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            variables = [cp.Variable(cp.Expression.cast_to_const(a).shape) for a in args]
            expr = function(*variables)
        total = expr if expr.shape == () else cp.sum(expr)
        problem = cp.Problem(sense(total))
        if problem.is_dcp():
            yield str(expr), expr, problem
    names: dict[str, Any] = {**vars(cp), "x": cp.Variable(3), "s": cp.Variable(), "z": cp.Variable(3)}
    names |= {"t": cp.Variable(nonneg=True), "S": cp.Variable((3, 3), PSD=True), "R": cp.Variable((3, 3), PSD=True)}
    names["E"] = cp.Constant(np.diag([1.0, 2.0, 3.0]))
    for text in MORE:
        expr = eval(text, names)
        problem = cp.Problem(cp.Minimize(expr))
        if problem.is_dcp():
            yield text, expr, problem


def functions(expr: cp.Expression) -> set[type]:
    """The classes of the nonlinear atoms in an expression."""
    own = {type(expr)} if isinstance(expr, Atom) and not isinstance(expr, AffAtom) and not expr.is_affine() else set()
    return own.union(*(functions(a) for a in expr.args))


@cache
def by_row() -> tuple[tuple[str, frozenset[type], str], ...]:
    """(label, classes, status) of every row with a nonlinear atom."""
    found = ((label, frozenset(functions(expr)), problem) for label, expr, problem in rows())
    return tuple((label, classes, status(problem)) for label, classes, problem in found if classes)


@cache
def by_class() -> dict[str, str]:
    """Status of each class of `cvxpy.atoms` that occurs alone in CVXPY's table or in a spelling of ours."""
    found: dict[str, set[str]] = {}
    for _, classes, how in by_row():
        for cls in classes:
            found.setdefault(cls.__name__, set()).add(how)
    rng = np.random.default_rng(0)
    for atom in registry():
        for spelling in atom.spellings:
            if spelling.constraint:
                continue
            spelled: Any = spell(spelling, rng)
            for cls in functions(spelled.objective):
                how = status(spelled.problem(), list(spelled.parameters.values()))
                found.setdefault(cls.__name__, set()).add(how)
    order = ("direct", "conic", "refused", "crashed")
    return {name: next(how for how in order if how in hows) for name, hows in sorted(found.items())}


def counts() -> dict[str, int]:
    """The figures that may only rise."""
    table, classes = Counter(how for _, _, how in by_row()), Counter(by_class().values())
    return {
        "rows": len(by_row()),
        "rows_direct": table["direct"],
        "rows_compiled": table["direct"] + table["conic"],
        "classes": len(by_class()),
        "classes_direct": classes["direct"],
        "classes_compiled": classes["direct"] + classes["conic"],
    }


def test_the_walk_sees_cvxpys_table() -> None:
    assert counts()["rows"] > 100
    assert counts()["classes"] >= 33
    assert len(shipped()) > 60


def report(found: dict[str, int]) -> str:
    """The counts, and what is not direct by name."""
    lines = [
        f"{found['rows_direct']} of {found['rows']} convex rows are recognized directly, "
        f"{found['rows_compiled'] - found['rows_direct']} go the conic route; "
        f"{found['classes_direct']} of {found['classes']} functions are recognized directly"
    ]
    for how in ("conic", "refused", "crashed"):
        names = [name for name, status in by_class().items() if status == how]
        lines.append(f"{how}: {', '.join(names) or 'none'}")
    lines.append(f"in no convex row: {', '.join(sorted(shipped() - set(by_class())))}")
    return "\n".join(lines)


def test_coverage_only_rises(request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]) -> None:
    found = counts()
    with capsys.disabled():
        request.config.get_terminal_writer().line("\n" + report(found))
    if request.config.getoption("--regenerate"):
        FLOOR.write_text(json.dumps(found, indent=1) + "\n")
    floor = json.loads(FLOOR.read_text())
    lower = {k: (found[k], floor[k]) for k in floor if found[k] < floor[k]}
    assert not lower, f"coverage fell (now, before): {lower}"


def test_a_direct_row_and_a_conic_one_are_told_apart() -> None:
    x = cp.Variable(3, name="x")
    assert status(cp.Problem(cp.Minimize(cp.norm1(x)))) == "direct"
    assert status(cp.Problem(cp.Minimize(cp.norm2(cp.hstack([cp.norm1(x), cp.max(x)]))))) != "direct"
