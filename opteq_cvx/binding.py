"""Binding: from the arguments of a call to batched parameter values, checked, and back to the user's batch shape."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from opteq_cvx.errors import DTypeError, InputError, message
from opteq_cvx.ir.frozen import size
from opteq_cvx.ir.param import Leaf
from opteq_cvx.maps.peek import known_finite, known_true

FLOATING = (torch.float64, torch.float32, torch.bfloat16, torch.float16)

CHECKED = frozenset({"nonneg", "pos", "nonpos", "neg", "bounds", "symmetric", "PSD", "NSD"})


@dataclass(frozen=True, slots=True)
class Bound:
    """Values by name, each (1|B, *shape); the user's batch shape; per-sample flags (B,) of bad input."""

    values: dict[str, Tensor]
    batch: tuple[int, ...]
    rows: int
    dtype: torch.dtype
    device: torch.device
    finite: Tensor
    valid: Tensor


def bind(leaves: Sequence[Leaf], args: Sequence[object], named: Mapping[str, object], like: Tensor | None) -> Bound:
    """Match inputs to leaves, check shape, dtype and device, flatten batch axes to one.

    `like` is any weight of the layer: it fixes dtype and device. Samples with NaN or infinity are replaced by zeros
    and flagged; so are samples that violate a declared attribute.

    Raises:
        InputError: wrong number, name or shape of inputs.
        DTypeError: not a floating tensor, or mixed dtypes or devices.
    """
    tensors = _match(leaves, args, named)
    dtype, device = _common(tensors, like)
    flat = _rows(leaves, tensors)
    values, batch, rows = flat.values, flat.batch, flat.count
    finite = torch.ones(rows, dtype=torch.bool, device=device)
    valid = torch.ones(rows, dtype=torch.bool, device=device)
    for leaf in leaves:
        value, plain = values[leaf.name], CHECKED.isdisjoint(leaf.attributes)
        if plain and known_finite(value):
            continue
        ok = torch.isfinite(value).reshape(value.shape[0], size(leaf.shape)).all(dim=1)
        if not plain:
            valid = valid & (_satisfies(leaf, value) | ~ok)
        if known_true(ok):
            continue
        finite = finite & ok
        values[leaf.name] = torch.where(ok.reshape(-1, *(1,) * len(leaf.shape)), value, torch.zeros_like(value))
    return Bound(values, batch, rows, dtype, device, finite, valid)


@dataclass(frozen=True, slots=True)
class Rows:
    """Inputs with their batch axes flattened to one, each (1|count, *shape), not yet looked at; the batch shape."""

    values: dict[str, Tensor]
    batch: tuple[int, ...]
    count: int


def flatten(leaves: Sequence[Leaf], args: Sequence[object], named: Mapping[str, object]) -> Rows:
    """Match inputs to leaves and flatten their batch axes.

    Raises:
        InputError, DTypeError: wrong number, name or shape of inputs, or what is no tensor.
    """
    return _rows(leaves, _match(leaves, args, named))


def _joint(shapes: set[tuple[int, ...]]) -> tuple[int, ...]:
    """The batch axes of all: torch's own rule takes a second at its first call, since it imports SymPy."""
    return tuple(torch.broadcast_shapes(*shapes)) if len(shapes) > 1 else next(iter(shapes), ())


def _rows(leaves: Sequence[Leaf], tensors: Mapping[str, Tensor]) -> Rows:
    shapes = {leaf.name: _batch_shape(leaf, tensors[leaf.name]) for leaf in leaves}
    try:
        batch = _joint(set(shapes.values()) - {()})
    except RuntimeError as error:
        found = ", ".join(f"{k}: {tuple(s)}" for k, s in shapes.items())
        raise InputError(
            message(
                f"batch axes do not broadcast ({found})",
                "equal leading axes, or none",
                "repeat or drop the batch axes",
            )
        ) from error
    values = {leaf.name: _flatten(tensors[leaf.name], shapes[leaf.name], batch, leaf) for leaf in leaves}
    return Rows(values, batch, size(batch))


