"""A classifier around an equilibrium layer: optional input map, the layer, a linear read-out."""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from typing_extensions import override

from opteq_cvx.errors import InputError, message
from opteq_cvx.ir.frozen import Shape
from opteq_cvx.ir.param import Stage
from opteq_cvx.layer import EquilibriumLayer


class Classifier(nn.Module):
    """logits = R u*(A s + a) + r with s = (x − mean) / scale and u* the equilibrium.

    The features of a sample feed the layer's inputs in order. Where their number is not the number of entries
    of the inputs, a linear map A joins the two; otherwise A is the identity and has no weights.

    Args:
        layer: maps tensors of shapes (batch, *input_shape) to a tuple of tensors (batch, ...).
        input_shapes: the layer's positional inputs.
        output_size: entries of all outputs together.
        features: numbers per sample.
        classes: number of labels.
    """

    mean: Tensor
    scale: Tensor

    def __init__(
        self,
        layer: nn.Module,
        *,
        input_shapes: Sequence[Shape],
        output_size: int,
        features: int,
        classes: int,
    ) -> None:
        super().__init__()
        self.layer = layer
        self.input_shapes = tuple(input_shapes)
        self.input_sizes = [math.prod(shape) for shape in self.input_shapes]
        wanted = sum(self.input_sizes)
        if wanted == 0:
            found = "the program has no input"
            raise InputError(message(found, "at least one oc.Input", "declare the data as oc.Input"))
        self.input_map = nn.Identity() if wanted == features else nn.Linear(features, wanted)
        self.read_out = nn.Linear(output_size, classes)
        self.register_buffer("mean", torch.zeros(()))
        self.register_buffer("scale", torch.ones(()))

    @classmethod
    def around(cls, layer: EquilibriumLayer, *, features: int, classes: int) -> "Classifier":
        """The classifier whose shapes are those of a compiled layer's program."""
        program = layer.program
        return cls(
            layer,
            input_shapes=[p.shape for p in program.parameters if p.stage is Stage.INPUT],
            output_size=sum(math.prod(output.value.shape) for output in program.outputs),
            features=features,
            classes=classes,
        )

    def standardize(self, x: Float[Tensor, "n features"]) -> None:
        """Take mean and scale, two numbers, from training samples; they are part of the state."""
        self.mean.copy_(x.mean())
        self.scale.copy_(x.std().clamp_min(1e-6))

    def layer_inputs(self, x: Float[Tensor, "batch features"]) -> tuple[Tensor, ...]:
        """What the equilibrium layer receives for samples x: one tensor (batch, *shape) per input."""
        flat = self.input_map((x - self.mean) / self.scale)
        parts = torch.split(flat, self.input_sizes, dim=-1)
        return tuple(p.reshape(len(x), *shape) for p, shape in zip(parts, self.input_shapes, strict=True))

    @override
    def forward(self, x: Float[Tensor, "batch features"]) -> Float[Tensor, "batch classes"]:
        """Unnormalized class scores."""
        outputs = self.layer(*self.layer_inputs(x))
        flat = torch.cat([output.reshape(len(x), -1) for output in outputs], dim=-1)
        logits: Tensor = self.read_out(flat)
        return logits
