"""README: its Python runs, its table is the registry's, its paths and commands exist."""

import re
import shlex
from pathlib import Path

import pytest

from opteq_cvx.atoms.table import markdown
from opteq_cvx.cli import _parser

ROOT = Path(__file__).resolve().parent.parent
TEXT = (ROOT / "README.md").read_text()
BEGIN, END = "<!-- atoms:begin -->\n", "<!-- atoms:end -->"
PYTHON = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
CONSOLE = [line[2:].split("#")[0] for block in re.findall(r"```console\n(.*?)```", TEXT, re.DOTALL)
           for line in block.splitlines()]  # fmt: skip


def with_table(text: str) -> str:
    """README with the table between the markers regenerated."""
    head, rest = text.split(BEGIN)
    return head + BEGIN + markdown() + END + rest.split(END, 1)[1]


def test_the_table_of_atoms_is_current(request: pytest.FixtureRequest) -> None:
    """`pytest tests/test_readme.py --regenerate` rewrites the table instead."""
    if request.config.getoption("--regenerate"):
        (ROOT / "README.md").write_text(with_table(TEXT))
    assert with_table((ROOT / "README.md").read_text()) == (ROOT / "README.md").read_text()


@pytest.mark.parametrize("code", PYTHON, ids=range(len(PYTHON)))
def test_the_python_blocks_run_and_keep_their_word(code: str) -> None:
    names: dict[str, object] = {}
    exec(compile(code, "README.md", "exec"), names)
    layer, u_star = names["layer"], names["u_star"]
    assert tuple(u_star.shape) == (128, 100)  # type: ignore[attr-defined]
    assert "forward–backward" in str(layer.plan)  # type: ignore[attr-defined]
    assert names["report"].ok  # type: ignore[attr-defined]


def test_there_is_a_first_example() -> None:
    assert len(PYTHON) == 1


def test_relative_links_and_paths_exist() -> None:
    links = [link for link in re.findall(r"\]\(([^)]+)\)", TEXT) if "://" not in link]
    files = re.findall(r"problems/\w+\.py", TEXT)
    assert links
    assert files
    assert [p for p in (*links, *files) if not (ROOT / p).exists()] == []


@pytest.mark.parametrize("line", CONSOLE)
def test_the_console_lines_are_commands_of_ours(line: str) -> None:
    program, *arguments = shlex.split(line)
    if program == "make":
        assert re.search(rf"^{arguments[0]}:", (ROOT / "Makefile").read_text(), re.MULTILINE)
    else:
        assert program == "opteq"
        _parser().parse_args(arguments)
