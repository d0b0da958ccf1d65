"""One pytest case for each (atom, law), as scikit-learn's `parametrize_with_checks`."""

from collections.abc import Iterable, Mapping
from importlib import import_module
from typing import Any

from opteq_cvx.atoms import Atom, registry
from opteq_cvx.errors import MissingExtraError, message
from opteq_cvx.verify.laws import LAWS


def parametrize_atom_laws(
    atoms: Iterable[type[Atom]] | None = None, expected_failures: Mapping[str, str] | None = None
) -> Any:
    """A pytest decorator for `def test(atom, law): law(atom)`, one case for each pair.

    Args:
        atoms: the classes to check, by default all registered ones.
        expected_failures: "atom-law" (the case's name) to the reason why it is known to fail.

    Raises:
        MissingExtraError: pytest is not installed.
    """
    try:
        pytest = import_module("pytest")
    except ImportError as error:
        fix = 'pip install "opteq_cvx[test]"'
        raise MissingExtraError(message("pytest is not installed", "pytest", fix)) from error
    reasons = expected_failures or {}
    cases = []
    for cls in registry() if atoms is None else atoms:
        for law in LAWS:
            name = f"{cls.name}-{law.__name__}"
            marks = [pytest.mark.xfail(reason=reasons[name], strict=True)] if name in reasons else []
            cases.append(pytest.param(cls, law, id=name, marks=marks))
    return pytest.mark.parametrize(("atom", "law"), cases)
