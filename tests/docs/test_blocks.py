"""Every code block of the documentation runs, page by page, in the order in which it is read.

A comment `<!-- needs: qpth -->` before a block says that it takes that package: such a page runs twice, without those
blocks always, and with them where the package is installed.
"""

import re
import shlex
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

import opteq_cvx.atoms
from opteq_cvx.cli import _parser

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
PAGES = sorted(p for p in DOCS.rglob("*.md") if not {"_generated", "_build"} & set(p.parts))
FENCE = re.compile(r"(?:<!-- needs: (?P<needs>\w+) -->\n)?^```(?P<language>\w+)\n(?P<code>.*?)^```$", re.M | re.S)
KNOWN = {"python", "console", "text"}
MISSING = {
    "qpth": "it asks for numpy < 2; `pip install --no-deps qpth` works all the same",
    "cvxpylayers": "the extra `reference`",
    "torchdeq": "the extra `dev`",
}


def blocks(page: Path) -> list[tuple[str | None, str, str]]:
    """(package that it needs, language, code) of each block."""
    return [(f["needs"], f["language"], f["code"]) for f in FENCE.finditer(page.read_text())]


def name(page: Path) -> str:
    """A page's path inside the folder."""
    return str(page.relative_to(DOCS))


def run(page: Path, extra: str | None) -> None:
    """Execute the page's Python: blocks without needs, and those that need `extra`."""
    names: dict[str, object] = {"__name__": "page"}
    text = page.read_text()
    for found in FENCE.finditer(text):
        if found["language"] == "python" and found["needs"] in (None, extra):
            line = text[: found.start("code")].count("\n")
            code = compile("\n" * line + found["code"], str(page), "exec")  # tracebacks show the page's own lines
            exec(code, names)


WITH_PYTHON = [p for p in PAGES if any(language == "python" for _, language, _ in blocks(p))]
NEEDED = [(p, needs) for p in PAGES for needs in sorted({n for n, _, _ in blocks(p) if n is not None})]


@pytest.fixture(autouse=True)
def _no_atom_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    """Atoms that a page registers are gone after it; classes that it defines have a module to be found in."""
    monkeypatch.setattr(opteq_cvx.atoms, "_third_party", [])
    monkeypatch.setitem(sys.modules, "page", sys.modules[__name__])


@pytest.mark.parametrize("page", WITH_PYTHON, ids=name)
def test_the_page_runs(page: Path) -> None:
    run(page, None)


@pytest.mark.parametrize(("page", "needs"), NEEDED, ids=lambda v: name(v) if isinstance(v, Path) else v)
@pytest.mark.filterwarnings("ignore")  # a peer's own
def test_the_page_runs_with_the_peer_beside_it(page: Path, needs: str) -> None:
    if find_spec(needs) is None:
        pytest.skip(f"{needs} is not installed: {MISSING[needs]}")
    run(page, needs)


def test_every_block_is_of_a_kind_that_is_checked() -> None:
    assert {language for p in PAGES for _, language, _ in blocks(p)} <= KNOWN
    for page in PAGES:
        fences = len(re.findall(r"^```", page.read_text(), re.M))
        directives = len(re.findall(r"^```\{", page.read_text(), re.M))
        assert fences == 2 * (len(blocks(page)) + directives), f"{name(page)} has a fence that no test reads"


LINES = [
    (name(p), line[2:].split("  #")[0])
    for p in PAGES for _, language, code in blocks(p) if language == "console"
    for line in code.splitlines() if line.startswith("$ ")
]  # fmt: skip


@pytest.mark.parametrize(("page", "line"), LINES)
def test_console_lines_are_commands_that_exist(page: str, line: str) -> None:
    program, *arguments = shlex.split(line)
    if program == "opteq":
        if not {"--help", "--version"} & set(arguments):
            _parser().parse_args(arguments)
    else:
        assert program in ("make", "pip", "git", "cd", "python", "python3")
