"""The smooth part ½uᵀPu + qᵀu of a program, assembled from its quadratic and linear terms.

P is kept as a diagonal where every quadratic is diagonal in u, else dense. Its sign is certified: by construction
where the structure shows it (Gram matrices, PSD attributes, I − WWᵀ with a bounded norm), numerically otherwise.
"""

from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from opteq_cvx.errors import NotConvexError, message
from opteq_cvx.ir.frozen import Array, Frozen, size
from opteq_cvx.ir.layout import Layout
from opteq_cvx.ir.linmap import (
    Broadcast,
    Compose,
    Diagonal,
    Gather,
    Identity,
    LinearMap,
    Permute,
    Reshape,
    Sum,
)
from opteq_cvx.ir.linmap import stage as map_stage
from opteq_cvx.ir.param import Apply, Const, Leaf, ParamExpr, Stage, is_zero
from opteq_cvx.ir.program import Affine, Term
from opteq_cvx.maps.evaluate import Environment
from opteq_cvx.maps.operator import bind
from opteq_cvx.maps.operator import dense as dense_map
from opteq_cvx.splitting.by_construction import norm_bound, spectral_bounds
from opteq_cvx.splitting.flat import join
from opteq_cvx.splitting.merged import merged
from opteq_cvx.splitting.pieces import Factored, factored, product

HALF = 0.5  # the weight of ½uᵀPu
ROUNDING = 1e3  # an eigenvalue above −ROUNDING·eps·λ_max counts as nonnegative
EXACT_WORK = 3e7  # up to this B·n³ the spectra of a P per sample are computed exactly, too
EXACT_EIGENVALUES = 512  # up to this n the spectrum of a shared P is computed exactly


