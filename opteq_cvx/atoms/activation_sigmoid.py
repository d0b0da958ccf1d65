"""The function whose prox at step 1 is the logistic sigmoid: f(x) = x ln x + (1 − x)ln(1 − x) − ½x²."""

from dataclasses import dataclass

from typing_extensions import override

from opteq_cvx.activations import Activation
from opteq_cvx.activations.smooth import sigmoid
from opteq_cvx.atoms.activated import Activated
from opteq_cvx.atoms.contract import Spelling, Trait

_ROW = sigmoid()


@dataclass(frozen=True, slots=True)
class ActivationSigmoid(Activated):
    """prox at step 1 is the logistic sigmoid; other steps by one root."""

    name = "activation_sigmoid"
    formula = "x ln x + (1 − x)ln(1 − x) − ½x²"
    cost = "O(n), one root"
    source = "Combettes, Pesquet, arXiv 1808.07526, section 2"
    traits = frozenset({Trait.SEPARABLE, Trait.STRONGLY_CONVEX})
    spellings = (
        Spelling(text="activation('sigmoid').f(x)", argmin=False, draw=(0.03, 0.97)),
        Spelling(
            text="lam * activation('sigmoid').f(x)",
            variables={"x": (2, 3)},
            parameters={"lam": ((), {"nonneg": True})},
            weight="lam",
            argmin=False,
            draw=(0.03, 0.97),
        ),
    )

    @property
    @override
    def row(self) -> Activation:
        return _ROW
