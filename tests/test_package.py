"""The package as a whole: names load lazily, and the command line starts without torch or CVXPY."""

import subprocess
import sys
from pathlib import Path

import pytest

import opteq_cvx as oc

ROOT = Path(__file__).resolve().parent.parent
HEAVY = ("torch", "cvxpy", "scipy", "lightning_fabric", "matplotlib")


def loaded_after(code: str) -> set[str]:
    """The heavy modules that a fresh process holds after running `code`."""
    probe = f"import sys\n{code}\nprint(*(m for m in {HEAVY!r} if m in sys.modules))"
    return set(run(probe).splitlines()[-1].split())


def run(code: str) -> str:
    """What a fresh process prints; its errors reach the test's own output."""
    command = [sys.executable, "-c", code]
    return subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True, timeout=120).stdout


def test_importing_the_package_imports_nothing_heavy() -> None:
    assert loaded_after("import opteq_cvx") == set()


def test_the_errors_load_without_torch() -> None:
    assert loaded_after("import opteq_cvx as oc; oc.OpteqError; oc.Status") == set()


def test_a_class_of_the_deployed_side_loads_without_cvxpy() -> None:
    assert "cvxpy" not in loaded_after("import opteq_cvx as oc; oc.EquilibriumLayer; oc.load; oc.Solution")


@pytest.mark.parametrize("name", oc.__all__)
def test_every_public_name_resolves(name: str) -> None:
    assert getattr(oc, name).__doc__


def test_public_names_are_listed_once() -> None:
    assert len(oc.__all__) == len(set(oc.__all__))
    assert set(oc.__all__) <= set(dir(oc))


@pytest.mark.parametrize("name", ["compile", "verify"])
def test_a_function_named_like_its_module_stays_a_function(name: str) -> None:
    run(f"import opteq_cvx.{name}; import opteq_cvx as oc; assert callable(oc.{name})")


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Inputs'"):
        _ = oc.Inputs  # type: ignore[attr-defined]
