"""A bounded, deterministic run of the fuzzer: nothing may be wrong, nothing may crash."""

import cvxpy as cp
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import opteq_cvx as oc
from tests.fuzz.check import exactly, examine
from tests.fuzz.driver import drive
from tests.fuzz.program import random_program
from tests.fuzz.records import BAD, CLASSES
from tests.fuzz.reference import distance, reference
from tests.fuzz.run import Run, run
from tests.fuzz.source import Source, shrink

FIRST, COUNT = 20_000, 200
PORTION = 50  # of them in one test
LIMIT = 1.0  # seconds of a process for solving one; `make fuzz` gives ten
EXAMPLES = 8


@pytest.mark.parametrize("first", range(FIRST, FIRST + COUNT, PORTION))
def test_random_programs_are_never_wrong_and_never_crash(first: int) -> None:
    """In a process of its own: the limit must not fall into the checks of shapes, which tests add."""
    records = drive(Run(limit=LIMIT), range(first, first + PORTION))
    told = [f"seed {r['seed']}: {r['verdict']}: {r['note']}" for r in records if r["verdict"] != "solved"]
    assert {r["verdict"] for r in records} <= set(CLASSES) - set(BAD), "\n".join(told)
    assert len(records) == PORTION
    assert len(told) <= 0.25 * PORTION, "\n".join(told)


@given(st.lists(st.integers(0, 1 << 16), max_size=40))
@settings(
    max_examples=EXAMPLES, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
)
def test_programs_from_lists_of_choices(choices: list[int]) -> None:
    """Hypothesis shrinks the list, hence the program, of a failure."""
    out = examine(Source(choices))
    assert out.verdict not in ("wrong", "crashed"), f"{out.note}\n{out.text}"


def test_a_layer_is_compared_with_its_program_at_the_same_weights() -> None:
    made = next(
        m for m in map(random_program, range(FIRST, FIRST + 50)) if m.problem.parameters() and m.builder.weights
    )
    layer = oc.compile(made.problem).double()
    exactly(made, layer)
    here = [w for w in made.builder.weights if w.name() in layer.weights.names]
    assert here
    for weight in here:
        np.testing.assert_allclose(layer.weights.numpy(weight.name()), weight.value, rtol=1e-14)


def test_a_record_replays_its_program() -> None:
    first = run(FIRST, gradients=False)
    again = examine(Source(first.choices))
    assert (again.text, again.verdict) == (first.text, first.verdict)


def test_shrinking_finds_the_smallest_list() -> None:
    found = shrink([5, 0, 9, 7, 1, 9, 3], lambda c: c.count(9) >= 2)
    assert found == [9, 9]


def test_a_reference_that_fails_is_not_the_one_before(monkeypatch: pytest.MonkeyPatch) -> None:
    x, p = cp.Variable(2), cp.Parameter(2)
    problem = cp.Problem(cp.Minimize(cp.sum_squares(x) + p @ x), [x <= 1])
    p.value = np.ones(2)
    assert reference(problem, again=True).value == pytest.approx(-0.5)

    def fails(*_: object, **__: object) -> None:
        raise cp.error.SolverError

    monkeypatch.setattr(cp.Problem, "solve", fails)
    p.value = np.array([-1.0, 2.0])
    assert reference(problem, again=True).value == pytest.approx(-1.25)


def test_what_the_exact_solver_cannot_read_has_no_reference() -> None:
    """CVXPY 1.9 does not canonicalize this `cumsum`; such a program says nothing about the layer."""
    x = cp.Variable(2)
    stacked = cp.cumsum(cp.hstack([x[0], x[1]]), axis=0)
    problem = cp.Problem(cp.Minimize(cp.quad_form(stacked, cp.psd_wrap(np.eye(2))) + cp.sum_squares(x - 1)))
    assert reference(problem, again=True).status == "error"


def test_feasibility_is_also_a_distance() -> None:
    x = cp.Variable(2)
    problem = cp.Problem(cp.Minimize(cp.sum(x)), [cp.sum(cp.log(x)) >= -16])
    x.value = np.array([0.5e-9, 100.0])
    assert float(problem.constraints[0].violation()) > 0.5
    assert distance(problem) < 1e-8
    x.value = np.array([1e-6, 1e-3])  # the nearest point has x[0] = 1.1e-4
    assert 1e-5 < distance(problem) < 2e-4
