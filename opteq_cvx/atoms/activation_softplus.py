"""The function whose prox at step 1 is softplus: f(x) = Li₂(e⁻ˣ) − π²/6, x ≥ 0."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from typing_extensions import override

from opteq_cvx.activations import Activation
from opteq_cvx.activations.smooth import softplus
from opteq_cvx.atoms.activated import Activated
from opteq_cvx.atoms.contract import Spelling, Trait


@dataclass(frozen=True, slots=True)
class ActivationSoftplus(Activated):
    """prox at step 1 is softplus; other steps by one root."""

    beta: float = 1.0

    name = "activation_softplus"
    formula = "(Li₂(e^{−βx}) − π²/6)/β², x ≥ 0"
    cost = "O(n), one root"
    source = "Combettes, Pesquet, arXiv 1808.07526, section 2"
    traits = frozenset({Trait.SEPARABLE})
    wrong: ClassVar[tuple[Mapping[str, Any], ...]] = ({"beta": 0.0},)
    spellings = (
        Spelling(text="activation('softplus').f(x)", static={"beta": 1.0}, argmin=False, draw=(0.05, 4.0)),
        Spelling(
            text="lam * activation('softplus', beta=2.0).f(x)",
            variables={"x": (2, 3)},
            parameters={"lam": ((), {"nonneg": True})},
            weight="lam",
            static={"beta": 2.0},
            argmin=False,
            draw=(0.05, 4.0),
        ),
    )

    def __post_init__(self) -> None:
        softplus(self.beta)  # refuses what is outside its range

    @property
    @override
    def row(self) -> Activation:
        return softplus(self.beta)
