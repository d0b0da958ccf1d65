"""Convolutions of images in CVXPY: affine atoms on (C, H, W) expressions, which CVXPY solves as sparse matrices.

The compiled network runs `torch.nn.functional.conv2d` and its exact adjoint; `conv2d_matrix` is a convolution as a
matrix of parameters, for quadratic forms: the network never forms it.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import cvxpy as cp
import cvxpy.lin_ops.lin_utils as lu
import numpy as np
import numpy.typing as npt
import scipy.sparse as sp
from cvxpy.atoms.affine.affine_atom import AffAtom
from cvxpy.utilities import scopes, sign
from typing_extensions import override

from opteq_cvx.errors import InputError, message
from opteq_cvx.ir import meaning
from opteq_cvx.ir.frozen import Array, IntArray, Shape, size
from opteq_cvx.ir.linmap import Adjoint, Conv2d, LinearMap
from opteq_cvx.ir.param import Leaf, ParamExpr, Stage, const

Pair = int | tuple[int, int]
Image = cp.Expression | npt.ArrayLike


class Convolution(AffAtom):
    """conv2d(x, K), or its adjoint with `transposed`; `image` is the shape (C, H, W) before the convolution."""

    def __init__(
        self,
        x: Any,
        kernel: Any,
        image: Shape,
        stride: tuple[int, int],
        padding: tuple[int, int],
        groups: int,
        transposed: bool,
    ) -> None:
        self.image, self.stride, self.padding = image, stride, padding
        self.groups, self.transposed = groups, transposed
        super().__init__(x, kernel)

    @override
    def get_data(self) -> Any:
        return [self.image, self.stride, self.padding, self.groups, self.transposed]

    @override
    def name(self) -> str:
        return f"{'conv_transpose2d' if self.transposed else 'conv2d'}({self.args[0]}, {self.args[1]})"

    def linear(self, kernel: ParamExpr) -> LinearMap:
        """The map x ↦ this atom, with the kernel given."""
        conv = Conv2d(kernel, self.image, self.stride, self.padding, self.groups)
        return Adjoint(conv) if self.transposed else conv

    @override
    def validate_arguments(self) -> None:
        kernel: Any = self.args[1]
        if kernel.variables():
            found = f"the kernel {kernel} holds variables"
            fix = "make it a constant, an oc.Weight or an oc.Input"
            raise InputError(message(found, "a kernel of constants and parameters", fix))

    @override
    def shape_from_args(self) -> tuple[int, ...]:
        return self.linear(Leaf("kernel", tuple(self.args[1].shape), Stage.WEIGHT)).shape_out

    def numeric(self, values: list[Any]) -> Array:
        """The value."""
        x, kernel = (_dense(v) for v in values)
        return meaning.apply(self.linear(const(kernel.reshape(self.args[1].shape))), x.reshape(self.args[0].shape))

    @override
    def sign_from_args(self) -> tuple[bool, bool]:
        found: tuple[bool, bool] = sign.mul_sign(self.args[0], self.args[1])
        return found

    @override
    def is_atom_convex(self) -> bool:
        x, kernel = self.args
        if scopes.dpp_scope_active():
            return bool(kernel.is_constant() or (x.is_constant() and not x.parameters()))
        return bool(kernel.is_constant())

    @override
    def is_atom_concave(self) -> bool:
        return self.is_atom_convex()

    @override
    def is_incr(self, idx: int) -> bool:
        return bool(self.args[1 - idx].is_nonneg())

    @override
    def is_decr(self, idx: int) -> bool:
        return bool(self.args[1 - idx].is_nonpos())

    @override
    def graph_implementation(self, arg_objs: Any, shape: Any, data: Any = None) -> Any:
        """A product with the sparse matrix of the map, between vectors in CVXPY's column-major order."""
        x, kernel = arg_objs
        value = _dense(kernel.data).reshape(self.args[1].shape, order="F")
        linear = self.linear(const(value))
        matrix = _matrix(linear)
        rows, columns = (_column_major(s) for s in (linear.shape_out, linear.shape_in))
        product = lu.mul_expr(
            lu.create_const(sp.csc_array(matrix[rows][:, columns]), matrix.shape, sparse=True),
            lu.reshape(x, (matrix.shape[1], 1)),
            (matrix.shape[0], 1),
        )
        return lu.reshape(product, tuple(shape)), []


