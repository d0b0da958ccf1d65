"""The function whose prox at step 1 is arctan: f(x) = −ln cos x − ½x²."""

from dataclasses import dataclass

from typing_extensions import override

from opteq_cvx.activations import Activation, arctan
from opteq_cvx.atoms.activated import Activated
from opteq_cvx.atoms.contract import Spelling, Trait

_ROW = arctan()


@dataclass(frozen=True, slots=True)
class ActivationArctan(Activated):
    """prox at step 1 is arctan; other steps by one root."""

    name = "activation_arctan"
    formula = "−ln cos x − ½x²"
    cost = "O(n), one root"
    source = "Combettes, Pesquet, arXiv 1808.07526, section 2"
    traits = frozenset({Trait.SEPARABLE, Trait.EVEN})
    spellings = (
        Spelling(text="activation('arctan').f(x)", argmin=False, draw=(-1.4, 1.4)),
        Spelling(
            text="lam * activation('arctan').f(x)",
            variables={"x": (2, 3)},
            parameters={"lam": ((), {"nonneg": True})},
            weight="lam",
            argmin=False,
            draw=(-1.4, 1.4),
        ),
    )

    @property
    @override
    def row(self) -> Activation:
        return _ROW
