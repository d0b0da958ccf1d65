"""Batched linear solvers for adjoint systems, one file each."""
