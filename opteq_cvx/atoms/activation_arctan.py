"""The function whose prox at step 1 is arctan: f(x) = −ln cos x − ½x²."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from typing_extensions import override

from opteq_cvx.activations import Activation
from opteq_cvx.activations.smooth import arctan
from opteq_cvx.atoms.activated import Activated
from opteq_cvx.atoms.contract import Spelling, Trait


@dataclass(frozen=True, slots=True)
class ActivationArctan(Activated):
    """prox at step 1 is arctan; other steps by one root."""

    bound: float = math.pi / 2.0

    name = "activation_arctan"
    formula = "−(2b/π)²ln cos(πx/2b) − ½x²"
    cost = "O(n), one root"
    source = "Combettes, Pesquet, arXiv 1808.07526, section 2"
    traits = frozenset({Trait.SEPARABLE, Trait.EVEN})
    wrong: ClassVar[tuple[Mapping[str, Any], ...]] = ({"bound": 0.0},)
    spellings = (
        Spelling(text="activation('arctan').f(x)", static={"bound": math.pi / 2.0}, argmin=False, draw=(-1.4, 1.4)),
        Spelling(
            text="lam * activation('arctan', bound=1.0).f(x)",
            variables={"x": (2, 3)},
            parameters={"lam": ((), {"nonneg": True})},
            weight="lam",
            static={"bound": 1.0},
            argmin=False,
            draw=(-0.9, 0.9),
        ),
    )

    def __post_init__(self) -> None:
        arctan(self.bound)  # refuses what is outside its range

    @property
    @override
    def row(self) -> Activation:
        return arctan(self.bound)
