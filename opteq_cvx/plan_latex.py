"""The fixed-point map of a plan as LaTeX: what is iterated, and the functions in it."""

from opteq_cvx.ir import act, latex
from opteq_cvx.ir.param import Apply, Const, ParamExpr, add, const, neg
from opteq_cvx.ir.program import Program, Term
from opteq_cvx.splitting.closed_form import ClosedForm
from opteq_cvx.splitting.contract import Splitting
from opteq_cvx.splitting.cyclic import Cyclic
from opteq_cvx.splitting.davis_yin import DavisYin
from opteq_cvx.splitting.douglas_rachford import DouglasRachford
from opteq_cvx.splitting.eliminated import Eliminated
from opteq_cvx.splitting.entropic_form import EntropicForm
from opteq_cvx.splitting.forward_backward import ForwardBackward
from opteq_cvx.splitting.matrix_free import FactoredForwardBackward
from opteq_cvx.splitting.primal_dual import PrimalDual
from opteq_cvx.splitting.selected import Selected
from opteq_cvx.splitting.thin_douglas_rachford import ThinDouglasRachford

SMOOTH = ("square", "quad_form", "linear")
ACTIVATIONS = {"nonneg": r"\mathrm{relu}", "simplex": r"\Pi_\Delta", "activation_softmax": r"\mathrm{softmax}"}
"""Proxes that have a name of their own among activations, whatever the step."""

DR = (
    r"w = \mathrm{prox}_{R^{-1} f}(v), \quad "
    r"\tilde x = (P + \sigma I + K^\top R K)^{-1}\bigl(\sigma x - q + K^\top R (2w - v - b)\bigr), \quad "
    r"v \leftarrow v + 1.6\,(K \tilde x + b - w)"
)
EL = (
    r"x = N u + M b, \quad "
    r"u \leftarrow \mathrm{prox}_{\gamma f}\bigl(u - \gamma N^\top (P x + q)\bigr), \quad A x + b = 0"
)
PD = (
    r"x^+ = \mathrm{prox}_{T g}\bigl(x - T(\nabla h(x) + K^\top y)\bigr), \quad "
    r"y^+ = \mathrm{prox}_{S f^*}\bigl(y + S(K(2x^+ - x) + b)\bigr)"
)
DY = (
    r"u = \mathrm{prox}_{\gamma f_1}\bigl(x - \gamma(\nabla h(x) + y)\bigr), \quad "
    r"z = x + \gamma y + \lambda(u - x), \quad "
    r"x \leftarrow \mathrm{prox}_{\gamma f_2}(z), \quad y \leftarrow (z - x)/\gamma"
)
CYCLE = (
    r"u_k \leftarrow \mathrm{prox}_{f_k / p_k}\Bigl(\tfrac{1}{p_k}\bigl(\textstyle\sum_j C_{kj} u_j - q_k\bigr)\Bigr)"
)
INCLUSION = (
    r"0 \in \partial f(u) + F u + q, \quad "
    r"u \leftarrow u + G\bigl(\mathrm{prox}_{\alpha f}(u - \alpha(F u + q)) - u\bigr)"
)


def formulas(splitting: Splitting, program: Program, *, objective: bool) -> tuple[str, ...]:
    """The map, then the functions it is made of; `program` is the one after the passes."""
    smooth = tuple(t for t in program.terms if t.atom in SMOOTH)
    rest = tuple(t for t in program.terms if t.atom not in SMOOTH)
    u = latex.name(program.variables[0].name) if len(program.variables) == 1 else "u"
    parts = [rf"h({u}) = {latex.total(smooth)}"] if smooth else []
    parts += [rf"f({u}) = {latex.total(rest)}"] if rest else []
    match splitting:
        case ClosedForm():
            gradient = rf"\nabla h({u}) = \kappa\,{u} + \ell"
            return rf"{u}^\star = \mathrm{{prox}}_{{f/\kappa}}(-\ell/\kappa), \qquad {gradient}", *parts
        case EntropicForm():
            kernel = rf"\exp\bigl(-\ell/{splitting.weight:g} + a \mathbf 1^\top + \mathbf 1 b^\top\bigr)"
            return rf"{u}^\star = {kernel}, \qquad \nabla h({u}) = \ell", *parts
        case ForwardBackward() | FactoredForwardBackward():
            bounds = splitting.parts.smooth.bounds
            unit = _explicit(u, smooth, rest, unit_step=bounds is not None and bounds.upper == splitting.options.step)
            return *unit, _forward_backward(u, bool(rest)), *parts
        case Eliminated():
            return EL, *parts
        case DouglasRachford() | ThinDouglasRachford():
            return DR.replace("1.6", f"{splitting.options.relaxation:.4g}"), *parts
        case DavisYin():
            return DY, *parts
        case PrimalDual():
            return PD, *parts
        case Selected():
            path = rf"{u}(\varepsilon) = \arg\min\; f + h + \varepsilon\,\omega"
            return rf"{u}^\star = \lim_{{\varepsilon \to 0}} {u}(\varepsilon), \qquad {path}", *parts
        case Cyclic():
            return CYCLE, *parts
        case _:
            return (INCLUSION if not objective else r"v \leftarrow T(v)"), *parts


def _forward_backward(u: str, prox: bool) -> str:
    inner = rf"{u} - \gamma \nabla h({u})"
    return rf"{u} \leftarrow \mathrm{{prox}}_{{\gamma f}}\bigl({inner}\bigr)" if prox else rf"{u} \leftarrow {inner}"


def _explicit(u: str, smooth: tuple[Term, ...], rest: tuple[Term, ...], *, unit_step: bool) -> tuple[str, ...]:
    """The unit u ← σ(S u + c), where h(u) = ½uᵀ(I − S)u − cᵀu, f has a named prox and the step is 1."""
    forms = [t for t in smooth if t.atom != "linear"]
    if not unit_step or len(forms) != 1 or forms[0].atom != "quad_form" or len(rest) != 1:
        return ()
    matrix, weight, activation = forms[0].data["P"], forms[0].weight, ACTIVATIONS.get(rest[0].atom)
    half = isinstance(weight, Const) and bool((weight.dense() == 0.5).all())
    eye = isinstance(matrix, Apply) and matrix.op == "add" and latex.param(matrix.args[0]) == "I"
    bare = all(latex.affine(t.arg) == u for t in (forms[0], rest[0]))
    if activation is None or not half or not eye or not bare or rest[0].weight is not None:
        return ()
    assert isinstance(matrix, Apply), "checked above"
    c = [neg(_coefficient(t)) for t in smooth if t.atom == "linear"]
    return (rf"{u} \leftarrow {activation}\bigl({latex.unit(neg(add(*matrix.args[1:])), u, c)}\bigr)",)


def _coefficient(linear: Term) -> ParamExpr:
    """The gradient of a linear term."""
    (_, m) = linear.arg.parts[0]
    return act.adjoint(m, const(1.0) if linear.weight is None else linear.weight)
