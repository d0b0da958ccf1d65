"""CvxpyLayer: cvxpylayers' constructor, call and batch rules on top of the compiled network."""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import cvxpy as cp
import torch
from cvxpy import error
from torch import Tensor, nn
from typing_extensions import override

from opteq_cvx.bridge.register import METHOD
from opteq_cvx.compile import Wanted
from opteq_cvx.compile import compile as compile_problem
from opteq_cvx.errors import InputError, message
from opteq_cvx.layer import EquilibriumLayer
from opteq_cvx.options import Options
from opteq_cvx.solution import Solution, detach

TOLERANCES = ("tolerance", "eps", "eps_abs", "eps_rel", "tol")
STEPS = ("max_steps", "max_iters", "max_iter")


class CvxpyLayer(nn.Module):
    """A problem as a differentiable layer, with cvxpylayers' signature: its users change one import.

    What differs: the problem need not be DPP; results have the dtype of the inputs, not float64; any number of batch
    axes leads; a sample that fails is returned as its best iterate with zero gradient and one warning, it does not
    raise for the batch (`layer.layer.solve(...)` has the status of each sample); `Weight`s in the problem are
    parameters of the module; second derivatives are exact.

    Args:
        problem: a DCP problem, or with `gp` a DGP one.
        parameters: the CVXPY parameters, in the order of the call.
        variables: what to return: variables, constraints or their `dual_variables` (multipliers with CVXPY's signs).
        solver: None; the compiled network is the solver.
        gp: the problem is geometric: the network works with logarithms, parameters and variables are as declared.
        verbose: print the plan.
        canon_backend: None; no matrix of the parameters is ever built.
        solver_args: `eps` (or `tolerance`, `eps_abs`, `eps_rel`, `tol`) and `max_iters` (or `max_steps`, `max_iter`).

    Raises:
        InputError: an argument that this layer cannot honor.
        CompileError: as `opteq_cvx.compile` raises it.
    """

    def __init__(
        self,
        problem: cp.Problem,
        parameters: Sequence[cp.Parameter],
        variables: Sequence[Wanted],
        solver: str | None = None,
        gp: bool = False,
        verbose: bool = False,
        canon_backend: str | None = None,
        solver_args: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        if solver not in (None, METHOD):
            fix = "leave it out; solver_args={'eps': 1e-8} sets the accuracy"
            raise InputError(message(f"solver={solver!r}", "None: the compiled network is the solver", fix))
        if canon_backend is not None:
            fix = "leave it out: parameters stay in structured maps, there is nothing to canonicalize per call"
            raise InputError(message(f"canon_backend={canon_backend!r}", "None", fix))
        _check(problem, variables)
        if gp and not problem.is_dgp():
            raise error.DGPError(f"the problem does not follow the DGP rules:\n{problem}")
        self.layer = compile_problem(problem, inputs=list(parameters), outputs=list(variables), gp=gp)
        self.layer.options = _options(self.layer.options, solver_args)
        self._last: Solution | None = None
        if verbose:
            sys.stdout.write(f"{self.layer.plan}\n")

    @override
    def forward(
        self, *params: Tensor, solver_args: Mapping[str, Any] | None = None, warm_start: bool = False
    ) -> tuple[Tensor, ...]:
        """The variables at the solution.

        Args:
            params: one tensor for each parameter, of its shape or with batch axes before it; shared where it has none.
            solver_args: override those of the constructor, for this call.
            warm_start: start from the solution of the last call with `warm_start`, where the batch has the same size.
        """
        layer = self.layer if not solver_args else _with(self.layer, solver_args)
        if not warm_start:
            values = layer(*params)
        else:
            last = self._last
            found = layer.solve(*params, init=last if last is not None and _fits(last, layer, params) else None)
            self._last, values = detach(found), found.values
        return tuple(values)


def _check(problem: cp.Problem, variables: Sequence[Any]) -> None:
    known = {id(v) for v in problem.variables()} | {id(c) for c in problem.constraints}
    known |= {id(d) for c in problem.constraints for d in c.dual_variables}
    for v in variables:
        if id(v) not in known:
            found = f"{v!s:.60} is no variable of the problem"
            fix = "list the cp.Variable itself, a constraint of the problem, or one of its dual_variables"
            raise InputError(message(found, "variables that occur in it, or multipliers of its constraints", fix))


def _options(options: Options, solver_args: Mapping[str, Any] | None) -> Options:
    """Options with cvxpylayers' names for accuracy and number of iterations.

    Raises:
        InputError: a name that has no meaning here.
    """
    for name, value in (solver_args or {}).items():
        if name in TOLERANCES:
            options = replace(options, tolerance=float(value))
        elif name in STEPS:
            options = replace(options, max_steps=int(value))
        else:
            known = ", ".join((*TOLERANCES, *STEPS))
            fix = f"drop {name!r}; opteq_cvx.compile has iteration= and adjoint= for the algorithms"
            raise InputError(message(f"solver_args has {name!r}", f"some of {known}", fix))
    return options


def _with(layer: EquilibriumLayer, solver_args: Mapping[str, Any]) -> EquilibriumLayer:
    """The same layer, weights shared, with other options."""
    return EquilibriumLayer(layer.plan, layer.weights, _options(layer.options, solver_args), layer.declaration)


def _fits(last: Solution, layer: EquilibriumLayer, params: tuple[Tensor, ...]) -> bool:
    """Whether the last solution is of as many samples as this call brings."""
    leaves = [p for p in layer.program.parameters if p.name in layer.input_names]
    shapes = [p.shape[: p.ndim - len(leaf.shape)] for p, leaf in zip(params, leaves, strict=True)]
    return bool(torch.broadcast_shapes(*shapes) == last.status.codes.shape)
