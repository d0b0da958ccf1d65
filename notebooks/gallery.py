"""One picture for each file of `problems/`, and the page that shows them: `python notebooks/render.py --gallery`."""

from pathlib import Path
from typing import Any

import matplotlib as mpl
import torch

from notebooks.drawings import DRAWINGS
from opteq_cvx.problem_file import ProblemFile, read_problem

HERE = Path(__file__).resolve().parent
FIGURES, PAGE = HERE / "figures" / "gallery", HERE / "GALLERY.md"
SIZE, DOTS = (4.4, 3.0), 100


def problems() -> list[ProblemFile]:
    """All problem files, by name."""
    return [read_problem(p) for p in sorted((HERE.parent / "problems").glob("*.py"))]


def make(file: ProblemFile) -> Any:
    """The figure of one problem."""
    import matplotlib.pyplot as plt

    torch.manual_seed(0)
    figure, axes = plt.subplots(figsize=SIZE, layout="constrained")
    DRAWINGS[file.name](file, axes)
    return figure


def page() -> str:
    """The gallery as Markdown: summary, source and picture of each problem."""
    parts = [
        "# Gallery of problems",
        "Each file of `problems/` declares an architecture as a convex program; its picture, at small sizes, is that of"
        "\nthe compiled layer. Made by `python notebooks/render.py --gallery`.",
    ]
    for file in problems():
        picture = f"![{file.name}](figures/gallery/{file.name}.png)"
        link = f"[`problems/{file.name}.py`](../problems/{file.name}.py)"
        parts.append(f"## {file.name}\n\n{file.summary}\n\n{picture}\n\n{link}. Source: {file.source}")
    return "\n\n".join(parts) + "\n"


def main() -> None:
    """Draw all pictures and write the page."""
    import matplotlib.pyplot as plt

    mpl.use("agg")
    FIGURES.mkdir(parents=True, exist_ok=True)
    for file in problems():
        print(file.name, flush=True)
        make(file).savefig(FIGURES / f"{file.name}.png", dpi=DOTS)
        plt.close("all")
    PAGE.write_text(page(), encoding="utf-8")
