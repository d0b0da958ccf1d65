"""Random convex terms and feasible constraints: the atoms' own spellings, and templates over random shapes."""

from collections.abc import Callable, Sequence
from typing import Any

import cvxpy as cp
import numpy as np

from opteq_cvx import atoms
from opteq_cvx.atoms.contract import Atom, Spelling
from opteq_cvx.declare import activation
from opteq_cvx.verify.spelled import NAMES, draw_value
from tests.fuzz.builder import SAMPLES, Builder, Shape

ACTIVATIONS = {
    "tanh": (-0.9, 0.9),
    "sigmoid": (0.1, 0.9),
    "softsign": (-0.9, 0.9),
    "algebraic": (-0.9, 0.9),
    "elu": (-0.8, 2.0),
    "celu": (-0.8, 2.0),
    "softplus": (0.1, 2.0),
    "log_sigmoid": (-2.0, -0.1),
    "arctan": (-1.2, 1.2),
    "tanhshrink": (-2.0, 2.0),
    "softmax": (0.05, 1.0),
    "sparsemax": (0.05, 1.0),
}
"""Where to start. Those of softmax and sparsemax are on the simplex. Softplus to tanhshrink have no cone form: what is
exact there are the solutions of `verify.modelled`."""

KINDS = tuple(a for a in atoms.registry() if not a.name.startswith("activation"))
TERMS = tuple(a for a in KINDS if not all(s.constraint for s in a.spellings))
SETS = tuple(a for a in KINDS if any(s.constraint for s in a.spellings))
FEATURED: tuple[str, ...] = (*(a.name for a in KINDS), *(f"activation {name}" for name in ACTIVATIONS))

CURVED = {"neg_log_det": 10.0, "tr_inv": 10.0}


def parameters_of(b: Builder, spelling: Spelling) -> dict[str, Any]:
    """The spelling's parameters at random stages."""
    out = {}
    for name, (shape, attributes) in spelling.parameters.items():
        signs = {k: v for k, v in attributes.items() if k != "bounds"}
        kept = signs if any(k in signs for k in ("nonneg", "pos", "PSD", "symmetric")) else {}

        def draw(rng: np.random.Generator, shape: Shape = shape, attributes: Any = attributes) -> np.ndarray:
            return np.asarray(draw_value(shape, attributes, rng))

        value = b.data(draw, **kept)
        if isinstance(value, np.ndarray) and kept.get("PSD"):
            value = cp.psd_wrap(value)
        out[name] = value
    return out


def arguments(b: Builder, spelling: Spelling, direct: bool) -> dict[str, Any]:
    """Affine expressions in the place of the spelling's variables, with their reference values in the domain."""
    out: dict[str, Any] = {}
    for name, shape in spelling.variables.items():
        attributes = spelling.attributes.get(name, {})
        if attributes or direct:
            fits = [v for v in b.variables if v.shape == shape and not attributes and not any_attribute(v)]
            out[name] = fits[0] if fits else own_variable(b, shape, spelling, attributes)
        else:
            out[name] = b.affine(shape)
    return out


def any_attribute(v: cp.Variable) -> bool:
    """Whether a variable was declared with attributes."""
    return any(bool(value) for key, value in v.attributes.items() if key != "bounds") or v.bounds is not None


def own_variable(b: Builder, shape: Shape, spelling: Spelling, attributes: Any) -> cp.Variable:
    """A new variable whose reference value is in the domain and has the attributes."""
    low, high = spelling.draw
    value = b.source.uniform(low / 2, high / 2, *shape)
    if attributes.get("nonneg"):
        value = np.abs(value)
    if attributes.get("symmetric"):
        value = (value + value.T) / 2
    if attributes.get("bounds") is not None:
        value = np.clip(value, *attributes["bounds"])
    return b.variable(shape, value, **attributes)


def featured(b: Builder, names: Sequence[str] = FEATURED) -> tuple[str, list[cp.Expression], list[cp.Constraint]]:
    """A term or a constraint of any atom, each as likely as the other, over variables: the passes find the atom."""
    name = b.source.choose(names)
    if name.startswith("activation"):
        return name, [activated(b, name.split()[1])], []
    kind = next(a for a in KINDS if a.name == name)
    if b.source.choose(kind.spellings).constraint:
        return name, [], spelled_constraints(b, True, kind)[1]
    return name, [spelled_term(b, True, kind)[1]], []


