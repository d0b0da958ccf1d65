"""Structure: a program as a smooth quadratic plus proxes on disjoint coordinates, or the reason why it is not."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from opteq_cvx.ir.frozen import Frozen, IntArray
from opteq_cvx.ir.layout import Layout
from opteq_cvx.ir.program import Program
from opteq_cvx.splitting.blocks import Block, Overlap, blocks_of, inverse_order
from opteq_cvx.splitting.contract import Certificate
from opteq_cvx.splitting.quadratic import QuadraticPart

SMOOTH = ("square", "quad_form")


@dataclass(frozen=True, slots=True, eq=False)
class Structure(Frozen):
    """½uᵀPu + qᵀu + Σ_blocks f_b(u_b), the blocks on disjoint coordinates."""

    layout: Layout
    smooth: QuadraticPart
    blocks: tuple[Block, ...]
    order: IntArray | None

    def certificate(self, theta: Sequence[Tensor], modulus: Tensor | None, convex: Tensor | None) -> Certificate:
        """Combine the quadratic's certificate with the signs of the weights and the emptiness of the sets."""
        empty: Tensor | None = None
        values, like = list(theta), convex if modulus is None else modulus
        for block in self.blocks:
            count = len(block.exprs)
            own, values = values[:count], values[count:]
            negative = block.negative_weight(own)
            if negative is not None:
                convex = ~negative if convex is None else convex & ~negative
            bad = block.empty(own, like)
            if bad is not None:
                empty = bad if empty is None else empty | bad
        return Certificate(modulus, convex, empty)


def structure(program: Program) -> Structure | str:
    """Read the structure that closed form and forward–backward need; a string says why it is absent."""
    layout = Layout.of(program)
    quadratic = tuple(t for t in program.terms if t.atom in SMOOTH)
    linear = tuple(t for t in program.terms if t.atom == "linear")
    rest = tuple(t for t in program.terms if t.atom not in (*SMOOTH, "linear"))
    found = blocks_of(rest, layout)
    if isinstance(found, Overlap):
        return found.reason
    return Structure(layout, QuadraticPart(layout, quadratic, linear), found, inverse_order(found, layout.n))
