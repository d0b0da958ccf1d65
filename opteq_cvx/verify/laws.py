"""Laws that every atom must obey, generated from its spellings. `check_atom(MyAtom)` checks your own.

CVXPY with Clarabel is the oracle for values and proxes, finite differences for derivatives, in float64.
"""

from collections.abc import Callable

import cvxpy as cp
import numpy as np
import torch
from cvxpy.atoms.affine.vec import vec
from cvxpy.atoms.sum_squares import sum_squares
from torch import Tensor

from opteq_cvx.atoms.contract import Atom
from opteq_cvx.errors import OpteqError
from opteq_cvx.ir.frozen import Array
from opteq_cvx.verify.exact import solve_exact
from opteq_cvx.verify.law_derivatives import derivative_at_kinks, gradients
from opteq_cvx.verify.law_recognized import spellings_are_recognized
from opteq_cvx.verify.law_tools import ARGMIN, ROUND, VALUE, close, full, lead, normal, points, require, steps
from opteq_cvx.verify.law_traits import traits_tell_the_truth
from opteq_cvx.verify.spelled import Case, Spelled, batch_of_cases, cases, number, pairs

Law = Callable[[type[Atom]], None]

STEPS = (0.1, 1.0, 10.0)
SMALL, LARGE = 1e-12, 1e8

# --- CVXPY is right --------------------------------------------------------------------------------------


def value_is_cvxpys(cls: type[Atom]) -> None:
    """⟨weight, f(arg)⟩ = CVXPY's value at random points; for sets: in the set or not, as CVXPY says."""
    rng = np.random.default_rng(1)
    for case, spelled in pairs(cls):
        for _ in range(5):
            for variable in spelled.variables.values():
                variable.save_value(_respect(variable, rng.uniform(*case.draw, size=variable.shape)))
            x = torch.as_tensor(number(spelled.arg.value))
            if spelled.objective is None:
                _membership(case, spelled, x)
                continue
            ours = float((case.weight * case.atom.value(x, case.data)).sum())
            theirs = float(np.asarray(spelled.objective.value))
            same = ours == theirs or abs(ours - theirs) <= VALUE * (1 + abs(theirs))
            require(same, case, f"value {ours}, CVXPY has {theirs}")


def _membership(case: Case, spelled: Spelled, x: Tensor) -> None:
    atom, step = case.atom, full(case, 1.0)
    theirs = all(bool(np.all(c.value())) for c in spelled.constraints)
    if spelled.constraints:
        inside = bool((atom.value(x, case.data) == 0).all())
        require(inside == theirs, case, f"in the set: {inside}, CVXPY says {theirs}")
    onto = atom.prox(x, step, case.data)
    require((atom.value(onto, case.data) == 0).all(), case, "the projection of a point is not in the set")


def _respect(variable: cp.Variable, value: Array) -> Array:
    return number(variable.project(value))


def prox_is_cvxpys(cls: type[Atom]) -> None:
    """prox = CVXPY's argmin of step · text + ½‖arg − v‖² by Clarabel, polished, for steps 0.1, 1 and 10."""
    for case, spelled in pairs(cls):
        if not spelled.spelling.argmin:
            continue
        for seed, step in enumerate(STEPS):
            v = normal(case, seed=seed)
            near = 0.5 * sum_squares(vec(spelled.arg - v.numpy(), order="C"))
            objective = near if spelled.objective is None else step * spelled.objective + near
            problem = cp.Problem(cp.Minimize(objective), list(spelled.constraints))
            exact = solve_exact(problem, [vec(spelled.arg, order="C")])
            require(exact.status.solved, case, f"Clarabel: {exact.status.value} {exact.note}")
            x = case.atom.prox(v, step * case.weight.expand(case.reduced), case.data).reshape(-1)
            theirs = torch.as_tensor(number(exact.outputs[0])).reshape(-1)
            close(x, theirs, case, f"prox with step {step} and CVXPY's argmin", ARGMIN)


# --- a prox is a prox ------------------------------------------------------------------------------------


