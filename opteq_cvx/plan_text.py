"""What a plan says of each splitting: unknowns, update, proxes, step, rate, and the cost of an iteration."""

from collections.abc import Iterable, Sequence

from opteq_cvx.ir import printer
from opteq_cvx.ir.param import Stage
from opteq_cvx.ir.program import Term
from opteq_cvx.splitting import asked
from opteq_cvx.splitting.blocks import Block
from opteq_cvx.splitting.cyclic import Cyclic
from opteq_cvx.splitting.davis_yin import DavisYin
from opteq_cvx.splitting.eliminated import Eliminated
from opteq_cvx.splitting.entropic_form import EntropicForm
from opteq_cvx.splitting.forward_backward import ForwardBackward
from opteq_cvx.splitting.graph_form import GraphForm
from opteq_cvx.splitting.graph_inclusion import GraphInclusion
from opteq_cvx.splitting.matrix_free import FactoredForwardBackward
from opteq_cvx.splitting.pieces import Piece
from opteq_cvx.splitting.primal_dual import PrimalDual
from opteq_cvx.splitting.quadratic import Bounds
from opteq_cvx.splitting.structure import Structure
from opteq_cvx.splitting.thin_form import ThinForm

WHEN = {
    Stage.CONSTANT: "once, at compile time",
    Stage.WEIGHT: "once per weight update",
    Stage.INPUT: "once per sample",
    Stage.TIED: "at the equilibrium",
}


def unknowns(parts: Structure) -> tuple[str, str]:
    layout = parts.layout
    each = (f"{n} {list(s) if s else 'scalar'}" for n, s in zip(layout.names, layout.shapes, strict=True))
    return "unknowns", f"{', '.join(each)}: {counted(layout.n, 'entry')}"


def sources(terms: Iterable[Term]) -> str:
    """Where terms come from, each place once."""
    return "; ".join(dict.fromkeys(str(t.origin) for t in terms)) or "none"


def linear(terms: Sequence[Term]) -> tuple[tuple[str, str], ...]:
    """The line about the linear terms, where there are any."""
    return (("linear", f"qᵀu, from {sources(terms)}"),) if terms else ()


def counted(n: int, what: str) -> str:
    """Like "1 row", "2 rows", "3 proxes"."""
    many = {"prox": "proxes", "entry": "entries"}.get(what, f"{what}s")
    return f"{n} {what if n == 1 else many}"


def prox_lines(parts: Structure) -> list[tuple[str, str]]:
    lines = []
    for block in parts.blocks:
        more = f", then clipped to {block.interval.origin}" if block.interval is not None else ""
        lines.append(
            ("prox", f"{block.f.name}{weight(block)} on {counted(block.index.size, 'entry')}: {block.origin}{more}")
        )
    covered = sum(b.index.size for b in parts.blocks)
    if covered < parts.layout.n:
        lines.append(("prox", f"identity on {counted(parts.layout.n - covered, 'entry')}"))
    return lines


def weight(block: Block) -> str:
    return f" with weight {printer.param(block.weight)}" if block.weight is not None else ""


def closed_form_lines(parts: Structure) -> tuple[tuple[str, str], ...]:
    return (
        ("form", "min ½p‖u‖² + qᵀu + f(u), p one number where f couples"),
        unknowns(parts),
        *linear(parts.smooth.linear),
        ("solution", "u = prox(−q / p) with weights divided by p, p the constant diagonal of the quadratic"),
        *prox_lines(parts),
        ("converges", "exact: no iteration"),
    )


def entropic_lines(form: EntropicForm) -> tuple[tuple[str, str], ...]:
    m, n = form.polytope.index.shape
    weight = f"{form.weight:g}"
    return (
        ("form", "min ⟨C, X⟩ + ε Σ X ln X, X1 = r, Xᵀ1 = c: Sinkhorn's problem, no quadratic"),
        ("unknowns", f"X [{m}, {n}]: {counted(m * n, 'entry')}"),
        *linear(form.smooth.linear),
        ("entropy", f"ε = {weight}: {form.entropy.origin}"),
        ("marginals", f"{form.polytope.origin}"),
        ("solution", "X = exp(−C/ε − 1 + a1ᵀ + 1bᵀ), a and b by Newton's method on the dual, in the log domain"),
        ("converges", "exact: no iteration of a map; globalized by Armijo's rule"),
    )


