"""Augmentation of training images: small translations over zeros, and mirroring; a function of the step alone."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from opteq_cvx.train.options import TrainOptions


def augment(x: Float[Tensor, "rows d"], options: TrainOptions, *, seed: int) -> Float[Tensor, "rows d"]:
    """x, images (C, H, W) flattened, each moved by up to `shift` pixels and mirrored with probability ½.

    The draws depend on `options.seed` and `seed` only, so that a resumed run sees the same images.
    """
    if options.image is None or not (options.shift or options.flip):
        return x
    generator = torch.Generator().manual_seed(options.seed * 1_000_003 + seed)
    images, (_, height, width), s = x.reshape(len(x), *options.image), options.image, options.shift
    down, right = torch.randint(0, 2 * s + 1, (2, len(x), 1, 1, 1), generator=generator).to(x.device)
    mirrored = (torch.rand(len(x), 1, 1, 1, generator=generator) < 0.5).to(x.device) & options.flip
    rows = torch.arange(height, device=x.device)[:, None] + down
    columns = torch.arange(width, device=x.device)
    columns = torch.where(mirrored, columns.flip(0), columns) + right
    padded = F.pad(images, (s, s, s, s))
    samples = torch.arange(len(x), device=x.device)[:, None, None, None]
    channels = torch.arange(images.shape[1], device=x.device)[:, None, None]
    return padded[samples, channels, rows, columns].reshape(x.shape)
