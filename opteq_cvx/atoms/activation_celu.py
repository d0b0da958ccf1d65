"""The function whose prox at step 1 is celu: f(x) = α(α + x)ln(1 + x/α) − αx − ½x² for −α ≤ x < 0, 0 above."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor
from typing_extensions import override

from opteq_cvx.activations import Activation
from opteq_cvx.activations.smooth import celu
from opteq_cvx.atoms.activated import Activated
from opteq_cvx.atoms.contract import Data, Spelling, Trait


@dataclass(frozen=True, slots=True)
class ActivationCelu(Activated):
    """prox at step 1 is celu; other steps by one root."""

    alpha: float = 1.0

    name = "activation_celu"
    formula = "α(α + x)ln(1 + x/α) − αx − ½x² for −α ≤ x < 0, 0 above"
    cost = "O(n), one root"
    source = "Combettes, Pesquet, arXiv 1808.07526, section 2"
    traits = frozenset({Trait.SEPARABLE})
    wrong: ClassVar[tuple[Mapping[str, Any], ...]] = ({"alpha": 0.0},)
    spellings = (
        Spelling(text="activation('celu').f(x)", static={"alpha": 1.0}, argmin=False, draw=(-0.3, 2.0)),
        Spelling(text="activation('celu', alpha=0.5).f(x)", static={"alpha": 0.5}, argmin=False, draw=(-0.3, 2.0)),
    )

    def __post_init__(self) -> None:
        celu(self.alpha)  # refuses what is outside its range

    @property
    @override
    def row(self) -> Activation:
        return celu(self.alpha)

    @override
    def kinks(self, v: Tensor, step: Tensor, data: Data) -> tuple[Tensor, ...]:
        return (torch.zeros_like(v),)