def activated(b: Builder, name: str) -> cp.Expression:
    """f(x) + ½‖x‖² − ⟨a, x⟩ of an activation, at a = Wz + b its network's layer."""
    n = b.size()
    value = b.source.uniform(*ACTIVATIONS[name], n)
    if name in ("softmax", "sparsemax"):
        value = value / value.sum()
    x = b.variable((n,), value)
    return activation(name)(x) - b.data(lambda rng: rng.normal(size=n)) @ x


def spelled_term(b: Builder, direct: bool, kind: type[Atom] | None = None) -> tuple[str, cp.Expression]:
    """An atom's own spelling over random affine arguments."""
    kind = b.source.choose(TERMS) if kind is None else kind
    spelling = b.source.choose([s for s in kind.spellings if not s.constraint])
    names = {**arguments(b, spelling, direct), **parameters_of(b, spelling)}
    if kind.name in CURVED:  # the text adds 10 I: keep the argument small beside it
        for name in spelling.variables:
            size = float(np.abs(b.levels(names[name])).max())
            names[name] = names[name] * (3.0 / max(3.0, size))
    elif spelling.draw[0] >= -1 and not direct:
        for name in spelling.variables:
            if not spelling.attributes.get(name):
                names[name] = b.positive(names[name])
    term = evaluate(spelling, names)
    return kind.name, term if term.is_scalar() else cp.sum(term)


def spelled_constraints(b: Builder, direct: bool, kind: type[Atom] | None = None) -> tuple[str, list[cp.Constraint]]:
    """An atom's constraint; its arguments are shifted onto points that satisfy it."""
    kind = b.source.choose(SETS) if kind is None else kind
    spelling = b.source.choose([s for s in kind.spellings if s.constraint])
    parameters = parameters_of(b, spelling)
    names = arguments(b, spelling, direct)
    tight = b.source.chance(15)
    moves = any(p is q for p in parameters.values() for q in b.inputs)
    moves = moves or any(np.ptp(b.levels(e), axis=0).max(initial=0.0) > 0.0 for e in names.values())
    points = [nearest(b, spelling, parameters, names, i, tight=tight) for i in range(SAMPLES if moves else 1)]
    points *= SAMPLES // len(points)
    for name in spelling.variables:
        wanted = np.stack([p[name] for p in points])
        shift = wanted - b.levels(names[name])
        if spelling.attributes.get(name) or np.abs(shift).max(initial=0.0) < 1e-9:
            continue
        variable = names[name]
        if isinstance(variable, cp.Variable) and direct and np.ptp(shift, axis=0).max(initial=0.0) < 1e-12:
            variable.save_value(wanted[0])
        else:
            names[name] = variable + b.given(shift)
    if not spelling.text:
        return kind.name, []
    found = evaluate(spelling, {**names, **parameters})
    return kind.name, found if isinstance(found, list) else [found]


def nearest(
    b: Builder, spelling: Spelling, parameters: Any, names: Any, sample: int, *, tight: bool
) -> dict[str, np.ndarray]:
    """A point of the spelled set near the arguments' values at x̂; in its relative interior unless `tight`."""
    b.at(sample)
    own = {k: cp.Variable(s, **spelling.attributes.get(k, {})) for k, s in spelling.variables.items()}
    target = {k: cp.Parameter(v.shape) for k, v in own.items()}
    found = evaluate(spelling, {**own, **parameters}) if spelling.text else []
    constraints = found if isinstance(found, list) else [found]
    problem = cp.Problem(cp.Minimize(sum(cp.sum_squares(own[k] - target[k]) for k in own)), constraints)
    once = problem.is_dcp(dpp=True)  # canonicalized once for all targets
    rng, sums = np.random.default_rng(0), {k: np.zeros(v.shape) for k, v in own.items()}
    count = 1 if tight else 3
    for turn in range(count):
        for k, t in target.items():
            t.value = np.asarray(names[k].value) + (turn > 0) * 2.0 * rng.normal(size=t.shape)
        problem.solve(solver="CLARABEL", ignore_dpp=not once, tol_gap_abs=1e-10, tol_gap_rel=1e-10, tol_feas=1e-10)
        for k, v in own.items():
            sums[k] = sums[k] + np.asarray(v.value) / count
    b.at(0)
    return sums


