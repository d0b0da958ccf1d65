"""One table of attribute sets, with an independent check of each in NumPy."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from opteq_cvx.ir.frozen import FrozenDict, freeze, freeze_index
from opteq_cvx.ir.param import Leaf, Stage

Check = Callable[[np.ndarray, float], bool]
EPS = {"float64": 2.3e-16, "float32": 1.2e-7}


def below(rho: float) -> Check:
    return lambda W, eps: float(np.linalg.svd(W.reshape(W.shape[0], -1), compute_uv=False)[0]) < rho


def convolving_below(rho: float) -> Check:
    """Of the convolution on the infinite grid, at the frequencies of a fine finite one."""

    def check(W: np.ndarray, eps: float) -> bool:
        taps = tuple(range(2, W.ndim))
        values = np.fft.fftn(W.astype(np.float64), s=(64,) * len(taps), axes=taps)
        return float(np.linalg.norm(np.moveaxis(values, (0, 1), (-2, -1)), 2, axis=(-2, -1)).max()) < rho

    return check


def symmetric(W: np.ndarray, eps: float) -> bool:
    return np.array_equal(W, W.T)


def psd(W: np.ndarray, eps: float) -> bool:
    w = np.linalg.eigvalsh(W)
    return symmetric(W, eps) and bool(w[0] >= -8 * len(w) * eps * max(w[-1], 0.0))


def orthonormal(W: np.ndarray, eps: float) -> bool:
    T = W if W.shape[0] >= W.shape[1] else W.T
    return float(np.abs(T.T @ T - np.eye(T.shape[1])).max()) <= 50 * eps


def zero_outside(mask: np.ndarray) -> Check:
    return lambda W, eps: bool((W[~mask] == 0).all())


def every(*checks: Check) -> Check:
    return lambda W, eps: all(c(W, eps) for c in checks)


nonneg: Check = lambda W, eps: bool((W >= 0).all())  # noqa: E731  a row of the table below
PATTERN = np.array([[0, 1, 0], [1, 0, 1], [0, 0, 1]], dtype=bool)
LOW = np.array([-1.0, 0.1, -np.inf, -np.inf, 0.3])
HIGH = np.array([2.0, 0.7, 0.2, np.inf, 0.3])
SYMMETRIC_HIGH = np.array([[1.0, 0.5, 2.0], [0.5, 3.0, 0.1], [2.0, 0.1, 1.0]])
EYE = np.eye(3, dtype=bool)


@dataclass(frozen=True)
class Case:
    name: str
    shape: tuple[int, ...]
    attributes: dict[str, Any]
    check: Check

    @property
    def leaf(self) -> Leaf:
        return Leaf(self.name, self.shape, Stage.WEIGHT, FrozenDict(self.attributes))


_SPARSITY = tuple(freeze_index(i) for i in np.nonzero(PATTERN))
CASES = (
    Case("free", (3, 2), {}, lambda W, eps: True),
    Case("nonneg", (3, 2), {"nonneg": True}, nonneg),
    Case("nonneg_scalar", (), {"nonneg": True}, nonneg),
    Case("pos", (4,), {"pos": True}, lambda W, eps: bool((W > 0).all())),
    Case("nonpos", (4,), {"nonpos": True}, lambda W, eps: bool((W <= 0).all())),
    Case("neg", (2, 2, 2), {"neg": True}, lambda W, eps: bool((W < 0).all())),
    Case("box", (3, 2), {"bounds": (0.1, 0.7)}, lambda W, eps: bool(((W >= 0.1) & (W <= 0.7)).all())),
    Case(
        "bounds",
        (5,),
        {"bounds": (freeze(LOW), freeze(HIGH))},
        lambda W, eps: bool(((LOW - eps * (LOW == HIGH) <= W) & (HIGH + eps * (LOW == HIGH) >= W)).all()),
    ),
    Case(
        "nonneg_bounds",
        (3,),
        {"nonneg": True, "bounds": (-1.0, 0.3)},
        lambda W, eps: bool(((W >= 0) & (W <= 0.3)).all()),
    ),
    Case("symmetric", (3, 3), {"symmetric": True}, symmetric),
    Case("symmetric_nonneg", (3, 3), {"symmetric": True, "nonneg": True}, every(symmetric, nonneg)),
    Case(
        "symmetric_bounds",
        (3, 3),
        {"symmetric": True, "bounds": (0.0, freeze(SYMMETRIC_HIGH))},
        every(symmetric, nonneg, lambda W, eps: bool((W <= SYMMETRIC_HIGH).all())),
    ),
    Case("psd", (4, 4), {"PSD": True}, psd),
    Case("nsd", (3, 3), {"NSD": True}, lambda W, eps: psd(-W, eps)),
    Case("diag", (3, 3), {"diag": True}, zero_outside(EYE)),
    Case("diag_nonneg", (3, 3), {"diag": True, "nonneg": True}, every(zero_outside(EYE), nonneg)),
    Case("sparsity", (3, 3), {"sparsity": _SPARSITY}, zero_outside(PATTERN)),
    Case(
        "sparsity_nonpos",
        (3, 3),
        {"sparsity": _SPARSITY, "nonpos": True},
        every(zero_outside(PATTERN), lambda W, eps: bool((W <= 0).all())),
    ),
    Case("norm", (5, 3), {"norm": 0.95}, below(0.95)),
    Case("norm_wide", (2, 6), {"norm": 3.0}, below(3.0)),
    Case("norm_kernel", (2, 3, 2, 2), {"norm": 0.9}, convolving_below(0.9)),
    Case("nonneg_norm_kernel", (2, 3, 3), {"nonneg": True, "norm": 0.9}, every(nonneg, convolving_below(0.9))),
    Case("psd_norm", (3, 3), {"PSD": True, "norm": 0.5}, every(psd, below(0.5))),
    Case("nsd_norm", (3, 3), {"NSD": True, "norm": 2.0}, every(lambda W, eps: psd(-W, eps), below(2.0))),
    Case("orthogonal", (4, 4), {"orthogonal": True}, orthonormal),
    Case("orthogonal_tall", (5, 2), {"orthogonal": True}, orthonormal),
    Case("orthogonal_wide", (2, 5), {"orthogonal": True}, orthonormal),
    Case("symmetric_norm", (3, 3), {"symmetric": True, "norm": 0.9}, every(symmetric, below(0.9))),
    Case("nonneg_norm", (4, 2), {"nonneg": True, "norm": 0.9}, every(nonneg, below(0.9))),
    Case(
        "sparsity_norm",
        (3, 3),
        {"sparsity": _SPARSITY, "norm": 0.9},
        every(zero_outside(PATTERN), below(0.9)),
    ),
    Case("diag_norm", (3, 3), {"diag": True, "norm": 0.9}, every(zero_outside(EYE), below(0.9))),
    Case(
        "diag_neg_norm",
        (3, 3),
        {"diag": True, "nonpos": True, "norm": 0.9},
        every(zero_outside(EYE), below(0.9)),
    ),
)
