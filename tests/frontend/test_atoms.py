"""With the real registry: each recognized term, evaluated by its atom in torch, gives CVXPY's objective."""

import cvxpy as cp
import numpy as np
import pytest
import torch

from opteq_cvx.atoms import atom
from opteq_cvx.frontend import read
from opteq_cvx.ir.program import Affine, Program
from opteq_cvx.maps.evaluate import Environment
from opteq_cvx.maps.operator import bind
from tests.frontend import cases
from tests.frontend.test_read import build

ROUNDING = 1e-9  # relative; both sides are float64 evaluations of one formula
FEWEST = 40  # spellings of the table that atoms covered when this was written


def evaluate(program: Program, variables: dict[str, np.ndarray], values: dict[str, np.ndarray]) -> float:
    env = Environment({k: torch.tensor(v)[None] for k, v in values.items()}, torch.float64, "cpu")

    def affine(x: Affine) -> torch.Tensor:
        parts = [bind(m, env).apply(torch.tensor(variables[name])[None]) for name, m in x.parts]
        return sum(parts, env(x.offset))

    total = env(program.offset).squeeze(0)
    for term in program.terms:
        f = atom(term.atom).from_static(term.static)
        value = f.value(affine(term.arg), {k: env(p) for k, p in term.data.items()})
        weighted = value if term.weight is None else env(term.weight) * value
        assert term.weight is None or weighted.shape == value.shape
        total = total + weighted.sum()
    return program.sign * float(total)


def supported() -> list[tuple[str, cp.Problem, Program]]:
    found = []
    for text in cases.MINIMIZE:
        problem = cp.Problem(cp.Minimize(build(text)))
        program = read(problem).program
        if not any(v.name.startswith("@") for v in program.variables):  # the others take the conic route
            found.append((text, problem, program))
    return found


def test_recognized_terms_have_cvxpys_value() -> None:
    rows = supported()
    assert len(rows) >= FEWEST
    for text, problem, program in rows:
        found = evaluate(program, *cases.values_of(problem))
        assert found == pytest.approx(float(problem.objective.value), rel=ROUNDING), text
