"""The function whose prox at step 1 is the log-sigmoid: f(x) = Li₂(eˣ) − π²/6, x ≤ 0."""

from dataclasses import dataclass

from typing_extensions import override

from opteq_cvx.activations import Activation
from opteq_cvx.activations.smooth import log_sigmoid
from opteq_cvx.atoms.activated import Activated
from opteq_cvx.atoms.contract import Spelling, Trait

_ROW = log_sigmoid()


@dataclass(frozen=True, slots=True)
class ActivationLogSigmoid(Activated):
    """prox at step 1 is the log-sigmoid; other steps by one root."""

    name = "activation_log_sigmoid"
    formula = "Li₂(eˣ) − π²/6, x ≤ 0"
    cost = "O(n), one root"
    source = "Combettes, Pesquet, arXiv 1808.07526, section 2"
    traits = frozenset({Trait.SEPARABLE})
    spellings = (
        Spelling(text="activation('log_sigmoid').f(x)", argmin=False, draw=(-4.0, -0.05)),
        Spelling(
            text="lam * activation('log_sigmoid').f(x)",
            variables={"x": (2, 3)},
            parameters={"lam": ((), {"nonneg": True})},
            weight="lam",
            argmin=False,
            draw=(-4.0, -0.05),
        ),
    )

    @property
    @override
    def row(self) -> Activation:
        return _ROW
