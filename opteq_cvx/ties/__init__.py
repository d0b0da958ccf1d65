"""Ties: programs whose parameters are outputs of programs, as one inclusion, with the verdict on it."""
