"""Geometric and complex programs as real convex ones, by CVXPY's own reductions, with outputs in the user's terms.

A geometric program is convex in the logarithms of its variables and parameters; parameters stay the user's, and their
logarithms are evaluated with the other expressions of parameters. A complex program is one of real and imaginary parts.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cvxpy as cp
import numpy as np
from cvxpy.reductions.complex2real.complex2real import Complex2Real
from cvxpy.reductions.dgp2dcp.dgp2dcp import Dgp2Dcp
from typing_extensions import override

from opteq_cvx.errors import NotConvexError, UnsupportedError, message
from opteq_cvx.frontend.scope import text
from opteq_cvx.frontend.ties import check_output
from opteq_cvx.ir.program import Output


@dataclass(frozen=True, slots=True)
class Shown:
    """How one value that the layer returns follows from a real convex program.

    It is `real`, or real + i·imaginary, or with `function` "exp" the exponential; `name` in the user's words.
    """

    real: Any
    name: str
    imaginary: Any = None
    function: str = ""
    dual: bool = False


@dataclass(frozen=True, slots=True)
class Form:
    """A real convex program and its outputs; constraints and dual variables among them are those of the program."""

    problem: cp.Problem
    outputs: tuple[Shown, ...]

    @property
    def flat(self) -> tuple[Any, ...]:
        """What `read` is asked for: the real parts, then the imaginary ones."""
        return (*(s.real for s in self.outputs), *(s.imaginary for s in self.outputs if s.imaginary is not None))


def form(problem: cp.Problem, outputs: Sequence[Any] | None, *, gp: bool) -> Form:
    """The real convex form of a problem.

    Raises:
        NotConvexError: `gp`, and the problem is not geometric.
        UnsupportedError: outputs that the form does not carry, or complex parameters.
    """
    wanted = tuple(problem.variables()) if outputs is None else tuple(outputs)
    return _geometric(problem, wanted) if gp else _real(problem, wanted)


def dressed(outputs: Sequence[Output], shown: Sequence[Shown]) -> tuple[Output, ...]:
    """The affine outputs of a form, in the user's terms: imaginary parts, which stand last, go to their real ones."""
    if not shown:
        return tuple(outputs)
    kept = [s for s in shown if not s.dual]
    tails = iter(outputs[len(kept) :])
    return tuple(
        Output(s.name, o.value, None if s.imaginary is None else next(tails).value, s.function)
        for s, o in zip(kept, outputs, strict=False)
    )


def _name(wanted: Any) -> str:
    return wanted.name() if isinstance(wanted, cp.Variable) else text(wanted)


def is_complex(problem: cp.Problem) -> bool:
    """Whether any part of a problem has complex values."""
    leaves = (*problem.variables(), *problem.parameters(), *problem.constants())
    return any(leaf.is_complex() for leaf in leaves)


def _geometric(problem: cp.Problem, wanted: Sequence[Any]) -> Form:
    if not problem.is_dgp():
        fix = "check it with problem.is_dgp(); variables and parameters of such programs are declared with pos=True"
        raise NotConvexError(message("a problem that does not follow the DGP rules", "a geometric program", fix))
    own: dict[int, Any] = {}  # plain parameters stand in for ours, of whose classes the reduction knows nothing
    for p in problem.parameters():
        if type(p) is not cp.Parameter:
            own[id(p)] = cp.Parameter(p.shape, name=p.name(), pos=p.is_pos(), value=p.value)
    user = {id(own[id(p)]): p for p in problem.parameters() if id(p) in own}
    plain = [c.tree_copy(dict(own)) if own else c for c in problem.constraints]
    places = dict(zip((c.id for c in problem.constraints), (c.id for c in plain), strict=True))
    step: Any = Dgp2Dcp()
    goal = problem.objective
    if own:
        goal = type(goal)(goal.args[0].tree_copy(dict(own)))
    convex, inverse = step.apply(cp.Problem(goal, plain))
    logarithms: dict[int, Any] = {
        id(q): cp.log(user.get(id(p), p)) for p, q in step.canon_methods._parameters.items()
    } | user
    objective = type(convex.objective)(convex.objective.args[0].tree_copy(dict(logarithms)))
    constraints = [c.tree_copy(dict(logarithms)) for c in convex.constraints]
    by_id = {old.id: new for old, new in zip(convex.constraints, constraints, strict=True)}
    known: dict[int, Shown] = {id(v): Shown(w, v.name(), None, "exp") for v, w in step.canon_methods._variables.items()}
    for constraint in problem.constraints:
        image = by_id[inverse.cons_id_map[places[constraint.id]]]
        known[id(constraint)] = Shown(image, text(constraint), dual=True)
        for old, new in zip(constraint.dual_variables, image.dual_variables, strict=True):
            known[id(old)] = Shown(new, old.name(), dual=True)
    for w in wanted:
        if id(w) not in known:
            found = f'the output "{text(w)}" of a geometric program'
            raise UnsupportedError(
                message(found, "its variables, constraints or dual variables", "compute it in torch")
            )
    return Form(cp.Problem(objective, constraints), tuple(known[id(w)] for w in wanted))


class _Splitting(Complex2Real):
    """CVXPY's reduction, which also remembers what it made of each variable."""

    memory: tuple[Any, Any] = ({}, {})

    @override
    def canonicalize_tree(self, expr: Any, real2imag: Any, leaf_map: Any) -> Any:
        self.memory = (real2imag, leaf_map)
        done: Any = super().canonicalize_tree(expr, real2imag, leaf_map)  # type: ignore[no-untyped-call]
        return done


def _real(problem: cp.Problem, wanted: Sequence[Any]) -> Form:
    for parameter in problem.parameters():
        if parameter.is_complex():
            found = f"the complex parameter {parameter.name()!r}"
            fix = "declare its real and imaginary parts: re + 1j * im, with two real parameters"
            raise UnsupportedError(message(found, "real parameters", fix))
    if not problem.is_dcp():
        fix = "check it with problem.is_dcp(), and each term of it"
        raise NotConvexError(message("a complex problem that does not follow the DCP rules", "a convex one", fix))
    step: Any = _Splitting()
    real, _ = step.apply(problem)
    same = {c.id: c for c in real.constraints}
    shown: list[Shown] = []
    for w in wanted:
        if isinstance(w, cp.constraints.constraint.Constraint):
            if w.id not in same or w.is_complex():
                found = f'the multipliers of "{text(w)}", which is complex'
                raise UnsupportedError(
                    message(found, "real constraints among the outputs", "constrain real(…), imag(…)")
                )
            shown.append(Shown(same[w.id], text(w), dual=True))
        elif any(w is d for c in problem.constraints for d in c.dual_variables):
            found = "a dual variable of a complex program"
            raise UnsupportedError(message(found, "a real constraint of it", "list the constraint itself"))
        else:
            check_output(w, problem.variables(), real=False)
            re, im = step.canonicalize_tree(w, *step.memory)
            re = cp.Constant(0.0 * w.value if w.is_constant() else 0.0) if re is None else re
            shown.append(Shown(_used(re, real), _name(w), None if im is None else _used(im, real)))
    return Form(real, tuple(shown))


def _used(expr: Any, problem: cp.Problem) -> Any:
    """`expr` with 0 for each variable that the problem does not hold, as CVXPY fills in parts that nothing uses."""
    known = {id(v) for v in problem.variables()}
    absent: dict[int, Any] = {id(v): cp.Constant(np.zeros(v.shape)) for v in expr.variables() if id(v) not in known}
    return expr.tree_copy(absent) if absent else expr
