"""What each atom means in CVXPY, written down independently of the atom's own formulas.

A registered atom of another package that has no row here is read from its spellings.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import cvxpy as cp
import numpy as np

from opteq_cvx.atoms import Spelling, Trait, atom
from opteq_cvx.declare.activation import ActivationAtom
from opteq_cvx.errors import UnsupportedError, message
from opteq_cvx.ir.frozen import IntArray, Shape, size
from opteq_cvx.verify.cvx import FUNCTIONS, add, broadcast, reshape, stack, sum_squares, vec
from opteq_cvx.verify.values import dense

Data = Mapping[str, cp.Expression]
"""Dynamic attributes as CVXPY leaves, in their own shapes; a quadratic form's `P` is its factor B (see
`rebuild`)."""

Static = Mapping[str, Any]
"""A term's static attributes."""

HALF = "half"
"""The static attribute by which an activation's f stands for f(u) + ½‖u‖²."""

Meaning = cp.Expression | list[cp.Constraint]
"""The values of a function, flat in the order of `Atom.value` (C order), or the constraints of a set."""


@dataclass(frozen=True, slots=True)
class Argument:
    """The atom's argument: a flat expression in C order and its event shape."""

    flat: cp.Expression
    shape: Shape

    def groups(self, axes: Sequence[int]) -> IntArray:
        """Flat positions, one row per value of an atom that reduces `axes`."""
        grid = np.arange(size(self.shape)).reshape(self.shape)
        if not self.shape:
            return grid.reshape(1, 1)
        order = sorted(axes)
        moved = np.moveaxis(grid, order, range(-len(order), 0))
        return np.asarray(moved.reshape(-1, size(tuple(self.shape[a] for a in order))))

    def reduced(self, axes: Sequence[int]) -> Shape:
        """The shape with length 1 on `axes`."""
        return tuple(1 if i - len(self.shape) in axes else n for i, n in enumerate(self.shape))


def meaning(name: str, x: Argument, static: Static, data: Data) -> Meaning:
    """f(x) in CVXPY.

    Raises:
        UnsupportedError: neither the tables nor a spelling of the atom say how CVXPY writes it.
    """
    full = {**_defaults(atom(name)), **static}
    if name in ENTRIES:
        return ENTRIES[name](x.flat, {k: vec(broadcast(d, x.shape)) for k, d in data.items()}, full)
    if name in GROUPS:
        axes = full.get("axes", (-1,))
        flat = {k: vec(broadcast(d, x.reduced(axes))) for k, d in data.items()}
        parts = []
        for i, group in enumerate(x.groups(axes)):
            parts.append(GROUPS[name](x.flat[group], {k: d[i] for k, d in flat.items()}, full))
        return _join(parts)
    if name in WHOLE:
        return WHOLE[name](x, data, full)
    return _spelled(name, x, static, data)


def _defaults(cls: Any) -> dict[str, Any]:
    """The static attributes that an atom has where a term does not give them."""
    return {f.name: f.default for f in fields(cls)}


def _join(parts: Sequence[Any]) -> Meaning:
    """Scalars to one vector, constraints to one list."""
    if isinstance(parts[0], list):
        return [constraint for part in parts for constraint in part]
    return stack(parts)


# --- entry by entry ----------------------------------------------------------------------------------


def _box(x: cp.Expression, data: Data) -> list[cp.Constraint]:
    sides: list[cp.Constraint] = []
    for name, sign in (("lower", 1.0), ("upper", -1.0)):
        kept = np.flatnonzero(np.isfinite(np.asarray(data[name].value)))
        if kept.size:
            sides.append(sign * (x[kept] - data[name][kept]) >= 0)
    return sides


def _hinges(x: Any, data: Data, static: Static) -> Meaning:
    pieces = [FUNCTIONS.multiply(data[f"w{k}"], FUNCTIONS.pos(x - data[f"c{k}"])) for k in range(static["count"])]
    return add(pieces)


