"""One small program per splitting, with weights, for the tests of derivatives."""

from collections.abc import Callable
from dataclasses import dataclass

import cvxpy as cp
import numpy as np
import torch
from torch import Tensor

import opteq_cvx as oc
from opteq_cvx.splitting.closed_form import ClosedForm
from opteq_cvx.splitting.contract import Splitting
from opteq_cvx.splitting.cyclic import Cyclic
from opteq_cvx.splitting.davis_yin import DavisYin
from opteq_cvx.splitting.douglas_rachford import DouglasRachford
from opteq_cvx.splitting.eliminated import Eliminated
from opteq_cvx.splitting.forward_backward import ForwardBackward
from opteq_cvx.splitting.graph_inclusion import GraphInclusion
from opteq_cvx.splitting.inclusion import MonotoneInclusion
from opteq_cvx.splitting.matrix_free import FactoredForwardBackward
from opteq_cvx.splitting.primal_dual import PrimalDual
from opteq_cvx.splitting.thin_douglas_rachford import ThinDouglasRachford
from problems import conv_deep, conv_opteq
from tests.ties.units import unit


@dataclass(frozen=True)
class Program:
    """`make(**options)` compiles it; `shapes` are its inputs'; `energy`: whether it minimizes; `tight`: a tolerance.

    `curved`: some prox is, so that no active set certifies. `steps`: unrolled, to a fixed point.
    """

    name: str
    splitting: type[Splitting]
    make: Callable[..., oc.EquilibriumLayer]
    shapes: tuple[tuple[int, ...], ...]
    energy: bool = True
    curved: bool = False
    tight: float = 1e-13
    steps: int = 400

    def drawn(self, count: int, seed: int = 0) -> list[Tensor]:
        """Standard normal inputs of `count` samples."""
        g = torch.Generator().manual_seed(seed)
        return [torch.randn(count, *s, generator=g, dtype=torch.float64) for s in self.shapes]

    def layer(self, **options: object) -> oc.EquilibriumLayer:
        """In float64, its splitting checked."""
        layer = self.make(**options).double()
        assert type(layer.plan.splitting) is self.splitting, layer.plan.name
        return layer


def _rng() -> np.random.Generator:
    return np.random.default_rng(0)


def projection(**options: object) -> oc.EquilibriumLayer:
    """A weighted projection on a box: one application of a prox."""
    x, u = oc.Input(5, name="x"), cp.Variable(5, name="u")
    w = oc.Weight(5, name="w", nonneg=True, init=_rng().uniform(0.5, 1.5, size=5))
    cost = cp.sum_squares(u - x) + w @ cp.abs(u)
    return oc.compile(cp.Problem(cp.Minimize(cost), [u <= 1]), **options)


def grouped(**options: object) -> oc.EquilibriumLayer:
    """Row norms and a square whose curvature differs from row to row: one application of a prox."""
    b = oc.Input((3, 2), name="b")
    x = cp.Variable((3, 2), name="x")
    curvature = np.array([[0.5], [1.0], [4.0]]) * np.ones((3, 2))
    w = oc.Weight(name="w", nonneg=True, init=0.2)
    objective = 0.5 * cp.sum(cp.multiply(curvature, cp.square(x - b - 2))) + w * cp.sum(cp.norm(x, 2, axis=1))
    return oc.compile(cp.Problem(cp.Minimize(objective)), inputs=[b], outputs=[x], **options)


def opteq(**options: object) -> oc.EquilibriumLayer:
    """The OptEq unit, a matrix formed."""
    rng, n, k = _rng(), 6, 4
    x = oc.Input(k, name="x")
    w = oc.Weight((n, n), name="W", norm=0.9, init=rng.normal(size=(n, n)) / 6)
    u_in = oc.Weight((n, k), name="U", init=rng.normal(size=(n, k)))
    u = cp.Variable(n, nonneg=True, name="u")
    energy = 0.5 * cp.quad_form(u, cp.psd_wrap(np.eye(n) - w @ w.T)) - (u_in @ x) @ u
    return oc.compile(cp.Problem(cp.Minimize(energy)), **options)


def convolutions(**options: object) -> oc.EquilibriumLayer:
    """The convolutional OptEq layer, no matrix formed."""
    torch.manual_seed(0)
    problem, inputs, outputs = conv_opteq.declare(pixels=4, channels=2)
    return oc.compile(problem, inputs=inputs, outputs=outputs, **options)


