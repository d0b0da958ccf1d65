"""A table of linear maps with their dense truth, written with NumPy's kron and indexing only."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from opteq_cvx.ir.frozen import freeze_index
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
    LinearMap,
    Permute,
    Reshape,
    RightMul,
    Sparse,
    Sum,
    SumMap,
    Zero,
)
from opteq_cvx.ir.param import Leaf, Stage, const
from opteq_cvx.verify.linear import conv_matrix

Matrix = npt.NDArray[np.float64]
Coefficients = Mapping[str, Matrix]
"""One sample's coefficients by name."""


@dataclass(frozen=True)
class Case:
    """A map, its leaves, and its matrix on C-ordered flat vectors at one sample's coefficients."""

    name: str
    linear: LinearMap
    truth: Callable[[Coefficients], Matrix]
    leaves: tuple[Leaf, ...] = ()


def leaf(name: str, *shape: int) -> Leaf:
    """A weight leaf."""
    return Leaf(name, shape, Stage.WEIGHT)


A, B, S, D, R, K = leaf("A", 4, 3), leaf("B", 3, 5), leaf("S"), leaf("D", 3, 4), leaf("R", 4), leaf("K", 2, 3)
C = leaf("C", 3, 1)

_rng = np.random.default_rng(3)
CSR = sp.csr_array(_rng.standard_normal((5, 6)) * (_rng.random((5, 6)) < 0.4))
TALL = sp.csr_array(_rng.standard_normal((4, 3)) * (_rng.random((4, 3)) < 0.6))


def eye(n: int) -> Matrix:
    """The identity matrix."""
    return np.eye(n)


def picked(index: npt.ArrayLike, n: int) -> Matrix:
    """The matrix that reads `index` (-1 for zero) from n entries."""
    flat = np.asarray(index).reshape(-1)
    out = np.zeros((flat.size, n))
    for row, column in enumerate(flat):
        if column >= 0:
            out[row, column] = 1.0
    return out


def grid(*shape: int) -> npt.NDArray[np.int64]:
    """0, 1, 2, … in C order."""
    return np.arange(int(np.prod(shape))).reshape(shape)


def gathers(name: str, index: npt.ArrayLike, shape: tuple[int, ...]) -> Case:
    """A case of one selection."""
    truth = picked(index, int(np.prod(shape)))
    return Case(f"gather {name}", Gather(freeze_index(index), shape), lambda c: truth)


def kron_of(left: bool) -> Callable[[Coefficients], Matrix]:
    """Columns of the map X ↦ kron by NumPy's kron of unit matrices."""

    def truth(c: Coefficients) -> Matrix:
        columns = []
        for unit in np.eye(4).reshape(4, 2, 2):
            columns.append((np.kron(c["K"], unit) if left else np.kron(unit, c["K"])).reshape(-1))
        return np.stack(columns, axis=1)

    return truth


KERNEL = leaf("kernel", 2, 1, 2, 3)
CONV = Conv2d(KERNEL, (2, 3, 4), (1, 2), (1, 1), 2)
PAD = np.array([-1, -1, 2, 3, 4, -1])
STRIDE = np.array([0, 2, 4])
HOLES = np.array([[4, -1, 0], [-1, 2, 2]])

