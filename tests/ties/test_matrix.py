"""Linear maps as matrices of parameters, against the maps applied to unit vectors."""

import numpy as np
import pytest
import torch

from opteq_cvx.ir import meaning
from opteq_cvx.ir.linmap import (
    Adjoint,
    Broadcast,
    Compose,
    Diagonal,
    Gather,
    Identity,
    Kron,
    LeftMul,
    LinearMap,
    Permute,
    Reshape,
    RightMul,
    Sum,
    SumMap,
    Zero,
)
from opteq_cvx.ir.param import Apply, Leaf, ParamExpr, Stage, const
from opteq_cvx.maps.evaluate import Environment
from opteq_cvx.ties.linear import transposed
from opteq_cvx.ties.matrix import assemble, matrix

RNG = np.random.default_rng(0)
VALUES = {"A": RNG.normal(size=(2, 3)), "d": RNG.normal(size=3), "s": RNG.normal(size=()), "K": RNG.normal(size=(2, 2))}
A, D, S, K = (Leaf(name, VALUES[name].shape, Stage.INPUT) for name in "AdsK")
C = RNG.normal(size=(4, 2))

MAPS: dict[str, LinearMap] = {
    "identity": Identity((2, 3)),
    "zero": Zero((3,), (2, 2)),
    "left": LeftMul(A, (3,)),
    "left of a matrix": LeftMul(A, (3, 2)),
    "right": RightMul(A, (4, 2)),
    "number": Diagonal(S, (2, 2)),
    "diagonal": Diagonal(D, (2, 3)),
    "gather with zeros": Gather(np.array([[2, -1], [0, 1]]), (3,)),
    "reshape in F order": Reshape((2, 3), (3, 2), "F"),
    "permute": Permute((1, 0), (2, 3)),
    "sum": Sum((0,), (2, 3)),
    "sum that keeps": Sum((1,), (2, 3), True),
    "broadcast": Broadcast((3,), (2, 3)),
    "broadcast of ones": Broadcast((2, 1), (2, 3)),
    "kron": Kron(K, (2, 3), "left"),
    "adjoint": Adjoint(LeftMul(A, (3,))),
    "adjoint of a gather": Adjoint(Gather(np.array([1, 1, -1]), (3,))),
    "numbers alone": Compose((Diagonal(S, (3,)), Diagonal(const(2.0), (3,)))),
    "product of vectors' maps": Compose((LeftMul(const(C), (2,)), LeftMul(A, (3,)), Diagonal(D, (3,)))),
    "product with constants": Compose((LeftMul(A, (3,)), Diagonal(const(np.arange(3.0)), (3,)), Diagonal(S, (3,)))),
    "product of other maps": Compose((Sum((0,), (2, 3)), Diagonal(D, (2, 3)))),
    "sum of maps": SumMap((LeftMul(A, (3,)), Compose((Diagonal(S, (2,)), LeftMul(A, (3,)))))),
}


def number(expr: ParamExpr) -> np.ndarray:
    values = {k: torch.as_tensor(v).unsqueeze(0) for k, v in VALUES.items()}
    return Environment(values, torch.float64, torch.device("cpu"))(expr)[0].numpy()


def dense(m: LinearMap) -> np.ndarray:
    return meaning.matrix(m, number)


@pytest.mark.parametrize("name", MAPS)
def test_the_matrix_of_a_map(name: str) -> None:
    np.testing.assert_allclose(number(matrix(MAPS[name])), dense(MAPS[name]), atol=1e-12)


@pytest.mark.parametrize("name", MAPS)
def test_the_transpose_of_a_map(name: str) -> None:
    found = transposed(MAPS[name])
    assert (found.shape_in, found.shape_out) == (MAPS[name].shape_out, MAPS[name].shape_in)
    np.testing.assert_allclose(dense(found), dense(MAPS[name]).T, atol=1e-12)


def test_blocks_make_one_matrix() -> None:
    corner = const(np.eye(2))
    mixed = [[corner, A], [Apply("transpose", (A,), (3, 2)), const(np.ones((3, 3)))]]
    np.testing.assert_allclose(number(assemble(mixed)), np.block([[number(b) for b in row] for row in mixed]))
    constant = [[corner, const(np.zeros((2, 1)))], [const(np.ones((1, 2))), const(np.full((1, 1), 3.0))]]
    np.testing.assert_allclose(number(assemble(constant)), [[1, 0, 0], [0, 1, 0], [1, 1, 3]])
    assert assemble([[A]]) is A
