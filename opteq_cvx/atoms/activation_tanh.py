"""The function whose prox at step 1 is tanh: f(x) = ½[(1 + x)ln(1 + x) + (1 − x)ln(1 − x)] − ½x²."""

from dataclasses import dataclass

from typing_extensions import override

from opteq_cvx.activations import Activation
from opteq_cvx.activations.smooth import tanh
from opteq_cvx.atoms.activated import Activated
from opteq_cvx.atoms.contract import Spelling, Trait

_ROW = tanh()


@dataclass(frozen=True, slots=True)
class ActivationTanh(Activated):
    """prox at step 1 is tanh; other steps by one root."""

    name = "activation_tanh"
    formula = "½[(1 + x)ln(1 + x) + (1 − x)ln(1 − x)] − ½x²"
    cost = "O(n), one root"
    source = "Combettes, Pesquet, arXiv 1808.07526, section 2"
    traits = frozenset({Trait.SEPARABLE, Trait.EVEN})
    spellings = (
        Spelling(text="activation('tanh').f(x)", argmin=False, draw=(-0.95, 0.95)),
        Spelling(
            text="lam * activation('tanh').f(x)",
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
