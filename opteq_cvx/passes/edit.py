"""Replacing terms of a program, with the constraints' indices kept right."""

from collections.abc import Sequence
from dataclasses import replace

from opteq_cvx.ir.program import Program, Term

Edit = tuple[tuple[int, ...], tuple[Term, ...]]
"""Terms by index, and the terms that take their place, at the first of them."""


def rewrite(program: Program, edits: Sequence[Edit]) -> Program:
    """Apply edits on disjoint terms; a constraint of a replaced term gets all terms in its place."""
    if not edits:
        return program
    home = {i: k for k, (old, _) in enumerate(edits) for i in old}
    terms: list[Term] = []
    places: dict[int, tuple[int, ...]] = {}
    made: dict[int, tuple[int, ...]] = {}
    for i, term in enumerate(program.terms):
        new: tuple[Term, ...] = (term,)
        if i in home:
            new = () if home[i] in made else edits[home[i]][1]
        at = tuple(range(len(terms), len(terms) + len(new)))
        terms.extend(new)
        if i in home:
            at = made.setdefault(home[i], at)
        places[i] = at
    constraints = tuple(
        replace(c, terms=tuple(dict.fromkeys(k for i in c.terms for k in places[i]))) for c in program.constraints
    )
    return replace(program, terms=tuple(terms), constraints=constraints)
