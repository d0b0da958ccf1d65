"""Random programs against an exact solver: `python -m tests.fuzz --count N --seed S`."""
