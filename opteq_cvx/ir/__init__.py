"""Frozen data: ParamExpr, LinearMap, Term, Program, and their meaning in NumPy. Knows no tensor library."""
