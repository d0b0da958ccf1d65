"""Declare: what a user writes beside CVXPY."""

from opteq_cvx.declare import priors
from opteq_cvx.declare.activation import activation
from opteq_cvx.declare.convolution import avg_pool2d, conv2d, conv2d_matrix, conv_transpose2d, differences2d
from opteq_cvx.declare.initial import orthogonal
from opteq_cvx.declare.input import Input
from opteq_cvx.declare.parameter import leaf_of
from opteq_cvx.declare.selecting import Selecting
from opteq_cvx.declare.tied import Tied, tied
from opteq_cvx.declare.unit import Unit, average, branches, cycle, unit
from opteq_cvx.declare.weight import Weight

__all__ = [
    "Input",
    "Selecting",
    "Tied",
    "Unit",
    "Weight",
    "activation",
    "average",
    "avg_pool2d",
    "branches",
    "conv2d",
    "conv2d_matrix",
    "conv_transpose2d",
    "cycle",
    "differences2d",
    "leaf_of",
    "orthogonal",
    "priors",
    "tied",
    "unit",
]