class ConvolutionMatrix(AffAtom):
    """The matrix of x ↦ conv2d(x, K) between images flattened in C order; K constant or of parameters."""

    def __init__(
        self, kernel: Any, image: Shape, stride: tuple[int, int], padding: tuple[int, int], groups: int
    ) -> None:
        self.image, self.stride, self.padding, self.groups = image, stride, padding, groups
        super().__init__(kernel)

    @override
    def get_data(self) -> Any:
        return [self.image, self.stride, self.padding, self.groups]

    @override
    def name(self) -> str:
        return f"conv2d_matrix({self.args[0]}, {self.image})"

    def linear(self, kernel: ParamExpr) -> Conv2d:
        """The convolution, with the kernel given."""
        return Conv2d(kernel, self.image, self.stride, self.padding, self.groups)

    @override
    def validate_arguments(self) -> None:
        kernel: Any = self.args[0]
        if kernel.variables():
            found, fix = f"the kernel {kernel} holds variables", "use oc.conv2d(x, K) for a convolution of a variable"
            raise InputError(message(found, "a kernel of constants and parameters", fix))

    @override
    def shape_from_args(self) -> tuple[int, ...]:
        linear = self.linear(Leaf("kernel", tuple(self.args[0].shape), Stage.WEIGHT))
        return size(linear.shape_out), size(linear.shape_in)

    def numeric(self, values: list[Any]) -> Any:
        """The value, dense: products of it with its transpose are taken by CVXPY."""
        kernel = _dense(values[0]).reshape(self.args[0].shape)
        return _matrix(self.linear(const(kernel))).toarray()

    @override
    def is_atom_convex(self) -> bool:
        return not scopes.dpp_scope_active() or bool(self.args[0].is_constant())

    @override
    def is_atom_concave(self) -> bool:
        return self.is_atom_convex()

    @override
    def is_incr(self, idx: int) -> bool:
        return True

    @override
    def is_decr(self, idx: int) -> bool:
        return False

    @override
    def graph_implementation(self, arg_objs: Any, shape: Any, data: Any = None) -> Any:
        """Never reached with a variable: a constant by its value."""
        value = _dense(arg_objs[0].data).reshape(self.args[0].shape, order="F")
        return lu.create_const(self.numeric([value]), tuple(shape)), []


def conv2d(x: Image, K: Image, *, stride: Pair = 1, padding: Pair | str = 0, groups: int = 1) -> cp.Expression:
    """Cross-correlate an image x (C, H, W) with a kernel K (O, C/groups, h, w), as `torch.nn.functional.conv2d`.

    out[o, i, j] = Σ_{c,a,b} K[o, c, a, b] · x[c, s·i + a − p, s·j + b − p], x zero outside; shape (O, H', W') with
    H' = ⌊(H + 2p − h)/s⌋ + 1. Affine in x; K is a constant, a Weight, an Input, or an expression of those.

    Args:
        stride, padding: one number or (vertical, horizontal); padding also "same" (odd kernels, stride 1) or "valid".
        groups: channels in so many independent groups.

    Raises:
        InputError: shapes that do not fit, or a kernel that holds variables.
    """
    image, kernel, s, p = _read(x, K, stride, padding, groups)
    c = kernel.shape[1] * groups
    if image.shape[0] != c:
        found = f"an image of {image.shape[0]} channels and a kernel {tuple(kernel.shape)} with groups={groups}"
        raise InputError(message(found, f"{c} channels", "let K have the shape (out, channels/groups, h, w)"))
    _fits(tuple(image.shape), kernel, s, p)
    return Convolution(image, kernel, tuple(image.shape), s, p, groups, False)


def conv_transpose2d(
    y: Image,
    K: Image,
    *,
    stride: Pair = 1,
    padding: Pair | str = 0,
    groups: int = 1,
    output_padding: Pair = 0,
) -> cp.Expression:
    """The adjoint of `conv2d` with the same K (O, C/groups, h, w): an image y (O, H', W') to (C, H, W).

    ⟨conv2d(x, K), y⟩ = ⟨x, conv_transpose2d(y, K)⟩; H = s(H' − 1) + h − 2p + output_padding, as torch's function of
    that name. Raises as `conv2d`.
    """
    image, kernel, s, p = _read(y, K, stride, padding, groups)
    extra = _pair(output_padding, "output_padding")
    if image.shape[0] != kernel.shape[0]:
        found = f"an image of {image.shape[0]} channels and a kernel {tuple(kernel.shape)}"
        raise InputError(message(found, f"{kernel.shape[0]} channels", "K is that of conv2d, not transposed"))
    if any(e >= max(t, 1) for e, t in zip(extra, s, strict=True)):
        raise InputError(message(f"output_padding={extra} with stride={s}", "less than the stride", "lower it"))
    sides = zip(image.shape[1:], kernel.shape[2:], s, p, extra, strict=True)
    before = (int(kernel.shape[1]) * groups, *(int(t * (n - 1) + k - 2 * q + e) for n, k, t, q, e in sides))
    if min(before) < 1:
        raise InputError(message(f"an image of shape {before}", "at least one pixel", "lower the padding"))
    return Convolution(image, kernel, before, s, p, groups, True)