def evaluate(spelling: Spelling, names: Any) -> Any:
    """The spelling's text over `names`."""
    found = eval(spelling.text, {**NAMES, **names})
    return found if isinstance(found, list | cp.Constraint) else cp.Expression.cast_to_const(found)


Maker = Callable[[Builder], Any]


def vector(b: Builder) -> cp.Expression:
    """A random affine vector."""
    return b.affine((b.size(),))


def grid(b: Builder) -> cp.Expression:
    """A random affine matrix."""
    return b.affine((b.source.choose((2, 3, 1, 4)), b.source.choose((3, 2, 1, 4))))


def either(b: Builder) -> cp.Expression:
    """A vector, a matrix or a scalar."""
    return b.source.choose((vector, vector, grid, lambda c: c.affine(())))(b)


def small(b: Builder, e: cp.Expression, bound: float = 3.0) -> cp.Expression:
    """The expression scaled down so that exponentials of it stay moderate at x̂."""
    size = float(np.abs(b.levels(e)).max(initial=0.0))
    return e if size <= bound else e * (bound / size)


TEMPLATES: tuple[tuple[str, Maker], ...] = (
    ("sum_squares", lambda b: cp.sum_squares(either(b))),
    ("norm1", lambda b: cp.norm1(either(b))),
    ("norm2", lambda b: cp.norm(vector(b), 2)),
    ("group lasso", lambda b: cp.sum(cp.norm(grid(b), 2, axis=b.source.pick(2)))),
    ("norm_inf", lambda b: cp.norm_inf(either(b))),
    ("huber", lambda b: cp.sum(cp.huber(either(b), float(b.source.uniform(0.2, 2))))),
    ("pos", lambda b: cp.sum(cp.pos(either(b)))),
    ("maximum", lambda b: cp.sum(cp.maximum(vector(b), 0.5, b.affine(())))),
    ("max", lambda b: cp.max(either(b))),
    ("tv", lambda b: cp.tv(vector(b))),
    ("tv2d", lambda b: cp.tv(grid(b))),
    ("sum_largest", lambda b: cp.sum_largest(b.affine((4,)), 2)),
    ("logistic", lambda b: cp.sum(cp.logistic(either(b)))),
    ("log_sum_exp", lambda b: cp.log_sum_exp(either(b))),
    ("exp", lambda b: cp.sum(cp.exp(small(b, either(b))))),
    ("quad_form", lambda b: quadratic(b)),
    ("quad_over_lin", lambda b: cp.quad_over_lin(vector(b), b.positive(b.affine(())))),
    ("norm_nuc", lambda b: cp.normNuc(grid(b))),
    ("sigma_max", lambda b: cp.sigma_max(grid(b))),
    ("lambda_max", lambda b: cp.lambda_max(b.symmetric(3))),
    ("neg_log", lambda b: -cp.sum(cp.log(b.positive(vector(b))))),
    ("neg_entr", lambda b: -cp.sum(cp.entr(b.positive(vector(b))))),
    ("neg_sqrt", lambda b: -cp.sum(cp.sqrt(b.positive(vector(b))))),
    ("inv_pos", lambda b: cp.sum(cp.inv_pos(b.positive(vector(b))))),
    ("power", lambda b: cp.sum(cp.power(b.positive(vector(b)), b.source.choose((3, 1.5, 4, -1))))),
    ("kl_div", lambda b: kl(b)),
    ("linear", lambda b: cp.sum(either(b))),
    ("-- conic: square of a norm", lambda b: cp.square(cp.norm(vector(b), b.source.choose((2, 1))))),
    ("-- conic: exp of a norm", lambda b: cp.exp(cp.norm(small(b, vector(b))) - 1)),
    ("-- conic: maximum of norms", lambda b: cp.maximum(cp.norm(vector(b)), cp.norm1(vector(b)))),
    ("-- conic: pnorm", lambda b: cp.pnorm(vector(b), b.source.choose((3, 1.5)))),
    ("-- conic: cummax", lambda b: cp.sum(cp.cummax(vector(b)))),
    ("-- conic: log_sum_exp of squares", lambda b: cp.log_sum_exp(cp.square(small(b, vector(b), 2.0)))),
    ("-- conic: matrix_frac", lambda b: cp.matrix_frac(b.affine((2,)), b.symmetric(2) + definite(b, 2))),
    ("-- conic: distance ratio", lambda b: cp.norm(vector(b)) + cp.sum(cp.abs(vector(b))) + cp.max(vector(b))),
)


