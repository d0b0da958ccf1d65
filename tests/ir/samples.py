"""A program built by hand that holds every class of the IR."""

import numpy as np
import scipy.sparse as sp

from opteq_cvx.ir.frozen import FrozenDict, freeze, freeze_index
from opteq_cvx.ir.layout import Layout, Selection
from opteq_cvx.ir.linmap import (
    Adjoint,
    Broadcast,
    Compose,
    Conv2d,
    Diagonal,
    Gather,
    Identity,
    Kron,
    LeftMul,
    Permute,
    Reshape,
    RightMul,
    Sparse,
    Sum,
    SumMap,
    Zero,
)
from opteq_cvx.ir.param import Apply, Const, Leaf, Stage, const
from opteq_cvx.ir.pattern import Arg, Match, Op, Par
from opteq_cvx.ir.program import Affine, Constraint, Dual, DualOutput, Origin, Output, Program, Term, Tie, Variable
from opteq_cvx.ir.tree import Node

RNG = np.random.default_rng(0)


def everything() -> tuple[Program, tuple[object, ...]]:
    """A program over u (3,) and X (2, 2), and the IR objects that programs do not hold."""
    W = Leaf("W", (3, 3), Stage.WEIGHT, FrozenDict(norm=0.9))
    lam = Leaf("λ", (), Stage.WEIGHT, FrozenDict(bounds=(0.0, np.inf), nonneg=True))
    pattern = tuple(freeze_index(i) for i in ([0, 2], [1, 2]))
    S = Leaf("S", (3, 3), Stage.WEIGHT, FrozenDict(sparsity=pattern))
    x = Leaf("x", (3,), Stage.INPUT, FrozenDict(bounds=(freeze(-np.ones(3)), 2.0)))
    z = Leaf("z", (3,), Stage.TIED)
    Wx = Apply(
        "matmul",
        (W, x),
        (3,),
        FrozenDict(axis=None, label="a\nb", k=2, flags=(True, 1, 1.0, slice(0, 2, None))),
    )
    picked = Apply("gather", (Wx,), (2,), FrozenDict(index=freeze_index([0, 2]), map=Identity((3,))))
    dense, csr = const(RNG.standard_normal((3, 3))), const(sp.csr_array(np.diag([1.0, 0.0, 2.0])))
    assert isinstance(csr, Const)
    u_map = SumMap(
        (
            Compose((LeftMul(W, (3,)), Diagonal(lam, (3,)))),
            Adjoint(LeftMul(csr, (3,))),
            Gather(freeze_index([2, -1, 0]), (3,)),
            Sparse(sp.csr_array(np.eye(3)), (3,), (3,)),
            Zero((3,), (3,)),
            LeftMul(S, (3,)),
        )
    )
    X_map = Compose(
        (
            Broadcast((1,), (3,)),
            Sum((1,), (1, 4)),
            Reshape((2, 2), (1, 4), "C"),
            Permute((1, 0), (2, 2)),
            RightMul(const(np.eye(2)), (2, 2)),
            Identity((2, 2)),
        )
    )
    kron = Kron(const(np.ones((1, 2))), (2, 2), "right")
    terms = (
        Term("abs", Affine((("u", u_map), ("X", X_map)), Wx), Origin("objective[0]", "norm1(u)"), lam),
        Term(
            "huber",
            Affine((("u", LeftMul(dense, (3,))),), const(np.zeros(3))),
            Origin("objective[1]", "huber(u)"),
            None,
            FrozenDict(axes=(-1,), p=np.inf),
            FrozenDict(m=lam),
        ),
        Term("zero", Affine((("X", kron),), const(np.zeros((2, 4)))), Origin("constraint[0]", "X == 0")),
    )
    dual = Dual(Identity((2, 4)), "l2", (-1,), const(2.0))
    program = Program(
        variables=(Variable("u", (3,)), Variable("X", (2, 2))),
        parameters=(x, W, lam, S, z),
        terms=terms,
        offset=Apply("sum", (picked,), ()),
        outputs=(Output("u", Affine((("u", Identity((3,))),), const(np.zeros(3)))),),
        constraints=(Constraint(terms[2].origin, "equality", (2, 4), (2,), (dual,), dual),),
        sign=-1,
        dual_outputs=(DualOutput("dual[0]", 1, 0, None),),
        ties=(Tie("z", Affine((("u", LeftMul(W, (3,))),), const(np.zeros(3)))),),
    )
    leaf = Node("affine", (), (3,), "u", affine=program.outputs[0].value)
    root = Node("abs", (leaf,), (3,), "abs(u)", FrozenDict(map=Identity((3,))))
    op = Op("huber", (Arg(), Par("m")), {"axis": 0})
    selection = Selection(freeze_index([0, 1]), None, const(np.zeros(2)))
    others = (
        root,
        Node("param", (), (), "λ", param=lam),
        op,
        Match(root, {"x": leaf}),
        Layout.of(program),
        selection,
        Conv2d(const(np.ones((1, 1, 2, 2))), (1, 3, 3), (1, 2), (0, 1)),
    )
    return program, others
