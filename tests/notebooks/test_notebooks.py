"""Notebooks: committed as executed, in step with their code, and still running."""

import ast
import re

import pytest
from nbformat import NotebookNode

from notebooks import render

SMOKE_LIMIT = 60
"""Seconds that one cell may take in the smoke run."""
LARGEST = 1_000_000
"""Bytes of one notebook."""
LONGEST_HELPER = 15
"""Lines of one function."""
NAMES = [path.stem for path in render.paths()]


@pytest.fixture(params=NAMES)
def name(request: pytest.FixtureRequest) -> str:
    """One notebook's name, without the extension."""
    return str(request.param)


@pytest.fixture
def notebook(name: str) -> NotebookNode:
    """One notebook as it lies on disk."""
    return render.read(render.FOLDER / f"{name}.ipynb")


def code(notebook: NotebookNode) -> list[NotebookNode]:
    """The code cells."""
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def outputs(notebook: NotebookNode) -> list[NotebookNode]:
    """What all cells left."""
    return [output for cell in code(notebook) for output in cell.outputs]


def images(notebook: NotebookNode) -> int:
    """How many pictures there are."""
    return sum("image/png" in output.get("data", {}) for output in outputs(notebook))


def test_there_are_notebooks_and_they_are_well_named() -> None:
    assert NAMES
    assert [name for name in NAMES if not re.fullmatch(r"\d\d_[a-z0-9]+(_[a-z0-9]+)*", name)] == []


def test_it_is_executed_from_top_to_bottom(notebook: NotebookNode) -> None:
    cells = code(notebook)
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))


def test_it_ended_without_errors_or_warnings(notebook: NotebookNode) -> None:
    assert [o for o in outputs(notebook) if o.output_type == "error" or o.get("name") == "stderr"] == []


def test_it_shows_pictures(notebook: NotebookNode) -> None:
    assert images(notebook) >= 1


def test_the_code_did_not_change_after_the_last_render(notebook: NotebookNode) -> None:
    stamp = notebook.metadata["opteq"]["code_sha"]
    assert stamp == render.code_sha(notebook), "run `make notebooks`"


def test_its_metadata_say_nothing_about_a_machine(notebook: NotebookNode) -> None:
    assert set(notebook.metadata) == {"kernelspec", "language_info", "opteq"}
    assert [cell.metadata for cell in notebook.cells if cell.metadata] == []


def test_it_is_small(name: str) -> None:
    assert (render.FOLDER / f"{name}.ipynb").stat().st_size < LARGEST


def test_it_says_what_it_asks_and_how_long_it_takes(notebook: NotebookNode) -> None:
    first = notebook.cells[0]
    assert first.cell_type == "markdown"
    assert [word for word in ("**Question.**", "**Formula.**", "**Time to run.**") if word not in first.source] == []


def test_it_asserts_its_claims(notebook: NotebookNode) -> None:
    assert any(re.search(r"^assert ", cell.source, re.MULTILINE) for cell in code(notebook))


def test_its_helpers_are_short(notebook: NotebookNode) -> None:
    nodes = [node for cell in code(notebook) for node in ast.walk(ast.parse(cell.source))]
    lengths = {node.name: node.end_lineno - node.lineno + 1 for node in nodes if isinstance(node, ast.FunctionDef)}
    assert {name: n for name, n in lengths.items() if n > LONGEST_HELPER} == {}


@pytest.mark.slow
def test_it_still_runs(notebook: NotebookNode) -> None:
    """In memory, with small sizes; every assertion in it is checked again."""
    done = render.execute(notebook, smoke=True, limit=SMOKE_LIMIT)
    assert [o for o in outputs(done) if o.get("name") == "stderr"] == []
    assert images(done) == images(notebook)
