"""Execute notebooks in fresh kernels and write them back, the same bytes each time.

    python notebooks/render.py          # all of them
    python notebooks/render.py 01 03    # those whose names begin so
    python notebooks/render.py --gallery  # the pictures of problems/ and the page that shows them

Every kernel runs in this folder, on one thread, with the package of this checkout. A notebook whose cells raise is
not written.
"""

import copy
import hashlib
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbformat import NotebookNode

FOLDER = Path(__file__).resolve().parent
KERNEL = {"display_name": "Python 3", "language": "python", "name": "python3"}
RENDER_LIMIT = 1800
"""Seconds that one cell may take."""


def paths() -> list[Path]:
    """The notebooks of this folder, by name."""
    return sorted(FOLDER.glob("*.ipynb"))


def read(path: Path) -> NotebookNode:
    """A notebook as it lies on disk."""
    return nbformat.read(path, as_version=4)


def code_sha(notebook: NotebookNode) -> str:
    """The stamp: SHA-256 of the code cells, in order."""
    cells = [cell.source for cell in notebook.cells if cell.cell_type == "code"]
    return hashlib.sha256("\0".join(cells).encode()).hexdigest()


def execute(notebook: NotebookNode, *, smoke: bool = False, limit: int = RENDER_LIMIT) -> NotebookNode:
    """A copy of the notebook with the outputs of a fresh kernel; `smoke` asks its cells for small sizes.

    Raises:
        nbclient.exceptions.CellExecutionError: a cell raised.
        nbclient.exceptions.CellTimeoutError: a cell took longer than `limit` seconds.
    """
    done = copy.deepcopy(notebook)
    client = NotebookClient(
        done,
        timeout=limit,
        kernel_name=KERNEL["name"],
        record_timing=False,
        store_widget_state=False,
        coalesce_streams=True,
        resources={"metadata": {"path": str(FOLDER)}},
    )
    client.execute(env=_environment(smoke=smoke))
    sha = code_sha(done)
    done.metadata = NotebookNode(kernelspec=KERNEL, language_info={"name": "python"}, opteq={"code_sha": sha})
    return done


def _environment(*, smoke: bool) -> dict[str, str]:
    """This process's environment, the checkout first on the path, without what would change the outputs."""
    dropped = ("OPTEQ_SMOKE", "OPTEQ_MNIST", "OPTEQ_PRICES", "MPLBACKEND", "PYTHONWARNINGS")
    kept = {name: value for name, value in os.environ.items() if name not in dropped}
    search = os.pathsep.join([str(FOLDER.parent), *filter(None, [kept.get("PYTHONPATH")])])
    fixed = {"PYTHONPATH": search, "OMP_NUM_THREADS": "1", "PYTHONHASHSEED": "0"}
    return kept | fixed | ({"OPTEQ_SMOKE": "1"} if smoke else {})


def main(prefixes: Sequence[str]) -> None:
    """Render the notebooks whose names begin with one of `prefixes`; all, where there is none."""
    if "--gallery" in prefixes:
        _gallery()
        return
    chosen = [path for path in paths() if not prefixes or path.name.startswith(tuple(prefixes))]
    if not chosen:
        sys.exit(f"no notebook in {FOLDER} begins with {' or '.join(prefixes) or 'anything'}")
    for path in chosen:
        print(path.name, flush=True)
        nbformat.write(execute(read(path)), path)


def _gallery() -> None:
    """Draw the gallery in a process of its own, as the kernels run."""
    program = "from notebooks.gallery import main; main()"
    subprocess.run([sys.executable, "-c", program], cwd=FOLDER.parent, env=_environment(smoke=False), check=True)


if __name__ == "__main__":
    main(sys.argv[1:])