def two_convolutions(**options: object) -> oc.EquilibriumLayer:
    """Two convolutional layers in a cycle: KᵀL + LᵀK is all that is left of their factors."""
    torch.manual_seed(0)
    problem, inputs, outputs = conv_deep.declare(pixels=5, channels=2)
    return oc.compile(problem, inputs=inputs, outputs=outputs, **options)


def smooth_convolutions(**options: object) -> oc.EquilibriumLayer:
    """The same with a group norm, whose prox is curved: D in the adjoint is no diagonal, and moves with the state."""
    x, u = oc.Input((2, 3, 3), name="x"), cp.Variable((2, 3, 3), name="u")
    kernel = oc.Weight((2, 2, 2, 2), name="K", init=_rng().normal(size=(2, 2, 2, 2)) / 3)
    cost = 0.5 * cp.sum_squares(oc.conv2d(u, kernel) - 1) + 0.5 * cp.sum_squares(u - x) + cp.norm(cp.vec(u, order="C"))
    return oc.compile(cp.Problem(cp.Minimize(cost)), **options)


def inequalities(**options: object) -> oc.EquilibriumLayer:
    """A quadratic program, matrices of both kinds trained."""
    rng = _rng()
    q, h, x = oc.Input(4, name="q"), oc.Input(5, name="h"), cp.Variable(4, name="x")
    g = oc.Weight((5, 4), name="G", init=rng.normal(size=(5, 4)))
    root = oc.Weight((4, 4), name="F", init=np.eye(4) + 0.3 * rng.normal(size=(4, 4)))
    cost = 0.5 * cp.sum_squares(root @ x) - q @ x
    return oc.compile(cp.Problem(cp.Minimize(cost), [g @ x <= 0.2 * h + 0.5]), **options)


def cones(**options: object) -> oc.EquilibriumLayer:
    """A second-order cone and a logistic loss: D is neither diagonal nor a projector, and moves with the state."""
    rng = _rng()
    b, x = oc.Input(4, name="b"), cp.Variable(4, name="x")
    a = oc.Weight((5, 4), name="A", init=rng.normal(size=(5, 4)))
    cost = cp.sum_squares(x - b) + cp.sum(cp.logistic(a @ x))
    return oc.compile(cp.Problem(cp.Minimize(cost), [cp.norm(x[:3]) <= 0.3 + 0.1 * x[3]]), **options)


def overlapping(**options: object) -> oc.EquilibriumLayer:
    """A simplex and the two largest entries of the same vector: polyhedral functions of two groups, P with weights."""
    rng = _rng()
    x, u = oc.Input(5, name="x"), cp.Variable(5, name="u")
    a = oc.Weight((5, 5), name="A", init=np.eye(5) + 0.2 * rng.normal(size=(5, 5)))
    lam = oc.Weight(name="lam", nonneg=True, init=0.15)
    cost = 0.5 * cp.sum_squares(a @ u - x) + lam * cp.sum_largest(u, 2)
    return oc.compile(cp.Problem(cp.Minimize(cost), [u >= 0, cp.sum(u) == 1]), splitting="davis-yin", **options)


def rows_and_columns(**options: object) -> oc.EquilibriumLayer:
    """Norms of rows and of columns of a matrix, with data and a box in one group: curved proxes that overlap."""
    rng = _rng()
    x, u = oc.Input((3, 4), name="x"), cp.Variable((3, 4), name="u")
    r = oc.Weight(3, name="r", nonneg=True, init=rng.uniform(0.05, 0.15, size=3))
    kernel = oc.Weight((1, 1, 2, 2), name="K", init=np.array([[[[0.4, 0.2], [-0.1, 0.1]]]]))
    image = cp.reshape(u, (1, 3, 4), order="C")
    cost = 0.5 * cp.sum_squares(oc.conv2d(image, kernel)) + 0.5 * cp.sum_squares(u - x - 2)
    cost += r @ cp.norm(u, 2, axis=1) + 0.1 * cp.sum(cp.norm(u, 2, axis=0))
    return oc.compile(cp.Problem(cp.Minimize(cost)), splitting="davis-yin", **options)


def by_products(**options: object) -> oc.EquilibriumLayer:
    """The quadratic program again, its matrices only multiplied with."""
    return inequalities(splitting="primal-dual", max_steps=40_000, **options)


def by_rows(**options: object) -> oc.EquilibriumLayer:
    """The quadratic program again, its factor a diagonal and the rows of both weights."""
    return inequalities(splitting=oc.DouglasRachford(factor="woodbury"), **options)


def cones_by_rows(**options: object) -> oc.EquilibriumLayer:
    """The cone and the logistic loss again: the Jacobian of the cone couples rows."""
    return cones(splitting=oc.DouglasRachford(factor="woodbury"), **options)


