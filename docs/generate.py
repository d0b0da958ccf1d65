"""Pages made from the sources: the gallery, the benchmarks, the atoms, and copies of the notebooks."""

import ast
import shutil
from pathlib import Path

from opteq_cvx.atoms.table import markdown

INTRODUCTIONS = {
    "opteq_unit": "The OptEq layer beside its peers, forward and backward in one call.",
    "adjoints": "Ways to differentiate: time, peak memory and the error of the gradient.",
    "black_box": "A layer that calls an exact solver, against the compiled network, on the same task.",
    "priors": "Priors in the problem, by selection, and over the batch: what each gains or costs on a task.",
    "prox": "The proximal maps beside plain torch and other libraries.",
    "layers": "Convex layers that users of cvxpylayers, qpth and QPLayer train.",
    "maros_meszaros": "Quadratic programs of the Maros–Mészáros set beside OSQP and SCS.",
    "total_variation": "Total variation in two dimensions, to a proven duality gap.",
    "compile_size": "Time and memory of compiling large programs.",
    "convolution": "The convolutional layer beside torchdeq and a loop written by hand.",
    "conv_training": "The convolutional layer and an explicit network of as many weights, by one recipe.",
    "scaling": "How the time of a call and its gradients grows with size, batch and tolerance.",
    "costs": "Measured programs beside the planner's choices.",
    "loop": "What the loop costs beside its matrix products.",
    "training": "Networks at equal parameter count, by one recipe.",
}
"""What each file of results is about; a file without an entry is shown under its name alone."""


def write(root: Path, out: Path) -> None:
    """Write every generated page under `out`, and nothing else there."""
    shutil.rmtree(out, ignore_errors=True)
    (out / "notebooks").mkdir(parents=True)
    for path in sorted((root / "notebooks").glob("*.ipynb")):
        shutil.copy(path, out / "notebooks" / path.name)
    figures = root / "notebooks" / "figures"
    if figures.is_dir():
        shutil.copytree(figures, out / "notebooks" / "figures")
    (out / "notebooks.md").write_text(_notebooks(root))
    (out / "gallery.md").write_text(_gallery(root))
    (out / "benchmarks.md").write_text(_benchmarks(root))
    for picture in (root / "tests" / "benchmarks" / "results").glob("*.png"):
        shutil.copy(picture, out / picture.name)
    (out / "atoms.md").write_text(f"# Atoms\n\nFunctions with a proximal map of their own.\n\n{markdown()}")
    changes = (root / "CHANGELOG.md").read_text()
    (out / "changes.md").write_text(changes)


def _notebooks(root: Path) -> str:
    names = [path.stem for path in sorted((root / "notebooks").glob("*.ipynb"))]
    entries = "\n".join(f"notebooks/{name}" for name in names)
    words = "Executed notebooks, shown with the outputs that are committed; `make notebooks` executes them anew."
    return f"# Notebooks\n\n{words}\n\n```{{toctree}}\n:maxdepth: 1\n\n{entries}\n```\n"


def _gallery(root: Path) -> str:
    parts = [
        "# Gallery\n",
        "Each file of `problems/` declares one architecture: `opteq explain`, `verify`, `bench` and `train` take it.\n",
    ]
    for path in sorted((root / "problems").glob("*.py")):
        module = ast.parse(path.read_text())
        words = (ast.get_docstring(module) or path.stem).split("\n\n")
        head, rest = words[0], "\n\n".join(words[1:])
        parts.append(f"## {path.stem}\n\n{_literal(head)}\n\n{_literal(rest)}\n\nSource: {_literal(_source(module))}\n")
        picture = root / "notebooks" / "figures" / "gallery" / f"{path.stem}.png"
        if picture.is_file():
            parts.append(f"![{path.stem}](notebooks/figures/gallery/{path.stem}.png)\n")
    return "\n".join(parts)


def _source(module: ast.Module) -> str:
    """The text of `SOURCE = …`."""
    for node in module.body:
        if isinstance(node, ast.Assign) and any(isinstance(t, ast.Name) and t.id == "SOURCE" for t in node.targets):
            return str(ast.literal_eval(node.value))
    return ""


def _benchmarks(root: Path) -> str:
    parts = [
        "# Benchmarks\n",
        "From the files of `tests/benchmarks/results/`, as the last run on a quiet machine left them. Every row states "
        "the accuracy that it reached: time alone says nothing. `make bench` repeats them; `opteq bench FILE` times "
        "any problem file on your own machine.\n",
    ]
    for path in sorted((root / "tests" / "benchmarks" / "results").glob("*.md")):
        lines = path.read_text().splitlines()
        body = "\n".join(lines[1:] if lines[0].startswith("# ") else lines).strip()
        about = INTRODUCTIONS.get(path.stem)
        parts.append(f"## {path.stem}\n\n{about + chr(10) * 2 if about else ''}{body}\n")
    return "\n".join(parts)


def _literal(words: str) -> str:
    """Prose with formulas as Markdown: characters that would be markup are escaped."""
    for mark in "\\*_|<>$[]#":
        words = words.replace(mark, "\\" + mark)
    return words