@dataclass(frozen=True, slots=True, eq=False)
class QuadraticPart(Frozen):
    """Quadratic terms (square, quad_form) and linear terms of a program over a layout."""

    layout: Layout
    quadratic: tuple[Term, ...]
    linear: tuple[Term, ...]
    bounds: "Bounds | None" = field(init=False)  # of P by construction, where one quadratic in u itself makes it up
    symmetric: frozenset[int] = field(init=False)  # the quadratic forms whose matrix is symmetric by its form

    def __post_init__(self) -> None:
        forms = [i for i, t in enumerate(self.quadratic) if t.atom == "quad_form" and symmetric(t.data["P"])]
        object.__setattr__(self, "symmetric", frozenset(forms))
        object.__setattr__(self, "bounds", self._structural_bounds())

    def _structural_bounds(self) -> "Bounds | None":
        if len(self.quadratic) != 1 or not self.whole(self.quadratic[0]):
            return None
        known, weight = known_bounds(self.quadratic[0]), constant_scalar(self.quadratic[0])
        if known is None or weight is None or known.upper == float("inf"):
            return None
        return Bounds(2 * weight * known.lower, 2 * weight * known.upper)

    @property
    def diagonal(self) -> bool:
        """Whether P is diagonal whatever the parameter values."""
        return all(t.atom == "square" and all(_scatters(m) for _, m in t.arg.parts) for t in self.quadratic) and all(
            len(t.arg.parts) == 1 for t in self.quadratic
        )

    @property
    def certified(self) -> bool:
        """Whether P ⪰ 0 holds by construction, for all admissible weights."""
        return all(t.atom == "square" or _by_construction(t.data["P"]) for t in self.quadratic)

    def factored(self) -> Factored | None:
        """P as a sum of factored pieces, where the terms show factors; shared ones added up."""
        found = factored(self.layout, self.quadratic, constant_scalar)
        return None if found is None else merged(found)

    def whole(self, term: Term) -> bool:
        """Whether a term's argument is the whole of u itself (one variable, identity map; or all, stacked in order)."""
        if len(self.layout.names) == 1:
            return isinstance(term.arg.parts[0][1], Identity)
        return (
            term.arg.shape == (self.layout.n,)
            and all(_places(m, start) for (name, m) in term.arg.parts for start in [self.layout.start(name)])
            and len(term.arg.parts) == len(self.layout.names)
        )

    @property
    def stage(self) -> Stage:
        """The latest stage of what P depends on."""
        found = [Stage.CONSTANT]
        for t in self.quadratic:
            found += [map_stage(m) for _, m in t.arg.parts]
            found += [e.stage for e in (t.weight, *t.data.values()) if e is not None]
        return max(found)

    def hessian(self, env: Environment) -> Tensor:
        """P as (1|B, n, n), or its diagonal (1|B, n) when `diagonal`."""
        n = self.layout.n
        shape = (1, n) if self.diagonal else (1, n, n)
        total: Tensor | None = None
        for i, term in enumerate(self.quadratic):
            new = self._diagonal_of(term, env) if self.diagonal else self._dense_of(term, env, i in self.symmetric)
            total = _plus(total, new)
        return torch.zeros(shape, dtype=env.dtype, device=env.device) if total is None else total

    def gradient_at_zero(self, env: Environment) -> Tensor:
        """q (1|B, n): the linear terms, and the cross terms of quadratics with an offset."""
        q: Tensor | None = None
        for term in self.linear:
            weight = env(term.weight) if term.weight is not None else torch.ones_like(env(term.arg.offset))
            q = _plus(q, self._pull_back(term.arg, weight, env))
        for term in self.quadratic:
            if is_zero(term.arg.offset):
                continue
            b = env(term.arg.offset)
            if term.atom == "square":
                weighted = 2 * b if term.weight is None else 2 * b * env(term.weight)
            else:
                scale = _scale(term, env)
                flat = b.reshape(b.shape[0], size(b.shape[1:]))
                image = product(term.data["P"], flat, env)
                if image is None:
                    image = (flat.unsqueeze(1) @ _sym(env(term.data["P"]))).squeeze(1)
                weighted = 2 * scale * image
                weighted = weighted.reshape((weighted.shape[0], *b.shape[1:]))
            q = _plus(q, self._pull_back(term.arg, weighted, env))
        return torch.zeros((1, self.layout.n), dtype=env.dtype, device=env.device) if q is None else q

    def _pull_back(self, arg: Affine, y: Tensor, env: Environment) -> Tensor:
        """Kᵀy as (1|B, n), for y (1|B, *arg.shape)."""
        parts = {name: bind(m, env).adjoint(y) for name, m in arg.parts}
        return join(parts, self.layout, y)

    def columns(self, arg: Affine, env: Environment) -> Tensor:
        """K as (1|B, m, n) over all variables."""
        m, pieces = size(arg.shape), []
        for name, shape in zip(self.layout.names, self.layout.shapes, strict=True):
            linear = arg.map_of(name)
            if linear is None:
                pieces.append(torch.zeros((1, m, size(shape)), dtype=env.dtype, device=env.device))
            else:
                pieces.append(dense_map(linear, env))
        rows = max(p.shape[0] for p in pieces)
        return torch.cat([p.expand(rows, -1, -1) for p in pieces], dim=2) if len(pieces) > 1 else pieces[0]

    def _dense_of(self, term: Term, env: Environment, symmetric: bool) -> Tensor:
        if term.atom == "quad_form":
            known, inner = constant_scalar(term), env(term.data["P"])
            inner = inner if symmetric else _sym(inner)
            if known is None:
                inner = 2 * _scale(term, env).unsqueeze(-1) * inner
            elif known != HALF:
                inner = 2 * known * inner
            if self.whole(term):
                return inner
            k = self.columns(term.arg, env)
            return k.mT @ inner @ k
        k = self.columns(term.arg, env)
        if term.weight is None:
            return 2 * (k.mT @ k)
        weight = env(term.weight)
        weight = weight.expand(-1, *term.arg.shape).reshape(weight.shape[0], size(term.arg.shape), 1)
        return 2 * (k.mT @ (weight * k))

    def _diagonal_of(self, term: Term, env: Environment) -> Tensor:
        """diag(2 Kᵀ diag(w) K) for K a scaled selection: Kᵀ applied to 2wK1 entry by entry."""
        (name, linear), weight = term.arg.parts[0], None if term.weight is None else env(term.weight)
        operator = bind(linear, env)
        ones = torch.ones((1, *linear.shape_in), dtype=env.dtype, device=env.device)
        image = 2 * operator.apply(ones)
        image = image if weight is None else image * weight
        return join({name: operator.adjoint(image)}, self.layout, image)


