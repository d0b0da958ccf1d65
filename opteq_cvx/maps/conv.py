"""Cross-correlation of images with a kernel (O, C/groups, h, w), and its exact adjoint, by torch's convolutions."""

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor
from typing_extensions import override

from opteq_cvx.ir.frozen import Shape
from opteq_cvx.maps.base import Operator
from opteq_cvx.maps.combine import Regrouped


@dataclass(frozen=True, eq=False)
class Conv2dOperator(Operator):
    """(B, C, H, W) → (B, O, H', W') with a kernel (1|B, O, C/groups, h, w): one call, per sample as groups of one."""

    kernel: Tensor
    stride: tuple[int, int]
    padding: tuple[int, int]
    groups: int

    @override
    def apply(self, x: Tensor) -> Tensor:
        if self.kernel.shape[0] == 1:
            return F.conv2d(x, self.kernel[0], None, self.stride, self.padding, 1, self.groups)
        merged, kernel, groups = self._merged(x, self.shape_in)
        out = F.conv2d(merged, kernel, None, self.stride, self.padding, 1, groups)
        return out.reshape(self.kernel.shape[0], *self.shape_out)

    @override
    def adjoint(self, y: Tensor) -> Tensor:
        if self.kernel.shape[0] == 1:
            rest = self._rest
            return F.conv_transpose2d(y, self.kernel[0], None, self.stride, self.padding, rest, self.groups)
        merged, kernel, groups = self._merged(y, self.shape_out)
        out = F.conv_transpose2d(merged, kernel, None, self.stride, self.padding, self._rest, groups)
        return out.reshape(self.kernel.shape[0], *self.shape_in)

    @property
    def _rest(self) -> tuple[int, int]:
        """The rows and columns at the end of the padded image that no window reaches: torch's output_padding."""
        sides = zip(self.shape_in[1:], self.kernel.shape[-2:], self.stride, self.padding, strict=True)
        down, right = ((n + 2 * p - k) % s for n, k, s, p in sides)
        return down, right

    def _merged(self, x: Tensor, shape: Shape) -> tuple[Tensor, Tensor, int]:
        """Samples side by side as groups of channels of one image."""
        batch = self.kernel.shape[0]
        image = x.expand(batch, *shape).reshape(1, batch * shape[0], *shape[1:])
        return image, self.kernel.reshape(-1, *self.kernel.shape[2:]), batch * self.groups

    @override
    def lift(self, columns: int) -> Operator:
        return Columns((*self.shape_in, columns), (*self.shape_out, columns), self)


@dataclass(frozen=True, eq=False)
class Columns(Operator):
    """A convolution on `columns` images side by side along a last axis: they join the batch."""

    of: Conv2dOperator

    @override
    def apply(self, x: Tensor) -> Tensor:
        return self._each(x, "apply")

    @override
    def adjoint(self, y: Tensor) -> Tensor:
        return self._each(y, "adjoint")

    def _each(self, x: Tensor, name: str) -> Tensor:
        columns, kernel = x.shape[-1], self.of.kernel
        batch = max(x.shape[0], kernel.shape[0])
        stacked = x.movedim(-1, 1).expand(batch, columns, *x.shape[1:-1]).reshape(batch * columns, *x.shape[1:-1])
        if kernel.shape[0] > 1:
            kernel = kernel.repeat_interleave(columns, dim=0)
        each = Conv2dOperator(
            self.of.shape_in, self.of.shape_out, kernel, self.of.stride, self.of.padding, self.of.groups
        )
        out = each.apply(stacked) if name == "apply" else each.adjoint(stacked)
        return out.reshape(batch, columns, *out.shape[1:]).movedim(1, -1)

    @override
    def lift(self, columns: int) -> Operator:
        wide = self.of.lift(self.shape_in[-1] * columns)
        return Regrouped((*self.shape_in, columns), (*self.shape_out, columns), wide)
