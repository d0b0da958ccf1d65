"""The function whose prox at step 1 is softplus: f(x) = Li₂(e⁻ˣ) − π²/6, x ≥ 0."""

from dataclasses import dataclass

from typing_extensions import override

from opteq_cvx.activations import Activation, softplus
from opteq_cvx.atoms.activated import Activated
from opteq_cvx.atoms.contract import Spelling, Trait

_ROW = softplus()


@dataclass(frozen=True, slots=True)
class ActivationSoftplus(Activated):
    """prox at step 1 is softplus; other steps by one root."""

    name = "activation_softplus"
    formula = "Li₂(e⁻ˣ) − π²/6, x ≥ 0"
    cost = "O(n), one root"
    source = "Combettes, Pesquet, arXiv 1808.07526, section 2"
    traits = frozenset({Trait.SEPARABLE})
    spellings = (
        Spelling(text="activation('softplus').f(x)", argmin=False, draw=(0.05, 4.0)),
        Spelling(
            text="lam * activation('softplus').f(x)",
            variables={"x": (2, 3)},
            parameters={"lam": ((), {"nonneg": True})},
            weight="lam",
            argmin=False,
            draw=(0.05, 4.0),
        ),
    )

    @property
    @override
    def row(self) -> Activation:
        return _ROW
