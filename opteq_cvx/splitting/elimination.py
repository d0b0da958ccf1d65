"""Variables that linear equations define: which coordinates they are, and the program in the others.

Equations Ax + b(θ) = 0 with a constant A, and no other constraint or nonsmooth term on the coordinates D that they
determine, are a parametrization: with A = [A_D, A_F], A_D invertible,
    x = N u + M b(θ),   N = [I; −A_D⁻¹A_F],   M = [0; −A_D⁻¹],   u = x_F.
What is left is min ½uᵀ(NᵀPN)u + (Nᵀ(PMb + q))ᵀu + f(u): states are eliminated from control, residuals from regression.
Sources: Nocedal & Wright, *Numerical Optimization* (2006), section 15.3 (elimination of variables); Bock & Plitt, *A
multiple shooting algorithm for direct solution of optimal control problems* (1984) (condensing).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import scipy.linalg as sl
import torch

from opteq_cvx.ir.frozen import Array, Frozen, IntArray, freeze_index
from opteq_cvx.ir.param import Const, Stage, const
from opteq_cvx.ir.program import Program, Term
from opteq_cvx.maps.evaluate import Environment
from opteq_cvx.splitting.blocks import Block, Overlap, blocks_of
from opteq_cvx.splitting.graph_form import GraphForm

EQUATION = "zero"
MOST = 1 << 20  # numbers in P and K together
RANK = 1e-10  # a pivot of A below this share of the largest counts as 0
AMPLIFIED = 1e3  # errors in u may grow by this in x
CONDITION = 1e6  # λ_max/λ_min of NᵀPN up to which proximal-gradient steps, finished by Newton's, pay


@dataclass(frozen=True, slots=True, eq=False)
class Elimination(Frozen):
    """The form of the whole program, the coordinates F, the rows of A and the others, and constants of the docstring.

    `blocks` are those of f on u; p and k are P and K, `reduced` is NᵀPN and `pulled` MᵀPN.
    """

    form: GraphForm
    free: IntArray
    equations: IntArray
    blocks: tuple[Block, ...]
    p: Const
    k: Const
    m: Const
    n: Const
    reduced: Const
    pulled: Const
    condition: float

    @staticmethod
    def of(program: Program) -> "Elimination | str":
        """The elimination of a program, or why there is none that pays."""
        form = GraphForm.of(program)
        size, layout = form.layout.n, form.layout
        if not any(b.f.name == EQUATION for b in form.blocks):
            return "no equations"
        if form.stage is not Stage.CONSTANT or form.smooth.stage is not Stage.CONSTANT or not form.smooth.certified:
            return "the equations or the quadratic hold parameters"
        if size * (size + form.m) > MOST:
            return f"{size} unknowns and {form.m} rows are many"
        found = blocks_of([t for t in form.terms if t.atom != EQUATION], layout)
        if isinstance(found, Overlap):
            return found.reason
        p, k = _matrices(form)
        rows = np.flatnonzero(form.equality)
        defined = _defined(k[rows], _others(found, size))
        if isinstance(defined, str):
            return defined
        free = np.setdiff1d(np.arange(size), defined)
        n, m = np.zeros((size, free.size)), np.zeros((size, rows.size))
        n[free, np.arange(free.size)] = 1.0
        given = k[rows][:, defined]
        n[defined], m[defined] = -np.linalg.solve(given, k[rows][:, free]), -np.linalg.inv(given)
        reduced = n.T @ p @ n
        grown, condition = float(np.abs(n).sum(axis=1).max()), _condition(reduced)
        if grown > AMPLIFIED:
            return f"the entries that the equations define are up to {grown:.2g} times the others"
        if not condition <= CONDITION:
            return "the quadratic is nearly singular, or is so, on the points that satisfy the equations"
        blocks = tuple(_moved(b, free) for b in found)
        curved, pulled = const((reduced + reduced.T) / 2), const(m.T @ p @ n)
        where = freeze_index(free), freeze_index(rows), blocks
        return Elimination(form, *where, const(p), const(k), const(m), const(n), curved, pulled, condition)

    @property
    def defined(self) -> int:
        """The number of coordinates that the equations define."""
        return int(self.equations.size)

    @property
    def terms(self) -> Sequence[Term]:
        """The equations."""
        return tuple(t for t in self.form.terms if t.atom == EQUATION)


def _matrices(form: GraphForm) -> tuple[Array, Array]:
    """P and K, both constant."""
    env = Environment({}, torch.float64, torch.device("cpu"))
    p = form.smooth.hessian(env)
    p = torch.diag_embed(p) if form.smooth.diagonal else p
    rows = [form.smooth.columns(t.arg, env)[0] for t in form.terms]
    return p[0].numpy(), torch.cat(rows).numpy()


def _others(blocks: Sequence[Block], size: int) -> IntArray:
    """The coordinates that no block holds."""
    held = np.concatenate([np.zeros(0, dtype=np.int64), *(b.index.reshape(-1) for b in blocks)])
    return np.setdiff1d(np.arange(size), held)


def _defined(a: Array, others: IntArray) -> IntArray | str:
    """Columns D of A (rows, n) among `others` whose A_D is far from singular, or why there are none."""
    rows = a.shape[0]
    if others.size < rows:
        return f"{rows} equations, but other terms leave {others.size} coordinates to them"
    r, order = sl.qr(a[:, others], mode="r", pivoting=True)
    pivots = np.abs(np.diag(r)[:rows])
    if not rows or pivots[-1] <= RANK * pivots[0]:
        return "the equations do not define as many coordinates that no other term holds"
    return np.sort(others[order[:rows]])


def _condition(curved: Array) -> float:
    """λ_max/λ_min of a symmetric matrix; infinite where it is singular or indefinite."""
    values = np.linalg.eigvalsh((curved + curved.T) / 2) if curved.size else np.ones(1)
    return float(values[-1] / values[0]) if values[0] > 0 else np.inf


def _moved(block: Block, free: IntArray) -> Block:
    """A block on the coordinates of u."""
    interval = None if block.interval is None else _moved(block.interval, free)
    return replace(block, index=freeze_index(np.searchsorted(free, block.index)), interval=interval)