def avg_pool2d(x: Image, size: Pair, *, stride: Pair | None = None) -> cp.Expression:
    """The mean of each window of an image (C, H, W); stride defaults to the window's size, as in torch."""
    image, window = _expression(x), _pair(size, "size", 1)
    if image.ndim != 3:
        raise InputError(message(f"an image of shape {image.shape}", "(C, H, W)", "reshape it"))
    kernel = np.full((image.shape[0], 1, *window), 1.0 / (window[0] * window[1]))
    return conv2d(image, kernel, stride=window if stride is None else stride, groups=int(image.shape[0]))


def differences2d(x: Image) -> cp.Expression:
    """Forward differences (2C, H, W) of an image (C, H, W): those down the rows, then those along them.

    out[c, i, j] = x[c, i + 1, j] − x[c, i, j] and out[C + c, i, j] = x[c, i, j + 1] − x[c, i, j], 0 on the last row and
    column. ‖·‖² ≤ 8. Source: Chambolle, J. Math. Imaging Vision 20 (2004), section 2.
    """
    image = _expression(x)
    if image.ndim != 3:
        raise InputError(message(f"an image of shape {image.shape}", "(C, H, W)", "reshape it"))
    c, h, w = (int(n) for n in image.shape)
    parts: list[cp.Expression] = []
    for axis, step in ((1, np.array([[-1.0], [1.0]])), (2, np.array([[-1.0, 1.0]]))):
        edge = (c, 1, w) if axis == 1 else (c, h, 1)
        if image.shape[axis] == 1:
            parts.append(0.0 * image)
            continue
        inner = conv2d(image, np.broadcast_to(step, (c, 1, *step.shape)), groups=c)
        parts.append(cp.concatenate([inner, cp.Constant(np.zeros(edge))], axis=axis))
    joined: cp.Expression = cp.concatenate(parts, axis=0)
    return joined


def conv2d_matrix(
    K: Image, in_shape: Sequence[int], stride: Pair = 1, padding: Pair | str = 0, groups: int = 1
) -> cp.Expression:
    """The matrix A of x ↦ conv2d(x, K) on images (C, H, W) = in_shape, both sides flattened in C order.

    For quadratic forms: `cp.quad_form(cp.vec(u, order="C"), cp.psd_wrap(eye - A @ A.T))` with u of the shape after the
    convolution. The compiled network runs convolutions; only an exact check evaluates the matrix. Raises as `conv2d`.
    """
    kernel, s = _expression(K), _pair(stride, "stride", 1)
    shape = tuple(int(n) for n in in_shape)
    _check_kernel(kernel, groups)
    if len(shape) != 3 or shape[0] != kernel.shape[1] * groups:
        found = f"in_shape={shape} with a kernel {tuple(kernel.shape)} and groups={groups}"
        raise InputError(message(found, f"({kernel.shape[1] * groups}, H, W)", "correct in_shape"))
    p = _padding(padding, kernel, s)
    _fits(shape, kernel, s, p)
    return ConvolutionMatrix(kernel, shape, s, p, groups)


def _read(
    x: Image, K: Image, stride: Pair, padding: Pair | str, groups: int
) -> tuple[cp.Expression, cp.Expression, tuple[int, int], tuple[int, int]]:
    image, kernel, s = _expression(x), _expression(K), _pair(stride, "stride", 1)
    if image.ndim != 3:
        found, fix = f"an image of shape {image.shape}", "reshape it to channels, rows, columns, with order='C'"
        raise InputError(message(found, "(C, H, W)", fix))
    _check_kernel(kernel, groups)
    return image, kernel, s, _padding(padding, kernel, s)


