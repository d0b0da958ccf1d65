"""Passes: Program → Program, each equivalent on the feasible set; the order below is a decision."""

from collections.abc import Callable

from opteq_cvx.ir.program import Program
from opteq_cvx.passes.find_chains import find_chains
from opteq_cvx.passes.merge_hinges import merge_hinges
from opteq_cvx.passes.merge_intervals import merge_intervals
from opteq_cvx.passes.merge_simplex import merge_simplex
from opteq_cvx.passes.merge_transport import merge_transport
from opteq_cvx.passes.name_intervals import name_intervals
from opteq_cvx.passes.sign_simplify import sign_simplify

Pass = Callable[[Program], Program]

PASSES: tuple[Pass, ...] = (
    sign_simplify,
    merge_hinges,
    merge_intervals,
    merge_transport,
    merge_simplex,
    name_intervals,
    find_chains,
)


def run(program: Program, trace: Callable[[str, Program], None] | None = None) -> Program:
    """Apply all passes in order; `trace(name, program)` is called after each."""
    for one in PASSES:
        program = one(program)
        if trace is not None:
            trace(one.__name__, program)
    return program
