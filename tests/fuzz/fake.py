"""Examinations that take no time, for the tests of the driver: a module that worker processes import at once."""

import os
import time

from tests.fuzz.records import Record


def calm(seed: int) -> Record:
    """Solved, by this process."""
    return {"seed": seed, "verdict": "solved", "note": "", "pid": os.getpid()}


def troubled(seed: int) -> Record:
    """Seed 2 ends its process, seed 3 never answers."""
    if seed == 2:
        os._exit(7)
    if seed == 3:
        time.sleep(1000)
    return calm(seed)