def _check_kernel(kernel: cp.Expression, groups: int) -> None:
    if kernel.ndim != 4:
        raise InputError(message(f"a kernel of shape {kernel.shape}", "(out, channels/groups, h, w)", "reshape it"))
    if not isinstance(groups, int) or groups < 1 or kernel.shape[0] % groups:
        found = f"groups={groups} with a kernel of shape {tuple(kernel.shape)}"
        raise InputError(message(found, "a divisor of the kernel's first axis", "change groups"))


def _fits(image: Shape, kernel: cp.Expression, s: tuple[int, int], p: tuple[int, int]) -> None:
    if any(n + 2 * q < k for n, k, q in zip(image[1:], kernel.shape[2:], p, strict=True)):
        found = f"a window {tuple(kernel.shape[2:])} on an image {image} with padding {p}"
        raise InputError(message(found, "a window no larger than the padded image", "raise the padding"))


def _padding(padding: Pair | str, kernel: cp.Expression, stride: tuple[int, int]) -> tuple[int, int]:
    if padding == "valid":
        return 0, 0
    if padding == "same":
        h, w = (int(n) for n in kernel.shape[2:])
        if not (h % 2 and w % 2 and stride == (1, 1)):
            found, expected = f'padding="same" with taps {(h, w)} and stride {stride}', "odd taps and stride 1"
            raise InputError(message(found, expected, "give the padding as a number"))
        return h // 2, w // 2
    return _pair(padding, "padding")


def _pair(value: Any, name: str, least: int = 0) -> tuple[int, int]:
    pair = tuple(value) if isinstance(value, tuple | list) else (value, value)
    if len(pair) != 2 or not all(isinstance(v, int | np.integer) and v >= least for v in pair):
        raise InputError(message(f"{name}={value!r}", f"one or two integers ≥ {least}", f"correct {name}"))
    return int(pair[0]), int(pair[1])


def _expression(value: Any) -> cp.Expression:
    out: cp.Expression = cp.Constant(value) if not isinstance(value, cp.Expression) else value
    return out


def _dense(value: Any) -> Array:
    return np.asarray(value.toarray() if sp.issparse(value) else value, dtype=np.float64)


def _matrix(linear: LinearMap) -> sp.csr_array:
    """The sparse matrix on C-ordered vectors; its pattern is worked out once for all kernels of a shape."""
    if isinstance(linear, Adjoint):
        return sp.csr_array(_matrix(linear.of).T)
    assert isinstance(linear, Conv2d)
    kernel = np.ascontiguousarray(meaning.constant_value(linear.kernel))
    starts, columns, entries = _pattern(linear.shape_in, kernel.shape, linear.stride, linear.padding, linear.groups)
    shape = (size(linear.shape_out), size(linear.shape_in))
    return sp.csr_array((kernel.reshape(-1)[entries], columns, starts), shape=shape)


@lru_cache(maxsize=32)
def _pattern(
    image: Shape, kernel: Shape, stride: tuple[int, int], padding: tuple[int, int], groups: int
) -> tuple[IntArray, IntArray, IntArray]:
    """Row starts, columns, and which entry of the flat kernel stands there."""
    (_, h, w), (o, each, rows, columns) = image, kernel
    down, across = (_reads(n, k, s, p) for n, k, s, p in zip((h, w), (rows, columns), stride, padding, strict=True))
    channel = np.arange(o)[:, None] // (o // groups) * each + np.arange(each)
    shape = (o, len(down), len(across), each, rows, columns)
    y, x = down[None, :, None, None, :, None], across[None, None, :, None, None, :]
    place = (channel[:, None, None, :, None, None] * h + y) * w + x
    entry = np.arange(o * each * rows * columns).reshape(o, 1, 1, each, rows, columns)
    inside = np.broadcast_to((y >= 0) & (y < h) & (x >= 0) & (x < w), shape)
    counts = inside.reshape(o * len(down) * len(across), -1).sum(axis=1)
    return (
        np.concatenate([[0], np.cumsum(counts)]),
        np.broadcast_to(place, shape)[inside],
        np.broadcast_to(entry, shape)[inside],
    )


def _reads(n: int, taps: int, stride: int, padding: int) -> IntArray:
    """(outputs, taps): the place that each tap of each output reads, outside of 0 … n − 1 in the padding."""
    outputs = (n + 2 * padding - taps) // stride + 1
    return stride * np.arange(outputs)[:, None] + np.arange(taps) - padding


def _column_major(shape: Shape) -> Any:
    """At each place of a vector in Fortran order, the place of the same entry in C order."""
    return np.arange(size(shape)).reshape(shape).reshape(-1, order="F")
