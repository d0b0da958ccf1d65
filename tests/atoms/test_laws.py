"""Every law for every atom: one case for each pair."""

from opteq_cvx.atoms import Atom
from opteq_cvx.verify.laws import Law
from opteq_cvx.verify.parametrize import parametrize_atom_laws

EXPECTED_FAILURES = {
    "xexp-spellings_are_recognized": "CVXPY wants a nonnegative variable, whose attribute is a term of its own",
}


@parametrize_atom_laws(expected_failures=EXPECTED_FAILURES)
def test_law(atom: type[Atom], law: Law) -> None:
    law(atom)
