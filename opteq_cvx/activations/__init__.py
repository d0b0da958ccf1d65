"""Activations as proximal operators: σ = prox_f, with f, the primitive σ̃ and the Lipschitz constant of σ.

For every row: σ̃(a) = aσ(a) − f(σ(a)) − ½σ(a)² (3.1), f*(a − σ(a)) = σ̃(a) − ½σ(a)² (3.2), σ = prox_f, f convex.
Functions act entry by entry on tensors, softmax along the last axis; f is +inf outside its domain. The derivative of σ
at a kink is the smallest one-sided one. Source: Combettes, Pesquet, arXiv 1808.07526, section 2.
"""

from collections.abc import Callable

from opteq_cvx.activations import piecewise, smooth, vector
from opteq_cvx.activations.refused import ALIASES, REFUSED
from opteq_cvx.activations.row import Activation, refuse

ACTIVATIONS: dict[str, Callable[..., Activation]] = {
    make.__name__: make
    for make in (
        piecewise.identity,
        piecewise.linear,
        piecewise.relu,
        piecewise.hardtanh,
        piecewise.relu6,
        piecewise.leaky_relu,
        piecewise.soft_threshold,
        piecewise.hard_sigmoid,
        smooth.tanh,
        smooth.sigmoid,
        smooth.softplus,
        smooth.log_sigmoid,
        smooth.squareplus,
        smooth.softsign,
        smooth.algebraic,
        smooth.arctan,
        smooth.tanhshrink,
        smooth.elu,
        smooth.celu,
        vector.softmax,
        vector.sparsemax,
        vector.group_shrink,
    )
}
"""Name to a maker of the row, whose arguments are the activation's own (slope, alpha, ...)."""


def table(name: str, **options: float) -> Activation:
    """The row of an activation.

    Raises:
        CompileError: no convex f has this σ as its prox, an unknown name, or options outside their range.
    """
    name = ALIASES.get(name, name)
    if name in REFUSED:
        raise refuse(name, REFUSED[name], f"one of {', '.join(ACTIVATIONS)}")
    if name not in ACTIVATIONS:
        raise refuse(name, "there is no such row", f"one of {', '.join(ACTIVATIONS)}")
    try:
        return ACTIVATIONS[name](**options)
    except TypeError as error:
        raise refuse(name, str(error), "the options of this activation") from error


__all__ = ["ACTIVATIONS", "ALIASES", "REFUSED", "Activation", "table"]
