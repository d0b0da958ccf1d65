"""The function whose prox at step 1 is a/√(1 + a²): f(x) = −√(1 − x²) − ½x²."""

from dataclasses import dataclass

from typing_extensions import override

from opteq_cvx.activations import Activation
from opteq_cvx.activations.smooth import algebraic
from opteq_cvx.atoms.activated import Activated
from opteq_cvx.atoms.contract import Spelling, Trait

_ROW = algebraic()


@dataclass(frozen=True, slots=True)
class ActivationAlgebraic(Activated):
    """prox at step 1 is a/√(1 + a²); other steps by one root."""

    name = "activation_algebraic"
    formula = "−√(1 − x²) − ½x²"
    cost = "O(n), one root"
    source = "Combettes, Pesquet, arXiv 1808.07526, section 2"
    traits = frozenset({Trait.SEPARABLE, Trait.EVEN})
    spellings = (
        Spelling(text="activation('algebraic').f(x)", argmin=False, draw=(-0.95, 0.95)),
        Spelling(
            text="lam * activation('algebraic').f(x)",
            variables={"x": (2, 3)},
            parameters={"lam": ((), {"nonneg": True})},
            weight="lam",
            argmin=False,
            draw=(-0.95, 0.95),
        ),
    )

    @property
    @override
    def row(self) -> Activation:
        return _ROW
