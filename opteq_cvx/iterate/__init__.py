"""Iterations: drivers that take a map to a fixed point."""

from opteq_cvx.iterate.accelerated import Accelerated
from opteq_cvx.iterate.anderson import Anderson
from opteq_cvx.iterate.averaging import BiGSAM, SequentialAveraging
from opteq_cvx.iterate.compiled import Compiled
from opteq_cvx.iterate.contract import Iterate, Iteration, Progress, Stop
from opteq_cvx.iterate.halpern import Halpern
from opteq_cvx.iterate.inertial import Inertial
from opteq_cvx.iterate.plain import Plain
from opteq_cvx.iterate.restarted import RestartedHalpern

__all__ = [
    "Accelerated",
    "Anderson",
    "BiGSAM",
    "Compiled",
    "Halpern",
    "Inertial",
    "Iterate",
    "Iteration",
    "Plain",
    "Progress",
    "RestartedHalpern",
    "SequentialAveraging",
    "Stop",
]
