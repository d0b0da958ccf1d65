"""Checkpoints: one safetensors file with all that a run needs to go on, bit by bit, as if never interrupted.

The tensors are the states of model, optimizer and generators; the position in the run is JSON in the file's
metadata. A file is written beside its place and moved there: an interruption leaves the old one whole.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as to_bytes
from torch import Tensor, nn

from opteq_cvx.errors import FileError, message

SCHEMA = 1
MODEL, OPTIMIZER, RANDOM = "model.", "optimizer.", "random."


@dataclass(frozen=True, slots=True)
class Position:
    """How far a run is: `step` batches of epoch `epoch` are done; `seed` and `total` identify the run."""

    epoch: int
    step: int
    seed: int
    total: int


def save_checkpoint(
    path: Path,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    position: Position,
    extra: Mapping[str, Any],
) -> None:
    """Write the state of a run; `extra` is JSON kept with it (running sums of the epoch's metrics)."""
    state = optimizer.state_dict()["state"]
    tensors = {MODEL + name: value for name, value in model.state_dict().items()}
    tensors |= {f"{OPTIMIZER}{i}.{key}": value for i, entry in state.items() for key, value in entry.items()}
    tensors[RANDOM + "cpu"] = torch.get_rng_state()
    if torch.cuda.is_available():
        tensors[RANDOM + "cuda"] = torch.cuda.get_rng_state()
    # copies: safetensors refuses tensors that share memory
    copies = {name: value.detach().cpu().clone().contiguous() for name, value in tensors.items()}
    text = json.dumps({"schema": SCHEMA, "position": asdict(position), "extra": dict(extra)})
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.part")
    with part.open("wb") as stream:
        stream.write(to_bytes(copies, metadata={"state": text}))
        stream.flush()
        os.fsync(stream.fileno())
    part.replace(path)


def load_checkpoint(path: Path, model: nn.Module, optimizer: torch.optim.Optimizer) -> tuple[Position, dict[str, Any]]:
    """Put a saved state back into model, optimizer and generators; return the position and `extra`.

    Raises:
        FileError: not a checkpoint of this schema, or of another model.
    """
    try:
        with safe_open(path, framework="pt") as archive:
            state = json.loads((archive.metadata() or {}).get("state", "{}"))
            if not isinstance(state, dict):
                raise _unfit(path, "its state is no JSON object")
            tensors = {name: archive.get_tensor(name) for name in archive.keys()}  # noqa: SIM118  not a mapping
    except (SafetensorError, OSError, ValueError, RecursionError) as error:
        raise _unfit(path, f"it cannot be read ({error})") from error
    if state.get("schema") != SCHEMA:
        raise _unfit(path, f"its schema is {state.get('schema')}, not {SCHEMA}")
    position, extra = _place(path, state)
    if RANDOM + "cpu" not in tensors:
        raise _unfit(path, "it has no state of the random numbers")
    try:
        _fits(optimizer, _with_prefix(tensors, OPTIMIZER))
        model.load_state_dict(_with_prefix(tensors, MODEL), strict=True)
        _load_optimizer(optimizer, _with_prefix(tensors, OPTIMIZER))
    except (RuntimeError, KeyError, ValueError) as error:
        raise _unfit(path, f"it belongs to another model ({error})") from error
    try:
        torch.set_rng_state(tensors[RANDOM + "cpu"])
        if torch.cuda.is_available() and RANDOM + "cuda" in tensors:
            torch.cuda.set_rng_state(tensors[RANDOM + "cuda"])
    except (RuntimeError, TypeError) as error:
        raise _unfit(path, f"its state of the random numbers is damaged ({error})") from error
    return position, extra


def _place(path: Path, state: Mapping[str, Any]) -> tuple[Position, dict[str, Any]]:
    """The position and `extra`, checked."""
    found, extra = state.get("position"), state.get("extra")
    names = Position.__dataclass_fields__.keys()
    if not isinstance(found, dict) or found.keys() != names or not isinstance(extra, dict):
        raise _unfit(path, "it does not say how far the run was")
    if any(type(n) is not int for n in found.values()):
        raise _unfit(path, f"its position {found} is no position")
    return Position(**found), extra


def _fits(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Refuse optimizer state that is neither a number nor of its parameter's shape: PyTorch itself takes any.

    Raises:
        ValueError: so it is, or its parameter does not exist.
    """
    shapes = [p.shape for group in optimizer.param_groups for p in group["params"]]
    for name, value in tensors.items():
        number = name.split(".", 1)[0]
        if not number.isdecimal() or int(number) >= len(shapes):
            raise ValueError(f"optimizer state {name!r} of no parameter")
        if value.ndim and value.shape != shapes[int(number)]:
            raise ValueError(f"optimizer state {name!r} of shape {tuple(value.shape)}")


def _load_optimizer(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Per-parameter state by number; the groups' options are those of the optimizer as built."""
    entries: dict[int, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        number, key = name.split(".", 1)
        entries.setdefault(int(number), {})[key] = value
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": entries, "param_groups": groups})


def _with_prefix(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors whose name begins with `prefix`, without it."""
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def _unfit(path: Path, found: str) -> FileError:
    """The error of a file that cannot be resumed from."""
    fix = "remove it to start again, or give the folder of this run"
    return FileError(message(found, "a checkpoint of this run", fix, origin=f"'{path.name}'"))
