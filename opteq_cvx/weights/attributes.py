"""Which attributes a weight may have, alone and together, and the set they describe."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from opteq_cvx.errors import CompileError, message
from opteq_cvx.ir.frozen import Array, IntArray, Shape, freeze, freeze_index, size
from opteq_cvx.ir.param import Leaf

SIGNS = ("nonneg", "pos", "nonpos", "neg")
STRUCTURES = ("symmetric", "diag", "sparsity", "PSD", "NSD", "orthogonal")
REFUSED = {
    "integer": "weights are trained by gradients; pass integer data as an oc.Input, or round after training",
    "boolean": "weights are trained by gradients; use bounds=[0, 1], or pass the mask as an oc.Input",
    "complex": "weights are real; keep the real and the imaginary part as two weights",
    "imag": "weights are real; keep the imaginary part as a weight of its own",
    "hermitian": "weights are real; use symmetric=True",
}
PAIRS = (
    "a sign (nonneg, pos, nonpos, neg) or bounds, alone or beside one of symmetric, diag, sparsity; "
    "norm alone or beside PSD, NSD, symmetric, diag, sparsity or a sign; "
    "PSD, NSD and orthogonal otherwise alone"
)


Refuse = Callable[[str, str, str], CompileError]


@dataclass(frozen=True, slots=True, kw_only=True)
class Attributes:
    """The attribute set of one weight.

    sign: one of SIGNS, when no bounds stand beside it. bounds: (l, u), arrays that broadcast to the
    weight, with a sign folded in. structure: one of STRUCTURES. index: flat positions (C order) of the
    free entries of diag and sparsity.
    norm: the bound ρ on the spectral norm. text: all of it in the user's words.
    """

    text: str
    sign: str | None = None
    bounds: tuple[Array, Array] | None = None
    structure: str | None = None
    index: IntArray | None = None
    norm: float | None = None


def read(leaf: Leaf) -> Attributes:
    """The attribute set of a weight.

    Raises:
        CompileError: an attribute that no weight can have, a pair that is not listed in PAIRS, or a
        wrong `norm`.
    """
    set_ = {k: v for k, v in leaf.attributes.items() if v is not None and v is not False}
    text = ", ".join(_spell(k, v) for k, v in set_.items()) or "no attribute"
    origin = f'Weight "{leaf.name}"'

    def refuse(found: str, expected: str, fix: str) -> CompileError:
        return CompileError(message(found, expected, fix, origin))

    for name in set_:
        if name in REFUSED:
            raise refuse(f"{name}=True on a weight", "a real continuous weight", REFUSED[name])
        if name not in (*SIGNS, *STRUCTURES, "bounds", "norm"):
            raise refuse(f"unknown attribute {name}", PAIRS, "remove it")
    if size(leaf.shape) == 0:
        raise refuse(f"shape {leaf.shape} has no entries", "at least one entry", "remove the weight")
    signs = [s for s in SIGNS if s in set_]
    structures = [s for s in STRUCTURES if s in set_]
    structure = structures[0] if structures else None
    if len(signs) > 1 or len(structures) > 1:
        raise refuse(f"{text} together", PAIRS, "keep one of them, and write the other as a constraint")
    exclusive = {"orthogonal": {"orthogonal"}, "PSD": {"PSD", "norm"}, "NSD": {"NSD", "norm"}}
    if structure in exclusive and not set_.keys() <= exclusive[structure]:
        raise refuse(f"{text} together", PAIRS, f"keep {structure} alone, and write the rest as a constraint")
    if structure not in (None, "sparsity") and len(leaf.shape) != 2:
        raise refuse(
            f"{structure} on shape {leaf.shape}",
            "a matrix",
            f"declare the weight with two axes, or drop {structure}",
        )
    bounds = _bounds(set_, signs, leaf.shape, refuse)
    if bounds is not None and structure == "symmetric":
        for b in bounds:
            full = np.broadcast_to(b, leaf.shape)
            if not np.array_equal(full, full.T):
                raise refuse(
                    "bounds of a symmetric weight are not symmetric",
                    "bounds equal to their transpose",
                    "use scalars",
                )
    return Attributes(
        text=text,
        sign=signs[0] if signs and bounds is None else None,
        bounds=bounds,
        structure=structure,
        index=_index(set_, leaf.shape),
        norm=_norm(set_, leaf.shape, refuse),
    )


def _spell(name: str, value: Any) -> str:
    if name == "bounds":
        low, high = (np.asarray(b) for b in value)
        return f"bounds=[{low}, {high}]" if low.ndim == high.ndim == 0 else "bounds"
    return f"{name}={value}" if name == "norm" else name


def _bounds(set_: Mapping[str, Any], signs: list[str], shape: Shape, refuse: Refuse) -> tuple[Array, Array] | None:
    """The two bounds with a sign beside them folded in, or None."""
    if "bounds" not in set_:
        return None
    if any(not isinstance(b, int | float | np.ndarray | np.generic) for b in set_["bounds"]):
        raise refuse(
            "bounds that are neither numbers nor arrays",
            "two numbers or two dense arrays",
            "use scalar bounds",
        )
    low, high = (np.asarray(b, dtype=np.float64) for b in set_["bounds"])
    if signs and signs[0] in ("nonneg", "pos"):
        low = np.maximum(low, 1e-12 if signs[0] == "pos" else 0.0)
    elif signs:
        high = np.minimum(high, -1e-12 if signs[0] == "neg" else 0.0)
    if (
        np.isnan(low).any()
        or np.isnan(high).any()
        or (low > high).any()
        or (low == np.inf).any()
        or (high == -np.inf).any()
    ):
        raise refuse("bounds that no number satisfies", "lower <= upper for every entry", "swap or widen them")
    if set_.keys() & {"diag", "sparsity"} and (low.ndim or high.ndim or low > 0 or high < 0):
        raise refuse("bounds beside fixed zeros", "two numbers with 0 between them", "use scalar bounds around 0")
    if "norm" in set_:
        fix = "keep norm alone (no entry of W exceeds ‖W‖₂), or write the bounds as a constraint"
        raise refuse("norm and bounds together", PAIRS, fix)
    for b in (low, high):
        if b.ndim and b.shape != shape:
            raise refuse(f"bounds of shape {b.shape}", f"numbers or arrays of shape {shape}", "reshape them")
    return freeze(low), freeze(high)


def _index(set_: Mapping[str, Any], shape: Shape) -> IntArray | None:
    """Flat positions of the free entries, for diag and sparsity."""
    if "diag" in set_:
        return freeze_index(np.arange(shape[0]) * (shape[0] + 1))
    if "sparsity" in set_:
        coordinates = tuple(np.asarray(i, dtype=np.int64) for i in set_["sparsity"])
        return freeze_index(np.ravel_multi_index(coordinates, shape))
    return None


def _norm(set_: Mapping[str, Any], shape: Shape, refuse: Refuse) -> float | None:
    """The norm bound, checked."""
    if "norm" not in set_:
        return None
    value = set_["norm"]
    number = isinstance(value, int | float | np.floating | np.integer) and not isinstance(value, bool)
    if not number or not 0 < float(value) < np.inf:
        raise refuse(f"norm={value!r}", "a positive number", "use e.g. norm=0.95, or leave norm out")
    if len(shape) < 2:
        raise refuse(
            f"norm on shape {shape}",
            "a matrix (m, n) or a kernel (out, in, *taps)",
            "use bounds=[-r, r] for a vector or a number",
        )
    if len(shape) > 2 and "sparsity" in set_:
        raise refuse(f"norm beside sparsity on shape {shape}", "a matrix", "drop one of them")
    return float(value)
