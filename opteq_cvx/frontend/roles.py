"""The role of each parameter: an input of the layer, a weight of it, or a mistake."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import cvxpy as cp
import numpy as np

from opteq_cvx.declare import Input, Weight, leaf_of
from opteq_cvx.errors import CompileError, message
from opteq_cvx.frontend.names import hidden
from opteq_cvx.ir.frozen import Array
from opteq_cvx.ir.param import Leaf, Stage


@dataclass(frozen=True, slots=True)
class Roles:
    """Inputs in positional order, weights in order of creation, tied parameters, and a leaf for each, in that order."""

    inputs: tuple[cp.Parameter, ...]
    weights: tuple[cp.Parameter, ...]
    leaves: tuple[Leaf, ...]
    tied: tuple[cp.Parameter, ...] = ()

    @property
    def by_id(self) -> dict[int, Leaf]:
        """Leaves by the id of their parameter."""
        return {id(p): leaf for p, leaf in zip((*self.inputs, *self.weights, *self.tied), self.leaves, strict=True)}

    def initial(self) -> dict[str, Array]:
        """The weights' values by name, float64."""
        count = len(self.inputs)
        pairs = zip(self.weights, self.leaves[count : count + len(self.weights)], strict=True)
        return {leaf.name: np.array(weight.value, dtype=np.float64) for weight, leaf in pairs}


def roles(
    problem: cp.Problem | Sequence[cp.Problem],
    inputs: Sequence[cp.Parameter] | None,
    more: Iterable[cp.Expression],
    tied: Sequence[cp.Parameter] = (),
) -> Roles:
    """Sort the parameters of `problem` (or of several) and of the expressions `more`.

    Inputs are those listed, in that order, then each `Input` of the problem that is neither listed nor tied, in order
    of creation.

    Raises:
        CompileError: a parameter without a role, one name used twice, or a list that holds something else.
    """
    listed = list(inputs) if inputs is not None else []
    check_list(listed)
    _check_untied(listed, tied)
    taken = {id(p) for p in (*listed, *tied)}
    found = parameters(problem, more)
    rest = sorted((p for p in found if isinstance(p, Input) and id(p) not in taken), key=lambda p: p.id)
    weights = sorted((p for p in found if isinstance(p, Weight)), key=lambda p: p.id)
    known = taken | {id(p) for p in (*rest, *weights)}
    for p in found:
        if id(p) not in known:
            raise CompileError(
                message(
                    f"parameter {p.name()!r} of shape {p.shape} is neither an input nor a weight",
                    "a role for every parameter",
                    f"list it, inputs=[..., {p.name()}], when each sample brings its value; "
                    f"declare it as opteq_cvx.Weight({p.shape}, name={p.name()!r}) when it is to be learned",
                )
            )
    everything = (*listed, *rest, *weights, *tied)
    _check_names(everything)
    counts = {Stage.INPUT: len(listed) + len(rest), Stage.WEIGHT: len(weights), Stage.TIED: len(tied)}
    stages = [stage for stage, count in counts.items() for _ in range(count)]
    leaves = tuple(leaf_of(p, s) for p, s in zip(everything, stages, strict=True))
    return Roles((*listed, *rest), tuple(weights), leaves, tuple(tied))


def parameters(problem: cp.Problem | Sequence[cp.Problem], more: Iterable[cp.Expression]) -> list[cp.Parameter]:
    """Each parameter once, by identity: of the problems, of variables' bounds, of atoms' data, of `more`."""
    problems = [problem] if isinstance(problem, cp.Problem) else list(problem)
    found: dict[int, cp.Parameter] = {}
    seen: set[int] = set()
    stack: list[Any] = [*(p.objective.args[0] for p in problems), *more]
    for c in (c for p in problems for c in p.constraints):
        stack.extend(c.args)
        data: Any = c.get_data()
        stack.extend(d for d in (data or ()) if isinstance(d, cp.Expression))
    while stack:
        expr = stack.pop()
        if id(expr) in seen:
            continue
        seen.add(id(expr))
        if isinstance(expr, cp.Parameter):
            found[id(expr)] = expr
        elif isinstance(expr, cp.Variable):
            bounds: Any = expr.attributes["bounds"]
            stack.extend(b for b in (bounds if bounds is not None else ()) if isinstance(b, cp.Expression))
        else:
            stack.extend((*expr.args, *hidden(expr)))
    return list(found.values())


def check_list(listed: Sequence[Any]) -> None:
    """Refuse a list that holds anything but parameters, each once.

    Raises:
        CompileError: it holds something else, a weight, or one parameter twice.
    """
    seen: set[int] = set()
    for item in listed:
        if not isinstance(item, cp.Parameter):
            found = f"inputs holds {type(item).__name__} {str(item)[:60]!r}"
            raise CompileError(message(found, "CVXPY parameters", "list the cp.Parameter or opteq_cvx.Input itself"))
        if isinstance(item, Weight):
            fix = "declare it as opteq_cvx.Input, or leave it out of inputs="
            raise CompileError(message(f"inputs holds the Weight {item.name()!r}", "inputs only", fix))
        if id(item) in seen:
            found = f"inputs holds {item.name()!r} twice"
            raise CompileError(message(found, "each input once", "remove one of them"))
        seen.add(id(item))


def _check_untied(listed: Sequence[cp.Parameter], tied: Sequence[cp.Parameter]) -> None:
    names = {id(p): p.name() for p in tied}
    for p in listed:
        if id(p) in names:
            found = f"parameter {p.name()!r} is an input and tied to an output"
            raise CompileError(message(found, "one role for each parameter", "drop it from inputs=, or its tie"))


def _check_names(everything: tuple[cp.Parameter, ...]) -> None:
    used: dict[str, cp.Parameter] = {}
    for p in everything:
        if p.name() in used:
            found = f"two parameters are named {p.name()!r}, of shapes {used[p.name()].shape} and {p.shape}"
            fix = "give each its own name=: names are keywords of calls and keys of state_dict"
            raise CompileError(message(found, "one name for each parameter", fix))
        used[p.name()] = p
