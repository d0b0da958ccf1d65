"""The site builds without a warning, from docstrings, pages and the committed notebooks."""

import subprocess
import sys
from pathlib import Path

from opteq_cvx import __all__ as public

ROOT = Path(__file__).resolve().parents[2]


def test_the_site_builds_without_a_warning_and_shows_everything(tmp_path: Path) -> None:
    """In a process of its own: docstrings are read from classes without the tests' run-time checks."""
    site = tmp_path / "html"
    command = [sys.executable, "-m", "sphinx", "--fail-on-warning", "--keep-going", "--quiet"]
    done = subprocess.run(
        [*command, "-d", str(tmp_path / "trees"), "-b", "html", "docs", str(site)],
        cwd=ROOT, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr

    reference = "\n".join(p.read_text() for p in (site / "reference").glob("*.html"))
    assert [n for n in public if f'id="opteq_cvx.{n}"' not in reference] == ["priors"]  # a module
    assert 'id="opteq_cvx.declare.priors.ridge"' in reference

    for path in (ROOT / "notebooks").glob("*.ipynb"):
        assert "_images/" in (site / "_generated" / "notebooks" / f"{path.stem}.html").read_text()
    gallery = (site / "_generated" / "gallery.html").read_text()
    assert [p.stem for p in (ROOT / "problems").glob("*.py") if f">{p.stem}<" not in gallery] == []
