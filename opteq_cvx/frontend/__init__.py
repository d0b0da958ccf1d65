"""The frontend: CVXPY problem → Program. The only code that reads CVXPY's expression classes."""

from opteq_cvx.frontend.declaration import Declaration
from opteq_cvx.frontend.read import Reading, read

__all__ = ["Declaration", "Reading", "read"]
