"""Functions of several affine arguments: the arguments of a node joined into the one that a term has."""

from opteq_cvx.ir import affine as aff
from opteq_cvx.ir.program import Affine
from opteq_cvx.ir.tree import Node


def affine_of(node: Node) -> Affine | None:
    """A leaf as an affine expression, parameters included; None for an operation."""
    return aff.of_param(node.param) if node.param is not None else node.affine


def stacked(node: Node, op: str) -> Affine | None:
    """The arguments of `op` along a new last axis, all of one shape; None for other nodes."""
    if node.op != op:
        return None
    parts = [affine_of(arg) for arg in node.args]
    whole = [part for part in parts if part is not None]
    return aff.stack(whole) if len(whole) == len(parts) else None
