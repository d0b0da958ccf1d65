"""The function whose prox at step 1 is softsign: f(x) = −|x| − ln(1 − |x|) − ½x²."""

from dataclasses import dataclass

from typing_extensions import override

from opteq_cvx.activations import Activation
from opteq_cvx.activations.smooth import softsign
from opteq_cvx.atoms.activated import Activated
from opteq_cvx.atoms.contract import Spelling, Trait

_ROW = softsign()


@dataclass(frozen=True, slots=True)
class ActivationSoftsign(Activated):
    """prox at step 1 is softsign; other steps by one root."""

    name = "activation_softsign"
    formula = "−|x| − ln(1 − |x|) − ½x²"
    cost = "O(n), one root"
    source = "Combettes, Pesquet, arXiv 1808.07526, section 2"
    traits = frozenset({Trait.SEPARABLE, Trait.EVEN})
    spellings = (
        Spelling(text="activation('softsign').f(x)", argmin=False, draw=(-0.9, 0.9)),
        Spelling(
            text="lam * activation('softsign').f(x)",
            variables={"x": (2, 3)},
            parameters={"lam": ((), {"nonneg": True})},
            weight="lam",
            argmin=False,
            draw=(-0.9, 0.9),
        ),
    )

    @property
    @override
    def row(self) -> Activation:
        return _ROW
