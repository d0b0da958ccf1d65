"""Plan: which splitting a program gets, why, what is computed when, and what one iteration costs."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from typing_extensions import override

from opteq_cvx import html, passes
from opteq_cvx.errors import CompileError, UnsupportedError, message
from opteq_cvx.ir.frozen import Frozen
from opteq_cvx.ir.latex import lines
from opteq_cvx.ir.layout import Layout
from opteq_cvx.ir.param import Stage
from opteq_cvx.ir.program import Program
from opteq_cvx.maps.evaluate import Environment
from opteq_cvx.plan_latex import formulas
from opteq_cvx.plan_text import (
    closed_form_lines,
    constrained_lines,
    cyclic_lines,
    davis_yin_lines,
    douglas_rachford_lines,
    eliminated_lines,
    entropic_lines,
    forward_backward_lines,
    inclusion_lines,
    matrix_free_lines,
    primal_dual_lines,
    prox_lines,
    unknowns,
)
from opteq_cvx.selection import EPSILON, RIDGE, Path, SecondStage, SelectionMethod
from opteq_cvx.splitting import asked
from opteq_cvx.splitting.asked import refused
from opteq_cvx.splitting.choice import SplittingName
from opteq_cvx.splitting.closed_form import ClosedForm, closed_form
from opteq_cvx.splitting.contract import Splitting
from opteq_cvx.splitting.cost import estimate
from opteq_cvx.splitting.cyclic import Cyclic
from opteq_cvx.splitting.davis_yin import DavisYin
from opteq_cvx.splitting.douglas_rachford import DouglasRachford
from opteq_cvx.splitting.eliminated import Eliminated
from opteq_cvx.splitting.elimination import Elimination
from opteq_cvx.splitting.entropic_form import entropic_form
from opteq_cvx.splitting.forward_backward import ForwardBackward
from opteq_cvx.splitting.graph_form import GraphForm
from opteq_cvx.splitting.matrix_free import FactoredForwardBackward, matrix_free
from opteq_cvx.splitting.multipliers import Multipliers
from opteq_cvx.splitting.primal_dual import PrimalDual
from opteq_cvx.splitting.quadratic import QuadraticPart, refuse_indefinite
from opteq_cvx.splitting.saddle_form import SaddleForm
from opteq_cvx.splitting.selected import Selected
from opteq_cvx.splitting.structure import structure
from opteq_cvx.splitting.thin_douglas_rachford import ThinDouglasRachford
from opteq_cvx.splitting.thin_form import ThinForm
from opteq_cvx.splitting.two_groups import TwoGroups
from opteq_cvx.ties.chosen import constrained, cyclic, monotone
from opteq_cvx.ties.equilibrium import Inclusion, inclusion, scaled
from opteq_cvx.ties.joint import TIES
from opteq_cvx.ties.tilt import eliminate, outputs_without_ties
from opteq_cvx.ties.untilted import Untilted
from opteq_cvx.ties.words import tie_lines, verdict_lines

SINGULAR = 1e-10  # λ_min/λ_max of a constant quadratic from which its minimizer counts as unique


@dataclass(frozen=True, slots=True, eq=False)
class Plan(Frozen):
    """The chosen splitting and its explanation: pairs (heading, text), printed by `str` and in notebooks.

    `source` is the program before the passes, `multipliers` the way back to its constraints. `stage` is the latest
    stage of what `Splitting.factor` depends on. Of tied programs `program` has the ties eliminated (for variational
    ones it is the joint program), `source` is as declared, and `inclusion` says which equilibrium it is (None where
    nothing is certified); `has_objective` says whether the solution minimizes that of `program`.
    """

    program: Program
    splitting: Splitting
    name: str
    lines: tuple[tuple[str, str], ...]
    source: Program
    multipliers: Multipliers
    stage: Stage = Stage.INPUT
    inclusion: Inclusion | None = None
    has_objective: bool = True

    @property
    def dual(self) -> bool:
        """Whether the solution has multipliers that say something: an objective's, or constraints'."""
        return self.has_objective or bool(self.program.constraints)

    @property
    def layout(self) -> Layout:
        """Where each variable lies in the flat vector."""
        return Layout.of(self.program)

    @override
    def __str__(self) -> str:
        width = max(len(h) for h, _ in self.lines)
        body = [f"  {heading.ljust(width)}  {text}" for heading, text in self.lines]
        return "\n".join([f"plan: {self.name}", *body])

    @override
    def __repr__(self) -> str:
        return str(self)

    @property
    def latex(self) -> str:
        """The fixed-point map and the functions it is made of, as LaTeX."""
        return lines(formulas(self.splitting, self.program, objective=self.has_objective))

    def _repr_html_(self) -> str:
        return html.formula(self.latex) + html.table(self.lines, caption=f"plan: {self.name}")


Trace = Callable[[str, Program], None]
Asked = SplittingName | asked.SplittingChoice | None
General = asked.DavisYin | asked.DouglasRachford | asked.PDHG


def make_plan(
    program: Program,
    trace: Trace | None = None,
    *,
    certify: bool = True,
    splitting: Asked = None,
    select: SecondStage | None = None,
    formed: bool = False,
) -> Plan:
    """Run the passes and choose a splitting: closed form, else forward–backward, else Douglas–Rachford, else Davis–Yin
    or PDHG.

    Tied programs become one program where they are variational, else one monotone inclusion. With `select`, the
    splitting is that of the program with the second objective, at four strengths of it.

    Args:
        splitting: takes this one instead, by name or with options.
        formed: P is formed even where its factors are cheaper, as selections need it.

    Raises:
        NotConvexError: a constant quadratic form is indefinite.
        CompileError: a program without unknowns; a tie that is not certified, while `certify` is on; `splitting` does
            not fit; a selection where the solution is certified unique, or a method that the splitting cannot carry.
    """
    wanted = asked.choice(splitting)
    if select is not None:
        first = make_plan(program, trace, splitting=splitting)
        second = make_plan(select.program, splitting=splitting, formed=True)
        if isinstance(second.splitting, PrimalDual | DavisYin):
            if wanted is not None:
                raise refused(wanted, "a selection needs proxes in the variable or a factorization")
            second = make_plan(select.program, splitting="douglas-rachford", formed=True)
        return _selected(first, second, select)
    if program.ties:
        return _tied(program, trace, certify=certify, splitting=splitting)
    if Layout.of(program).n == 0:
        names = ", ".join(f'"{v.name}"' for v in program.variables)
        fix = "leave such programs to the code that builds them"
        raise CompileError(message(f"no variable has entries ({names})", "at least one unknown", fix))
    source, program = program, passes.run(program, trace)
    for term in program.terms:
        if term.origin.where != TIES:
            refuse_indefinite(term)
    back = Multipliers.of(source, program)
    if isinstance(wanted, asked.DavisYin | asked.DouglasRachford | asked.PDHG):
        return _general(program, source, back, wanted, "another was asked for", formed=formed)
    entropic = entropic_form(program) if wanted is None or isinstance(wanted, asked.ClosedForm) else None
    if entropic is not None:
        return Plan(program, entropic, "closed form", entropic_lines(entropic), source, back)
    parts = structure(program)
    if isinstance(parts, str):
        less = None if formed else _less(program, source, back, wanted, parts)
        if less is not None:
            return less
        if wanted is not None:
            raise refused(wanted, parts)
        return _general(program, source, back, None, parts, formed=formed)
    direct = closed_form(parts) if not isinstance(wanted, asked.ForwardBackward) else "another was asked for"
    if isinstance(direct, ClosedForm):
        return Plan(program, direct, "closed form", closed_form_lines(parts), source, back, parts.smooth.stage)
    if wanted is not None and isinstance(wanted, asked.ClosedForm):
        raise refused(wanted, direct)
    options = wanted if isinstance(wanted, asked.ForwardBackward) else asked.ForwardBackward()
    free = matrix_free(parts, parts.smooth.factored(), options) if not formed else None
    if free is not None:
        lines = (*matrix_free_lines(free, direct), *_set(wanted))
        return Plan(program, free, "forward–backward, matrix-free", lines, source, back, free.factors.stage)
    if options.matrix == "factors":
        raise refused(options, "a selection needs P" if formed else "the quadratic shows no factors")
    map_ = ForwardBackward(parts, options=options)
    lines = (*forward_backward_lines(map_, direct), *_set(wanted))
    return Plan(program, map_, "forward–backward", lines, source, back, parts.smooth.stage)


def _less(
    program: Program, source: Program, back: Multipliers, wanted: asked.SplittingChoice | None, refusal: str
) -> Plan | None:
    """Forward–backward after the elimination of variables that equations define, where it fits."""
    if wanted is not None and not isinstance(wanted, asked.ForwardBackward):
        return None
    found = Elimination.of(program)
    if isinstance(found, str):
        return None
    map_ = Eliminated.of(found, wanted if wanted is not None else asked.ForwardBackward())
    lines = (*eliminated_lines(map_, refusal), *_set(wanted))
    return Plan(program, map_, "forward–backward, after elimination", lines, source, back, Stage.CONSTANT)


def _general(
    program: Program,
    source: Program,
    back: Multipliers,
    wanted: General | None,
    refusal: str,
    *,
    formed: bool,
) -> Plan:
    """Douglas–Rachford; where it is asked for or a factorization costs too much Davis–Yin, if it fits, or PDHG."""
    saddle = SaddleForm.of(program)
    costs = estimate(saddle)
    large = costs.refusal
    if isinstance(wanted, asked.DavisYin) or (wanted is None and large is not None):
        groups = TwoGroups.of(program)
        if isinstance(groups, TwoGroups):
            why = large if large is not None else "another was asked for"
            chosen = DavisYin(groups, wanted) if isinstance(wanted, asked.DavisYin) else DavisYin(groups)
            lines = davis_yin_lines(chosen, refusal, why)
            return Plan(program, chosen, "Davis–Yin", (*lines, *_set(wanted)), source, back, groups.smooth.stage)
        if wanted is not None:
            raise refused(wanted, groups)
    form = GraphForm.of(program) if not isinstance(wanted, asked.PDHG) else None
    options = wanted if isinstance(wanted, asked.DouglasRachford) else asked.DouglasRachford()
    thin = "a selection needs P" if formed or form is None else _thin(form, options)
    if form is None or (wanted is None and large is not None and isinstance(thin, str)):
        why = large if large is not None else "another was asked for"
        pdhg = PrimalDual(saddle, wanted) if isinstance(wanted, asked.PDHG) else PrimalDual(saddle)
        return Plan(program, pdhg, "PDHG", (*primal_dual_lines(pdhg, refusal, why), *_set(wanted)), source, back)
    lines = (*douglas_rachford_lines(form, refusal, thin, options), ("not used", costs.text), *_set(wanted))
    if isinstance(thin, ThinForm):
        return Plan(program, ThinDouglasRachford(thin, options), "Douglas–Rachford", lines, source, back)
    if options.factor == "woodbury":
        raise refused(options, thin)
    stage = max(form.smooth.stage, form.stage)
    return Plan(program, DouglasRachford(form, options), "Douglas–Rachford", lines, source, back, stage)


def _thin(form: GraphForm, options: asked.DouglasRachford) -> ThinForm | str:
    """The diagonal and rows of a program, where they are asked for or pay."""
    if options.factor == "dense":
        return "a dense factor was asked for"
    return ThinForm.of(form, paying=options.factor is None)


def _set(wanted: asked.SplittingChoice | None) -> tuple[tuple[str, str], ...]:
    """The line of options that were set."""
    return (("options", wanted.changed),) if wanted is not None and wanted.changed else ()


def _tied(program: Program, trace: Trace | None, *, certify: bool, splitting: Asked) -> Plan:
    """The plan of tied programs."""
    found = inclusion(program)
    if isinstance(found, str):
        return _untilted(program, trace, found, certify=certify)
    words = (*tie_lines(program), *verdict_lines(found))
    convex = found.bounds is not None and found.bounds[0] >= 0.0
    if found.joint is not None and (certify or convex):
        plan = make_plan(found.joint, trace, splitting=splitting)
        chosen, strong = plan.splitting, scaled(found)
        if isinstance(chosen, ForwardBackward | FactoredForwardBackward) and strong > 0.0:
            chosen = replace(chosen, strong=strong)
        return replace(plan, splitting=chosen, lines=(*words, *plan.lines), source=program, inclusion=found)
    wanted = asked.choice(splitting)
    if wanted is not None:
        raise refused(wanted, "ties without a joint objective have splittings of their own")
    base = passes.run(found.tilted.base, trace)
    back = Multipliers.of(found.tilted.base, base)
    parts = structure(base)
    if isinstance(parts, str):
        general = constrained(found, base, certify=certify)
        lines = (*words, *constrained_lines(general, parts))
        return Plan(base, general, "Douglas–Rachford", lines, program, back, Stage.INPUT, found, has_objective=False)
    sweep = cyclic(found, base, parts)
    stage = found.matrix.stage
    if isinstance(sweep, Cyclic):
        lines = (*words, *cyclic_lines(sweep))
        return Plan(base, sweep, "Gauss–Seidel", lines, program, back, stage, found, has_objective=False)
    halves = monotone(found, parts, certify=certify)
    lines = (*words, *inclusion_lines(parts, sweep, stage))
    return Plan(base, halves, "Peaceman–Rachford", lines, program, back, stage, found, has_objective=False)


def _untilted(program: Program, trace: Trace | None, reason: str, *, certify: bool) -> Plan:
    """The plan of ties that are no affine tilts: any fixed point, where that is asked for.

    Raises:
        CompileError: `certify` is on, or the map would need more than a step of forward–backward.
    """
    fix = "let tied parameters enter as −⟨Cz, u⟩ or in the offset of a square"
    if certify:
        words = f"{fix}, or pass certify=False to take any fixed point"
        raise CompileError(message(f"ties that are not certified: {reason}", "affine tilts", words))
    values, passed = eliminate(program), passes.run(program, trace)
    parts = structure(passed)
    if isinstance(values, str):
        raise CompileError(message(values, "ties that are affine in the variables", fix))
    if isinstance(parts, str) or parts.smooth.stage is Stage.TIED:
        found = parts if isinstance(parts, str) else "a tied parameter in the quadratic part"
        raise UnsupportedError(message(f"{reason}, and {found}", "proxes on disjoint coordinates", fix))
    outputs = outputs_without_ties(program, values)
    free = tuple(p for p in program.parameters if p.stage is not Stage.TIED)
    base = replace(passed, outputs=outputs, parameters=free, constraints=(), dual_outputs=(), ties=())
    lines = (
        *tie_lines(program),
        ("verdict", f"not certified: {reason}"),
        unknowns(parts),
        ("update", "u ← prox(u − γ(Pu + q(z))), f and q at the tied values z of u"),
        *prox_lines(parts),
        ("converges", "not known: the residual decides, sample by sample"),
    )
    splitting = Untilted(parts, tuple(p.name for p in free), values)
    back = Multipliers.of(base, base)
    return Plan(base, splitting, "uncertified fixed point", lines, program, back, has_objective=False)


def _selected(first: Plan, both: Plan, select: SecondStage) -> Plan:
    """The plan of F with a selection, from those of F and of F + εω."""
    _refuse_unique(first, select)
    inner = both.splitting
    if isinstance(inner, ForwardBackward):
        blocks, head = inner.parts.blocks, 2
    else:
        assert isinstance(inner, DouglasRachford)
        blocks, head = inner.form.blocks, 4
    if not isinstance(select.method, Path) and not isinstance(inner, ForwardBackward):
        found = f"{type(select.method).__name__} on a {both.name} map, whose state is not the variable"
        fix = "leave selection= out: the path selects in the variable for every splitting"
        raise CompileError(message(found, "a forward–backward map", fix))
    names = (EPSILON, None if select.strong else RIDGE)
    splitting = Selected(inner, blocks, head, names, first.layout, both.layout)
    unique = "strongly convex: one point" if select.strong else "of its minimizers the one of least norm"
    lines = (
        *both.lines,
        ("selects", f"the minimizer of {select.text} over all solutions ({unique})"),
        ("selection", _method_text(select.method)),
    )
    name = f"{both.name}, with a selection among solutions"
    return Plan(first.program, splitting, name, lines, first.source, first.multipliers)


def _method_text(method: SelectionMethod) -> str:
    path = "u(ε) of F + εω at ε, ε/2, ε/4, ε/8, each to rounding, extrapolated to ε = 0; so are its derivatives"
    if isinstance(method, Path):
        return path
    return f"{method.steps} steps of {type(method).__name__} on the map of F, then polished: {path}"


def _refuse_unique(first: Plan, select: SecondStage) -> None:
    """Raises CompileError where F is certified strongly convex."""
    splitting, smooth = first.splitting, None
    if isinstance(splitting, ForwardBackward | ClosedForm | FactoredForwardBackward):
        smooth = splitting.parts.smooth
    elif isinstance(splitting, DouglasRachford):
        smooth = splitting.form.smooth
    elif isinstance(splitting, ThinDouglasRachford):
        smooth = splitting.form.graph.smooth
    modulus = None if smooth is None else _certified_modulus(smooth)
    if modulus is not None and modulus > 0:
        found = f"select={select.text}, but the solution is unique: the objective's curvature is at least {modulus:.3g}"
        fix = "drop select=, or let the curvature vanish somewhere, e.g. by Weight(orthogonal=True) in I − W Wᵀ"
        raise CompileError(message(found, "a program that may have several solutions", fix))


def _certified_modulus(smooth: QuadraticPart) -> float | None:
    """λ_min(P) by construction, or of a constant P; None where it is not known before the weights are."""
    if smooth.bounds is not None:
        return smooth.bounds.lower
    if not smooth.quadratic or smooth.stage is not Stage.CONSTANT:
        return None
    p = smooth.hessian(Environment({}, torch.float64, torch.device("cpu")))
    values = p[0] if p.ndim == 2 else torch.linalg.eigvalsh(p[0])
    if not values.numel():
        return None
    low, high = float(values.min()), float(values.max())
    return low if low > SINGULAR * high else 0.0