def forward_backward_lines(map_: ForwardBackward, refused: str) -> tuple[tuple[str, str], ...]:
    parts, step = map_.parts, map_.options.step
    smooth, n = parts.smooth, parts.layout.n
    kind = "diagonal" if smooth.diagonal else f"dense {n}×{n}"
    bounds = smooth.bounds
    cost = "1 elementwise product" if smooth.diagonal else f"1 matrix product (B×{n} · {n}×{n})"
    flops = n if smooth.diagonal else 2 * n * n
    proxes = counted(len(parts.blocks), "prox")
    return (
        ("form", "min ½uᵀPu + qᵀu + f(u), f of disjoint blocks of u"),
        unknowns(parts),
        ("update", "u ← prox(M u + c), M = I − γP, c = −γq"),
        ("quadratic", f"½uᵀPu, P {kind}, from {sources(smooth.quadratic)}"),
        *linear(smooth.linear),
        *prox_lines(parts),
        ("step", _step_text(bounds, smooth.diagonal, step)),
        ("converges", _rate_text(bounds, smooth.certified, step)),
        ("M", WHEN[smooth.stage]),
        ("iteration", f"{cost} and {proxes}: {si(flops)}flop a sample"),
        ("not used", f"closed form: {refused}"),
    )


def matrix_free_lines(map_: FactoredForwardBackward, refused: str) -> tuple[tuple[str, str], ...]:
    parts, factors = map_.parts, map_.factors
    pieces = " ".join(_piece_text(p) for p in factors.pieces)
    known, n = factors.known, parts.layout.n
    bounds, share = None if known is None else Bounds(*known), map_.options.step
    proxes = counted(len(parts.blocks), "prox")
    if bounds is not None:
        step = _step_text(bounds, False, share)
    else:
        step = f"γ = {share:.4g}/L, L ≥ λ_max(P) from norm bounds of the factors, whenever they change"
    return (
        ("form", "min ½uᵀPu + qᵀu + f(u), f of disjoint blocks of u"),
        unknowns(parts),
        ("update", "u ← prox(u − γ(Pu + q)), P applied factor by factor"),
        ("quadratic", f"½uᵀPu, P = {pieces.removeprefix('+ ')}, never formed, from {sources(parts.smooth.quadratic)}"),
        *linear(parts.smooth.linear),
        *prox_lines(parts),
        ("step", step),
        ("converges", _rate_text(bounds, map_.certified, share)),
        ("L", "a constant" if bounds is not None else WHEN[factors.stage]),
        ("iteration", f"products with the factors and {proxes}: {si(factors.flops)}flop a sample"),
        ("not used", f"closed form: {refused}; P itself: {si(2 * n * n)}flop a sample, {si(n * n)}numbers"),
    )


def _piece_text(piece: Piece) -> str:
    """Like "− 0.5 KᵀK with K = conv2d(·, W)"."""
    sign = "−" if piece.factor < 0 else "+"
    number = "" if abs(piece.factor) == 1.0 else f"{abs(piece.factor):.4g} "
    if piece.plain:
        return f"{sign} {number}I"
    middle = "" if piece.weight is None else "diag(w) "
    image = printer.linear_map(piece.k, "u")
    if piece.other is not None:
        return f"{sign} {number}(KᵀL + LᵀK) [Ku = {image}, Lu = {printer.linear_map(piece.other, 'u')}]"
    return f"{sign} {number}Kᵀ{middle}K [Ku = {image}]"


