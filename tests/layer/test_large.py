"""A 4000 × 4000 weight compiles with memory of a small multiple of itself: no parameter-to-data tensor anywhere."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MULTIPLE = 3.0  # a copy in float64, its conversion to the layer's dtype, and the raw parameter


@pytest.mark.slow
def test_a_large_weight_compiles_in_a_small_multiple_of_its_memory() -> None:
    command = [sys.executable, "-m", "tests.benchmarks.compile_size", "--child", "opteq_cvx", "--size", "4000"]
    done = subprocess.run(command, check=True, capture_output=True, cwd=ROOT)
    found = json.loads(done.stdout)
    assert found["megabytes"] < MULTIPLE * found["weight"]
