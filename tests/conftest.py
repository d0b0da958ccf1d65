"""What every test runs under: shapes checked at run time, one thread, fixed seeds, warnings as errors."""

import sys
from types import ModuleType
from typing import Any, Self

import jaxtyping
import numpy as np
import pytest
import torch
from beartype import BeartypeConf, FrozenDict, beartype
from jaxtyping import install_import_hook, jaxtyped

# Before anything of the package is imported: every annotation, shapes included, is checked in every test.
# The hook decorates functions, and beartype knows `Self` only where it decorates the class; an int is a float.
CHECKS = BeartypeConf(hint_overrides=FrozenDict({Self: object}), is_pep484_tower=True)
checker = ModuleType("opteq_checker")
vars(checker)["check"] = beartype(conf=CHECKS)
sys.modules[checker.__name__] = checker
install_import_hook("opteq_cvx", "opteq_checker.check")


def outermost(fn: Any = None, **options: Any) -> Any:
    """`jaxtyped`, but for functions inside of functions, which it would compile each time they are defined (1 ms)."""
    if fn is None:
        return lambda given: outermost(given, **options)
    return fn if "<locals>" in getattr(fn, "__qualname__", "") else jaxtyped(fn, **options)


jaxtyping.jaxtyped = outermost  # the hook's decorator looks it up there

torch.set_num_threads(1)  # results must not depend on how a sum is split over threads

ALLOWED_WARNINGS = (
    # (filter, why): warnings that come from a dependency, about its own insides.
    ("ignore:invalid escape sequence:DeprecationWarning", "diffcp's docstrings, where it is compiled first"),
    ("ignore:invalid escape sequence:SyntaxWarning", "the same since Python 3.12"),
)


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--regenerate` rewrites what is generated from the code (golden files, README's table)."""
    parser.addoption("--regenerate", action="store_true", help="rewrite generated files instead of comparing")


def pytest_configure(config: pytest.Config) -> None:
    """Warnings are errors (`setup.cfg`) but for the documented exceptions above."""
    for text, _why in ALLOWED_WARNINGS:
        config.addinivalue_line("filterwarnings", text)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests marked `gpu` are skipped, with the reason printed, where there is no CUDA device."""
    if torch.cuda.is_available():
        return
    for item in items:
        if item.get_closest_marker("gpu") is not None:
            item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))


@pytest.fixture(autouse=True)
def _seeds() -> None:
    """Global generators start each test in one state, whatever ran before."""
    torch.manual_seed(0)
    np.random.seed(0)  # noqa: NPY002  CVXPY and scikit-learn read NumPy's global state


@pytest.fixture
def generator() -> torch.Generator:
    """A generator of its own for the test's random points."""
    return torch.Generator().manual_seed(0)
