"""Differences along paths: Σ w|xⱼ − xᵢ| is total variation, xⱼ ≥ xᵢ a monotone cone, tv + λ‖x‖₁ the fused lasso."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from opteq_cvx.ir import act
from opteq_cvx.ir.frozen import FrozenDict, IntArray
from opteq_cvx.ir.layout import Layout, as_selection
from opteq_cvx.ir.param import Apply, Const, ParamExpr, const, is_zero, multiply
from opteq_cvx.ir.program import Origin, Program, Term
from opteq_cvx.passes.edit import Edit, rewrite
from opteq_cvx.passes.rows import affine_of, matrix, pick

SMOOTH = ("square", "quad_form", "linear")
"""Terms that never need a prox of their own."""


@dataclass(frozen=True, slots=True)
class Paths:
    """Disjoint paths of equal length: coordinates (k, L), row of each step (k, L − 1), sizes |c| of the rows."""

    index: IntArray
    edge: IntArray
    size: np.ndarray


def find_chains(program: Program) -> Program:
    """Rewrite differences along disjoint paths where no other proximal term, but one ℓ1 norm, touches their entries."""
    layout = Layout.of(program)
    touched = [_touched(t, layout) for t in program.terms]
    edits: list[Edit] = []
    gone: set[int] = set()
    for i, term in enumerate(program.terms):
        if term.atom not in ("abs", "nonneg", "nonpos") or i in gone:
            continue
        walked = paths(term, layout)
        if walked is None:
            continue
        mine = np.unique(np.concatenate([p.index.reshape(-1) for p in walked]))
        others = [k for k in range(len(program.terms)) if k != i and np.isin(mine, touched[k]).any()]
        l1 = _l1(program.terms[others[0]], mine, layout) if len(others) == 1 and others[0] not in gone else None
        if others and (term.atom != "abs" or l1 is None):
            continue
        new = tuple(_term(term, p, l1, program.terms[others[0]] if others else None, layout) for p in walked)
        edits.append((tuple(sorted([i, *others])), new))
        gone.update([i, *others])
    return rewrite(program, edits)


def _touched(term: Term, layout: Layout) -> IntArray:
    """The coordinates that a proximal term depends on, as far as it is known."""
    found = [np.zeros(0, dtype=np.int64)]
    for name, m in term.arg.parts if term.atom not in SMOOTH else ():
        start, shape = layout.start(name), layout.shapes[layout.names.index(name)]
        used = matrix(m)
        every = np.arange(int(np.prod(shape, dtype=np.int64)))
        found.append(start + (every if used is None else np.unique(used.indices)))
    return np.concatenate(found)


def paths(term: Term, layout: Layout) -> list[Paths] | None:
    """The disjoint paths whose steps are the rows of a term's argument; None where they are not differences."""
    if len(term.arg.parts) != 1 or not is_zero(term.arg.offset):
        return None
    name, m = term.arg.parts[0]
    rows = matrix(m)
    if rows is None or not rows.shape[0]:
        return None
    rows.sum_duplicates()
    rows.eliminate_zeros()
    if (np.diff(rows.indptr) != 2).any():
        return None
    ends, values = rows.indices.reshape(-1, 2).astype(np.int64), rows.data.reshape(-1, 2)
    if (values.sum(1) != 0).any():
        return None
    if term.atom == "nonpos":
        values = -values
    ordered = np.where(values[:, :1] < 0, ends, ends[:, ::-1])  # from the smaller to the larger entry
    directed = term.atom != "abs"
    found = _walk(ordered if directed else np.sort(ends, axis=1), directed, layout.start(name))
    return None if found is None else [Paths(i, e, np.abs(values[:, 0])) for i, e in found]