def douglas_rachford_lines(
    form: GraphForm, refused: str, thin: ThinForm | str, options: asked.DouglasRachford
) -> tuple[tuple[str, str], ...]:
    n, m = form.layout.n, form.m
    each = (f"{k} {list(s) if s else 'scalar'}" for k, s in zip(form.layout.names, form.layout.shapes, strict=True))
    proxes = [
        ("prox", f"{b.f.name}{weight(b)} on {counted(b.index.size, 'row')} of Kx + b: {b.origin}") for b in form.blocks
    ]
    factor, products, flops = _factor_text(form, thin)
    alpha, start = f"{options.relaxation:.4g}", "Ruiz equilibration" if options.scaling_rounds else "ρ alone"
    moves = "rebalanced per sample as the residuals say" if options.adaptive else "never changed"
    count = counted(len(proxes), "prox")
    return (
        ("form", "min ½xᵀPx + qᵀx + f(Kx + b), f of disjoint blocks of rows"),
        ("unknowns", f"{', '.join(each)}: {counted(n, 'unknown')}, {counted(m, 'row')} of Kx + b"),
        ("update", f"w = prox(v), x̃ = (P + σ + KᵀRK)⁻¹(σx − q + KᵀR(2w − v − b)), v ← v + {alpha}(Kx̃ + b − w)"),
        ("quadratic", f"½xᵀPx, from {sources(form.smooth.quadratic)}"),
        *linear(form.smooth.linear),
        *proxes,
        ("step", f"R from {start}, {moves}"),
        ("converges", "averaged map: converges for every R whenever a solution with duals exists"),
        ("factor", factor),
        ("iteration", f"{products}, {count}: {si(flops)}flop a sample"),
        ("not used", f"forward–backward: {refused}"),
    )


def _factor_text(form: GraphForm, thin: ThinForm | str) -> tuple[str, str, int]:
    """The factor, the products of an iteration, and their flops."""
    n, m = form.layout.n, form.m
    if isinstance(thin, str):
        when = WHEN[max(form.smooth.stage, form.stage)]
        text = f"{n}×{n}, {when}; one more per rebalancing only if per sample"
        return text, f"2 products with K ({m}×{n}), 2 with the factor", 4 * n * n + 4 * m * n
    rows, full, entries = thin.rank, int(thin.full.size), int(thin.entries.size)
    flops = 4 * n * rows + 2 * rows * rows + 4 * n * full + 4 * entries + 4 * n
    if not rows:
        return f"diagonal of {n}, once per rebalancing", f"2 products with K ({m} entries)", flops
    cost = si(2 * n * rows * rows)
    text = f"diagonal of {n} and {counted(rows, 'row')} (Woodbury), {cost}flop a sample once per rebalancing"
    return text, f"2 products with K ({entries} entries, {counted(full, 'row')}), 2 with the rows", flops


def eliminated_lines(map_: Eliminated, refused: str) -> tuple[tuple[str, str], ...]:
    e, form, inner = map_.elimination, map_.elimination.form, map_.inner
    each = (f"{k} {list(s) if s else 'scalar'}" for k, s in zip(form.layout.names, form.layout.shapes, strict=True))
    n, flops = inner.dimension, 2 * inner.dimension**2
    proxes = [
        ("prox", f"{b.f.name}{weight(b)} on {counted(b.index.size, 'entry')}: {b.origin}") for b in inner.parts.blocks
    ]
    return (
        ("form", "min ½xᵀPx + qᵀx + f(x), Ax + b = 0; x = Nu + Mb, u the coordinates that A does not define"),
        ("unknowns", f"{', '.join(each)}: {counted(form.layout.n, 'entry')}, of which u are {n}"),
        ("eliminated", f"{counted(e.defined, 'entry')}, defined by {sources(e.terms)}"),
        ("update", "u ← prox(Cu + c), C = I − γNᵀPN, c = −γNᵀ(PMb + q)"),
        ("quadratic", f"½uᵀNᵀPNu, NᵀPN dense {n}×{n}, from {sources(form.smooth.quadratic)}"),
        *linear(form.smooth.linear),
        *proxes,
        ("step", f"γ = {inner.options.step:.4g}/λ_max(NᵀPN), from above"),
        ("converges", f"NᵀPN ≻ 0, λ_max/λ_min = {e.condition:.3g}"),
        ("iteration", f"1 matrix product ({n}×{n}) and {counted(len(proxes), 'prox')}: {si(flops)}flop a sample"),
        ("not used", f"forward–backward in x: {refused}"),
    )


