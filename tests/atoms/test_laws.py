"""Every law for every atom: one case for each pair."""

from opteq_cvx.atoms import Atom
from opteq_cvx.verify.laws import Law
from opteq_cvx.verify.parametrize import parametrize_atom_laws


@parametrize_atom_laws()
def test_law(atom: type[Atom], law: Law) -> None:
    law(atom)
