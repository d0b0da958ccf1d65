"""A name that occurs twice in a pattern stands for one expression."""

from opteq_cvx.ir.frozen import EMPTY
from opteq_cvx.ir.param import const
from opteq_cvx.ir.pattern import Arg, Op, match
from opteq_cvx.ir.program import Affine
from opteq_cvx.ir.tree import Node


def leaf(text: str) -> Node:
    return Node("affine", (), (), text, EMPTY, affine=Affine((), const(0.0)))


def test_a_repeated_name_must_agree() -> None:
    x, y = leaf("x"), leaf("y")
    pattern = Op("maximum", (Op("abs", (Arg(),)), Op("square", (Arg(),))))

    def pair(a: Node, b: Node) -> Node:
        return Node("maximum", (Node("abs", (a,), (), ""), Node("square", (b,), (), "")), (), "")

    assert match(pattern, pair(x, x)) is not None
    assert match(pattern, pair(x, y)) is None
