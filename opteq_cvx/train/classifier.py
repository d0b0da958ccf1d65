"""A classifier around an equilibrium layer: optional input map, the layer, a linear read-out."""

import math
from pathlib import Path

import torch
from jaxtyping import Float
from safetensors.torch import save as to_bytes
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d, batch_norm
from typing_extensions import override

from opteq_cvx.errors import InputError, message
from opteq_cvx.io import save
from opteq_cvx.ir.param import Stage
from opteq_cvx.layer import EquilibriumLayer

LAYER, WEIGHTS = "layer.opteq", "classifier.safetensors"


class Classifier(nn.Module):
    """logits = R pool(N u*(A s + a)) + r with s = (x − mean) / scale and u* the equilibrium.

    The features of a sample feed the layer's inputs in order. Where their number is not the number of entries
    of the inputs, a linear map A joins the two; otherwise A is the identity and has no weights.

    Args:
        layer: the compiled program; all its outputs are read, flattened and joined.
        pool: outputs that are images (C, H, W) are averaged over windows to (C, pool, pool) first; None: they are not.
        normalize: whether N is batch normalization of what is read: of each channel of an image, of each entry of a
            vector. It is an affine map outside of the program, which stays as it is declared; False: the identity.
            One sample alone has no statistics: it is normalized by the running ones, in training, too.
        mirror: the shape (C, H, W) of samples that are flattened images whose label their mirror image shares: in
            evaluation, the logarithms of the mean of both images' class probabilities stand for the scores, which are
            then the same for both; training sees one of them. None: samples are taken as they are.
        features: numbers per sample.
        classes: number of labels.

    Raises:
        InputError: the program has no input; `mirror` is the shape of another number of features.
    """

    mean: Tensor
    scale: Tensor

    def __init__(
        self,
        layer: EquilibriumLayer,
        *,
        features: int,
        classes: int,
        pool: int | None = None,
        normalize: bool = False,
        mirror: tuple[int, int, int] | None = None,
    ) -> None:
        super().__init__()
        program = layer.program
        self.layer = layer
        self.shapes = tuple(p.shape for p in program.parameters if p.stage is Stage.INPUT)
        self.sizes = [math.prod(shape) for shape in self.shapes]
        wanted = sum(self.sizes)
        if wanted == 0:
            found = "the program has no input"
            raise InputError(message(found, "at least one oc.Input", "declare the data as oc.Input"))
        if mirror is not None and math.prod(mirror) != features:
            found = f"mirror={mirror}, images of {math.prod(mirror)} numbers, and samples of {features}"
            raise InputError(message(found, "the shape (C, H, W) of a sample", "give the shape of the images"))
        self.mirror = mirror
        self.input_map = nn.Identity() if wanted == features else nn.Linear(features, wanted)
        self.pool = pool
        shapes = [o.value.shape for o in program.outputs]
        self.norms = nn.ModuleList(_norm(shape) if normalize else nn.Identity() for shape in shapes)
        self.read_out = nn.Linear(sum(self._read(shape) for shape in shapes), classes)
        self.register_buffer("mean", torch.zeros(()))
        self.register_buffer("scale", torch.ones(()))

    def standardize(self, x: Float[Tensor, "n features"]) -> None:
        """Take mean and scale, two numbers, from training samples; they are part of the state."""
        self.mean.copy_(x.mean())
        self.scale.copy_(x.std().clamp_min(1e-6))

    def layer_inputs(self, x: Float[Tensor, "batch features"]) -> tuple[Tensor, ...]:
        """What the equilibrium layer receives for samples x: one tensor (batch, *shape) per input."""
        flat = self.input_map((x - self.mean) / self.scale)
        parts = torch.split(flat, self.sizes, dim=-1)
        return tuple(p.reshape(len(x), *shape) for p, shape in zip(parts, self.shapes, strict=True))

    @override
    def forward(self, x: Float[Tensor, "batch features"]) -> Float[Tensor, "batch classes"]:
        """Unnormalized class scores; logarithms of mean probabilities where `mirror` is given, in evaluation."""
        if self.training or self.mirror is None:
            return self._scores(x)
        other = x.reshape(len(x), *self.mirror).flip(-1).reshape(x.shape)
        both = torch.stack([self._scores(x), self._scores(other)]).log_softmax(dim=-1)
        return both.logsumexp(dim=0) - math.log(2.0)

    def _scores(self, x: Float[Tensor, "batch features"]) -> Float[Tensor, "batch classes"]:
        """R pool(N u*(A s + a)) + r."""
        found = zip(self.norms, self.layer(*self.layer_inputs(x)), strict=True)
        outputs = [_normalized(u if u.ndim == 4 else u.reshape(len(u), -1), norm) for norm, u in found]
        flat = torch.cat([self._pooled(output).reshape(len(x), -1) for output in outputs], dim=-1)
        logits: Tensor = self.read_out(flat)
        return logits

    def _read(self, shape: tuple[int, ...]) -> int:
        """Numbers that the read-out sees of an output."""
        return shape[0] * self.pool**2 if self.pool is not None and len(shape) == 3 else math.prod(shape)

    def _pooled(self, output: Tensor) -> Tensor:
        if self.pool is None or output.ndim != 4:
            return output
        return adaptive_avg_pool2d(output, self.pool)

    def save(self, folder: Path) -> None:
        """Write the layer, which `oc.load` reads, and the state of the whole classifier, into `folder`."""
        folder.mkdir(parents=True, exist_ok=True)
        save(self.layer, folder / LAYER)
        state = {name: value.detach().cpu().contiguous() for name, value in self.state_dict().items()}
        (folder / WEIGHTS).write_bytes(to_bytes(state))


def _norm(shape: tuple[int, ...]) -> nn.Module:
    """Batch normalization of an output of this shape: over samples, and over the places of an image.

    Source: S. Ioffe, C. Szegedy, Batch Normalization, ICML 2015, algorithm 1.
    """
    return nn.BatchNorm2d(shape[0]) if len(shape) == 3 else nn.BatchNorm1d(math.prod(shape))


def _normalized(u: Tensor, norm: nn.Module) -> Tensor:
    """N u."""
    if len(u) == 1 and isinstance(norm, nn.BatchNorm1d | nn.BatchNorm2d):
        return batch_norm(u, norm.running_mean, norm.running_var, norm.weight, norm.bias, eps=norm.eps)
    normal: Tensor = norm(u)
    return normal
