"""README: its Python runs, its table is the registry's, its paths and commands exist."""

import re
import shlex
from pathlib import Path

import numpy as np
import pytest
import torch

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


def run(code: str) -> dict[str, object]:
    """A block's names after it ran."""
    names: dict[str, object] = {}
    exec(compile(code, "README.md", "exec"), names)
    return names


def test_the_first_example_keeps_its_word() -> None:
    names = run(PYTHON[0])
    layer, u_star = names["layer"], names["u_star"]
    assert tuple(u_star.shape) == (128, 100)  # type: ignore[attr-defined]
    assert "forward–backward" in str(layer.plan)  # type: ignore[attr-defined]
    assert names["report"].ok  # type: ignore[attr-defined]


def test_the_tied_unit_is_variational_and_verified() -> None:
    names = run(PYTHON[1])
    assert "variational" in str(names["layer"].plan)  # type: ignore[attr-defined]
    assert names["report"].ok  # type: ignore[attr-defined]


def test_the_selected_solution_is_that_of_the_pseudoinverse() -> None:
    names = run(PYTHON[2])
    want = np.linalg.pinv(names["A"]) @ np.ones(2)  # type: ignore[arg-type]
    np.testing.assert_allclose(names["x_star"].detach().numpy(), want, atol=1e-6)  # type: ignore[attr-defined]


@pytest.mark.filterwarnings("ignore::opteq_cvx.errors.SolveWarning")
def test_the_multiplier_of_the_budget() -> None:
    """x = (1 + (r − 3)/3)₊ and the multiplier is 2(1 − r/3) where the budget binds, 0 where it is ample."""
    names = run(PYTHON[3])
    solution = names["solution"]
    x, dual = (v.detach().numpy() for v in solution.values)  # type: ignore[attr-defined]
    np.testing.assert_allclose(x[[0, 2]], [[1 / 3] * 3, [1.0] * 3], atol=1e-6)
    np.testing.assert_allclose(dual[[0, 2]], [4 / 3, 0.0], atol=1e-5)
    assert solution.status[1].name == "PRIMAL_INFEASIBLE"  # type: ignore[attr-defined]


def test_the_doors_for_users_of_cvxpy() -> None:
    names = run(PYTHON[4])
    assert tuple(names["projected"].shape) == (8, 3)  # type: ignore[attr-defined]
    torch.testing.assert_close(names["projected"].sum(1), torch.ones(8).double())  # type: ignore[attr-defined]
    np.testing.assert_allclose(names["x"].value, [0.65, 0.35, 0.0], atol=1e-6)  # type: ignore[attr-defined]
    assert names["problem"].status == "optimal"  # type: ignore[attr-defined]


def test_every_python_block_is_run_above() -> None:
    assert len(PYTHON) == 5


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
    elif program == "opteq":
        _parser().parse_args(arguments)
    else:
        assert line.strip() in ("python3 -m venv .venv", ". .venv/bin/activate", "pip install -e .")
