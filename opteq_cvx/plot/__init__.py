"""Figures: each function returns the Axes it drew on and never shows them."""

from opteq_cvx.plot.atom import prox
from opteq_cvx.plot.residuals import residual_history
from opteq_cvx.plot.training import training_curves
from opteq_cvx.plot.verified import verified_errors

__all__ = ["prox", "residual_history", "training_curves", "verified_errors"]
