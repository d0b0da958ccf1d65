"""Mutants: small faults put into the package, one at a time, that the tests of its folder must notice."""
