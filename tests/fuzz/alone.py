"""Programs of one function or set beside a quadratic: closed forms, forward–backward, convolutions of small images.

Where no other term acts on its variables, passes find what they make of several terms (chains of differences,
transport polytopes), and the plan takes the maps that need one prox only.
"""

import cvxpy as cp
import numpy as np

import opteq_cvx as oc
from tests.fuzz.builder import Builder
from tests.fuzz.terms import ACTIVATIONS, FEATURED, featured

RARE = ("tv", "fused_lasso", "monotone", "transport", *(f"activation {name}" for name in ACTIVATIONS))
NAMES = (*FEATURED, *RARE, *RARE, "fused_lasso", "fused_lasso")
"""What passes make, and activations, are drawn more often: elsewhere other terms are in their way."""

RIDGE = 0.05
Made = tuple[str, list[cp.Expression], list[cp.Constraint], float]
"""Label, terms, constraints and a modulus of strong convexity."""


def near(b: Builder) -> Made:
    """A function or set and the distance from a point: one prox, no iteration."""
    label, terms, sets = featured(b, NAMES)
    scale = b.source.choose((0.5, 1.0, 3.0))
    for v in b.variables:
        terms.append(scale * cp.sum_squares(v - b.data(lambda rng, v=v: 2.0 * rng.normal(size=v.shape))))
    return label, terms, sets, 2.0 * scale


def fitted(b: Builder) -> Made:
    """A function or set and ½‖Lv − c‖² for each variable, L a matrix, differences, sums or a convolution."""
    label, terms, sets = featured(b, NAMES)
    for v in b.variables:
        terms += [0.5 * cp.sum_squares(residual(b, v)), RIDGE * cp.sum_squares(v)]
    return label, terms, sets, 2.0 * RIDGE


def residual(b: Builder, v: cp.Variable) -> cp.Expression:
    """Lv − c."""
    if v.ndim == 0:
        image = b.data(lambda rng: rng.normal()) * v
    elif v.ndim == 1:
        how = b.source.pick(5)
        if how == 1 and v.size > 1:
            image = cp.diff(v)
        elif how == 2:
            image = cp.convolve(b.source.normal(3), v)
        elif how == 3:
            image = cp.cumsum(v)
        else:
            image = b.matrix(b.source.choose((v.size, v.size + 2, 2)), v.size) @ v
    elif b.source.chance(50):
        image = b.matrix(b.source.choose((v.shape[0], 2)), v.shape[0]) @ v
    else:
        image = convolved(b, cp.reshape(v, (1, *v.shape), order="C"))
    return image - b.data(lambda rng: rng.normal(size=image.shape))


def convolved(b: Builder, image: cp.Expression) -> cp.Expression:
    """The convolution of an image (C, H, W) with a 3 × 3 kernel at a random stage."""
    channels = b.source.choose((1, 2))
    kernel = b.data(lambda rng: rng.normal(size=(channels, image.shape[0], 3, 3)) / 3.0)
    return oc.conv2d(image, kernel, padding=1)


def pictured(b: Builder) -> Made:
    """An image (C, H, W) seen through a convolution or differences, with a prior."""
    shape = b.source.choose(((1, 4, 5), (2, 3, 4), (1, 8, 8)))
    x = b.variable(shape, np.abs(b.source.normal(*shape)))
    weight = float(b.source.uniform(0.05, 0.5))
    priors = (
        (weight * cp.norm1(x), None),
        (0.0, x >= 0),
        (0.0, cp.abs(x) <= 0.75),
        (weight * cp.sum(cp.huber(x)), None),
        (weight * cp.norm1(oc.differences2d(x)), None),
        (weight * cp.sum(cp.norm(cp.reshape(x, (shape[0], x.size // shape[0]), order="C"), 2, axis=1)), None),
        (oc.activation("tanh")(x) if b.source.chance(50) else oc.activation("elu")(x), None),
    )
    name = b.source.choose(("norm1", "nonneg", "box", "huber", "differences", "groups", "activation"))
    prior, held = priors[("norm1", "nonneg", "box", "huber", "differences", "groups", "activation").index(name)]
    seen = convolved(b, x)
    fit = 0.5 * cp.sum_squares(seen - b.data(lambda rng: rng.normal(size=seen.shape)))
    terms = [t for t in (prior, fit, RIDGE * cp.sum_squares(x)) if isinstance(t, cp.Expression)]
    return f"image, {name}", terms, [] if held is None else [held], 2.0 * RIDGE