def davis_yin_lines(map_: DavisYin, refused_first: str, refused_factor: str) -> tuple[tuple[str, str], ...]:
    form, options = map_.form, map_.options
    high = f"{options.step:.4g}/λ_max(P)"
    gamma = f"γ = ‖x‖/‖y‖ ≤ {high}, per sample" if options.adaptive else f"γ = {high}, at most 1"
    each = (f"{k} {list(s) if s else 'scalar'}" for k, s in zip(form.layout.names, form.layout.shapes, strict=True))
    groups = [(name, block) for name, group in (("f", form.first), ("g", form.second)) for block in group]
    proxes = []
    for name, block in groups:
        more = f", then clipped to {block.interval.origin}" if block.interval is not None else ""
        on = counted(block.index.size, "entry")
        proxes.append((f"prox {name}", f"{block.f.name}{weight(block)} on {on}: {block.origin}{more}"))
    return (
        ("form", "min ½xᵀPx + qᵀx + f(x) + g(x), each of f and g of disjoint blocks of x"),
        ("unknowns", f"{', '.join(each)}: {counted(form.n, 'unknown')}"),
        ("update", "u = prox_f(x − γ(Px + q + y)), z = x + γy + λ(u − x), x ← prox_g(z), y ← (z − x)/γ"),
        ("quadratic", f"½uᵀPu by gradient steps, from {sources(form.smooth.quadratic)}"),
        *linear(form.smooth.linear),
        *proxes,
        ("step", f"{gamma}; λ = {options.relaxation:.4g} (2 − γλ_max(P)/2)"),
        ("converges", "averaged map: converges whenever a solution with duals exists"),
        ("factor", f"none: P is applied through its maps, never formed; λ_max(P) {WHEN[form.smooth.stage]}"),
        ("iteration", f"1 product with P, {counted(len(groups), 'prox')}"),
        ("not used", f"forward–backward: {refused_first}"),
        ("not used", f"Douglas–Rachford: {refused_factor}"),
    )


def primal_dual_lines(map_: PrimalDual, refused_first: str, refused_factor: str) -> tuple[tuple[str, str], ...]:
    form, moves = map_.form, "balanced per sample as x and y move"
    n, m = form.n, form.m
    if not map_.options.adaptive:
        moves = f"primal weight {map_.options.primal_weight:.4g}"
    each = (f"{k} {list(s) if s else 'scalar'}" for k, s in zip(form.layout.names, form.layout.shapes, strict=True))
    inner = [("prox", f"{b.f.name}{weight(b)} on {counted(b.index.size, 'entry')}: {b.origin}") for b in form.inner]
    outer = [
        ("prox*", f"{b.f.name}{weight(b)} on {counted(b.index.size, 'row')} of Kx + b: {b.origin}") for b in form.outer
    ]
    absorbed, forward = sources(form.diagonal.quadratic), sources(form.maps.quadratic)
    return (
        ("form", "min ½xᵀPx + qᵀx + g(x) + f(Kx + b), f and g of disjoint blocks"),
        ("unknowns", f"{', '.join(each)}: {counted(n, 'unknown')}, {counted(m, 'row')} of Kx + b"),
        ("update", "x⁺ = prox(x − T(Px + q + Kᵀy)), v = y + S(K(2x⁺ − x) + b), y⁺ = v − S prox(v/S)"),
        ("quadratic", f"in the prox: {absorbed}; by gradient steps: {forward}"),
        *inner,
        *outer,
        ("step", f"T, S from the row and column sums of |K| (Pock–Chambolle), {moves}"),
        ("converges", "averaged map: converges whenever a solution with duals exists; restarts make it linear"),
        ("factor", "none: K and P are applied through their maps, never formed"),
        ("iteration", f"2 products with K ({m}×{n}), {counted(len(inner) + len(outer), 'prox')}"),
        ("not used", f"forward–backward: {refused_first}"),
        ("not used", f"Douglas–Rachford: {refused_factor}"),
    )


