"""Plan: which splitting a program gets, why, what is computed when, and what one iteration costs."""

from collections.abc import Callable
from dataclasses import dataclass
from html import escape

from typing_extensions import override

from opteq_cvx import passes
from opteq_cvx.ir import printer
from opteq_cvx.ir.frozen import Frozen
from opteq_cvx.ir.layout import Layout
from opteq_cvx.ir.param import Stage
from opteq_cvx.ir.program import Program
from opteq_cvx.splitting.blocks import Block
from opteq_cvx.splitting.closed_form import ClosedForm, closed_form
from opteq_cvx.splitting.contract import Splitting
from opteq_cvx.splitting.douglas_rachford import DouglasRachford
from opteq_cvx.splitting.forward_backward import ForwardBackward
from opteq_cvx.splitting.graph_form import GraphForm
from opteq_cvx.splitting.multipliers import Multipliers
from opteq_cvx.splitting.quadratic import Bounds, refuse_indefinite
from opteq_cvx.splitting.structure import Structure, structure

WHEN = {
    Stage.CONSTANT: "once, at compile time",
    Stage.WEIGHT: "once per weight update",
    Stage.INPUT: "once per sample",
}


@dataclass(frozen=True, slots=True, eq=False)
class Plan(Frozen):
    """The chosen splitting and its explanation: pairs (heading, text), printed by `str` and in notebooks.

    `source` is the program before the passes, `multipliers` the way back to its constraints. `stage` is the latest
    stage of what `Splitting.factor` depends on.
    """

    program: Program
    splitting: Splitting
    name: str
    lines: tuple[tuple[str, str], ...]
    source: Program
    multipliers: Multipliers
    stage: Stage = Stage.INPUT

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

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><th style='text-align:left'>{escape(h)}</th><td style='text-align:left'>{escape(t)}</td></tr>"
            for h, t in self.lines
        )
        return f"<table><caption>plan: {escape(self.name)}</caption>{rows}</table>"


def make_plan(program: Program, trace: Callable[[str, Program], None] | None = None) -> Plan:
    """Run the passes and choose a splitting: closed form, else forward–backward, else Douglas–Rachford."""
    source, program = program, passes.run(program, trace)
    back = Multipliers.of(source, program)
    for term in program.terms:
        refuse_indefinite(term)
    parts = structure(program)
    if isinstance(parts, str):
        form = GraphForm.of(program)
        return Plan(
            program, DouglasRachford(form), "Douglas–Rachford", _douglas_rachford_lines(form, parts), source, back
        )
    direct = closed_form(parts)
    if isinstance(direct, ClosedForm):
        return Plan(program, direct, "closed form", _closed_form_lines(parts), source, back, parts.smooth.stage)
    lines = _forward_backward_lines(parts, direct)
    return Plan(program, ForwardBackward(parts), "forward–backward", lines, source, back, parts.smooth.stage)


def _unknowns(parts: Structure) -> tuple[str, str]:
    layout = parts.layout
    each = (f"{n} {list(s) if s else 'scalar'}" for n, s in zip(layout.names, layout.shapes, strict=True))
    return "unknowns", f"{', '.join(each)}: {layout.n} entries"


def _prox_lines(parts: Structure) -> list[tuple[str, str]]:
    lines = []
    for block in parts.blocks:
        more = f", then clipped to {block.interval.origin}" if block.interval is not None else ""
        lines.append(("prox", f"{block.f.name}{_weight(block)} on {block.index.size} entries: {block.origin}{more}"))
    covered = sum(b.index.size for b in parts.blocks)
    if covered < parts.layout.n:
        lines.append(("prox", f"identity on {parts.layout.n - covered} entries"))
    return lines


def _weight(block: Block) -> str:
    return f" with weight {printer.param(block.weight)}" if block.weight is not None else ""


def _closed_form_lines(parts: Structure) -> tuple[tuple[str, str], ...]:
    return (
        _unknowns(parts),
        ("solution", "u = prox(−q / p) with weights divided by p, p the constant diagonal of the quadratic"),
        *_prox_lines(parts),
        ("converges", "exact: no iteration"),
    )


