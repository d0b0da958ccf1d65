"""The faults themselves: each is one change that compiles, and none hides in text or annotations."""

import ast

import pytest

from tests.mutation.operators import mutants
from tests.mutation.run import Lines

CASES = (
    # (text, every replacement that is expected)
    ("y = a < b", {"a <= b", "a >= b"}),
    ("y = a == b", {"a != b"}),
    ("y = a is None", {"a is not None"}),
    ("y = a + b", {"a - b"}),
    ("y = -a", {"a"}),
    ("y += 3", {"y -= 3", "pass", "4", "2"}),
    ("y = 0.5", {"1.5", "0.25"}),
    ("y = True", {"False"}),
    ("y = a and b", {"a or b"}),
    ("y = a if b else c", {"a", "c"}),
    ("y = max(a)", {"min"}),
    ("x.sum()", {"pass", "x.prod"}),
    ("if a:\n    b = c", {"if a: pass"}),
    ('raise ValueError("a" + b)', {"pass"}),
    ("x: A | B = c", set()),
    ("X = A | B", set()),
    ("@d(1)\ndef f(a: 'b' = c) -> 'd':\n    '''Words.'''\n    return a", set()),
)


@pytest.mark.parametrize(("text", "expected"), CASES, ids=[c[0].split("\n")[0] for c in CASES])
def test_each_fault_is_one_change(text: str, expected: set[str]) -> None:
    found = list(mutants(text))
    assert {m.after for m in found} == expected
    for mutant in found:
        assert ast.dump(ast.parse(mutant.source)) != ast.dump(ast.parse(text))
        assert (mutant.first, mutant.kind != "") == (1, True)


def test_a_line_names_its_tests_the_fastest_first_and_an_import_all_of_its_module() -> None:
    lines = Lines({"m.py": {3: {"slow", "fast"}, 4: {"other"}}}, {"slow": 2.0, "fast": 0.1, "other": 1.0})
    assert lines.of("m.py", 3, 3) == ["fast", "slow"]
    assert lines.of("m.py", 3, 4) == ["fast", "other", "slow"]
    assert lines.of("m.py", 1, 1) == ["fast", "other", "slow"]
    assert lines.of("unknown.py", 1, 1) == []
