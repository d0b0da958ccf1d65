"""The faults themselves: each is one change that compiles, and none hides in text or annotations."""

import ast
from pathlib import Path
from typing import Any

import pytest

from tests.mutation.operators import mutants
from tests.mutation.patch import patch
from tests.mutation.survey import Lines

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
    ("y = (Spelling(text='x', data=1 + 2),)", set()),
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


MODULE = """
LIMIT = 3

def wrap(f):
    return lambda *a: f(*a)

@wrap
def f(x):
    return [y for y in range(x) if y < LIMIT]

class C:
    def g(self, x):
        inner = lambda y: y + x
        return inner(1)
"""


def test_functions_are_exchanged_in_place_and_module_bodies_are_not(tmp_path: Path) -> None:
    path = tmp_path / "module.py"
    names: dict[str, Any] = {}
    exec(compile(MODULE, str(path), "exec"), names)
    f, g = names["f"], names["C"]().g
    found = {m.after: m for m in mutants(MODULE)}
    assert (f(5), g(2)) == ([0, 1, 2], 3)
    assert patch(path, MODULE, found["y <= LIMIT"].tree)
    assert f(5) == [0, 1, 2, 3]
    assert patch(path, MODULE, found["y - x"].tree)
    assert g(2) == -1
    assert not patch(path, MODULE, found["4"].tree)
