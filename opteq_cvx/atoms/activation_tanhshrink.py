"""The function whose prox at step 1 is a − tanh a: f(x) = ln cosh a − ½tanh²a where a − tanh a = x."""

from dataclasses import dataclass

from typing_extensions import override

from opteq_cvx.activations import Activation
from opteq_cvx.activations.smooth import tanhshrink
from opteq_cvx.atoms.activated import Activated
from opteq_cvx.atoms.contract import Spelling, Trait

_ROW = tanhshrink()


@dataclass(frozen=True, slots=True)
class ActivationTanhshrink(Activated):
    """prox at step 1 is a − tanh a; other steps by one root."""

    name = "activation_tanhshrink"
    formula = "ln cosh a − ½tanh²a, a − tanh a = x"
    cost = "O(n), one root"
    source = "Combettes, Pesquet, arXiv 1808.07526, section 2"
    traits = frozenset({Trait.SEPARABLE, Trait.EVEN})
    spellings = (
        Spelling(text="activation('tanhshrink').f(x)", argmin=False, draw=(-3.0, 3.0)),
        Spelling(
            text="lam * activation('tanhshrink').f(x)",
            variables={"x": (2, 3)},
            parameters={"lam": ((), {"nonneg": True})},
            weight="lam",
            argmin=False,
            draw=(-3.0, 3.0),
        ),
    )

    @property
    @override
    def row(self) -> Activation:
        return _ROW
