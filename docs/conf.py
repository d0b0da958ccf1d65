"""Sphinx: pages in MyST Markdown, a reference from docstrings, the committed notebooks as they were executed.

`make docs` builds with warnings as errors. Nothing runs here: notebooks keep their outputs, figures their files. What
is made from the sources (`docs/_generated`) is written anew at every build.
"""

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE)]

import generate  # noqa: E402  beside this file
import prose  # noqa: E402  beside this file

import opteq_cvx  # noqa: E402

project = "opteq_cvx"
author = "the authors of opteq_cvx"
release = version = opteq_cvx.__version__

extensions = ["sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.mathjax", "myst_nb"]
exclude_patterns = ["_build", "**.ipynb_checkpoints"]
default_role = "code"
nb_execution_mode = "off"
nb_output_stderr = "remove"
myst_enable_extensions = ["dollarmath", "colon_fence"]
myst_heading_anchors = 3
suppress_warnings = ["mystnb.unknown_mime_type", "config.cache"]

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_default_options = {"members": True, "show-inheritance": False, "exclude-members": "__init__, __new__"}
napoleon_use_ivar = True
napoleon_numpy_docstring = False
toc_object_entries_show_parents = "hide"

html_theme = "furo"
html_title = f"opteq_cvx {release}"
html_copy_source = False

generate.write(HERE.parent, HERE / "_generated")


def setup(app: object) -> None:
    """Docstrings are prose with formulas: what reStructuredText would take for markup is escaped."""
    app.connect("autodoc-process-docstring", prose.escape, priority=100)  # type: ignore[attr-defined]