def _step_text(bounds: Bounds | None, diagonal: bool, step: float) -> str:
    """`step` is γ in units of 1/λ_max."""
    if bounds is not None:
        return f"γ = {step / bounds.upper:.4g}: λ_max(P) ≤ {bounds.upper:.4g} by construction"
    found = "the largest entry" if diagonal else "computed whenever P changes, from above"
    return f"γ = {step:.4g}/λ_max(P), {found}"


def _rate_text(bounds: Bounds | None, certified: bool, step: float) -> str:
    if bounds is not None and bounds.lower > 0:
        q = 1 - step * bounds.lower / bounds.upper
        return f"contraction factor ≤ {q:.4g} by construction: ‖u − u*‖ ≤ {1 / (1 - q):.3g} ‖u − T(u)‖; unique solution"
    sign = "P ⪰ 0 by construction" if certified else "P ⪰ 0 is checked at every new P (status not_convex otherwise)"
    return f"{sign}; the factor 1 − {'λ_min/λ_max' if step == 1.0 else 'γλ_min'} is computed with it"


def si(number: float) -> str:
    for unit in ("", "k", "M", "G"):
        if number < 1000:
            return f"{number:.3g} {unit}"
        number /= 1000
    return f"{number:.3g} T"


def cyclic_lines(sweep: Cyclic) -> tuple[tuple[str, str], ...]:
    flops = sum(2 * c.shape[0] * c.shape[1] for u in sweep.units for _, c in u.sources)
    return (
        unknowns(sweep.parts),
        ("update", "u_k ← prox((Σ_j C_kj u_j − q_k)/p_k), program after program, each with the newest u_j"),
        *prox_lines(sweep.parts),
        ("converges", f"contraction by construction: ‖u − u*‖ ≤ {1 / sweep.modulus:.3g} ‖u − T(u)‖; unique solution"),
        ("iteration", f"{sum(len(u.sources) for u in sweep.units)} matrix products: {si(flops)}flop a sample"),
    )


def constrained_lines(general: GraphInclusion, refused: str) -> tuple[tuple[str, str], ...]:
    form = general.form
    n, m = form.layout.n, form.m
    proxes = [("prox", f"{b.f.name}{weight(b)} on {b.index.size} rows of Kx + b: {b.origin}") for b in form.blocks]
    return (
        ("unknowns", f"{', '.join(form.layout.names)}: {n} entries; {m} rows"),
        ("update", "w = prox(v), x̃ = (F + σ + KᵀRK)⁻¹(σx − q + KᵀR(2w − v − b)), v ← v + 1.6(Kx̃ + b − w)"),
        *proxes,
        ("converges", "averaged map: converges for every R whenever an equilibrium with multipliers exists"),
        ("iteration", f"2 products with K ({m}×{n}), 1 with the inverse: {si(2 * n * n + 4 * m * n)}flop a sample"),
        ("not used", f"Peaceman–Rachford: {refused}"),
    )


def inclusion_lines(parts: Structure, refused: str, stage: Stage) -> tuple[tuple[str, str], ...]:
    n = parts.layout.n
    return (
        unknowns(parts),
        ("update", "u ← u + G(prox(u − α(Fu + q)) − u)"),
        ("G", "2(I + αF)⁻¹ where m > 0 (Peaceman–Rachford), I where plain steps are cheaper, else (I + αF)⁻¹"),
        *prox_lines(parts),
        ("converges", "contraction where m > 0, averaged where m = 0; its factor is computed with F"),
        ("F", WHEN[stage]),
        ("iteration", f"2 products with {n}×{n} matrices: {si(4 * n * n)}flop a sample"),
        ("not used", f"Gauss–Seidel: {refused}"),
    )
