"""Forward mode's own lazy loading, done once, where its deprecation warnings about torch.jit are torch's affair."""

import warnings

import torch
from torch.autograd import forward_ad

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)
    with forward_ad.dual_level():
        forward_ad.make_dual(torch.zeros(()), torch.zeros(()))