def defined(**options: object) -> oc.EquilibriumLayer:
    """A residual that an equation defines, its offset and a weight trained."""
    rng = _rng()
    b, x, r = oc.Input(5, name="b"), cp.Variable(3, name="x"), cp.Variable(5, name="r")
    a, s = rng.normal(size=(5, 3)), oc.Weight((5, 5), name="S", init=np.eye(5) + 0.2 * rng.normal(size=(5, 5)))
    lam = oc.Weight(name="lam", nonneg=True, init=0.3)
    cost = 0.5 * cp.sum_squares(r) + lam * cp.norm1(x) + 0.1 * cp.sum_squares(x - 1)
    return oc.compile(cp.Problem(cp.Minimize(cost), [r == a @ x - s @ b]), **options)


def cycle(**options: object) -> oc.EquilibriumLayer:
    """Three units one behind the other."""
    x = oc.Input(3, name="x")
    return oc.compile(oc.cycle([unit(k, x, name="tanh") for k in range(3)]), **options)


def skew(**options: object) -> oc.EquilibriumLayer:
    """monDEQ with a skew part outside the unit ball."""
    rng = _rng()
    x, u, z = oc.Input(3, name="x"), cp.Variable(4, name="u"), cp.Parameter(4, name="z")
    a, b = (oc.Weight((4, 4), name=k, init=rng.normal(size=(4, 4))) for k in "AB")
    w = 0.5 * np.eye(4) - a.T @ a + b - b.T
    u_in = oc.Weight((4, 3), name="U", init=rng.normal(size=(4, 3)))
    problem = cp.Problem(cp.Minimize(oc.activation("relu")(u) - (z + u_in @ x) @ u))
    return oc.compile(problem, ties={z: w @ u}, **options)


def game(**options: object) -> oc.EquilibriumLayer:
    """Two players with constraints whose rows mix coordinates."""
    rng = _rng()
    x = oc.Input(3, name="x")
    u, v = cp.Variable(3, name="u"), cp.Variable(2, name="v")
    p, q = cp.Parameter(2, name="p"), cp.Parameter(3, name="q")
    g, h = rng.normal(size=(4, 3)), rng.normal(size=(2, 2))
    a = oc.Weight((3, 2), name="A", norm=0.5, init=rng.normal(size=(3, 2)) / 8)
    b = oc.Weight((2, 3), name="B", norm=0.5, init=rng.normal(size=(2, 3)) / 8)
    one = cp.Problem(cp.Minimize(0.5 * cp.sum_squares(u) + (a @ p - x) @ u), [g @ u <= 0.3])
    two = cp.Problem(cp.Minimize(0.5 * cp.sum_squares(v) + (b @ q + 1) @ v + cp.norm1(h @ v)), [cp.sum(v) == 0.2])
    return oc.compile([one, two], ties={p: v, q: u}, outputs=[u, v], **options)


PROGRAMS = (
    Program("closed form", ClosedForm, projection, ((5,),)),
    Program("closed form, groups", ClosedForm, grouped, ((3, 2),), curved=True),
    Program("forward-backward", ForwardBackward, opteq, ((4,),)),
    Program("matrix-free forward-backward", FactoredForwardBackward, convolutions, ((1, 4, 4),)),
    Program("matrix-free, mixed factors", FactoredForwardBackward, two_convolutions, ((1, 5, 5),)),
    Program("matrix-free, curved prox", FactoredForwardBackward, smooth_convolutions, ((2, 3, 3),), curved=True),
    Program("forward-backward, after elimination", Eliminated, defined, ((5,),)),
    Program("Douglas-Rachford", DouglasRachford, inequalities, ((4,), (5,))),
    Program("Douglas-Rachford, cones", DouglasRachford, cones, ((4,),), curved=True),
    Program("thin Douglas-Rachford", ThinDouglasRachford, by_rows, ((4,), (5,))),
    Program("thin Douglas-Rachford, cones", ThinDouglasRachford, cones_by_rows, ((4,),), curved=True),
    Program("Davis-Yin", DavisYin, overlapping, ((5,),)),
    Program("Davis-Yin, curved proxes", DavisYin, rows_and_columns, ((3, 4),), curved=True),
    Program("primal-dual", PrimalDual, by_products, ((4,), (5,))),
    Program("cyclic", Cyclic, cycle, ((3,),), energy=False),
    Program("monotone inclusion", MonotoneInclusion, skew, ((3,),), energy=False),
    Program("inclusion in graph form", GraphInclusion, game, ((3,),), energy=False, tight=1e-11, steps=2000),
)
