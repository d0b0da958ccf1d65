"""Other libraries' names, and maps that are the prox of no convex function, with the reason."""

ALIASES = {
    "hardsigmoid": "hard_sigmoid",
    "isru": "algebraic",
    "leakyrelu": "leaky_relu",
    "logsigmoid": "log_sigmoid",
    "prelu": "leaky_relu",
    "softshrink": "soft_threshold",
    "swish": "silu",
    "hard_shrink": "hardshrink",
    "hard_swish": "hardswish",
}
"""Other libraries' names."""

_NOT_MONOTONE = "it is not monotone, hence no prox of a convex function"
_NOT_CONTINUOUS = "it is discontinuous, and every prox is continuous"
_OF_THE_BATCH = "it depends on the other samples of the batch, so it is no function of one sample"

REFUSED = {
    "gelu": _NOT_MONOTONE,
    "silu": _NOT_MONOTONE,
    "mish": _NOT_MONOTONE,
    "hardswish": _NOT_MONOTONE,
    "softmin": "it falls where its argument rises, and every prox is monotone",
    "selu": "its slope reaches 1.758 and a prox is nonexpansive: f would not be convex (elu, celu, or selu/1.758)",
    "exp": "its slope exceeds 1 and has no bound, and every prox is nonexpansive",
    "hardshrink": _NOT_CONTINUOUS,
    "threshold": _NOT_CONTINUOUS,
    "sign": _NOT_CONTINUOUS,
    "log_softmax": "its Jacobian I − 1pᵀ is not symmetric, and every prox is a gradient",
    "layer_norm": "it amplifies small arguments without bound, and every prox is nonexpansive",
    "batch_norm": _OF_THE_BATCH,
    "rrelu": "its slope is random; leaky_relu has a fixed one",
    "glu": "it maps two numbers to one, and a prox maps a space to itself",
    "maxout": "it maps several numbers to one, and a prox maps a space to itself",
}
