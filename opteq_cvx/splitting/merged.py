"""Pieces that share factors, added up: Σ_p f_p ‖Σ_j c_pj M_j z‖² = Σ_jk G_jk ⟨M_j z, M_k z⟩ with G = Σ_p f_p c_p c_pᵀ.

Where a convolution stands in several pieces, G tells what is left of it. Of ½‖Aᵀu − Bᵀv‖² + ½⟨u, (I − AAᵀ)u⟩ +
½⟨v, (I − BBᵀ)v⟩ the squares cancel: ½‖u‖² + ½‖v‖² − ⟨Aᵀu, Bᵀv⟩, half of the products, with a spectrum within
1 ± ‖A‖‖B‖ where the pieces one by one bound it by 3 + ‖A‖² + ‖B‖². Selections that no factor follows become a diagonal.
"""

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np

from opteq_cvx.ir.frozen import Array, IntArray, size
from opteq_cvx.ir.linmap import (
    Adjoint,
    Broadcast,
    Compose,
    Conv2d,
    Diagonal,
    Gather,
    Identity,
    LeftMul,
    LinearMap,
    Permute,
    Reshape,
    RightMul,
    Sum,
    SumMap,
    compose,
)
from opteq_cvx.ir.param import Const
from opteq_cvx.splitting.pieces import Factored, Piece, of_diagonal

Key = tuple[Hashable, ...]
CANCELLED = 1e-12  # an entry of G this far below what was added up to it is zero
MOST = 16  # strands of a piece that are told apart


@dataclass(frozen=True, slots=True)
class Strand:
    """c·M, M without sums and scalings; equal keys mean equal maps of flat vectors."""

    scale: float
    map: LinearMap

    @property
    def key(self) -> Key:
        """The steps of M, without the reshapes that leave the entries in their order."""
        return tuple(_step_key(step) for step in _steps(self.map) if not _in_order(step))


def merged(p: Factored) -> Factored:
    """The same P with shared factors added up, where a product costs less for it and nothing known is lost."""
    pieces = _joined(p.pieces)
    pieces = _diagonals(pieces, p.n)
    found = Factored(p.n, tuple(pieces), p.certified)
    old, new = p.known, found.known
    worse = old is not None and (new is None or new[1] > old[1] or new[0] < old[0])
    return p if worse or found.flops > p.flops else found


def strands(m: LinearMap) -> tuple[Strand, ...]:
    """m as a sum of strands; none where there would be more than `MOST`."""
    match m:
        case SumMap(maps=maps):
            found = [strands(part) for part in maps[: MOST + 1]]
            return tuple(s for part in found for s in part) if all(found) and sum(map(len, found)) <= MOST else ()
        case Compose(maps=maps):
            total = strands(maps[0])
            for part in maps[1:]:
                inner = strands(part)
                if len(total) * len(inner) > MOST:
                    return ()
                total = tuple(Strand(a.scale * b.scale, compose(a.map, b.map)) for a in total for b in inner)
            return total
        case Diagonal(d=Const() as d) if size(d.shape) == 1:
            return (Strand(float(d.dense().reshape(-1)[0]), Identity(m.shape_in)),)
        case Adjoint(of=of):
            return tuple(Strand(s.scale, _adjoint(s.map)) for s in strands(of))
        case _:
            return (Strand(1.0, m),)


def _adjoint(m: LinearMap) -> LinearMap:
    match m:
        case Identity():
            return m
        case Adjoint(of=of):
            return of
        case Reshape():
            return Reshape(m.shape_out, m.shape_in, m.order)
        case Compose(maps=maps):
            total = _adjoint(maps[0])
            for part in maps[1:]:
                total = compose(_adjoint(part), total)
            return total
        case _:
            return Adjoint(m)


def _steps(m: LinearMap) -> tuple[LinearMap, ...]:
    return m.maps if isinstance(m, Compose) else (m,)


def _in_order(step: LinearMap) -> bool:
    return isinstance(step, Identity) or (isinstance(step, Reshape) and step.order == "C")