def _activation(name: str) -> Callable[[Any, Data, Static], Meaning]:
    """The activation's f, a CVXPY atom of ours: not every one has a cone form."""
    return lambda x, data, static: ActivationAtom(x, name, *_with_square(static))


def _with_square(static: Static) -> tuple[dict[str, float], bool]:
    """The activation's options, and whether ½u² belongs to it (`rebuild` says so: some have a cone form only then)."""
    return {k: v for k, v in static.items() if k != HALF}, bool(static.get(HALF, False))


ACTIVATED = (
    "tanh",
    "sigmoid",
    "softplus",
    "log_sigmoid",
    "softsign",
    "algebraic",
    "arctan",
    "tanhshrink",
    "elu",
    "celu",
)
"""Activations whose f is a function of its own, entry by entry."""

NONNEGATIVE: Mapping[str, tuple[str, ...]] = {
    "huber": ("M",),
    "radial": ("M",),
    "tv": ("w",),
    "fused_lasso": ("w", "m"),
    "sorted_l1": ("w",),
    "hinges": ("w",),
    "epigraph": ("weight", "M", "w"),
    "level_set": ("weight", "M", "w"),
}
"""Data that CVXPY must know to be nonnegative, by the first letters of their names."""

ENTRIES: Mapping[str, Callable[[Any, Data, Static], Meaning]] = {
    "linear": lambda x, data, static: x,
    "abs": lambda x, data, static: FUNCTIONS.abs(x),
    "square": lambda x, data, static: FUNCTIONS.square(x),
    "pos": lambda x, data, static: FUNCTIONS.pos(x),
    "square_pos": lambda x, data, static: FUNCTIONS.square(FUNCTIONS.pos(x)),
    "deadzone": lambda x, data, static: FUNCTIONS.pos(FUNCTIONS.abs(x) - data["m"]),
    "exp": lambda x, data, static: FUNCTIONS.exp(x),
    "xexp": lambda x, data, static: FUNCTIONS.xexp(FUNCTIONS.pos(x) if static.get("positive") else x),
    "logistic": lambda x, data, static: FUNCTIONS.logistic(x),
    "neg_entr": lambda x, data, static: -FUNCTIONS.entr(x),
    "neg_log": lambda x, data, static: -FUNCTIONS.log(x),
    "power": lambda x, data, static: FUNCTIONS.power(FUNCTIONS.abs(x) if static.get("absolute") else x, static["p"]),
    "neg_power": lambda x, data, static: -FUNCTIONS.power(x, static["p"]),
    "hinges": _hinges,
    **{f"activation_{name}": _activation(name) for name in ACTIVATED},
    "box": lambda x, data, static: _box(x, data),
    "nonneg": lambda x, data, static: [x >= 0],
    "nonpos": lambda x, data, static: [x <= 0],
    "zero": lambda x, data, static: [x == 0],
}


# --- along axes ----------------------------------------------------------------------------------------


GROUPS: Mapping[str, Callable[[Any, Data, Static], Any]] = {
    "norm2": lambda x, data, static: FUNCTIONS.norm(x, 2),
    "norm_inf": lambda x, data, static: FUNCTIONS.norm_inf(x),
    "pnorm": lambda x, data, static: FUNCTIONS.pnorm(x, static["p"]),
    "pnorm_ball": lambda x, data, static: [FUNCTIONS.pnorm(x, static["p"]) <= data["radius"]],
    "max": lambda x, data, static: FUNCTIONS.max(x),
    "sum_largest": lambda x, data, static: FUNCTIONS.sum_largest(x, static["k"]),
    "l1_ball": lambda x, data, static: [FUNCTIONS.norm1(x) <= data["radius"]],
    "l2_ball": lambda x, data, static: [cp.SOC(data["radius"], x)],
    "simplex": lambda x, data, static: [x >= 0, FUNCTIONS.sum(x) == data["total"]],
    "quad_form": lambda x, data, static: sum_squares(x),
    "kl_div": lambda x, data, static: FUNCTIONS.kl_div(x[0], x[1]),
    "rel_entr": lambda x, data, static: FUNCTIONS.rel_entr(x[0], x[1]),
    "soc": lambda x, data, static: [cp.SOC(x[0], x[1:])],
    "exp_cone": lambda x, data, static: [cp.ExpCone(x[0], x[1], x[2])],
    "pow_cone": lambda x, data, static: [cp.PowCone3D(x[0], x[1], x[2], data["alpha"])],
    "log_sum_exp": lambda x, data, static: FUNCTIONS.log_sum_exp(x),
    "quad_over_lin": lambda x, data, static: FUNCTIONS.quad_over_lin(x[:-1], x[-1]),
    "neg_geo_mean": lambda x, data, static: -FUNCTIONS.geo_mean(x, np.asarray(static["w"])),
    "radial": lambda x, data, static: _radial(x, data, static),
    "neg_pnorm": lambda x, data, static: -FUNCTIONS.pnorm(x, static["p"]),
    "inv_prod": lambda x, data, static: FUNCTIONS.power(FUNCTIONS.geo_mean(x, list(static["w"])), -sum(static["w"])),
}


