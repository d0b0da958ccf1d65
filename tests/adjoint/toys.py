"""Small maps with known equilibria, written as splittings: θ and its batch convention, nothing of a program."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from typing_extensions import override

from opteq_cvx.maps.evaluate import Environment
from opteq_cvx.splitting.contract import Certificate, Prepared, Splitting, Theta
from opteq_cvx.splitting.linearization import Linearization, SymmetricLinearization

Kind = Literal["identity", "relu", "tanh", "softmax"]
MAPS: dict[Kind, Callable[[Tensor], Tensor]] = {
    "identity": lambda a: a,
    "relu": torch.relu,
    "tanh": torch.tanh,
    "softmax": lambda a: torch.softmax(a, -1),
}


@dataclass(frozen=True)
class Unit(Splitting):
    """T(z) = act(z M + c), θ = (M (1|B, d, d), c (1|B, d)); M symmetric where `symmetric`."""

    d: int
    kind: Kind = "relu"
    symmetric: bool = True
    structured: bool = True
    prepares: bool = False

    @property
    @override
    def dimension(self) -> int:
        return self.d

    @override
    def theta(self, env: Environment) -> Theta:
        raise NotImplementedError

    @override
    def prepare(self, theta: Theta, factors: Theta | None = None) -> Prepared:
        # a copy of M, as a splitting with factors has it, to see that what is prepared follows θ through transforms
        return Prepared((theta[0].detach().clone(),) if self.prepares else (), Certificate())

    @override
    def step(self, z: Tensor, theta: Theta, prepared: Prepared) -> Tensor:
        matrix, c = theta
        product = z @ matrix[0] if matrix.shape[0] == 1 else (z[:, None] @ matrix)[:, 0]
        image = MAPS[self.kind](product + c)
        if self.prepares:  # relaxation by a prepared amount: the fixed point does not depend on it
            amount = 0.5 + 0.25 * prepared.tensors[0].square().mean((1, 2))[:, None].tanh()
            return z + amount * (image - z)
        return image

    @override
    def primal(self, z: Tensor, theta: Theta, prepared: Prepared) -> Tensor:
        return z

    @override
    def linearize(self, z: Tensor, theta: Theta, prepared: Prepared) -> Linearization:
        if not (self.symmetric and self.structured) or self.prepares:
            return super().linearize(z, theta, prepared)
        matrix, _ = theta
        image = self.step(z, theta, prepared)
        if self.kind == "identity":
            return SymmetricLinearization(matrix=matrix, diagonal=torch.ones_like(z), projector=True)
        if self.kind == "relu":
            return SymmetricLinearization(matrix=matrix, diagonal=(image > 0).to(z), projector=True)
        if self.kind == "tanh":
            return SymmetricLinearization(matrix=matrix, diagonal=1 - image**2)

        def jacobian(x: Tensor) -> Tensor:
            return image * (x - (image * x).sum(-1, keepdim=True))

        return SymmetricLinearization(matrix=matrix, apply_diagonal=jacobian)

    @override
    def start(self, batch: int, theta: Theta) -> Tensor:
        return theta[1].new_zeros(batch, self.d)
