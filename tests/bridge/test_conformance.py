"""CVXPY's own test modules with their solves redirected: what passes must go on passing, and no known miss may heal."""

import unittest
from collections.abc import Iterator
from typing import Any

import pytest

from tests.bridge.conformance import MODULES, QUICK, Case, cases, miss


def listed(modules: tuple[str, ...]) -> list[Any]:
    """The cases of modules, those that cannot pass as strict xfails with their reasons."""
    rows = []
    for case in (c for m in modules for c in cases(m)):
        why = miss(case.name)
        marks = [] if why is None else [pytest.mark.xfail(strict=True, reason=why)]
        rows.append(pytest.param(case, id=case.name, marks=marks))
    return rows


@pytest.mark.parametrize("case", listed(QUICK))
def test_quick(case: Case) -> None:
    case.run()


def module_names() -> Iterator[str]:
    return (m for m in MODULES if m not in QUICK)


@pytest.mark.slow
@pytest.mark.parametrize("module", list(module_names()))
def test_module(module: str, subtests_of: Any) -> None:
    """One module, imported only when it runs; its cases are told one by one."""
    subtests_of(listed((module,)))


@pytest.fixture
def subtests_of(record_property: Any) -> Any:
    """Run parameters by hand: every case must pass, but those with a reason, which must fail."""

    def run(rows: list[Any]) -> None:
        wrong = []
        for row in rows:
            (case,) = row.values
            expected = bool(row.marks)
            try:
                case.run()
            except unittest.SkipTest:
                continue
            except Exception as error:  # whatever a foreign test raises
                if not expected:
                    wrong.append(f"{case.name}: {type(error).__name__}: {str(error)[:200]}")
            else:
                if expected:
                    wrong.append(f"{case.name}: passes now; take it from MISSES")
            record_property(case.name, "miss" if expected else "pass")
        assert not wrong, "\n".join(wrong)

    return run
