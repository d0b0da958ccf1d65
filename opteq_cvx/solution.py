"""Solution: what `layer.solve` returns, and the per-sample statuses and statistics inside it."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor
from typing_extensions import override

from opteq_cvx import html
from opteq_cvx.adjoint.record import GradientRecord
from opteq_cvx.certificate import Certificate, Evidence, Rays
from opteq_cvx.status import CODES, Status, code


@dataclass(frozen=True, slots=True)
class Statuses:
    """A Status per sample, kept as integer codes (batch shape, any device); indexing gives the `Status`."""

    codes: Tensor

    def __getitem__(self, index: int | tuple[int, ...]) -> Status:
        return CODES[int(self.codes[index])]

    def __iter__(self) -> Iterator[Status]:
        return (CODES[int(c)] for c in self.codes.reshape(-1))

    def __len__(self) -> int:
        return self.codes.numel()

    def counts(self) -> dict[Status, int]:
        """How many samples ended in each status that occurs."""
        return dict(Counter(iter(self)))

    @property
    def all_converged(self) -> bool:
        """Whether every sample converged."""
        return bool((self.codes == code(Status.CONVERGED)).all())

    @property
    def failed(self) -> Tensor:
        """A boolean tensor: samples whose values are only a best iterate (gradient zero)."""
        return self.codes != code(Status.CONVERGED)

    @override
    def __repr__(self) -> str:
        inside = ", ".join(f"{s.name.lower()}: {n}" for s, n in self.counts().items())
        return f"Statuses({inside})"


@dataclass(frozen=True, slots=True)
class Stats:
    """How the solve went: steps and relative residual per sample (batch shape).

    Attributes:
        distance_bound: a certified bound on the distance of the state to the fixed point (inf where none is known).
        history: residuals (checks, batch), when asked for.
        coupled: whether a prior coupled the samples: then the point is stationary, not certified a minimizer.
    """

    steps: Tensor
    residual: Tensor
    distance_bound: Tensor | None = None
    history: Tensor | None = None
    record: GradientRecord = field(default_factory=GradientRecord, repr=False)
    coupled: bool = False

    @property
    def gradient_error(self) -> Tensor | None:
        """Estimate of the gradient's relative error, or None before the backward pass."""
        return None if self.record.error is None else self.record.error.estimate.reshape(self.residual.shape)

    @property
    def certified(self) -> Tensor | None:
        """Whether equilibrium propagation was exact, per sample; None before backward and for other adjoints."""
        error = self.record.error
        return None if error is None or error.certified is None else error.certified.reshape(self.residual.shape)


@dataclass(frozen=True, slots=True)
class Solution:
    """Values in the order of `outputs`, a status per sample, statistics and the objective (the user's sign).

    `variables` holds every variable by name; `duals` has an entry for each constraint in the problem's order, with
    CVXPY's signs: the dual variable (*batch, *shape), or a tuple of them where the constraint has several; `state`
    restarts a later solve (`init=solution`); `evidence` is what the certificate and the rays are worked out from.
    """

    values: tuple[Tensor, ...]
    variables: dict[str, Tensor]
    status: Statuses
    stats: Stats
    objective: Tensor
    state: Tensor
    duals: tuple[Tensor | tuple[Tensor, ...], ...] = ()
    evidence: Evidence | None = field(default=None, repr=False)

    @property
    def certificate(self) -> Certificate | None:
        """Residuals, gap, dual bound and distance bound of each sample; None inside transforms and once detached."""
        return None if self.evidence is None else self.evidence.certificate

    @property
    def rays(self) -> Rays | None:
        """Proofs that samples are infeasible or unbounded; None inside transforms and once detached."""
        return None if self.evidence is None else self.evidence.rays

    @property
    def masked(self) -> int:
        """How many samples have a zero gradient because they failed."""
        return int(self.status.failed.sum())

    @override
    def __repr__(self) -> str:
        steps = self.stats.steps
        worst = float(self.stats.residual.max()) if steps.numel() else 0.0
        most = int(steps.max()) if steps.numel() else 0
        proof = "" if self.certificate is None else f", {self.certificate!r}"
        return f"Solution({self.status!r}, steps<={most}, residual<={worst:.1e}{proof})"

    def _repr_html_(self) -> str:
        if not len(self.status):
            return html.table([], ("status", "samples"))
        counts = html.table([(s.name.lower(), str(n)) for s, n in self.status.counts().items()], ("status", "samples"))
        rows = [
            (r"$\lVert z - T(z) \rVert / \max(\lVert z \rVert, 1)$", _range(self.stats.residual)),
            ("steps", f"{int(self.stats.steps.min())} to {int(self.stats.steps.max())}"),
        ]
        proof = self.certificate
        if proof is not None:
            rows += [
                ("gap $F(u) - d(y)$", _range(proof.gap)),
                (r"$\lVert u - u^\star \rVert \le$", _range(proof.distance)),
            ]
        return counts + html.table(rows, ("over the samples", "least to largest"))


def _range(values: Tensor) -> str:
    """Least and largest of the values that are numbers."""
    known = values[~values.isnan()]
    return f"{float(known.min()):.1e} to {float(known.max()):.1e}" if known.numel() else "none is known"


def detach(solution: Solution) -> Solution:
    """The same solution without autograd history, for warm starts across training steps."""
    with torch.no_grad():
        return Solution(
            tuple(v.detach() for v in solution.values),
            {k: v.detach() for k, v in solution.variables.items()},
            solution.status,
            solution.stats,
            solution.objective.detach(),
            solution.state.detach(),
            tuple(tuple(p.detach() for p in d) if isinstance(d, tuple) else d.detach() for d in solution.duals),
        )
