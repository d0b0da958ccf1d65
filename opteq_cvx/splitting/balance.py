"""Residual balancing: by what factor the metric R moves so that primal and dual residuals come to one size.

Source: Boyd et al., *Distributed optimization by ADMM*, 2011, section 3.4.1; the square root: Stellato et al., *OSQP*,
Math. Prog. Comp. 12 (2020), section 5.2.
"""

import torch
from torch import Tensor

REBALANCE = 2.0  # R changes when primal and dual residuals differ by more than the square of this
EXTREME = 1e6  # R never moves further than this from where equilibration put it


def balance(primal: Tensor, dual: Tensor, moved: Tensor) -> Tensor | None:
    """√(primal/dual) (B,), 1 where that is less than REBALANCE either way; None where all are 1.

    Args:
        primal, dual: relative residuals (B,).
        moved: by what factor R has moved already (1|B,).
    """
    ratio = (primal.clamp_min(1e-12) / dual.clamp_min(1e-12)).sqrt().clamp(1e-2, 1e2)
    ratio = (moved * ratio).clamp(1.0 / EXTREME, EXTREME) / moved
    ratio = torch.where((ratio > REBALANCE) | (ratio < 1.0 / REBALANCE), ratio, torch.ones_like(ratio))
    return None if bool((ratio == 1.0).all()) else ratio
