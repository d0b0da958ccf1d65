"""Linear maps in torch: `bind` a LinearMap to an Operator, make it `dense`, or bound its norm."""

from opteq_cvx.maps.base import Lookup, Operator, align
from opteq_cvx.maps.bind import bind
from opteq_cvx.maps.dense import dense
from opteq_cvx.maps.norm import matrix_norm_bound, norm_bound

__all__ = ["Lookup", "Operator", "align", "bind", "dense", "matrix_norm_bound", "norm_bound"]
