"""What kind of equilibrium tied programs have, decided before anything is solved, and with which margin.

variational         D(P − C) is symmetric for a positive block scaling D: the ties derive from one convex program.
monotone inclusion  no objective exists, but P − C is monotone in the metric D: the equilibrium exists and is unique
                    where the margin m is positive.
not certified       a tie is no affine tilt, or the margin is negative.
Source: Bauschke and Combettes, *Convex Analysis and Monotone Operator Theory*, chapters 22 and 23; cycles of three or
more proxes have no objective: Baillon, Combettes, Cominetti, J. Funct. Anal. 262, 2012.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

import numpy as np
import torch
from torch import Tensor

from opteq_cvx.activations import ACTIVATIONS, table
from opteq_cvx.ir.frozen import Array, Frozen, IntArray, size
from opteq_cvx.ir.layout import Layout
from opteq_cvx.ir.linmap import Identity
from opteq_cvx.ir.param import ParamExpr, add, is_zero, neg
from opteq_cvx.ir.program import Program, Term
from opteq_cvx.maps.evaluate import Environment
from opteq_cvx.splitting.by_construction import comparison, norm_bound, perron_scaling
from opteq_cvx.splitting.structure import SMOOTH
from opteq_cvx.ties.joint import joint_program
from opteq_cvx.ties.matrix import assemble, coupling, curvature
from opteq_cvx.ties.symmetry import components, scaling
from opteq_cvx.ties.tilt import Tilted, tilt

ROUNDING = 1e3  # a margin above −ROUNDING·eps·‖P − C‖ counts as nonnegative


class Verdict(Enum):
    """The three cases; the value is the words for it."""

    VARIATIONAL = "variational"
    MONOTONE = "monotone inclusion"
    NOT_CERTIFIED = "not certified"


@dataclass(frozen=True, slots=True, eq=False)
class Inclusion(Frozen):
    """0 ∈ ∂f(u) + F u + q with F = P − C over the stacked variables, and what is known of it by construction.

    Attributes:
        tilted: the program without tied parameters, the coupling, and the ties solved.
        layout: of the stacked variables.
        matrix: F.
        coupling: C by blocks of variables.
        scaling: D, one positive number for each variable.
        joint: the convex program that the equilibrium minimizes; None where there is none.
        strong: a modulus of strong convexity of f, one for each variable.
        bounds: (m, L), the margin and ‖F‖ (or ∞) in the metric D, by construction; None where values are needed.
    """

    tilted: Tilted
    layout: Layout
    matrix: ParamExpr
    coupling: tuple[tuple[ParamExpr, ...], ...]
    scaling: Array
    joint: Program | None
    strong: Array
    bounds: tuple[float, float] | None

    @property
    def verdict(self) -> Verdict:
        """Which case holds, as far as the structure shows."""
        return Verdict.VARIATIONAL if self.joint is not None else Verdict.MONOTONE

    def spread(self, values: Array, like: Tensor) -> Tensor:
        """One number a variable, repeated for its entries: (n,)."""
        sizes = [size(s) for s in self.layout.shapes]
        return torch.as_tensor(np.repeat(values, sizes), dtype=like.dtype, device=like.device)

    def balanced(self, f: Tensor) -> Tensor:
        """D^½ F D^{-½} for F (1|B, n, n)."""
        if (self.scaling == 1.0).all():
            return f
        root = self.spread(np.sqrt(self.scaling), f)
        return root[:, None] * f / root

    def margin(self, f: Tensor) -> Tensor:
        """λ_min of the symmetric part in the metric D, with the strong convexity of f, (1|B,)."""
        balanced = self.balanced(f)
        sym = (balanced + balanced.mT) / 2 + torch.diag_embed(self.spread(self.strong, f))
        if not sym.shape[-1]:
            return sym.new_ones(sym.shape[0])
        values: Tensor = torch.linalg.eigvalsh(sym)
        return values[:, 0]


def inclusion(program: Program) -> Inclusion | str:
    """The inclusion of tied programs, or the reason why the ties are no affine tilts."""
    tilted = tilt(program)
    if isinstance(tilted, str):
        return tilted
    layout = Layout.of(tilted.base)
    quadratic = [t for t in tilted.base.terms if t.atom in SMOOTH]
    p, c = curvature(quadratic, layout), coupling(tilted.coupling, layout)
    grid = [[_minus(a, b) for a, b in zip(*rows, strict=True)] for rows in zip(p, c, strict=True)]
    matrix = assemble(grid)
    d = scaling(tilted.base, matrix, layout)
    joint = None if d is None else joint_program(tilted.base, grid, d, layout)
    strong = np.array([_strong(tilted.base, name) for name in layout.names])
    d, bounds = _bounds(grid, strong, d, components(tilted.base, layout))
    found = tuple(tuple(row) for row in c)
    return Inclusion(tilted, layout, matrix, found, d, joint, strong, bounds)


def _minus(a: ParamExpr, b: ParamExpr) -> ParamExpr:
    if is_zero(b):
        return a
    return neg(b) if is_zero(a) else add(a, neg(b))


def _strong(program: Program, name: str) -> float:
    """The modulus of strong convexity of f on a whole variable, from activations with a small slope."""
    moduli = [_modulus(t, name) for t in program.terms]
    return max([0.0, *moduli])


def _modulus(term: Term, name: str) -> float:
    """1/L − 1 for an activation's f on a whole variable: f is that much strongly convex where σ is L-Lipschitz."""
    activation = term.atom.removeprefix("activation_")
    if activation == term.atom or activation not in ACTIVATIONS or term.weight is not None:
        return 0.0
    if term.arg.parts[0][0] != name or len(term.arg.parts) != 1 or not isinstance(term.arg.parts[0][1], Identity):
        return 0.0
    options = {k: float(v) for k, v in term.static.items() if isinstance(v, int | float)}
    return max(1.0 / table(activation, **options).lipschitz - 1.0, 0.0)


