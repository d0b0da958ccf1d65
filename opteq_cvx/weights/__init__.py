"""Weights: trained tensors whose attributes hold by construction (torch only)."""

from opteq_cvx.weights.settle import WeightWarning
from opteq_cvx.weights.store import WeightStore

__all__ = ["WeightStore", "WeightWarning"]
