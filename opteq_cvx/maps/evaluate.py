"""Environment: the values of ParamExprs in torch, batched, differentiable, each computed once.

Every value has exactly one leading batch axis, of length B (per sample) or 1 (shared by the batch). A rule
per operation name computes it with the meaning of CVXPY's function of that name.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from opteq_cvx.errors import InputError, UnsupportedError, message
from opteq_cvx.ir.frozen import Frozen
from opteq_cvx.ir.param import Apply, Const, Leaf, ParamExpr, Stage
from opteq_cvx.maps import (
    rules_arithmetic,
    rules_elementwise,
    rules_matrix,
    rules_reduction,
    rules_shape,
)
from opteq_cvx.maps.bind import bind
from opteq_cvx.maps.dense import dense
from opteq_cvx.maps.matrix import matrix_of
from opteq_cvx.maps.rule import Rules

RULES: Rules = {
    **rules_arithmetic.RULES,
    **rules_shape.RULES,
    **rules_elementwise.RULES,
    **rules_reduction.RULES,
    **rules_matrix.RULES,
}

MAPS = ("map", "map_apply", "map_adjoint")
"""Operations: the LinearMap `attrs["map"]` on the first argument; the others are the map's coefficients.

`map_matrix` is that map as a matrix; its arguments are the coefficients."""

Known = dict[int, tuple[ParamExpr, Tensor]]
"""Values by the id of their expression, which is kept, so that the id stays its own."""


@dataclass(frozen=True, slots=True)
class Weighted:
    """Values of expressions in weights only, at one setting of these."""

    dtype: torch.dtype
    device: torch.device
    known: Known


class Environment:
    """Values of parameters by name, and of expressions of them on demand: `env(expr)` is (1|B, *expr.shape).

    Args:
        values: each leaf's value (1|B, *shape), by name.
        dtype, device: of every result; constants are rebuilt from float64, values are moved.
        constants: where the constants of a program are kept from call to call; None: nowhere.
        weighted: what another environment found for the same weights, see `of_weights`; None: nothing.
    """

    def __init__(
        self,
        values: Mapping[str, Tensor],
        dtype: torch.dtype,
        device: torch.device | str,
        constants: "Constants | None" = None,
        weighted: "Weighted | None" = None,
    ) -> None:
        self.values = values
        self.constants = constants
        self.dtype = dtype
        self.device = torch.device(device)
        self._known: Known = {}
        if weighted is not None and (weighted.dtype, weighted.device) == (self.dtype, self.device):
            self._known.update(weighted.known)

    def __call__(self, expr: ParamExpr) -> Tensor:
        """The value of `expr`, (1|B, *expr.shape).

        Raises:
            InputError: a leaf has no value or one of another shape.
            UnsupportedError: an operation has no rule.
        """
        stack = [expr]
        while stack:  # by hand: sums written in a loop nest deeper than Python's recursion
            node = stack[-1]
            missing = [a for a in _needed(node) if id(a) not in self._known]
            if missing:
                stack.extend(missing)
                continue
            stack.pop()
            if id(node) not in self._known:
                self._known[id(node)] = (node, self._evaluate(node))
        return self._known[id(expr)][1]

    def of_weights(self) -> "Weighted":
        """What was computed from weights alone, for calls at the same weights."""
        found = self._known.items()
        known: Known = {i: (e, v) for i, (e, v) in found if isinstance(e, Apply) and e.stage is Stage.WEIGHT}
        return Weighted(self.dtype, self.device, known)

    def _evaluate(self, node: ParamExpr) -> Tensor:
        match node:
            case Const():
                if self.constants is None:
                    return build(node, self.dtype, self.device)
                return self.constants(node, self.dtype, self.device)
            case Leaf():
                return self._leaf(node)
            case Apply():
                return self._apply(node)

    def _leaf(self, leaf: Leaf) -> Tensor:
        value = self.values.get(leaf.name)
        if value is None or tuple(value.shape[1:]) != leaf.shape:
            found = "has no value" if value is None else f"has a value of shape {tuple(value.shape)}"
            raise InputError(
                message(
                    f'parameter "{leaf.name}" {found}',
                    f"one batch axis and then {leaf.shape}",
                    f'pass a tensor of shape (batch, *{leaf.shape}) for "{leaf.name}"',
                )
            )
        return value.to(dtype=self.dtype, device=self.device)

    def _apply(self, node: Apply) -> Tensor:
        if node.op == "map_matrix":
            like = torch.empty(0, dtype=self.dtype, device=self.device)
            return dense(node.attrs["map"], self, like=like)
        if node.op in MAPS:
            operator, x = bind(node.attrs["map"], self), self(node.args[0])
            return operator.adjoint(x) if node.op == "map_adjoint" else operator.apply(x)
        if _has_sparse_factor(node):
            return self._sparse_matmul(node)
        rule = RULES.get(node.op)
        if rule is None:
            raise UnsupportedError(
                message(
                    f'the operation "{node.op}" on parameters has no rule',
                    "an operation of CVXPY on parameters and constants",
                    "compute it in torch and pass the result as a parameter of its own",
                )
            )
        out = rule(node, *(self._known[id(a)][1] for a in node.args))
        assert tuple(out.shape[1:]) == node.shape, f"rule {node.op}: {tuple(out.shape)} for {node.shape}"
        return out

    def _sparse_matmul(self, node: Apply) -> Tensor:
        """A @ x or x @ A with a sparse constant A (the second where both are): one product for the batch."""
        a, b = node.args
        if _sparse(b):
            return matrix_of(b, self).transposed.rows(self(a))
        matrix = matrix_of(a, self)
        return matrix.rows(self(b)) if len(b.shape) == 1 else matrix.left(self(b))


def build(node: Const, dtype: torch.dtype, device: torch.device) -> Tensor:
    """A constant as a tensor (1, *shape) of its own."""
    host = torch.from_numpy(node.dense().copy())
    return host.to(dtype=dtype, device=device).unsqueeze(0)


class Constants(Frozen):
    """The constants of one program as tensors, each built once per dtype and device; never written to by a reader.

    Two threads that meet may build one twice: the tensors are equal, and either serves.
    """

    def __init__(self) -> None:
        self._known: dict[tuple[int, torch.dtype, torch.device], tuple[Const, Tensor]] = {}

    def __call__(self, node: Const, dtype: torch.dtype, device: torch.device) -> Tensor:
        """The tensor (1, *shape) of `node`."""
        key = (id(node), dtype, device)
        found = self._known.get(key)
        if found is None:
            with torch.inference_mode(False):
                made = build(node, dtype, device)
            if type(made) is not Tensor or torch._C._functorch.is_functorch_wrapped_tensor(made):
                return made  # made inside a trace or a function transform, it would outlive its level
            found = self._known[key] = (node, made)  # the node is kept, so that its id stays its own
        return found[1]


def _sparse(expr: ParamExpr) -> bool:
    return isinstance(expr, Const) and expr.sparse


def _has_sparse_factor(node: Apply) -> bool:
    return node.op == "matmul" and any(_sparse(a) for a in node.args)


def _needed(node: ParamExpr) -> tuple[ParamExpr, ...]:
    """The expressions whose values `node` is computed from, leaving out factors that stay sparse."""
    if not isinstance(node, Apply):
        return ()
    if _has_sparse_factor(node):
        a, b = node.args
        return (a,) if _sparse(b) else (b,)
    if node.op == "map_matrix":
        return tuple(a for a in node.args if not _sparse(a))
    if node.op in MAPS:
        return (node.args[0], *(a for a in node.args[1:] if not _sparse(a)))
    return node.args
