"""Meanings in CVXPY, from tables and from spellings, against the values and projections of the atoms."""

import cvxpy as cp
import numpy as np
import pytest
import torch

from opteq_cvx.atoms import Atom, Trait, registry
from opteq_cvx.errors import UnsupportedError
from opteq_cvx.verify.meanings import Argument, Meaning, _spelled, meaning
from opteq_cvx.verify.spelled import Case, Spelled, _tensor, spell
from opteq_cvx.verify.spelled import case as make_case

CASES = [(cls, k) for cls in registry() for k in range(len(cls.spellings)) if cls.name != "quad_form"]
IDS = [f"{cls.name}-{k}" for cls, k in CASES]  # of a quadratic form a factor is known, see test_rebuild.py
LISTED = [(cls, k) for cls, k in CASES if not cls.name.startswith("activation")]  # activations are ours, not CVXPY's
TIGHT = 1e-6


def leaves(cls: type[Atom], spelled: Spelled) -> dict[str, cp.Expression]:
    """The data as CVXPY parameters that know their sign."""
    found: dict[str, cp.Expression] = {}
    for key, text in spelled.spelling.data.items():
        array = _tensor(text, spelled.parameters).numpy()
        if np.isfinite(array).all():
            found[key] = cp.Parameter(array.shape, nonneg=bool((array >= 0).all()), value=array)
        else:
            found[key] = cp.Constant(array)
    return found


def point(case: Case, spelled: Spelled, seed: int) -> torch.Tensor:
    """A value of the atom's argument, symmetric where only such matrices count."""
    rng = np.random.default_rng(seed)
    for variable in spelled.variables.values():
        variable.save_value(rng.uniform(*case.draw, size=variable.shape))  # attributes are the set to test
    v = torch.as_tensor(np.array(spelled.arg.value, dtype=np.float64).reshape(case.event).copy())
    matrix = case.atom.name == "psd" or dict(spelled.spelling.static).get("axes") == (-2, -1)
    return (v + v.mT) / 2 if matrix and v.ndim == 2 and v.shape[0] == v.shape[1] else v


def number(found: Meaning, x: cp.Variable, at: np.ndarray) -> np.ndarray | bool:
    """The values at a point; for constraints, whether they hold. Auxiliary variables take their best value."""
    x.value = at
    exprs = found if isinstance(found, list) else [found]
    others = [v for e in exprs for v in e.variables() if v is not x]
    if others and isinstance(found, list):
        raise AssertionError("a set has no variables of its own")
    if others:
        fixed = [x == at]
        cp.Problem(cp.Minimize(cp.sum(found)), fixed).solve(solver=cp.CLARABEL)
    if isinstance(found, list):
        with np.errstate(invalid="ignore"):  # CVXPY's own distance to a second-order cone at 0
            return all(bool(np.all(c.value(TIGHT))) for c in found)
    return np.asarray(found.value).reshape(-1)


def sides(cls: type[Atom], k: int) -> tuple[Case, Spelled, cp.Variable]:
    spelled = spell(cls.spellings[k], np.random.default_rng(k))
    case = make_case(cls, spelled)
    return case, spelled, cp.Variable(max(int(np.prod(case.event)), 1))


@pytest.mark.parametrize(("cls", "k"), CASES, ids=IDS)
def test_the_table_says_what_the_atom_computes(cls: type[Atom], k: int) -> None:
    case, spelled, x = sides(cls, k)
    found = meaning(cls.name, Argument(x, case.event), spelled.spelling.static, leaves(cls, spelled))
    for seed in range(2):
        v = point(case, spelled, seed)
        if isinstance(found, list):
            inside = case.atom.prox(v, torch.ones((), dtype=torch.float64), case.data)
            assert number(found, x, inside.reshape(-1).numpy())
            assert number(found, x, v.reshape(-1).numpy()) == bool((case.atom.value(v, case.data) <= TIGHT).all())
        else:
            expected = case.atom.value(v, case.data).reshape(-1).numpy()
            np.testing.assert_allclose(number(found, x, v.reshape(-1).numpy()), expected, rtol=1e-7, atol=1e-6)


@pytest.mark.parametrize("cls", {c.name: c for c, _ in LISTED}.values(), ids=lambda c: c.name)
def test_a_spelling_says_the_same(cls: type[Atom]) -> None:
    """As for an atom of another package, which has no row in the tables: right, or no spelling fits."""
    for k in [k for c, k in LISTED if c is cls]:
        case, spelled, x = sides(cls, k)
        data, argument, static = leaves(cls, spelled), Argument(x, case.event), spelled.spelling.static
        try:
            found = _spelled(cls.name, argument, static, data)
        except UnsupportedError:
            assert spelled.spelling is not cls.spellings[0] or not plain(spelled)
            continue
        if Trait.SET in cls.traits:
            inside = case.atom.prox(point(case, spelled, 0), torch.ones((), dtype=torch.float64), case.data)
            assert number(found, x, inside.reshape(-1).numpy())
        else:
            v = point(case, spelled, 0)
            expected = case.atom.value(v, case.data).reshape(-1).numpy()
            values = np.atleast_1d(number(found, x, v.reshape(-1).numpy()))
            np.testing.assert_allclose(values.sum(), expected.sum(), rtol=1e-7, atol=1e-6)


def plain(spelled: Spelled) -> bool:
    """Whether the text stands for any argument: one variable, its data parameters, no weight."""
    s = spelled.spelling
    named = all(text in s.parameters for text in s.data.values())
    return bool(s.text) and list(s.variables) == [s.arg] and named and s.weight in ("1", "1.0")