CASES: tuple[Case, ...] = (
    Case("identity", Identity((2, 3)), lambda c: eye(6)),
    Case("zero", Zero((3,), (2, 2)), lambda c: np.zeros((4, 3))),
    Case("diagonal scalar", Diagonal(S, (2, 3)), lambda c: c["S"] * eye(6), (S,)),
    Case("diagonal full", Diagonal(D, (3, 4)), lambda c: np.diag(c["D"].reshape(-1)), (D,)),
    Case("diagonal row", Diagonal(R, (3, 4)), lambda c: np.diag(np.tile(c["R"], 3)), (R,)),
    Case("diagonal column", Diagonal(C, (3, 2)), lambda c: np.diag(np.repeat(c["C"][:, 0], 2)), (C,)),
    Case("left vector", LeftMul(A, (3,)), lambda c: c["A"], (A,)),
    Case("left matrix", LeftMul(A, (3, 2)), lambda c: np.kron(c["A"], eye(2)), (A,)),
    Case("left stack", LeftMul(A, (2, 3, 2)), lambda c: np.kron(eye(2), np.kron(c["A"], eye(2))), (A,)),
    Case("left sparse vector", LeftMul(const(TALL), (3,)), lambda c: TALL.toarray()),
    Case(
        "left sparse",
        LeftMul(const(TALL), (2, 3, 2)),
        lambda c: np.kron(eye(2), np.kron(TALL.toarray(), eye(2))),
    ),
    Case("right vector", RightMul(B, (3,)), lambda c: c["B"].T, (B,)),
    Case("right matrix", RightMul(B, (2, 3)), lambda c: np.kron(eye(2), c["B"].T), (B,)),
    Case("right stack", RightMul(B, (2, 2, 3)), lambda c: np.kron(eye(4), c["B"].T), (B,)),
    Case("right sparse", RightMul(const(TALL), (2, 4)), lambda c: np.kron(eye(2), TALL.toarray().T)),
    gathers("range", [1, 2, 3], (5,)),
    gathers("stride", STRIDE, (5,)),
    gathers("reversed", [4, 3, 2, 1, 0], (5,)),
    gathers("padded range", PAD, (2, 3)),
    gathers("padded shuffle", [-1, 3, 0, 2, -1], (5,)),
    gathers("holes and repeats", HOLES, (5,)),
    gathers("repeated one", [2, 2, 2], (4,)),
    gathers("only zeros", [-1, -1], (3,)),
    gathers("one", [[1]], (3,)),
    gathers("scalar", 2, (3,)),
    gathers("rows and columns", grid(4, 5)[1:3, 2:5], (4, 5)),
    gathers("all but the first row and column", grid(4, 5)[1:, 1:], (4, 5)),
    gathers("all but the last row and column", grid(4, 5)[:-1, :-1], (20,)),
    gathers("a window in one line", grid(3, 4)[:, 1:3].reshape(1, -1), (3, 4)),
    gathers("a window behind a vector", 3 + grid(3, 4)[1:, :2], (15,)),
    gathers("a window before a vector", grid(3, 4)[:, 2:], (14,)),
    gathers("runs that do not fit a matrix", [1, 2, 4, 5], (6,)),
    gathers("runs of unequal length", [0, 1, 3, 4, 5, 6], (9,)),
    gathers("runs that overlap", [0, 1, 2, 1, 2, 3], (5,)),
    gathers("a column", grid(4, 3)[:, 1], (4, 3)),
    gathers("diagonal", np.diag(grid(3, 3)), (3, 3)),
    Case("reshape C", Reshape((2, 3), (3, 2), "C"), lambda c: eye(6)),
    Case("reshape F", Reshape((2, 3), (3, 2), "F"), lambda c: picked(grid(2, 3).reshape((3, 2), order="F"), 6)),
    Case("reshape F up", Reshape((6,), (1, 2, 3)), lambda c: picked(grid(6).reshape((1, 2, 3), order="F"), 6)),
    Case("reshape F scalar", Reshape((1, 1), ()), lambda c: eye(1)),
    Case("permute", Permute((2, 0, 1), (2, 3, 2)), lambda c: picked(grid(2, 3, 2).transpose(2, 0, 1), 12)),
    Case("sum all", Sum((0, 1), (2, 3)), lambda c: np.ones((1, 6))),
    Case("sum kept", Sum((1,), (2, 3), keepdims=True), lambda c: np.kron(eye(2), np.ones((1, 3)))),
    Case("sum first", Sum((0,), (2, 3)), lambda c: np.kron(np.ones((1, 2)), eye(3))),
    Case("sum none", Sum((), (2, 3)), lambda c: eye(6)),
    Case("broadcast scalar", Broadcast((), (2, 3)), lambda c: np.ones((6, 1))),
    Case("broadcast row", Broadcast((3,), (2, 3)), lambda c: np.kron(np.ones((2, 1)), eye(3))),
    Case(
        "broadcast column",
        Broadcast((2, 1), (4, 2, 3)),
        lambda c: np.kron(np.ones((4, 1)), np.kron(eye(2), np.ones((3, 1)))),
    ),
    Case("sparse", Sparse(CSR, (2, 3), (5, 1)), lambda c: CSR.toarray()),
    Case("kron left", Kron(K, (2, 2)), kron_of(left=True), (K,)),
    Case("kron right", Kron(K, (2, 2), "right"), kron_of(left=False), (K,)),
    Case("kron sparse", Kron(const(TALL), (2, 1)), lambda c: _kron_sparse()),
    Case("conv2d", CONV, lambda c: conv_matrix(CONV, c["kernel"]).toarray(), (KERNEL,)),
    Case("adjoint conv2d", Adjoint(CONV), lambda c: conv_matrix(CONV, c["kernel"]).toarray().T, (KERNEL,)),
    Case("adjoint left", Adjoint(LeftMul(A, (3, 2))), lambda c: np.kron(c["A"], eye(2)).T, (A,)),
    Case("adjoint sparse", Adjoint(Sparse(CSR, (6,), (5,))), lambda c: CSR.toarray().T),
    Case("adjoint kron", Adjoint(Kron(K, (2, 2))), lambda c: kron_of(left=True)(c).T, (K,)),
    Case("adjoint twice", Adjoint(Adjoint(RightMul(B, (2, 3)))), lambda c: np.kron(eye(2), c["B"].T), (B,)),
    Case(
        "compose wide",
        Compose((Sum((0,), (4,)), LeftMul(A, (3,)), Gather(freeze_index([0, 2, 4]), (6,)))),
        lambda c: np.ones((1, 4)) @ c["A"] @ picked(STRIDE, 6),
        (A,),
    ),
    Case(
        "compose tall",
        Compose((Gather(freeze_index([-1, *range(12)]), (3, 4)), Diagonal(R, (3, 4)), Broadcast((4,), (3, 4)))),
        lambda c: picked([-1, *range(12)], 12) @ np.diag(np.tile(c["R"], 3)) @ np.kron(np.ones((3, 1)), eye(4)),
        (R,),
    ),
    Case(
        "compose sandwich",
        Compose((RightMul(B, (4, 3)), LeftMul(A, (3, 3)))),
        lambda c: np.kron(c["A"], c["B"].T),
        (A, B),
    ),
    Case(
        "compose adjoint of composition",
        Adjoint(Compose((RightMul(B, (4, 3)), LeftMul(A, (3, 3))))),
        lambda c: np.kron(c["A"], c["B"].T).T,
        (A, B),
    ),
    Case(
        "sum of maps",
        SumMap((LeftMul(A, (3,)), LeftMul(const(TALL), (3,)), Zero((3,), (4,)))),
        lambda c: c["A"] + TALL.toarray(),
        (A,),
    ),
    Case(
        "stack",
        SumMap(
            (
                Compose((Gather(freeze_index([0, 1, 2, 3, -1, -1, -1]), (4,)), LeftMul(A, (3,)))),
                Compose((Gather(freeze_index([-1, -1, -1, -1, 0, 1, 2]), (3,)), Diagonal(S, (3,)))),
            )
        ),
        lambda c: np.vstack([c["A"], c["S"] * eye(3)]),
        (A, S),
    ),
    Case(
        "difference",
        SumMap(
            (
                Gather(freeze_index(range(1, 6)), (6,)),
                Compose((Diagonal(const(-1.0), (5,)), Gather(freeze_index(range(5)), (6,)))),
            )
        ),
        lambda c: np.diff(eye(6), axis=0),
    ),
)


def _kron_sparse() -> Matrix:
    dense = TALL.toarray()
    return np.stack([np.kron(dense, unit.reshape(2, 1)).reshape(-1) for unit in np.eye(2)], axis=1)