def firmly_nonexpansive(cls: type[Atom]) -> None:
    """‖Pu − Pv‖² ≤ ⟨Pu − Pv, u − v⟩ for random pairs, near and far."""
    for case in cases(cls):
        for distance in (1e-3, 1.0, 100.0):
            u = normal(case, (50,), seed=1)
            v = u + normal(case, (50,), seed=2, scale=distance)
            step = steps(case, (50,))
            pu, pv = (case.atom.prox(w, step, lead(case.data, 1)) for w in (u, v))
            gap = ((pu - pv) * (u - v) - (pu - pv) ** 2).reshape(50, -1).sum(-1)
            size = ((u - v) ** 2).reshape(50, -1).sum(-1)
            require((gap >= -ROUND * (size + u.abs().max())).all(), case, "the prox is not firmly nonexpansive")


def batch_is_a_loop(cls: type[Atom]) -> None:
    """Batch shapes (), (1,), (7,), (2, 3), data and steps per sample or shared, give what a loop gives."""
    for spelling in cls.spellings:
        for batch in ((), (1,), (7,), (2, 3)):
            count = int(np.prod(batch, dtype=int))
            many = batch_of_cases(cls, spelling, count)
            case = many[0]
            v, step = normal(case, batch), steps(case, batch)
            own = {k: torch.stack([c.data[k] for c in many]) for k in case.data}
            own = {k: t.reshape((*batch, *t.shape[1:])) for k, t in own.items()}
            shared = lead(case.data, len(batch))
            flat_v, flat_step = v.reshape(-1, *case.event), step.reshape(-1, *case.reduced)
            for data, loop in ((own, many), (shared, [case] * count)):
                x, f = case.atom.prox(v, step, data), case.atom.value(v, data)
                each_x = [c.atom.prox(flat_v[i], flat_step[i], c.data) for i, c in enumerate(loop)]
                each_f = [c.atom.value(flat_v[i], c.data) for i, c in enumerate(loop)]
                require(x.shape == v.shape, case, f"prox has shape {tuple(x.shape)}, not {tuple(v.shape)}")
                close(x, torch.stack(each_x).reshape(v.shape), case, f"batch {batch} and a loop")
                expected = (*batch, *case.reduced)
                require(f.shape == expected, case, f"value has shape {tuple(f.shape)}, not {expected}")
                same = torch.stack(each_f).reshape(expected)
                require(torch.allclose(f, same, rtol=ROUND, atol=ROUND), case, f"values of batch {batch}")
            uniform = torch.full((1,) * (len(batch) + len(case.reduced)), 0.7, dtype=torch.float64)
            one = case.atom.prox(v, uniform, shared)
            all_ = case.atom.prox(v, uniform.expand((*batch, *case.reduced)), shared)
            close(one, all_, case, "one step for all entries")


def step_zero_is_identity(cls: type[Atom]) -> None:
    """A step of 0 returns v for v in the domain; the prox of a set ignores the step."""
    for case in cases(cls):
        data = lead(case.data, 1)
        zero = torch.zeros(1, *case.reduced, dtype=torch.float64)
        v = case.atom.prox(points(case, (6,)), zero + 1, data)  # a point of the domain
        close(case.atom.prox(v, zero, data), v, case, "prox with step 0 and v")


def inplace_agrees(cls: type[Atom]) -> None:
    """`prox_inplace` returns the prox."""
    for case in cases(cls):
        v, step, data = normal(case, (4,)), steps(case, (4,)), lead(case.data, 1)
        close(case.atom.prox_inplace(v.clone(), step, data), case.atom.prox(v, step, data), case, "prox_inplace")


def moreau(cls: type[Atom]) -> None:
    """f(x) + f*(y) = ⟨x, y⟩ at x = prox(v), y = (v − x)/t, and ≥ elsewhere, where a conjugate is given."""
    for case in cases(cls):
        data = lead(case.data, 1)
        v, step = normal(case, (20,)), steps(case, (20,))
        x = case.atom.prox(v, step, data)
        y = (v - x) / step
        conjugate = case.atom.conjugate(y, data)
        if conjugate is None:
            continue
        inner = (x * y).sum_to_size(20, *case.reduced)
        close(case.atom.value(x, data) + conjugate, inner, case, "f(x) + f*(y) and <x, y>", ARGMIN)
        other = case.atom.conjugate(y.roll(1, 0), data)
        assert other is not None
        rest = case.atom.value(x, data) + other - (x * y.roll(1, 0)).sum_to_size(20, *case.reduced)
        require((rest >= -ARGMIN * (1 + x.abs().max())).all(), case, "Fenchel's inequality fails")