def _places(m: LinearMap, start: int) -> bool:
    """Whether a map puts all entries of its argument, in order, at `start` of a vector."""
    if not isinstance(m, Gather):
        return False
    n = size(m.shape_in)
    return int(np.count_nonzero(m.index >= 0)) == n and bool((m.index[start : start + n] == np.arange(n)).all())


def _plus(total: Tensor | None, new: Tensor) -> Tensor:
    return new if total is None else total + new


def _scale(term: Term, env: Environment) -> Tensor:
    """The scalar weight of a quadratic form as (1|B, 1)."""
    if term.weight is None:
        return torch.ones((1, 1), dtype=env.dtype, device=env.device)
    weight = env(term.weight)
    return weight.reshape(weight.shape[0], 1)


def constant_scalar(term: Term) -> float | None:
    """A term's weight when it is one constant number (1 when absent)."""
    match term.weight:
        case None:
            return 1.0
        case Const(value=np.ndarray() as value) if value.size == 1:
            return float(value.reshape(()))
        case _:
            return None


def symmetric(p: ParamExpr) -> bool:
    """Whether P = Pᵀ shows in its form: Gram matrices, symmetric parameters, diagonals, and their combinations."""
    match p:
        case Leaf(attributes=a):
            return any(a.get(key) for key in ("PSD", "NSD", "symmetric", "diag"))
        case Apply(op="matmul", args=(a, Apply(op="transpose", args=(b,)))) if a is b:
            return True
        case Apply(op="matmul", args=(Apply(op="transpose", args=(a,)), b)) if a is b:
            return True
        case Apply(op="add" | "neg", args=args):
            return all(symmetric(a) for a in args)
        case Const(value=value):
            if isinstance(value, np.ndarray):
                return value.ndim == 2 and _diagonal(value)
            return int(value.count_nonzero()) == int(np.count_nonzero(value.diagonal()))
        case _:
            return False


def _diagonal(value: Array) -> bool:
    """Whether a square matrix is diagonal; a glance at its first row spares most others the count."""
    n = value.shape[0]
    if value.shape != (n, n) or bool(value[:1, 1:].any()):
        return False
    return int(np.count_nonzero(value)) == int(np.count_nonzero(value.diagonal()))


def _sym(p: Tensor) -> Tensor:
    return (p + p.mT) / 2


def _scatters(m: LinearMap) -> bool:
    """Whether KᵀDK is diagonal for every diagonal D: each row of K has at most one entry."""
    match m:
        case Identity() | Diagonal() | Gather() | Reshape() | Permute() | Broadcast():
            return True
        case Compose(maps=maps):
            return all(_scatters(part) for part in maps)
        case Sum(shape_in=shape, axes=axes):
            return all(shape[a] == 1 for a in axes)
        case _:
            return False


def _by_construction(p: ParamExpr) -> bool:
    """Whether P ⪰ 0 for all admissible weights: constants were checked by `refuse_indefinite`."""
    return isinstance(p, Const) or _bounds(p) is not None


def refuse_indefinite(term: Term) -> None:
    """Check the constant matrix of a quadratic form, which `psd_wrap` makes CVXPY believe.

    Raises:
        NotConvexError: its smallest eigenvalue is negative beyond rounding.
    """
    p = term.data.get("P") if term.atom == "quad_form" else None
    if not isinstance(p, Const) or not p.shape[0]:
        return
    values = np.linalg.eigvalsh((p.dense() + p.dense().T) / 2)
    if values[0] < -ROUNDING * np.finfo(np.float64).eps * max(abs(values[-1]), abs(values[0])):
        raise NotConvexError(
            message(
                f"the matrix of this quadratic form has the eigenvalue {values[0]:.4g}",
                "a positive semidefinite matrix",
                "add a multiple of the identity, or write the quadratic as sum_squares(B @ x)",
                term.origin,
            )
        )


@dataclass(frozen=True, slots=True)
class Bounds:
    """λ_min ≥ lower and λ_max ≤ upper, by construction."""

    lower: float
    upper: float


def known_bounds(term: Term) -> Bounds | None:
    """Eigenvalue bounds of a quadratic form's P that hold for every admissible weight, or None."""
    return _bounds(term.data["P"]) if term.atom == "quad_form" else None


