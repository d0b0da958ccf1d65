"""Root-finding proxes against 50 digits, for points of size 0 to 1e8 of both signs and steps from 1e-12 to 1e8.

The measured ulps are the table of docs/limits.md.
"""

from dataclasses import replace

import pytest
import torch

from tests.atoms.exact_prox import SCALARS, VECTORS, scalar_error, vector_error

ULPS = 6.0
"""A few units of rounding, beyond what rounding of the inputs does; see `exact_prox` for the scale."""

DTYPES = (torch.float64, torch.float32)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", SCALARS)
def test_functions_entry_by_entry(name: str, dtype: torch.dtype) -> None:
    worst = scalar_error(SCALARS[name], dtype)
    assert worst[0] <= ULPS, worst


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", VECTORS)
def test_functions_of_vectors(name: str, dtype: torch.dtype) -> None:
    worst = vector_error(name, dtype)
    assert worst[0] <= ULPS, worst


def test_the_measure_sees_an_error_of_the_eighth_digit() -> None:
    exp = SCALARS["exp"]
    assert scalar_error(replace(exp, slope=lambda x: (1 + 1e-8) * exp.slope(x)), torch.float64)[0] > 1e6
