"""Problem files: what is read, and what is said about files that are none."""

import re
from pathlib import Path

import pytest

from opteq_cvx.errors import InputError
from opteq_cvx.problem_file import read_problem

GOOD = '''"""A summary.

More.
"""
SOURCE = "a book"
def declare(*, inputs=3, hidden=4): return "problem", ["x"], ["u"]
def sample(n, generator, *, inputs=3, hidden=4): return ()
'''


def test_a_problem_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text(GOOD)
    file = read_problem(path)
    assert (file.name, file.source, file.summary) == ("mine", "a book", "A summary.")
    assert dict(file.sizes) == {"inputs": 3, "hidden": 4}
    assert file.checked({"hidden": 7}) == {"hidden": 7}
    with pytest.raises(InputError, match=r"mine has no size 'depth'.*inputs, hidden"):
        file.checked({"depth": 2})


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text("SOURCE = 'a book'\n")
    with pytest.raises(InputError, match="lacks declare, sample"):
        read_problem(path)


@pytest.mark.parametrize("name", ["nowhere.py", "folder.py", "text.txt"])
def test_what_is_no_python_file_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "folder.py").mkdir()
    (tmp_path / "text.txt").write_text(GOOD)
    with pytest.raises(InputError, match=re.escape(name)):
        read_problem(tmp_path / name)
