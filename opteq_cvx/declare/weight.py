"""Weight: a learned tensor of a layer."""

from collections.abc import Callable
from typing import Any

import cvxpy as cp
import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor

from opteq_cvx.declare.parameter import ShapeLike, declare, leaf_of
from opteq_cvx.errors import CompileError, InputError, message
from opteq_cvx.ir.frozen import Array, Shape
from opteq_cvx.ir.param import Stage
from opteq_cvx.weights.composite import composite
from opteq_cvx.weights.draw import draw
from opteq_cvx.weights.settle import Numbers, admit, checked, settle

Init = Numbers | Tensor | Callable[[Shape], Numbers | Tensor]


class Weight(cp.Parameter):
    """A CVXPY parameter that training moves; its attributes hold by construction at every step.

    It has a value from the start, so the problem can be solved by CVXPY before any training.

    Args:
        shape: of the weight; any number of axes.
        name: its key in the layer's `state_dict`; needed to save and exchange weights.
        init: a number, an array, a tensor, or a function of the shape such as `oc.orthogonal()`. None: random entries
            of variance 1/fan_in (see `weights.draw`) from `seed`, `generator` or torch's global generator.
        norm: ρ > 0 with ‖W‖₂ < ρ at every step. A kernel (out, in, *taps) is bounded as a convolution, for
            every stride and padding. A Cholesky ball for matrices without other attributes, else a certified rescaling.
        orthogonal: orthonormal columns (rows where wide), by Cayley's map: ‖W‖₂ = 1.
        seed, generator: of the random start; at most one of them.
        attributes: CVXPY's nonneg, nonpos, pos, neg, bounds, symmetric, diag, sparsity, PSD, NSD.

    Raises:
        CompileError: integer, boolean or complex weights, attributes that do not go together, a bad `norm`.
        InputError: an `init` of another shape, or with NaN or infinity.

    Warns:
        WeightWarning: `init` lies outside the set and was projected, or on its boundary and was moved inside.
    """

    def __init__(
        self,
        shape: ShapeLike = (),
        *,
        name: str | None = None,
        init: Init | None = None,
        norm: float | int | None = None,
        orthogonal: bool = False,
        seed: int | None = None,
        generator: torch.Generator | None = None,
        **attributes: Any,
    ) -> None:
        if "value" in attributes:
            raise CompileError(message("value= on a Weight", "init=", "write init= instead", f"Weight {name!r}"))
        if seed is not None and generator is not None:
            raise InputError(message("both seed and generator", "one of them", "drop one", f"Weight {name!r}"))
        declare(self, "Weight", shape, name, attributes)
        self._norm = norm
        self._orthogonal = orthogonal
        leaf = leaf_of(self, Stage.WEIGHT)
        part = composite(leaf)
        if init is None:
            source = generator if seed is None else torch.Generator().manual_seed(seed)
            start = draw(leaf, part, source)
        else:
            given = init(leaf.shape) if callable(init) else init
            start = settle(leaf, part, checked(leaf, _array(given)))
        self.save_value(start.numpy())

    @property
    def norm(self) -> float | None:
        """The bound on the spectral norm, or None."""
        return self._norm

    @property
    def orthogonal(self) -> bool:
        """Whether the columns (rows where wide) are orthonormal."""
        return self._orthogonal

    @property  # type: ignore[explicit-override]
    def value(self) -> Array | None:
        """The present value, dense and float64; assigning one without the attributes raises InputError."""
        if self._value is None or self.sparse_idx is None:
            return self._value
        dense = np.zeros(self.shape)
        dense[self.sparse_idx] = self._value
        return dense

    @value.setter
    def value(self, value: Init | sp.sparray | sp.spmatrix | None) -> None:
        if value is None:
            self.save_value(None)
            return
        leaf = leaf_of(self, Stage.WEIGHT)
        self.save_value(admit(leaf, composite(leaf), checked(leaf, _array(value))).numpy())


def _array(value: Any) -> Any:
    """A tensor or sparse matrix as a NumPy array; anything else as it is."""
    if isinstance(value, Tensor):
        return value.detach().cpu().double().numpy()
    if isinstance(value, sp.sparray | sp.spmatrix):
        return value.toarray()
    return value
