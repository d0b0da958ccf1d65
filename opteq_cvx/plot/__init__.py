"""Figures: each function returns the Axes it drew on and never shows them. `trajectory` records what they draw."""

from opteq_cvx.plot.active import active_sets
from opteq_cvx.plot.atom import prox
from opteq_cvx.plot.convergence import convergence
from opteq_cvx.plot.graph import program_graph
from opteq_cvx.plot.path import path
from opteq_cvx.plot.residuals import residual_history
from opteq_cvx.plot.spectrum import spectrum
from opteq_cvx.plot.training import training_curves
from opteq_cvx.plot.trajectory import Trajectory, trajectory
from opteq_cvx.plot.verified import verified_errors, verified_report

__all__ = [
    "Trajectory",
    "active_sets",
    "convergence",
    "path",
    "program_graph",
    "prox",
    "residual_history",
    "spectrum",
    "training_curves",
    "trajectory",
    "verified_errors",
    "verified_report",
]
