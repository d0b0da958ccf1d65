"""Optional dependencies: the error names the extra."""

import math
from pathlib import Path

import pytest

from opteq_cvx.errors import MissingExtraError
from opteq_cvx.extras import require


def test_a_module_that_is_there_is_returned() -> None:
    assert require("math", extra="train") is math


@pytest.mark.parametrize("module", ["opteq_nothing", "opteq_nothing.inside"])
def test_a_missing_module_names_its_extra(module: str) -> None:
    with pytest.raises(MissingExtraError, match=rf"{module}.*pip install 'opteq_cvx\[plot\]'"):
        require(module, extra="plot")


def test_a_mistake_inside_a_module_is_not_blamed_on_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "broken_dependency.py").write_text("import opteq_nothing_at_all\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(ModuleNotFoundError, match="opteq_nothing_at_all") as caught:
        require("broken_dependency", extra="plot")
    assert not isinstance(caught.value, MissingExtraError)
