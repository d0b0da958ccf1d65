"""What the plan says about ties: their values, the verdict, the margin, the coupling and its contraction."""

import numpy as np

from opteq_cvx.ir import printer
from opteq_cvx.ir.param import is_zero
from opteq_cvx.ir.program import Program
from opteq_cvx.splitting.by_construction import norm_bound
from opteq_cvx.ties.chosen import coupling_norms
from opteq_cvx.ties.equilibrium import Inclusion

Lines = tuple[tuple[str, str], ...]


def tie_lines(program: Program) -> Lines:
    """One line for each tie."""
    return tuple(("tie", f"{t.parameter} = {printer.affine(t.value)}") for t in program.ties)


def verdict_lines(found: Inclusion) -> Lines:
    """The verdict with its margin, the coupling's norms, and the joint program where there is one."""
    lines = [("verdict", _verdict(found)), ("margin", _margin(found)), *_couplings(found)]
    if found.joint is not None:
        text = printer.program(found.joint).rstrip().split("\n")
        lines.extend(("joint program" if i == 0 else "", line) for i, line in enumerate(text))
    return tuple(lines)


def _verdict(found: Inclusion) -> str:
    if found.joint is None:
        return "monotone inclusion: 0 ∈ ∂f(u) + Fu + q, F = P − C not symmetric under any scaling; no objective exists"
    scaled = "" if (found.scaling == 1.0).all() else f" with the scaling D = {_numbers(found)}"
    return f"variational{scaled}: the equilibrium minimizes one convex program"


def _numbers(found: Inclusion) -> str:
    return ", ".join(f"{d:.4g} on {n}" for d, n in zip(found.scaling, found.layout.names, strict=True))


def _margin(found: Inclusion) -> str:
    words = "m = λ_min of the symmetric part of P − C" + ("" if (found.scaling == 1.0).all() else " in the metric D")
    if found.strong.any():
        words += " and the strong convexity of f"
    if found.bounds is None or found.bounds[0] < 0.0:
        return f"{words}: computed at every new value, status not_convex where it is negative"
    kind = "unique equilibrium" if found.bounds[0] > 0.0 else "existence and uniqueness not implied"
    return f"{words}: at least {found.bounds[0]:.4g} by construction; {kind}"


def _couplings(found: Inclusion) -> list[tuple[str, str]]:
    names = found.layout.names
    known = []
    for i, row in enumerate(found.coupling):
        for j, c in enumerate(row):
            if not is_zero(c):
                norm = norm_bound(c)
                size = "unknown by construction" if norm is None else f"≤ {norm:.4g}"
                known.append(f"‖C[{names[i]}, {names[j]}]‖ {size}")
    lines = [("coupling", "; ".join(known) or "none")]
    norms = coupling_norms(found.coupling)
    product = None if norms is None else cycle_product(norms)
    if product is not None:
        lines.append(("cycle", f"∏ ‖C‖ ≤ {product:.4g} over its {len(names)} programs"))
    return lines


def cycle_product(norms: np.ndarray[tuple[int, ...], np.dtype[np.float64]]) -> float | None:
    """The product of the norms around a single cycle through all programs; None for another shape."""
    hits = norms > 0
    if norms.shape[0] < 2 or not ((hits.sum(0) == 1).all() and (hits.sum(1) == 1).all()):
        return None
    return float(norms[hits].prod())
