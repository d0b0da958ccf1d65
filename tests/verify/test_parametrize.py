"""The decorator that generates the laws' tests for atoms of other packages."""

import pytest

from opteq_cvx.atoms import registry
from opteq_cvx.errors import MissingExtraError
from opteq_cvx.verify import parametrize
from opteq_cvx.verify.laws import LAWS
from opteq_cvx.verify.parametrize import parametrize_atom_laws


def test_one_case_for_each_pair_and_a_reason_for_each_known_failure() -> None:
    atoms = list(registry())[:2]
    name = f"{atoms[1].name}-{LAWS[0].__name__}"
    mark = parametrize_atom_laws(atoms, {name: "a reason"})
    names, cases = mark.args
    assert names == ("atom", "law")
    assert [(c.values, c.id) for c in cases] == [((a, w), f"{a.name}-{w.__name__}") for a in atoms for w in LAWS]
    assert {c.id: [m.kwargs for m in c.marks] for c in cases if c.marks} == {
        name: [{"reason": "a reason", "strict": True}]
    }


def test_without_pytest_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise ImportError(name)

    monkeypatch.setattr(parametrize, "import_module", missing)
    with pytest.raises(MissingExtraError, match=r"pip install"):
        parametrize_atom_laws()