def _radial(x: Any, data: Data, static: Static) -> Meaning:
    norm = stack([FUNCTIONS.norm(x, 2)])
    return meaning(static["f"], Argument(norm, (1,)), dict(static["options"]), data)


# --- all entries ---------------------------------------------------------------------------------------


def _matrices(x: Argument) -> list[cp.Expression]:
    square = (x.shape[-2], x.shape[-1])
    return [reshape(x.flat[group], square) for group in x.groups((-2, -1))]


def _huber(x: Argument, data: Data) -> Meaning:
    """CVXPY's own for one M; for one M per entry min_s s² + 2M|x − s| (CVXPY's M is a scalar)."""
    bound = data["M"]
    if bound.shape == ():
        return vec(FUNCTIONS.huber(x.flat, bound))
    if bound.size == 1 and isinstance(bound, cp.Constant):
        return vec(FUNCTIONS.huber(x.flat, float(dense(bound.value).reshape(()))))
    s = cp.Variable(x.flat.size)
    rest = FUNCTIONS.multiply(2.0 * vec(broadcast(bound, x.shape)), FUNCTIONS.abs(x.flat - s))
    values: cp.Expression = FUNCTIONS.square(s) + rest
    return values


def _box_plane(x: Argument, data: Data, static: Static) -> Meaning:
    entries = {name: vec(broadcast(data[name], x.shape)) for name in ("lower", "upper", "normal")}
    totals = vec(broadcast(data["total"], x.reduced(static["axes"])))
    sides = _box(x.flat, entries)
    for i, group in enumerate(x.groups(static["axes"])):
        level = FUNCTIONS.sum(FUNCTIONS.multiply(entries["normal"][group], x.flat[group]))
        sides.append(level <= totals[i] if static["below"] else level == totals[i])
    return sides


def _transport(x: Argument, data: Data) -> list[cp.Constraint]:
    totals = {name: vec(data[name]) for name in ("rows", "columns")}
    sides: list[cp.Constraint] = [x.flat >= 0]
    for name, axis in (("rows", -1), ("columns", -2)):
        values = [FUNCTIONS.sum(x.flat[group]) for group in x.groups((axis,))]
        sides.append(stack(values) == totals[name])
    return sides


def _values(x: Argument, static: Static, data: Data) -> Argument:
    """The values of the function that a level set bounds, in the argument's shape with length 1 where it reduces."""
    name, options = static["f"], {**_defaults(atom(static["f"])), **dict(static["options"])}
    found = meaning(name, x, options, {k: d for k, d in data.items() if k not in ("level", "weight")})
    assert not isinstance(found, list), "sets have no level sets"
    shapes = [x.reduced(options["axes"])] if "axes" in options else [x.reduced(a) for a in ((), (-1,), (-2, -1))]
    return Argument(found, next(shape for shape in shapes if size(shape) == found.size))


def _level_set(x: Argument, data: Data, static: Static) -> Meaning:
    return _below(x, vec(broadcast(data["level"], x.reduced(static["axes"]))), data, static)