def _bounds(
    grid: list[list[ParamExpr]], strong: Array, d: Array | None, groups: IntArray
) -> tuple[Array, tuple[float, float] | None]:
    """D and (m, ‖F‖) by construction, from bounds on the blocks.

    Where D is free, Perron vectors of the blocks' norms choose it: the best diagonal metric for a comparison matrix.
    """
    n = len(grid)
    found = comparison(grid)
    if found is None:
        return (np.ones(n) if d is None else d), None
    low, _, off = found
    if d is None:
        free = len(np.unique(groups)) == n and bool((low > 0).all())
        d = perron_scaling(off / np.sqrt(np.outer(low, low))) if free else np.ones(n)
    root = np.sqrt(d)
    balanced = root[:, None] * off / root
    margin = float(np.linalg.eigvalsh(np.diag(low + strong) - (balanced + balanced.T) / 2)[0])
    norms = [norm_bound(row[i]) for i, row in enumerate(grid)]
    if any(x is None for x in norms):
        return d, (margin, np.inf)
    upper = float(np.linalg.norm(np.diag([x for x in norms if x is not None]) + balanced, 2))
    return d, (margin, upper)


def at(found: Inclusion, values: Mapping[str, Array]) -> tuple[float, float]:
    """(m, ‖F‖) in the metric D at parameter values, in float64."""
    tensors = {k: torch.as_tensor(np.array(v), dtype=torch.float64).unsqueeze(0) for k, v in values.items()}
    env = Environment(tensors, torch.float64, torch.device("cpu"))
    f = env(found.matrix).detach()
    norm = float(torch.linalg.matrix_norm(found.balanced(f), 2)[0]) if f.shape[-1] else 0.0
    return float(found.margin(f)[0]), norm


def scaled(found: Inclusion) -> float:
    """The smallest strong convexity of the joint program's f."""
    return float((found.scaling * found.strong).min(initial=np.inf)) if found.strong.size else 0.0