def definite(b: Builder, n: int) -> np.ndarray:
    """A multiple of the identity."""
    return 8.0 * np.eye(n)


def quadratic(b: Builder) -> cp.Expression:
    """A quadratic form with a Gram matrix at a random stage."""
    x = vector(b)
    n = x.size
    g = b.matrix(n, b.source.choose((n, 1, 2)))
    return cp.quad_form(x, cp.psd_wrap(g @ g.T))


def kl(b: Builder) -> cp.Expression:
    """A relative entropy of two positive vectors."""
    n = b.size()
    return cp.sum(cp.kl_div(b.positive(b.affine((n,))), b.positive(b.affine((n,)))))


def template(b: Builder) -> tuple[str, cp.Expression]:
    """One of the templates."""
    name, make = b.source.choose(TEMPLATES)
    return name, make(b)


def slack(b: Builder, e: cp.Expression, tight: bool) -> np.ndarray:
    """Levels of `e` plus a slack, zero for some entries where `tight`."""
    levels = b.levels(e)
    rng = b.source.numbers()
    room = rng.uniform(0.05, 1.0, size=levels.shape[1:]) * b.factor()
    return levels + (room * (rng.random(levels.shape[1:]) > 0.5) if tight else room)


BOUNDED: tuple[tuple[str, Maker], ...] = (
    ("ball", lambda b: cp.norm(vector(b), 2)),
    ("l1 ball", lambda b: cp.norm1(either(b))),
    ("inf ball", lambda b: cp.norm_inf(either(b))),
    ("sum of squares", lambda b: cp.sum_squares(vector(b))),
    ("log_sum_exp", lambda b: cp.log_sum_exp(vector(b))),
    ("max", lambda b: cp.max(either(b))),
    ("entropy", lambda b: -cp.sum(cp.entr(b.positive(vector(b))))),
    ("log", lambda b: -cp.sum(cp.log(b.positive(vector(b))))),
    ("exp", lambda b: cp.sum(cp.exp(small(b, vector(b))))),
    ("lambda_max", lambda b: cp.lambda_max(b.symmetric(3))),
    ("nuclear", lambda b: cp.normNuc(grid(b))),
    ("quadratic form", lambda b: quadratic(b)),
    ("huber", lambda b: cp.sum(cp.huber(vector(b)))),
    ("entrywise square", lambda b: cp.square(vector(b))),
)


def constraint(b: Builder) -> tuple[str, list[cp.Constraint]]:
    """A constraint that x̂ satisfies."""
    how, tight = b.source.pick(7), b.source.chance(15)
    if how == 0:
        e = either(b)
        return "inequality", [e <= b.given(slack(b, e, tight))]
    if how == 1:
        e = b.affine((b.source.choose((1, 2, 3)),))
        return "equality", [e == b.given(b.levels(e))]
    if how == 2:
        v = b.source.choose(b.variables)
        room = b.source.uniform(0.1, 2.0, *v.shape)
        return "bounds", [v >= b.given(b.levels(v) - room), v <= b.given(b.levels(v) + room)]
    if how == 3:
        e = b.positive(b.affine((4,)), 0.0)
        return "simplex", [e >= 0, cp.sum(e) == b.given(b.levels(cp.sum(e)))]
    if how == 4:
        n = b.source.choose((2, 3, 1))
        e = b.symmetric(n)
        least = min(np.linalg.eigvalsh(v)[0] for v in b.levels(e))
        return "psd", [e + (float(b.source.uniform(0.0, 1.0)) - least) * np.eye(n) >> 0]
    name, make = b.source.choose(BOUNDED)
    e = make(b)
    return name, [e <= b.given(slack(b, e, False))]