def _epigraph(x: Argument, data: Data, static: Static) -> Meaning:
    rows = x.groups((-1,))
    points = Argument(x.flat[rows[:, :-1].reshape(-1)], (*x.shape[:-1], *static["shape"]))
    return _below(points, x.flat[rows[:, -1]], data, static)


def _below(x: Argument, levels: cp.Expression, data: Data, static: Static) -> list[cp.Constraint]:
    """Σ weight·f(x) ≤ level, for each position of the axes that do not meet."""
    values = _values(x, static, data)
    if "weight" in data:
        values = Argument(FUNCTIONS.multiply(vec(broadcast(data["weight"], values.shape)), values.flat), values.shape)
    if not static["axes"]:
        return [values.flat <= levels]
    return [FUNCTIONS.sum(values.flat[g]) <= levels[i] for i, g in enumerate(values.groups(static["axes"]))]


def _each(function: Callable[[cp.Expression], cp.Expression], x: Argument) -> Meaning:
    """A function of each matrix."""
    return stack([function(m) for m in _matrices(x)])


def _symmetric_parts(x: Argument) -> list[cp.Expression]:
    return [0.5 * (m + m.T) for m in _matrices(x)]


def _spectral(function: Callable[[cp.Expression], cp.Expression], x: Argument) -> Meaning:
    """A function of each matrix's eigenvalues: the frontend hands over symmetric arguments, CVXPY must see
    it."""
    return stack([function(m) for m in _symmetric_parts(x)])


def _rows(x: Argument) -> list[cp.Expression]:
    return [x.flat[group] for group in x.groups((-1,))]


def _row_norms(x: Argument, static: Static) -> cp.Expression:
    return stack([FUNCTIONS.norm(x.flat[group], static["p"]) for group in x.groups(static["inner"])])


def _tv(x: Argument, data: Data, static: Static) -> Meaning:
    weights = vec(broadcast(data["w"], (*x.shape[:-1], x.shape[-1] - 1)))
    steps = x.shape[-1] - 1
    jumps = [FUNCTIONS.abs(row[1:] - row[:-1]) for row in _rows(x)]
    pairs = ((weights[i * steps : (i + 1) * steps], jump) for i, jump in enumerate(jumps))
    return stack([FUNCTIONS.sum(FUNCTIONS.multiply(w, jump)) for w, jump in pairs])


def _fused(x: Argument, data: Data, static: Static) -> Meaning:
    sizes = vec(broadcast(data["m"], x.reduced((-1,))))
    l1 = stack([FUNCTIONS.norm1(row) for row in _rows(x)])
    total: cp.Expression = _tv(x, data, static) + FUNCTIONS.multiply(sizes, l1)
    return total


def _along_rows(name: str) -> Callable[[Argument, Data, Static], Meaning]:
    return lambda x, data, static: vec(ActivationAtom(reshape(x.flat, x.shape), name, *_with_square(static)))


WHOLE: Mapping[str, Callable[[Argument, Data, Static], Meaning]] = {
    "tv": _tv,
    "fused_lasso": _fused,
    "monotone": lambda x, data, static: [row[1:] >= row[:-1] for row in _rows(x)],
    "dotsort": lambda x, data, static: stack([FUNCTIONS.dotsort(x.flat, data["w"])]),
    "sorted_l1": lambda x, data, static: stack([FUNCTIONS.dotsort(FUNCTIONS.abs(x.flat), data["w"])]),
    "activation_softmax": _along_rows("softmax"),
    "activation_sparsemax": _along_rows("sparsemax"),
    "box_plane": _box_plane,
    "epigraph": _epigraph,
    "level_set": _level_set,
    "transport": lambda x, data, static: _transport(x, data),
    "max_norm": lambda x, data, static: stack([FUNCTIONS.max(_row_norms(x, static))]),
    "huber": lambda x, data, static: _huber(x, data),
    "symmetric": lambda x, data, static: [m == m.T for m in _matrices(x)],
    "psd": lambda x, data, static: [m >> 0 for m in _symmetric_parts(x)],
    "norm_nuc": lambda x, data, static: _each(FUNCTIONS.normNuc, x),
    "sigma_max": lambda x, data, static: _each(FUNCTIONS.sigma_max, x),
    "lambda_max": lambda x, data, static: _spectral(FUNCTIONS.lambda_max, x),
    "lambda_sum_largest": lambda x, data, static: _spectral(lambda m: FUNCTIONS.lambda_sum_largest(m, static["k"]), x),
    "neg_log_det": lambda x, data, static: _spectral(lambda m: -FUNCTIONS.log_det(m), x),
    "neg_von_neumann_entr": lambda x, data, static: _spectral(
        lambda m: -FUNCTIONS.von_neumann_entr(FUNCTIONS.symmetric_wrap(m)), x
    ),
    "tr_inv": lambda x, data, static: _spectral(FUNCTIONS.tr_inv, x),
}