# --- numbers ---------------------------------------------------------------------------------------------


def dtype_and_device_kept(cls: type[Atom]) -> None:
    """float32 stays float32 and agrees; the device is kept, here the meta device, which has no values."""
    for case in cases(cls):
        v, step, data = normal(case, (3,)), steps(case, (3,)), lead(case.data, 1)
        exact = case.atom.prox(v, step, data)
        single = {k: t.float() for k, t in data.items()}
        x, f = case.atom.prox(v.float(), step.float(), single), case.atom.value(v.float(), single)
        require(x.dtype == f.dtype == torch.float32, case, "float32 does not stay float32")
        close(x.double(), exact, case, "float32 and float64", 1e-4)
        nowhere = {k: t.to("meta") for k, t in data.items()}
        away = case.atom.prox(v.to("meta"), step.to("meta"), nowhere)
        require(away.device.type == "meta" and away.shape == v.shape, case, "the device is not kept")


def inputs_unchanged(cls: type[Atom]) -> None:
    """value, prox, conjugate and violation mutate nothing."""
    for case in cases(cls):
        v, step, data = normal(case), steps(case), dict(case.data)
        before = [t.clone() for t in (v, step, *data.values())]
        case.atom.value(v, data)
        case.atom.prox(v, step, data)
        case.atom.conjugate(v, data)
        case.atom.violation(v, data)
        after = (v, step, *data.values())
        require(all(torch.equal(a, b) for a, b in zip(before, after, strict=True)), case, "an input was mutated")


def finite_everywhere(cls: type[Atom]) -> None:
    """Prox and gradient are finite at 0, ±1e-12 and ±1e8, in both precisions; NaN is not swallowed."""
    for case in cases(cls):
        for dtype in (torch.float64, torch.float32):
            data = {k: t.to(dtype) for k, t in case.data.items()}
            for size in (0.0, SMALL, -SMALL, LARGE, -LARGE):
                for s in (0.0, *STEPS):
                    v = torch.full(case.event, size, dtype=dtype, requires_grad=True)
                    step = torch.full(case.reduced, s, dtype=dtype, requires_grad=True)
                    x = case.atom.prox(v, step, data)
                    grads = torch.autograd.grad(x.sum(), (v, step), allow_unused=True)
                    require(x.isfinite().all(), case, f"prox of {size} with step {s} in {dtype} is {x.detach()}")
                    fine = all(g is None or g.isfinite().all() for g in grads)
                    require(fine, case, f"gradient at {size} with step {s} in {dtype} is {grads}")
        bad = torch.full(case.event, torch.nan, dtype=torch.float64)
        require(case.atom.prox(bad, full(case, 1.0), case.data).isnan().any(), case, "NaN is swallowed")


def wrong_attributes_raise(cls: type[Atom]) -> None:
    """Static attributes listed in `wrong`, and unknown ones, are refused by an OpteqError."""
    for static in (*cls.wrong, {"no_such_attribute": 1}):
        try:
            cls.from_static(static)
        except OpteqError:
            continue
        raise AssertionError(f"{cls.__name__} accepts {dict(static)}")


LAWS: tuple[Law, ...] = (
    spellings_are_recognized,
    value_is_cvxpys,
    prox_is_cvxpys,
    firmly_nonexpansive,
    batch_is_a_loop,
    step_zero_is_identity,
    inplace_agrees,
    moreau,
    gradients,
    derivative_at_kinks,
    dtype_and_device_kept,
    inputs_unchanged,
    finite_everywhere,
    wrong_attributes_raise,
    traits_tell_the_truth,
)


def check_atom(cls: type[Atom]) -> None:
    """Check every law for one atom.

    Raises:
        AssertionError: a law fails; the message names the atom, the spelling and by how much.
    """
    if not cls.spellings:
        raise AssertionError(f"{cls.__name__} has no spelling: the laws are generated from them")
    for law in LAWS:
        law(cls)
