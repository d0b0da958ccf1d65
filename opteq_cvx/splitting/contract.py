"""What a splitting is: a fixed-point map T on a flat state, and how to read the variables off a fixed point.

All tensors follow one convention: a leading axis of length B (per sample) or 1 (shared by the batch).
The state is (B, d). `theta` is the differentiable problem data, `prepared` whatever is derived from it without
gradient (steps, factorizations): gradients flow through `theta` only, and are correct because a fixed point of T
does not depend on `prepared`.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from opteq_cvx.errors import UnsupportedError, message
from opteq_cvx.maps.evaluate import Environment
from opteq_cvx.splitting.linearization import AutogradLinearization, Linearization
from opteq_cvx.splitting.saddle import Saddle

Theta = tuple[Tensor, ...]


@dataclass(frozen=True, slots=True)
class Certificate:
    """Why the iteration converges, per sample (B,) or shared (1,): None where nothing is known.

    modulus: a certified strong-monotonicity margin of I − T, so that ‖z − z*‖ ≤ ‖z − T(z)‖ / modulus.
    convex: False where a wrapped quadratic was found indefinite (status `not_convex`).
    empty: True where a data-dependent set is empty, or infeasibility was certified (status `primal_infeasible`).
    unbounded: True where an unbounded ray was certified (status `dual_infeasible`).
    """

    modulus: Tensor | None = None
    convex: Tensor | None = None
    empty: Tensor | None = None
    unbounded: Tensor | None = None


@dataclass(frozen=True, slots=True)
class Prepared:
    """Tensors derived from theta without gradient, all (1|B, ...), and the certificate."""

    tensors: tuple[Tensor, ...]
    certificate: Certificate


@dataclass(frozen=True, slots=True)
class Polished:
    """A state (B, d), the steps that led to it (B,), and samples certified infeasible or unbounded on the way (B,).

    `prepared` is the map whose state it is, where that is another one, which rounding blurs less.
    """

    z: Tensor
    steps: Tensor
    infeasible: Tensor
    unbounded: Tensor
    prepared: Prepared | None = None


class Splitting(ABC):
    """A compiled map. Instances are frozen dataclasses built by a `plan(program)` function in the same file."""

    @property
    @abstractmethod
    def dimension(self) -> int:
        """d, the length of the state."""

    @property
    def exact(self) -> bool:
        """Whether T does not depend on its argument, so that one application solves the program."""
        return False

    @property
    def descends(self) -> bool:
        """Whether T is a proximal-gradient step of a convex function, which momentum accelerates."""
        return False

    @property
    def adaptive(self) -> bool:
        """Whether `error` and `rebalance` steer the solve."""
        return False

    @property
    def unlimited(self) -> tuple[bool, ...]:
        """Which entries of theta, in order, may be infinite: bounds that bound nothing."""
        return ()

    @abstractmethod
    def theta(self, env: Environment) -> Theta:
        """Problem data from parameter values; differentiable in them; evaluated once per call."""

    def factor(self, theta: Theta) -> Theta:
        """The expensive part of `prepare` that does not depend on inputs: spectra, factorizations; without gradient."""
        return ()

    @abstractmethod
    def prepare(self, theta: Theta, factors: Theta | None = None) -> Prepared:
        """Step sizes and the certificate, from `factors` (computed when None); called without gradient."""

    @abstractmethod
    def step(self, z: Tensor, theta: Theta, prepared: Prepared) -> Tensor:
        """T(z): (B, d) → (B, d); pure, differentiable in z and theta (to second order), vmap-friendly."""

    @abstractmethod
    def primal(self, z: Tensor, theta: Theta, prepared: Prepared) -> Tensor:
        """The variables (B, n), flattened and concatenated in the program's order; differentiable."""

    def runner(self, theta: Theta, prepared: Prepared) -> Callable[[Tensor], Tensor]:
        """A fast T for the loop, without autograd; may reuse buffers, never its input's memory."""
        return lambda z: self.step(z, theta, prepared)

    def linearize(self, z: Tensor, theta: Theta, prepared: Prepared) -> Linearization:
        """J = ∂T/∂z at z (B, d), without autograd; override with `SymmetricLinearization` where J = D M."""
        return AutogradLinearization(lambda point: self.step(point, theta, prepared), z)

    def pullback(self, z: Tensor, theta: Theta, prepared: Prepared, w: Tensor) -> Theta | None:
        """(∂T/∂θ)ᵀ w for each entry of theta, w (B, d), not to be differentiated; None where autograd is to find it."""
        return None

    @abstractmethod
    def start(self, batch: int, theta: Theta) -> Tensor:
        """The default starting state (B, d)."""

    def error(self, z: Tensor, theta: Theta, prepared: Prepared) -> Tensor:
        """Relative optimality error of the program at z (B,); adaptive splittings measure it."""
        raise NotImplementedError

    def gauge(self, theta: Theta, prepared: Prepared) -> Callable[[Tensor], Tensor]:
        """`error` as a function of z, to be applied often."""
        return lambda z: self.error(z, theta, prepared)

    def solvable(self, theta: Theta) -> bool:
        """Whether all samples are known to have a solution, so that nobody needs to watch for infeasibility."""
        return False

    def drift(self, z: Tensor, theta: Theta, prepared: Prepared, tolerance: float) -> tuple[Tensor, Tensor] | None:
        """(infeasible, unbounded) (B,), certified from the step at z; None where the map cannot tell."""
        return None

    def polish(self, z: Tensor, theta: Theta, prepared: Prepared, tolerance: float, steps: int) -> Polished | None:
        """A state closer to the fixed point by at most `steps` of other means; None: no such."""
        return None

    def rebalance(self, z: Tensor, theta: Theta, prepared: Prepared) -> tuple[Tensor, Prepared] | None:
        """Better parameters of the map after some steps, and the state in them; None when nothing should change."""
        return None

    def saddle(self, z: Tensor, theta: Theta, prepared: Prepared) -> Saddle:
        """Solution and multipliers at a fixed point z (B, d), differentiable in z and theta.

        Raises:
            UnsupportedError: the map solves no minimization, so that there is no Lagrangian.
        """
        raise UnsupportedError(
            message("this map is not that of a minimization problem", "a program with an objective", NO_ENERGY)
        )

    def nudge(self, theta: Theta, prepared: Prepared, tilt: Tensor) -> tuple[Theta, Prepared]:
        """The data of the program with ⟨tilt, z⟩ (B, d) added to its objective, z the state as a function of x.

        Raises:
            UnsupportedError: there is no objective, or `tilt` weighs parts of the state that are multipliers.
        """
        raise UnsupportedError(
            message("this map is not that of a minimization problem", "a program with an objective", NO_ENERGY)
        )


NO_ENERGY = "compile with adjoint=Implicit()"