# --- atoms of other packages -----------------------------------------------------------------------------


NAMES: Mapping[str, Any] = {k: v for k, v in vars(cp).items() if not k.startswith("_")} | {"np": np, "cp": cp}
"""What a spelling's text may use."""

WITHOUT_SUM: Mapping[str, Any] = {
    "sum": lambda x: x,
    "norm1": FUNCTIONS.abs,
    "sum_squares": FUNCTIONS.square,
}
"""Sums of elementwise functions without the sum, so that a weight can go on each entry."""


def _spelled(name: str, x: Argument, static: Static, data: Data) -> Meaning:
    """The meaning from the first spelling that can stand for any argument."""
    cls = atom(name)
    whole = Trait.SEPARABLE not in cls.traits
    fitting = (s for s in cls.spellings if _fits(s, static, data) and (not whole or _same_ranks(s, x, data)))
    spelling = next(fitting, None)
    if spelling is None:
        found = f"atom {name!r} with {dict(static)} has no spelling that CVXPY can rebuild"
        expected = "a spelling whose argument is a variable and whose data are parameters"
        raise UnsupportedError(message(found, expected, f"add one to {cls.__module__}"))
    if whole:
        return _listed(spelling, _evaluate(spelling, reshape(x.flat, x.shape), data))
    flat = {k: vec(broadcast(d, x.shape)) if d.shape else d for k, d in data.items()}
    if spelling.constraint:
        return _listed(spelling, _evaluate(spelling, x.flat, flat))
    entries: cp.Expression = _evaluate(spelling, x.flat, flat, **WITHOUT_SUM)
    if entries.shape == x.flat.shape:
        return entries
    each = []
    for i in range(x.flat.size):
        mine = {k: d[i : i + 1] if d.shape else d for k, d in flat.items()}
        each.append(_evaluate(spelling, x.flat[i : i + 1], mine))
    return stack(each)


def _fits(spelling: Spelling, static: Static, data: Data) -> bool:
    plain = spelling.text and spelling.arg in spelling.variables and len(spelling.variables) == 1
    named = set(spelling.data) == set(data) and all(v in spelling.parameters for v in spelling.data.values())
    fixed = dict(spelling.static) == dict(static)
    return bool(plain and named and fixed and spelling.weight in ("1", "1.0"))


def _same_ranks(spelling: Spelling, x: Argument, data: Data) -> bool:
    """Whether argument and data have as many axes as in the text, where these say what is reduced."""
    same = [len(data[key].shape) == len(spelling.parameters[v][0]) for key, v in spelling.data.items()]
    return all(same) and len(spelling.variables[spelling.arg]) == len(x.shape)


def _listed(spelling: Spelling, found: Any) -> Meaning:
    if spelling.constraint:
        return found if isinstance(found, list) else [found]
    return stack([found])


def _evaluate(spelling: Spelling, x: cp.Expression, data: Data, **more: Any) -> Any:
    """The spelling's text with its variable and data replaced."""
    names = {**NAMES, **more, spelling.arg: x} | {text: data[key] for key, text in spelling.data.items()}
    return eval(spelling.text, {"__builtins__": {}}, names)  # an atom's own text, never a user's