def _forward_backward_lines(parts: Structure, refused: str) -> tuple[tuple[str, str], ...]:
    smooth, n = parts.smooth, parts.layout.n
    sources = "; ".join(str(t.origin) for t in smooth.quadratic) or "none"
    kind = "diagonal" if smooth.diagonal else f"dense {n}×{n}"
    bounds = smooth.bounds
    cost = "1 elementwise product" if smooth.diagonal else f"1 matrix product (B×{n} · {n}×{n})"
    flops = n if smooth.diagonal else 2 * n * n
    proxes = f"{len(parts.blocks)} prox{'es' * (len(parts.blocks) != 1)}"
    return (
        _unknowns(parts),
        ("update", "u ← prox(M u + c), M = I − γP, c = −γq"),
        ("quadratic", f"½uᵀPu + qᵀu, P {kind}, from {sources}"),
        *_prox_lines(parts),
        ("step", _step_text(bounds, smooth.diagonal)),
        ("converges", _rate_text(bounds, smooth.certified)),
        ("M", WHEN[smooth.stage]),
        ("iteration", f"{cost} and {proxes}: {_si(flops)}flop a sample"),
        ("not used", f"closed form: {refused}"),
    )


def _douglas_rachford_lines(form: GraphForm, refused: str) -> tuple[tuple[str, str], ...]:
    n, m = form.layout.n, form.m
    each = (f"{k} {list(s) if s else 'scalar'}" for k, s in zip(form.layout.names, form.layout.shapes, strict=True))
    proxes = [("prox", f"{b.f.name}{_weight(b)} on {b.index.size} rows of Kx + b: {b.origin}") for b in form.blocks]
    flops = 4 * n * n + 4 * m * n
    count = f"{len(proxes)} prox{'es' * (len(proxes) != 1)}"
    return (
        ("unknowns", f"{', '.join(each)}: {n} entries; {m} rows"),
        ("update", "w = prox(v), x̃ = (P + σ + KᵀRK)⁻¹(σx − q + KᵀR(2w − v − b)), v ← v + 1.6(Kx̃ + b − w)"),
        ("quadratic", "; ".join(str(t.origin) for t in form.smooth.quadratic) or "none"),
        *proxes,
        ("step", "R from Ruiz equilibration, rebalanced per sample as the residuals say"),
        ("converges", "averaged map: converges for every R whenever a solution with duals exists"),
        ("factor", f"{n}×{n}, {WHEN[max(form.smooth.stage, form.stage)]}; one more per rebalancing only if per sample"),
        (
            "iteration",
            f"2 products with K ({m}×{n}), 2 with the factor, {count}: {_si(flops)}flop a sample",
        ),
        ("not used", f"forward–backward: {refused}"),
    )


def _step_text(bounds: Bounds | None, diagonal: bool) -> str:
    if bounds is not None:
        return f"γ = {1 / bounds.upper:.4g}: λ_max(P) ≤ {bounds.upper:.4g} by construction"
    return "γ = 1/λ_max(P), " + ("the largest entry" if diagonal else "computed whenever P changes, from above")


def _rate_text(bounds: Bounds | None, certified: bool) -> str:
    if bounds is not None and bounds.lower > 0:
        q = 1 - bounds.lower / bounds.upper
        return f"contraction factor ≤ {q:.4g} by construction: ‖u − u*‖ ≤ {1 / (1 - q):.3g} ‖u − T(u)‖; unique solution"
    sign = "P ⪰ 0 by construction" if certified else "P ⪰ 0 is checked at every new P (status not_convex otherwise)"
    return f"{sign}; the factor 1 − λ_min/λ_max is computed with it"


def _si(number: float) -> str:
    for unit in ("", "k", "M", "G"):
        if number < 1000:
            return f"{number:.3g} {unit}"
        number /= 1000
    return f"{number:.3g} T"