def _bounds(p: ParamExpr) -> Bounds | None:
    match p:
        case Leaf(attributes=a) if a.get("PSD"):
            rho = a.get("norm")
            return Bounds(0.0, float(rho) if rho is not None else float("inf"))
        case Apply(op="add", args=(first, Apply(op="neg", args=(gram,)))) if _is_identity(first):
            rho = _gram_norm(gram)
            if rho is not None:
                return Bounds(1.0 - rho, 1.0) if rho <= 1.0 else None
            bounds = spectral_bounds(p)
            return Bounds(*bounds) if bounds is not None and bounds[0] >= 0.0 else None
        case Apply(op="matmul", args=(a, Apply(op="transpose", args=(b,)))) if a is b:
            return Bounds(0.0, float("inf"))
        case Apply(op="matmul", args=(Apply(op="transpose", args=(a,)), b)) if a is b:
            return Bounds(0.0, float("inf"))
        case Apply(op="add" | "vstack"):
            found = spectral_bounds(p)
            return Bounds(*found) if found is not None and found[0] >= 0.0 else None
        case _:
            return None


def _is_identity(expr: ParamExpr) -> bool:
    if not isinstance(expr, Const) or len(expr.shape) != 2 or expr.shape[0] != expr.shape[1]:
        return False
    if expr.sparse:
        coo = expr.value.tocoo()  # type: ignore[union-attr]
        return bool(coo.nnz == expr.shape[0] and (coo.row == coo.col).all() and (coo.data == 1.0).all())
    dense = expr.dense()
    return bool((dense.diagonal() == 1.0).all() and (dense != 0.0).sum() == expr.shape[0])


def _gram_norm(gram: ParamExpr) -> float | None:
    """ρ² of WWᵀ or WᵀW with a bounded W, else None."""
    match gram:
        case Apply(op="matmul", args=(Apply(op="map_matrix") as a, Apply(op="transpose", args=(b,)))) if a is b:
            return _square(norm_bound(a))
        case Apply(op="matmul", args=(Apply(op="transpose", args=(a,)), Apply(op="map_matrix") as b)) if a is b:
            return _square(norm_bound(b))
        case Apply(op="matmul", args=(Leaf() as a, Apply(op="transpose", args=(b,)))) if a is b:
            leaf = a
        case Apply(op="matmul", args=(Apply(op="transpose", args=(a,)), Leaf() as b)) if a is b:
            leaf = b
        case _:
            return None
    if leaf.attributes.get("orthogonal"):
        return 1.0
    rho = leaf.attributes.get("norm")
    return None if rho is None else float(rho) ** 2


def _square(norm: float | None) -> float | None:
    return None if norm is None else norm * norm


def spectrum(p: Tensor) -> tuple[Tensor, Tensor]:
    """(λ_min lower bound or estimate, λ_max upper bound) of symmetric P (1|B, n, n), each (1|B,).

    Exact by `eigvalsh` for a shared P up to n = 512, and for few or small P per sample; beyond, λ_max ≤ ‖P^4‖_F^{1/4}
    (a certified bound: Gram iteration, Delattre et al., arXiv 2305.16173) and the sign of λ_min from a Cholesky
    factorization of P + εI.
    """
    n = p.shape[-1]
    if n == 0:
        zero = p.new_zeros(p.shape[0])
        return zero, zero
    if n <= EXACT_EIGENVALUES and (p.shape[0] == 1 or p.shape[0] * n**3 <= EXACT_WORK):
        values = torch.linalg.eigvalsh(p)
        return values[:, 0], values[:, -1]
    scale = torch.linalg.matrix_norm(p).clamp_min(torch.finfo(p.dtype).tiny)
    square = (p / scale[:, None, None]) @ (p / scale[:, None, None])
    upper = scale * torch.linalg.matrix_norm(square @ square) ** 0.25
    epsilon = ROUNDING * torch.finfo(p.dtype).eps * upper
    eye = torch.eye(n, dtype=p.dtype, device=p.device)
    _, info = torch.linalg.cholesky_ex(p + epsilon[:, None, None] * eye)
    lower = torch.where(info == 0, torch.zeros_like(upper), -upper)
    return lower, upper