def _walk(edges: IntArray, directed: bool, start: int) -> list[tuple[IntArray, IntArray]] | None:
    """Disjoint paths grouped by length, from the first node (or the smaller end); None if not paths."""
    at: dict[int, list[tuple[int, int]]] = defaultdict(list)
    back: set[int] = set()
    for k, (i, j) in enumerate(edges.tolist()):
        at[i].append((k, j))
        if directed:
            back.add(j)
        else:
            at[j].append((k, i))
    limit = 1 if directed else 2
    heads = [i for i in sorted(at) if (i not in back if directed else len(at[i]) == 1)]
    if any(len(n) > limit for n in at.values()):
        return None
    groups: dict[int, list[tuple[list[int], list[int]]]] = defaultdict(list)
    used: set[int] = set()
    seen: set[int] = set()
    for head in heads:
        if head in seen:
            continue
        nodes, steps = [head], list[int]()
        while True:
            following = [(k, j) for k, j in at.get(nodes[-1], []) if k not in used]
            if not following:
                break
            k, j = following[0]
            used.add(k)
            steps.append(k)
            nodes.append(j)
        if seen.intersection(nodes):
            return None
        seen.update(nodes)
        groups[len(nodes)].append((nodes, steps))
    if len(used) < len(edges):  # a cycle
        return None
    out = []
    for _, paths in sorted(groups.items()):
        index, steps_of = (np.asarray([p[i] for p in paths], dtype=np.int64) for i in (0, 1))
        one = len(paths) == 1
        out.append((start + (index[0] if one else index), steps_of[0] if one else steps_of))
    return out


def _l1(term: Term, mine: IntArray, layout: Layout) -> ParamExpr | None:
    """The weight λ of a term λ‖x‖₁ on exactly these coordinates."""
    selection = as_selection(term.arg, layout) if term.atom == "abs" else None
    if (
        selection is None
        or not is_zero(selection.offset)
        or not np.array_equal(np.sort(selection.index.reshape(-1)), mine)
    ):
        return None
    scale = const(1.0) if selection.scale is None else selection.scale
    if not (isinstance(scale, Const) and scale.shape == ()):
        return None
    weight = scalar(term.weight)
    return None if weight is None else multiply(const(abs(float(scale.dense()))), weight)


def scalar(weight: ParamExpr | None) -> ParamExpr | None:
    """A weight that is the same for all entries as a scalar; None where it is not known to be."""
    if weight is None:
        return const(1.0)
    if weight.shape == ():
        return weight
    if isinstance(weight, Const) and weight.dense().size:
        flat = weight.dense().reshape(-1)
        return const(float(flat[0])) if (flat == flat[0]).all() else None
    if isinstance(weight, Apply) and weight.op == "broadcast_to" and weight.args[0].shape == ():
        return weight.args[0]
    return None


def _term(term: Term, paths: Paths, l1: ParamExpr | None, other: Term | None, layout: Layout) -> Term:
    arg = affine_of(term.arg.parts[0][0], paths.index, layout)
    if term.atom != "abs":
        return Term("monotone", arg, term.origin)
    sizes = paths.size[paths.edge]
    common, reduced = scalar(term.weight), (*paths.index.shape[:-1], 1)
    if common is not None and other is None and (sizes == sizes.flat[0]).all():
        weight = multiply(const(float(sizes.flat[0])), common)
        spread = act.spread(weight, reduced)
        data = FrozenDict(w=act.spread(const(1.0), sizes.shape))
        return Term("tv", arg, term.origin, spread, data=data)
    each = act.spread(term.weight if term.weight is not None else const(1.0), term.arg.shape)
    jumps = multiply(const(sizes), pick(each, paths.edge))
    if other is None or l1 is None:
        return Term("tv", arg, term.origin, data=FrozenDict(w=jumps))
    origin = Origin(f"{term.origin.where}, {other.origin.where}", _texts(term.origin, other.origin))
    return Term("fused_lasso", arg, origin, data=FrozenDict(w=jumps, m=act.spread(l1, reduced)))


def _texts(*origins: Origin) -> str:
    return " + ".join(dict.fromkeys(o.text for o in origins))


__all__: Sequence[str] = ("find_chains", "paths", "scalar")