def _match(leaves: Sequence[Leaf], args: Sequence[object], named: Mapping[str, object]) -> dict[str, Tensor]:
    names = [leaf.name for leaf in leaves]
    if len(args) > len(names):
        raise InputError(
            message(f"{len(args)} inputs", f"{len(names)} ({', '.join(names) or 'none'})", "drop the extra ones")
        )
    given: dict[str, object] = dict(zip(names, args, strict=False))
    for name, value in named.items():
        if name not in names:
            raise InputError(message(f"unknown input {name!r}", f"one of {names}", "check the spelling"))
        if name in given:
            raise InputError(message(f"input {name!r} given twice", "each input once", "drop one of the two"))
        given[name] = value
    missing = [name for name in names if name not in given]
    if missing:
        raise InputError(message(f"missing input {missing[0]!r}", f"all of {names}", f"pass {missing[0]}=..."))
    tensors: dict[str, Tensor] = {}
    for name, value in given.items():
        if not isinstance(value, Tensor):
            raise DTypeError(
                message(
                    f"input {name!r} is a {type(value).__name__}",
                    "a torch.Tensor",
                    "wrap it in torch.as_tensor(...)",
                )
            )
        tensors[name] = value
    return tensors


def _common(tensors: Mapping[str, Tensor], like: Tensor | None) -> tuple[torch.dtype, torch.device]:
    reference, source = (like, "the layer's weights") if like is not None else (None, "")
    for name, value in tensors.items():
        if value.dtype not in FLOATING:
            raise DTypeError(
                message(
                    f"input {name!r} has dtype {value.dtype}",
                    "a floating dtype",
                    f"pass {name}.to(torch.float32)",
                )
            )
        if reference is None:
            reference, source = value, f"input {name!r}"
        if value.dtype != reference.dtype:
            raise DTypeError(
                message(
                    f"input {name!r} has dtype {value.dtype}",
                    f"{reference.dtype}, as {source}",
                    f"convert the input, or the layer with layer.to({value.dtype})",
                )
            )
        if value.device != reference.device:
            raise DTypeError(
                message(
                    f"input {name!r} is on {value.device}",
                    f"{reference.device}, as {source}",
                    f"move the input, or the layer with layer.to({str(value.device)!r})",
                )
            )
    if reference is None:
        return torch.get_default_dtype(), torch.device("cpu")
    return reference.dtype, reference.device


def _batch_shape(leaf: Leaf, value: Tensor) -> tuple[int, ...]:
    event = len(leaf.shape)
    if value.ndim < event or tuple(value.shape[value.ndim - event :]) != leaf.shape:
        raise InputError(
            message(
                f"input {leaf.name!r} has shape {tuple(value.shape)}",
                f"(*batch, {', '.join(map(str, leaf.shape))})" if leaf.shape else "(*batch)",
                f"{leaf.name} is declared with shape {leaf.shape}; batch axes lead",
            )
        )
    return tuple(value.shape[: value.ndim - event])


def _flatten(value: Tensor, own: tuple[int, ...], batch: tuple[int, ...], leaf: Leaf) -> Tensor:
    if all(n == 1 for n in own):
        return value.reshape(1, *leaf.shape)
    return value.expand(*batch, *leaf.shape).reshape((size(batch), *leaf.shape))


def _satisfies(leaf: Leaf, value: Tensor) -> Tensor:
    """(1|B,) whether the declared sign and bounds attributes hold, to rounding; the PSD check is numerical."""
    rows, a = value.shape[0], leaf.attributes
    flat = value.reshape(rows, size(leaf.shape))
    slack = (
        1e2 * torch.finfo(value.dtype).eps * (1.0 + flat.abs().amax(dim=1)) if flat.shape[1] else flat.new_zeros(rows)
    )
    ok = torch.ones(rows, dtype=torch.bool, device=value.device)
    if flat.shape[1] == 0:
        return ok
    if a.get("nonneg") or a.get("pos"):
        ok = ok & (flat.amin(dim=1) >= -slack)
    if a.get("nonpos") or a.get("neg"):
        ok = ok & (flat.amax(dim=1) <= slack)
    if a.get("bounds") is not None:
        lower, upper = (torch.tensor(b, dtype=value.dtype, device=value.device) for b in a["bounds"])
        below, above = (lower - value).reshape(flat.shape), (value - upper).reshape(flat.shape)
        ok = ok & (below.amax(dim=1) <= slack) & (above.amax(dim=1) <= slack)
    if any(a.get(k) for k in ("symmetric", "PSD", "NSD")):
        ok = ok & ((value - value.mT).abs().reshape(flat.shape).amax(dim=1) <= 10 * slack)
    return ok
