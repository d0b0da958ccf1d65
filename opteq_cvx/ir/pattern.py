"""Patterns over Nodes: how an atom says which expressions it recognizes, as data."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from opteq_cvx.ir.tree import Node


@dataclass(frozen=True, slots=True)
class Arg:
    """Matches an expression affine in the variables (constants and parameters included)."""

    name: str = "x"


@dataclass(frozen=True, slots=True)
class Par:
    """Matches an expression of parameters and constants only."""

    name: str


@dataclass(frozen=True, slots=True)
class Op:
    """Matches an operation by name, its arguments in order, and the listed attribute values."""

    op: str
    args: tuple["Pattern", ...] = (Arg(),)
    where: Mapping[str, Any] = field(default_factory=dict)


Pattern = Arg | Par | Op


@dataclass(frozen=True, slots=True)
class Match:
    """A successful match: the node, and what each name in the pattern stands for."""

    node: Node
    bound: Mapping[str, Node]


def match(pattern: Pattern, node: Node) -> Match | None:
    """Match `pattern` at the root of `node`; None when it does not fit. A repeated name must stand for one node."""
    bound: dict[str, Node] = {}
    return Match(node, bound) if _match(pattern, node, bound) else None


def _match(pattern: Pattern, node: Node, bound: dict[str, Node]) -> bool:
    match pattern:
        case Par(name=name):
            return bound.setdefault(name, node) is node and node.param is not None
        case Arg(name=name):
            affine = node.affine is not None or node.param is not None
            return bound.setdefault(name, node) is node and affine
        case Op(op=op, args=args, where=where):
            return (
                node.op == op
                and len(node.args) == len(args)
                and all(node.attrs.get(key) == value for key, value in where.items())
                and all(_match(p, n, bound) for p, n in zip(args, node.args, strict=True))
            )
