"""The functions of activations as weighted nodes: piecewise ones of known functions, others of one of their own."""

import math

import numpy as np

from opteq_cvx.ir import act
from opteq_cvx.ir.frozen import FrozenDict, Shape
from opteq_cvx.ir.param import const
from opteq_cvx.ir.tree import Node


def pieces(
    name: str, x: Node, minus: Node, shape: Shape, words: str, options: dict[str, float]
) -> tuple[tuple[float, Node], ...]:
    """f of the activation `name` as Σ cᵢ · nodeᵢ, for an argument x and its negative; `shape` is the value's."""

    def unary(op: str, argument: Node) -> Node:
        return Node(op, (argument,), x.shape, words)

    match name:
        case "identity":
            return ((1.0, _box(x, -math.inf, math.inf, words)),)
        case "linear":
            return ((0.5 / options["slope"] - 0.5, unary("square", x)),)
        case "group_shrink":
            reduced = FrozenDict(axes=(-1,), keepdims=False)
            return ((options["threshold"], Node("norm2", (x,), shape, words, reduced)),)
        case "relu":
            return ((1.0, _box(x, 0.0, math.inf, words)),)
        case "relu6":
            return ((1.0, _box(x, 0.0, 6.0, words)),)
        case "hardtanh":
            return ((1.0, _box(x, options["lower"], options["upper"], words)),)
        case "leaky_relu":
            slope = options["slope"]
            return (((1.0 - slope) / (2.0 * slope), unary("square", unary("pos", minus))),)
        case "soft_threshold":
            return ((options["threshold"], unary("abs", x)),)
        case "hard_sigmoid":
            return (1.0, _box(x, 0.0, 1.0, words)), (2.5, unary("square", x)), (3.0, minus)
        case "squareplus":
            return ((options["mu"], unary("neg_log", x)),)
        case _:
            return ((1.0, Node(f"activation_{name}", (x,), shape, words, FrozenDict(options))),)


def _box(x: Node, low: float, high: float, words: str) -> Node:
    ends = (act.spread(const(np.float64(bound)), x.shape) for bound in (low, high))
    return Node("box", (x, *(Node("param", (), x.shape, words, param=p) for p in ends)), x.shape, words)
