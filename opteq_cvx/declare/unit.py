"""The unit layer z ↦ Wᵀσ(Wz + c) as a convex program, and equilibria of units: cycles, averages, branches.

σ = prox_f with f convex, so that u = σ(Wz + c) minimizes f(u) + ½‖u‖² − ⟨Wz + c, u⟩, and with z = Wᵀu fed back
minimizes f(u) + ½uᵀ(I − WWᵀ)u − ⟨c, u⟩. Source: Xie et al., arXiv 2105.13228; the reference theory, sections 2 to 6.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import cvxpy as cp
import numpy as np
import numpy.typing as npt

from opteq_cvx.declare.activation import DeclaredActivation, activation
from opteq_cvx.declare.tied import Tied, joined
from opteq_cvx.errors import InputError, message


@dataclass(frozen=True, eq=False)
class Unit(Tied):
    """A unit layer tied to itself: `oc.compile(unit)` is its equilibrium z* = Wᵀσ(Wz* + c).

    Attributes:
        W: the matrix (m, n); c: the injection (m,), an expression of inputs and weights.
        function: σ with its convex function.
        u: the variable (m,), z: the tied parameter (n,), out: Wᵀu (n,).
    """

    W: cp.Expression
    c: cp.Expression
    function: DeclaredActivation
    u: cp.Variable
    z: cp.Parameter
    out: cp.Expression

    @property
    def cost(self) -> cp.Expression:
        """f(u) + ½‖u‖² − ⟨Wz + c, u⟩."""
        expr: cp.Expression = self.problems[0].objective.args[0]
        return expr

    def explicit(self) -> cp.Problem:
        """The program without z: min f(u) + ½uᵀ(I − WWᵀ)u − ⟨c, u⟩, convex where ‖W‖ ≤ 1."""
        m = int(self.W.shape[0])
        curved = 0.5 * cp.quad_form(self.u, cp.psd_wrap(np.eye(m) - self.W @ self.W.T))
        return cp.Problem(cp.Minimize(self.function.f(self.u) + curved - self.c @ self.u))


def unit(
    W: cp.Expression | npt.NDArray[Any],
    c: cp.Expression | npt.NDArray[Any],
    activation_name: str = "relu",
    *,
    name: str | None = None,
    **options: float,
) -> Unit:
    """Declare the unit layer z ↦ Wᵀσ(Wz + c).

    Args:
        W: an `oc.Weight` or any expression of parameters, (m, n). With norm ≤ 1 the equilibrium is a convex program
            for every activation; activations of slope at most L admit ‖W‖² ≤ 1/L.
        c: (m,), for instance `U @ x + b`.
        activation_name: as `oc.activation` has it.
        name: of the variable; the tied parameter is called `z_` and the name.
        options: of the activation.

    Raises:
        InputError: shapes that do not fit.
        CompileError: σ is the prox of no convex function.
    """
    matrix, injection = _expression(W), _expression(c)
    if len(matrix.shape) != 2 or injection.shape != (matrix.shape[0],):
        found = f"W of shape {matrix.shape} and c of shape {injection.shape}"
        raise InputError(message(found, "W (m, n) and c (m,)", "reshape one of them"))
    m, n = matrix.shape
    u = cp.Variable(m, name=name)
    z = cp.Parameter(n, name=f"z_{u.name()}")
    function = activation(activation_name, **options)
    problem = cp.Problem(cp.Minimize(function(u) - (matrix @ z + injection) @ u))
    out = matrix.T @ u
    return Unit((problem,), {z: out}, (out,), matrix, injection, function, u, z, out)


def _expression(value: Any) -> cp.Expression:
    """A number array as a CVXPY constant; an expression as it is."""
    return value if isinstance(value, cp.Expression) else cp.Constant(value)


def cycle(units: Sequence[Unit], *, alpha: float = 1.0) -> Tied:
    """Deep equilibrium z* = T_L∘…∘T_1(z*), T_k the units, the last one's output returned.

    With alpha < 1 every layer is averaged, (1 − α)z + αT_k(z): the smaller α, the nearer the equilibrium comes to the
    minimizer of the sum S of the units' envelopes, ‖z_α − argmin S‖ ≤ (α/μ_S) Σ_k (L − k)‖z^{k−1} − T_k z^{k−1}‖
    (`oc.averaging_bound`). Two units are a convex program; three or more have no objective for α = 1.

    Raises:
        InputError: α outside (0, 1], or units whose sizes do not fit.
    """
    if not 0.0 < alpha <= 1.0:
        raise InputError(message(f"alpha={alpha}", "a number in (0, 1]", "leave it out for 1"))
    _check_widths(units)
    outs = [u.out if alpha == 1.0 else (1.0 - alpha) * u.z + alpha * u.out for u in units]
    ties = {u.z: outs[k - 1] for k, u in enumerate(units)}
    return joined(units, ties, outs[-1:])


def average(units: Sequence[Unit], weights: Sequence[float] | None = None) -> Tied:
    """Parallel equilibrium z* = Σ_k ω_k T_k(z*): exactly the minimizer of Σ_k ω_k M_k, the proximal average.

    Args:
        units: with one common width n.
        weights: ω, positive; 1/L each by default. Convex where Σ ω_k ‖W_k‖² ≤ 1.

    Source: Bauschke, Goebel, Lucet, Wang, *The proximal average*, 2008.

    Raises:
        InputError: weights that are not positive, or as many as units; widths that differ.
    """
    count = len(units)
    omega = [1.0 / max(count, 1)] * count if weights is None else [float(w) for w in weights]
    if len(omega) != count or any(w <= 0 for w in omega):
        raise InputError(message(f"weights {omega}", f"{count} positive numbers", "leave them out for 1/L"))
    _check_widths(units)
    if not units:
        raise InputError(message("no unit", "at least one", "pass oc.unit(...)s"))
    total = units[0].out * omega[0]
    for w, u in zip(omega[1:], units[1:], strict=True):
        total = total + w * u.out
    return joined(units, {u.z: total for u in units}, [total])


def branches(units: Sequence[Unit], links: Mapping[tuple[int, int], cp.Expression | npt.NDArray[Any]]) -> Tied:
    """Branches coupled symmetrically: min Σ_b [f_b + ½‖u_b‖² − ⟨c_b, u_b⟩] − ½uᵀSu, S_bb = W_bW_bᵀ, S_bd = Sᵀ_db.

    The safe form of a multi-resolution equilibrium: convex where max_b Σ_d ‖S_bd‖ ≤ 1 (block Gershgorin).

    Args:
        units: the branches.
        links: S_bd (m_b, m_d) for pairs b < d; the transposed block follows.

    Raises:
        InputError: a pair out of range or not increasing, or a block of another shape.
    """
    pulls: list[cp.Expression | None] = [None] * len(units)
    for (b, d), block in links.items():
        if not 0 <= b < d < len(units):
            raise InputError(message(f"the link {(b, d)}", f"b < d < {len(units)}", "give each pair once, in order"))
        s = _expression(block)
        fits = (units[b].u.size, units[d].u.size)
        if s.shape != fits:
            raise InputError(message(f"the link {(b, d)} of shape {s.shape}", f"{fits}", "transpose or reshape it"))
        for here, there in ((b, s @ units[d].u), (d, s.T @ units[b].u)):
            known = pulls[here]
            pulls[here] = there if known is None else known + there
    ties: dict[cp.Parameter, cp.Expression] = {u.z: u.out for u in units}
    problems: list[cp.Problem] = []
    for one, pull in zip(units, pulls, strict=True):
        if pull is None:
            problems.extend(one.problems)
            continue
        a = cp.Parameter(one.u.shape, name=f"a_{one.u.name()}")
        ties[a] = pull
        problems.append(cp.Problem(cp.Minimize(one.cost - a @ one.u)))
    declared = joined(units, ties, [u.u for u in units])
    return Tied(tuple(problems), declared.ties, declared.outputs)


def _check_widths(units: Sequence[Unit]) -> None:
    widths = {u.z.shape for u in units}
    if len(widths) > 1:
        found = f"units of widths {sorted(w[0] for w in widths)}"
        raise InputError(message(found, "one width n for z", "choose W's with as many columns"))