def _step_key(step: LinearMap) -> Key:
    match step:
        case Adjoint(of=of):
            return ("adjoint", *_step_key(of))
        case Conv2d():
            return ("conv", id(step.kernel), step.shape_in, step.stride, step.padding, step.groups)
        case LeftMul(a=a):
            return ("left", id(a), step.shape_in)
        case RightMul(b=b):
            return ("right", id(b), step.shape_in)
        case Diagonal(d=d):
            return ("diagonal", id(d), step.shape_in)
        case Gather(index=index):
            return ("gather", index.tobytes(), size(step.shape_in))
        case Permute(axes=axes):
            return ("permute", axes, step.shape_in)
        case Reshape():
            return ("reshape", step.shape_in, step.shape_out, step.order)
        case Sum():
            return ("sum", step.axes, step.shape_in)
        case Broadcast():
            return ("broadcast", step.shape_in, step.shape_out)
        case _:
            return ("same", id(step))


@dataclass(slots=True)
class _Group:
    """Pieces that are linked by strands they share."""

    pieces: list[Piece]
    rows: list[dict[Key, float]]
    maps: dict[Key, LinearMap]


def _joined(pieces: Sequence[Piece]) -> list[Piece]:
    groups: list[_Group] = []
    alone: list[Piece] = []
    for piece in pieces:
        found = strands(piece.k) if piece.weight is None and piece.other is None else ()
        if not found:
            alone.append(piece)
            continue
        row: dict[Key, float] = {}
        for s in found:
            row[s.key] = row.get(s.key, 0.0) + s.scale
        new = _Group([piece], [row], {s.key: _flat(s.map) for s in found})
        for linked in [g for g in groups if not g.maps.keys().isdisjoint(row)]:
            groups.remove(linked)
            new = _Group(linked.pieces + new.pieces, linked.rows + new.rows, linked.maps | new.maps)
        groups.append(new)
    return [piece for g in groups for piece in _cheaper(g)] + alone


def _cheaper(group: _Group) -> list[Piece]:
    if len(group.pieces) == 1:
        return group.pieces
    maps = list(group.maps.values())
    c = np.array([[row.get(key, 0.0) for key in group.maps] for row in group.rows])
    f = np.array([piece.factor for piece in group.pieces])
    g = _clean(np.einsum("p,pj,pk->jk", f, c, c), np.einsum("p,pj,pk->jk", np.abs(f), np.abs(c), np.abs(c)))
    found = [Piece(m, float(g[j, j])) for j, m in enumerate(maps) if g[j, j] != 0.0]
    for j, k in zip(*np.nonzero(np.triu(g, 1)), strict=True):
        found.append(Piece(maps[j], float(g[j, k]), other=maps[k], apart=_apart(maps[j], maps[k])))
    return found if sum(p.flops for p in found) < sum(p.flops for p in group.pieces) else group.pieces


def _flat(m: LinearMap) -> LinearMap:
    return m if len(m.shape_out) == 1 else compose(Reshape(m.shape_out, (size(m.shape_out),), "C"), m)


def _clean(g: Array, added: Array) -> Array:
    return np.where(np.abs(g) <= CANCELLED * added, 0.0, g)


def _apart(a: LinearMap, b: LinearMap) -> bool:
    """Whether two maps read disjoint entries, as their first steps show."""
    reads = [_steps(m)[-1] for m in (a, b)]
    if not all(isinstance(r, Gather) for r in reads):
        return False
    left, right = (set(r.index.reshape(-1).tolist()) - {-1} for r in reads if isinstance(r, Gather))
    return left.isdisjoint(right)


def _diagonals(pieces: Sequence[Piece], n: int) -> list[Piece]:
    """Σ f KᵀK over selections K, each entry read at most once, as one diagonal."""
    total = np.zeros(n)
    rest: list[Piece] = []
    for piece in pieces:
        picked = _selected(piece, n)
        if picked is None:
            rest.append(piece)
        else:
            total[picked] += piece.factor
    if not total.any():
        return rest if len(rest) < len(pieces) else list(pieces)
    return [of_diagonal(total, n), *rest]


def _selected(piece: Piece, n: int) -> IntArray | None:
    if piece.weight is not None or piece.other is not None or not math.isfinite(piece.factor):
        return None
    kept = [step for step in _steps(piece.k) if not _in_order(step)]
    if not kept:
        return np.arange(n)
    if len(kept) > 1 or not isinstance(kept[0], Gather):
        return None
    used = kept[0].index[kept[0].index >= 0].reshape(-1)
    return used if np.unique(used).size == used.size else None
