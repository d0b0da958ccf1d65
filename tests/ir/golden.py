"""Golden texts: `OPTEQ_UPDATE_GOLDEN=1 pytest tests/ir` rewrites them, and the diff is reviewed."""

import os
from pathlib import Path

FOLDER = Path(__file__).parent.parent / "golden"


def check(name: str, text: str) -> None:
    """Compare `text` with tests/golden/<name>.txt, or rewrite the file when asked to."""
    path = FOLDER / f"{name}.txt"
    if os.environ.get("OPTEQ_UPDATE_GOLDEN") == "1":
        path.write_text(text, encoding="utf-8")
    assert path.exists(), f"no golden text {path.name}: run with OPTEQ_UPDATE_GOLDEN=1 and review it"
    assert text == path.read_text(encoding="utf-8")
